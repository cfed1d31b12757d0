"""P22: several processes on one journal: a durable job runs in one at a time, a service in one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import time

import pytest

from bgruntime import Runtime
from bgruntime.journal import Journal
from tests.journal.programs import kill, line_of, program, ran, started
from tests.journal.steps import durable, until

TAKE_OVER = 1.5  # seconds

WORKER = program("""
folder = Path(sys.argv[1])

@task(name="p22.work", durable=True, queue="work")
async def work(n: int) -> None:
    print("started", n, flush=True)
    await asyncio.sleep(float(sys.argv[2]))

async def main():
    async with Runtime(journal=folder / "jobs.db", queues=[Queue("work")]) as rt:
        print("ready", flush=True)
        if "accept" in sys.argv:
            await rt.submit_many(work, [(n,) for n in range(20)])
            print("accepted", flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
""")

SERVICE = program("""
async def main():
    async with Runtime(journal=sys.argv[1]) as rt:
        async def tick():
            print("tick", flush=True)
        rt.journal.lead("ticks", tick, 0.05)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
""")

TOGETHER = program("""
import tempfile
import bgruntime.journal, bgruntime.stack  # here, once, instead of in every child

@task(name="p22.note", durable=True)
async def note(n: int) -> None: ...

async def main(path):
    async with Runtime(journal=path) as rt:
        assert rt.health().status == "pass", rt.health()
        await (await rt.submit(note, os.getpid()))

def child(go, path):
    try:
        os.read(go, 1)  # returns when the parent closes its end
        asyncio.run(main(path))
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)

for _ in range(int(sys.argv[1])):
    with tempfile.TemporaryDirectory() as folder:
        go, start = os.pipe()
        pids = []
        for _ in range(4):
            pid = os.fork()
            if not pid:
                os.close(start)
                child(go, folder + "/jobs.db")
            pids.append(pid)
        os.close(go)
        os.close(start)
        print(*[os.waitpid(pid, 0)[1] for pid in pids])
""")


def test_p22_when_a_process_dies_a_living_one_takes_over_its_jobs_in_time(tmp_path):
    with started(WORKER, tmp_path, 0) as heir:
        assert line_of(heir) == "ready"
        with started(WORKER, tmp_path, 3600, "accept") as dying:
            while line_of(dying) != "accepted":
                pass
            kill(dying)
            died = time.monotonic()
            lines = {line_of(heir) for _ in range(20)}
            took = time.monotonic() - died
    assert lines == {f"started {n}" for n in range(20)}
    assert took <= TAKE_OVER


@pytest.mark.slow
def test_p22_a_process_that_is_merely_stopped_keeps_its_jobs(run, tmp_path):
    async def main():
        ran_here = []

        async def work(n: int) -> None:
            ran_here.append(n)

        with started(WORKER, tmp_path, 3600, "accept") as stopped:
            while await asyncio.to_thread(line_of, stopped) != "accepted":
                pass
            await until(lambda: free(tmp_path / "jobs.db"))
            os.kill(stopped.pid, signal.SIGSTOP)
            task = durable(work, name="p22.work", queue="default")
            async with Runtime(journal=tmp_path / "jobs.db") as rt:
                for _ in range(3):
                    await rt.journal._feed._scan()
                await rt.drain()
                assert ran_here == []
                assert (await rt.journal.stats()).jobs == {"running": 20}
            assert task
            os.kill(stopped.pid, signal.SIGCONT)

    run(main)


def free(path) -> bool:
    """Have all starts been noted, so that nobody is about to write?"""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT count(*) FROM job WHERE state = 2").fetchone() == (20,)
    finally:
        connection.close()


@pytest.mark.slow
def test_p22_a_service_runs_in_one_process_and_in_another_one_when_that_dies(tmp_path):
    with started(SERVICE, tmp_path / "jobs.db") as first:
        assert line_of(first) == "ready"
        assert line_of(first) == "tick"
        with started(SERVICE, tmp_path / "jobs.db") as second:
            assert line_of(second) == "ready"
            for _ in range(30):
                assert line_of(first) == "tick"
            kill(first)
            died = time.monotonic()
            assert line_of(second) == "tick"  # and nothing before it: it had not led
            assert time.monotonic() - died <= TAKE_OVER


def test_p22_a_service_that_fails_is_told_and_called_again_and_the_others_go_on(run, tmp_path):
    async def main():
        calls, told = [], []

        async def broken() -> None:
            calls.append("broken")
            raise ValueError("no")

        async def fine() -> None:
            calls.append("fine")

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(str(context["message"])))
        async with Runtime(journal=Journal(tmp_path / "jobs.db")) as rt:
            rt.journal.lead("broken", broken, 0.01)
            rt.journal.lead("fine", fine, 0.01)
            await until(lambda: calls.count("broken") >= 3 and calls.count("fine") >= 3)
        assert told[0] == "the journal's broken failed"

    run(main)


@pytest.mark.slow
def test_p22_four_processes_may_start_at_once_on_a_file_that_is_not_there_yet():
    assert ran(TOGETHER, 12).splitlines() == ["0 0 0 0"] * 12


SATURATING = program("""
from bgruntime.journal import Journal
import time

async def main():
    print("ready", flush=True)
    async with Journal(sys.argv[1]) as journal:
        begin, end = map(float, (await asyncio.to_thread(sys.stdin.readline)).split())
        waits = []
        while (began := time.monotonic()) < end:
            await journal._writer.step(lambda c: None, durable=True)
            if began >= begin:
                waits.append(time.monotonic() - began)
    print(len(waits), max(waits), flush=True)

asyncio.run(main())
""")


@pytest.mark.timing
@pytest.mark.slow
def test_p22_no_process_is_starved_by_others_that_write_all_the_time(tmp_path):
    """With SQLite's own waiting the poorest has a thousandth of its share, and waits for a second."""
    rounds = [saturate(tmp_path / "jobs.db") for _ in range(3)]
    assert max(share for share, _ in rounds) >= 0.5, rounds
    assert min(longest for _, longest in rounds) <= 0.25, rounds


def saturate(path) -> tuple[float, float]:
    """Share of the poorest of four processes, and the longest wait of any, in seconds."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(started(SATURATING, path)) for _ in range(4)]
        for process in processes:
            assert line_of(process) == "ready"
        now = time.monotonic()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{now + 0.5} {now + 2}\n")
            process.stdin.flush()
        told = [line_of(process).split() for process in processes]
    counts = [int(count) for count, _ in told]
    return min(counts) / (sum(counts) / 4), max(float(worst) for _, worst in told)
