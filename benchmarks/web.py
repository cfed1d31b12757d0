"""FastAPI under load: each request starts one background job of 5 ms and answers at once.

The server is uvicorn in one process, the load 32 connections from another, each on a processor of
its own where there are two. The load is wrk where that is installed (Debian's package of that name), so that
the client costs next to nothing; else a small client of asyncio. The ways of starting the job take turns,
forwards and backwards.

    python -m benchmarks.web --loop uvloop
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import quantiles
from typing import Any

import aiojobs
import uvicorn
from fastapi import BackgroundTasks, FastAPI
from starlette.types import Receive, Scope, Send

from benchmarks import ours
from benchmarks.harness import Figure, Plan, command, note, ratio, run

CONNECTIONS = 32
LIMIT = 1000
WORK_SECONDS = 0.005
CREATE_TASK, BACKGROUND, AIOJOBS, OURS, NOTHING = (
    "create_task",
    "BackgroundTasks",
    "aiojobs",
    "bgruntime",
    "no job at all",
)
PATHS = {NOTHING: "/nothing", CREATE_TASK: "/create_task", BACKGROUND: "/background", AIOJOBS: "/aiojobs"}
PATHS[OURS] = "/bgruntime"


# -- the server ---------------------------------------------------------------------------------------


class ByPath:
    """An application for each path, of which that is the only route: looking for it costs all the same."""

    def __init__(self, lifespan: FastAPI) -> None:
        self._lifespan = lifespan
        self._apps: dict[str, FastAPI] = {}

    def at(self, path: str) -> FastAPI:
        """The application that answers *path*."""
        return self._apps.setdefault(path, FastAPI())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._lifespan if scope["type"] == "lifespan" else self._apps[scope["path"]]
        await app(scope, receive, send)


def application() -> ByPath:
    """One path for each way to start a job; `/done` says how many have ended since it was last asked."""
    done = 0
    running: set[asyncio.Task[None]] = set()
    scheduler: aiojobs.Scheduler
    rt = ours.runtime(LIMIT, 10_000)

    async def job() -> None:
        nonlocal done
        await asyncio.sleep(WORK_SECONDS)
        done += 1

    work = ours.a_task(job)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        nonlocal scheduler
        scheduler = aiojobs.Scheduler(limit=LIMIT, pending_limit=0)
        async with rt:
            yield
        await scheduler.close()

    app = ByPath(FastAPI(lifespan=lifespan))
    answer = {"accepted": True}

    @app.at("/nothing").post("/nothing")
    async def nothing() -> dict[str, bool]:
        return answer

    @app.at("/background").post("/background")
    async def background(tasks: BackgroundTasks) -> dict[str, bool]:
        tasks.add_task(job)
        return answer

    @app.at("/create_task").post("/create_task")
    async def create_task() -> dict[str, bool]:
        task = asyncio.get_running_loop().create_task(job())
        running.add(task)
        task.add_done_callback(running.discard)
        return answer

    @app.at("/aiojobs").post("/aiojobs")
    async def spawn() -> dict[str, bool]:
        await scheduler.spawn(job())
        return answer

    @app.at("/bgruntime").post("/bgruntime")
    async def submit() -> dict[str, bool]:
        handle = await rt.submit(work)
        assert not handle.done()
        return answer

    @app.at("/done").get("/done")
    async def ended() -> dict[str, float]:
        nonlocal done
        used, ended = resource.getrusage(resource.RUSAGE_SELF), done
        done = 0
        return {"jobs": ended, "cpu": used.ru_utime + used.ru_stime}

    return app


def serve(port: int, loop: str) -> None:
    pin(0)
    chosen: Any = "uvloop" if loop == "uvloop" else "asyncio"
    uvicorn.run(application(), port=port, loop=chosen, http="httptools", access_log=False, log_level="error")


def pin(index: int) -> None:
    """Stay on one processor, if there are several and the system allows it."""
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))
        if len(mine) > 1:
            os.sched_setaffinity(0, {mine[index]})


@contextmanager
def server(loop: str) -> Any:
    """The port of a server in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.web", "--serve", str(port), loop])
    try:
        for _ in range(200):
            try:
                ask(port)
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def ask(port: int) -> dict[str, float]:
    """What `/done` says."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/done", timeout=10) as response:
        answer: dict[str, float] = json.load(response)
        return answer


# -- the load -----------------------------------------------------------------------------------------


class Client(asyncio.Protocol):
    """One connection that sends a request, waits for the answer, and sends the next."""

    def __init__(self, request: bytes, latencies: list[float], finished: Callable[[], None]) -> None:
        self._request = request
        self._latencies = latencies
        self._finished = finished
        self._answer = b""
        self._sent = 0.0
        self._transport: Any = None
        self.stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, separator, body = self._answer.partition(b"\r\n\r\n")
        if not separator or len(body) < length_of(head):
            return
        self._latencies.append(time.perf_counter() - self._sent)
        self._answer = b""
        if self.stopping or not head.startswith(b"HTTP/1.1 200"):
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._finished()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)


def _the(client: Client) -> Client:
    return client


def length_of(head: bytes) -> int:
    """The content-length of an answer."""
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0])


async def load(port: int, path: str, seconds: float) -> list[float]:
    """The latencies of all requests within *seconds*."""
    request = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n".encode()
    latencies: list[float] = []
    ended, left = asyncio.Event(), CONNECTIONS

    def finished() -> None:
        nonlocal left
        left -= 1
        if not left:
            ended.set()

    clients = [Client(request, latencies, finished) for _ in range(CONNECTIONS)]
    for client in clients:
        await asyncio.get_running_loop().create_connection(partial(_the, client), "127.0.0.1", port)
    await asyncio.sleep(seconds)
    for client in clients:
        client.stopping = True
    await ended.wait()
    return latencies


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a client saw: how many answers in how many seconds, and percentiles of their latency in ms."""

    answers: int
    seconds: float
    p50: float
    p99: float


