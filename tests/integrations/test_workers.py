"""Four workers of a real server on one journal: each failure redriven once, by one leader at a time."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, contextmanager

import pytest

from tests.journal.programs import ROOT

WORKERS = 4
PATIENCE = 40.0  # seconds

APP = """
import os
from contextlib import asynccontextmanager
from pathlib import Path
from fastapi import FastAPI
from bgruntime import Runtime, task
from bgruntime.integrations.fastapi import RuntimeDep, runtime_lifespan

here = Path(__file__).parent

@task(name="workers.unsteady", redrive=3)
async def unsteady(n: int) -> None:
    with open(here / "runs", "a") as file:
        file.write(f"{n}\\n")
    if (here / "runs").read_text().splitlines().count(str(n)) == 1:
        raise ConnectionError("the first time it fails")

app = FastAPI(lifespan=runtime_lifespan(Runtime(journal=here / "jobs.db")))

@app.post("/{n}")
async def submit(n: int, rt: RuntimeDep) -> None:
    await (await rt.submit(unsteady, n)).wait()

@app.get("/")
async def who(rt: RuntimeDep) -> tuple[int, bool]:
    return os.getpid(), rt.journal.leader.leads
"""


@contextmanager
def served(folder):
    """The address of the application, served by four workers; the server is stopped at the end."""
    (folder / "workers_app.py").write_text(APP)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "workers_app:app", "--workers", str(WORKERS)]
    server = subprocess.Popen(
        [*command, "--port", str(port), "--log-level", "error"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


def asked(address: str):
    """What the worker that takes the request says of itself; None if none does."""
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)
    except OSError:
        return None


def until(fact):
    """What *fact* returns, as soon as it is true."""
    end = time.monotonic() + PATIENCE
    while not (found := fact()):
        assert time.monotonic() < end, f"not within {PATIENCE:g} s"
        time.sleep(0.02)
    return found


def leaders(address: str, *besides: int) -> set[int]:
    """The workers that lead, once all four have been asked."""
    answers: dict[int, bool] = {}

    def all_asked() -> bool:
        answer = asked(address)
        if answer is not None:
            answers[answer[0]] = answer[1]
        return len(answers.keys() - {*besides}) >= WORKERS

    until(all_asked)
    return {pid for pid, leads in answers.items() if leads and pid not in besides}


def redriven(folder) -> int:
    with closing(sqlite3.connect(f"file:{folder / 'jobs.db'}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM ended WHERE state = 4").fetchone()[0])


def fail(address: str, numbers: range) -> None:
    """Have so many jobs fail, in whichever worker takes the request."""
    for number in numbers:
        request = urllib.request.Request(f"{address}/{number}", method="POST")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            assert answer.status == 200


@pytest.mark.slow
def test_four_workers_redrive_each_failure_once_and_another_one_leads_when_the_leader_dies(tmp_path):
    with served(tmp_path) as address:
        until(lambda: asked(address))
        [leader] = until(lambda: leaders(address))
        fail(address, range(20))
        until(lambda: redriven(tmp_path) == 20)
        assert runs(tmp_path) == dict.fromkeys(range(20), 2)

        os.kill(leader, signal.SIGKILL)
        [heir] = until(lambda: leaders(address, leader))
        assert heir != leader
        fail(address, range(20, 30))
        until(lambda: redriven(tmp_path) == 30)
        assert runs(tmp_path) == dict.fromkeys(range(30), 2)


def runs(folder) -> dict[int, int]:
    """How often each job has run: it fails the first time and is redriven the second."""
    lines = (folder / "runs").read_text().split()
    return {int(number): lines.count(number) for number in lines}