def by_asyncio(port: int, path: str, seconds: float, loop: str) -> Loaded:
    """The load of a client of ours."""
    began = time.perf_counter()
    latencies: list[float] = run(loop, lambda: load(port, path, seconds))
    cuts = quantiles(latencies, n=100)
    return Loaded(len(latencies), time.perf_counter() - began, cuts[49] * 1e3, cuts[98] * 1e3)


def by_wrk(port: int, path: str, seconds: float) -> Loaded:
    """The load of wrk, one thread. It does not count the last answer of each connection."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:  # each thread of wrk reads it anew
        script.write('wrk.method = "POST"')
        script.flush()
        times = ["-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--latency", "-s", script.name]
        done = subprocess.run(
            ["wrk", *times, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True
        )
    total = re.search(r"(\d+) requests in ([\d.]+)(m?s)", done.stdout)
    shares = dict(re.findall(r"(50|99)%\s+([\d.]+(?:us|ms|s))", done.stdout))
    if total is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(done.stdout)
    return Loaded(int(total[1]), ms(total[2] + total[3]) / 1e3, ms(shares["50"]), ms(shares["99"]))


def ms(duration: str) -> float:
    """A duration as wrk writes it, in milliseconds."""
    for unit, factor in (("us", 1e-3), ("ms", 1.0), ("s", 1e3)):
        if duration.endswith(unit):
            return float(duration.removesuffix(unit)) * factor
    raise ValueError(duration)


def ended_by(port: int, expected: int) -> tuple[dict[str, float], float]:
    """What `/done` says once *expected* jobs have ended, or after some seconds; and how many have."""
    time.sleep(0.1)
    said = ask(port)
    jobs = said["jobs"]
    for _ in range(50):
        if jobs >= expected and not said["jobs"]:
            break
        time.sleep(0.1)
        said = ask(port)
        jobs += said["jobs"]
    return said, jobs


def one_run(port: int, name: str, seconds: float, loop: str) -> dict[str, float]:
    """Requests per second, percentiles in ms and the server's CPU time in µs per request, one way."""
    before = ask(port)
    with_wrk = shutil.which("wrk") is not None
    path = PATHS[name]
    seen = by_wrk(port, path, seconds) if with_wrk else by_asyncio(port, path, seconds, loop)
    expected = 0 if name == NOTHING else seen.answers
    after, jobs = ended_by(port, expected)
    uncounted = CONNECTIONS if with_wrk and expected else 0
    if not expected <= jobs <= expected + uncounted:
        raise SystemExit(f"{name}: {expected} requests, {jobs:.0f} jobs")
    cpu = (after["cpu"] - before["cpu"]) / seen.answers
    return {"rate": seen.answers / seen.seconds, "p50": seen.p50, "p99": seen.p99, "cpu": cpu * 1e6}


# -- the figures --------------------------------------------------------------------------------------


def figures(plan: Plan) -> list[Figure]:
    seconds = 1.0 if plan.quick else 3.0
    found: dict[str, dict[str, list[float]]] = {name: {} for name in PATHS}
    pin(-1)
    with server(plan.loop) as port:
        for name in PATHS:
            one_run(port, name, 0.5, plan.loop)
        for number in range(plan.rounds):
            note(f"web, round {number + 1} of {plan.rounds}, {plan.loop}")
            taken: dict[str, list[dict[str, float]]] = {name: [] for name in PATHS}
            for name in (*PATHS, *reversed(PATHS)):
                taken[name].append(one_run(port, name, seconds, plan.loop))
            for name, runs in taken.items():
                for what in runs[0]:
                    mean = sum(one[what] for one in runs) / len(runs)
                    found[name].setdefault(what, []).append(mean)
    return told(found)


def told(found: dict[str, dict[str, list[float]]]) -> list[Figure]:
    units = {"rate": "req/s", "p50": "ms", "p99": "ms", "cpu": "µs"}
    mine = found[OURS]
    return [
        *(
            Figure(f"FastAPI, {name}: {what}", units[what], values)
            for name, by_what in found.items()
            for what, values in by_what.items()
        ),
        Figure("FastAPI: requests/s ÷ create_task", "×", ratio(mine["rate"], found[CREATE_TASK]["rate"])),
        Figure("FastAPI: requests/s ÷ BackgroundTasks", "×", ratio(mine["rate"], found[BACKGROUND]["rate"])),
        Figure("FastAPI: p99 ÷ create_task", "×", ratio(mine["p99"], found[CREATE_TASK]["p99"])),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]), sys.argv[3])
    else:
        command("web", figures, rounds=5, quick=1)
