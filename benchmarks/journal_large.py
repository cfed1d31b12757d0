"""What the journal does with many processes, after a death, and with many rows."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import closing
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import Figure, Plan, run
from benchmarks.journal_peers import TEXT
from bgruntime import Runtime, task
from bgruntime.journal import Journal

PLACE = Path(__file__).parent / "results" / "local"
PROCESSES = 4
SECONDS = 2.0  # that the processes press for
ROWS = {True: 100_000, False: 1_000_000}
BACKUP_ROWS = {True: 100_000, False: 700_000}  # about 200 MB
Body = Callable[[Path, Connection], Awaitable[None]]

started: asyncio.Queue[float] = asyncio.Queue()


@task(durable=True, name="bench.journal.press")
async def press_on(number: int, text: str) -> None:
    """A job that does nothing."""


@task(durable=True, name="bench.journal.long")
async def long(number: int) -> None:
    """A job that is still running when its process dies, and notes when it starts again."""
    started.put_nowait(time.monotonic())
    await asyncio.Event().wait()


# -- processes --------------------------------------------------------------------------------------------


def child(body: Body, folder: Path, pipe: Connection) -> None:
    async def main() -> None:
        await body(folder, pipe)

    asyncio.run(main())


def start(body: Body, folder: Path) -> tuple[Any, Connection]:
    """A new process that runs *body*, and our end of its pipe."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(body, folder, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


async def pressing_frozen(folder: Path, pipe: Connection) -> None:
    """The same with what has been imported out of the collector's sight."""
    gc.freeze()
    await pressing(folder, pipe)


async def pressing(folder: Path, pipe: Connection) -> None:
    """Accept as fast as it goes from ten submitters; tell how much that was and the longest wait."""
    async with Runtime(queue_size=1_000_000, journal=folder / "jobs.db") as rt:
        rt.pause()
        _ = await rt.submit(press_on, 0, TEXT)
        pipe.send("ready")
        pipe.recv()
        until = time.perf_counter() + SECONDS
        waits: list[float] = []

        async def one() -> None:
            while (began := time.perf_counter()) < until:
                _ = await rt.submit(press_on, 1, TEXT)
                waits.append(time.perf_counter() - began)

        await asyncio.gather(*(one() for _ in range(10)))
        pipe.send((len(waits), max(waits) * 1e3))
        os.kill(os.getpid(), signal.SIGKILL)  # nothing of it shall run


def pressed(folder: Path, body: Body = pressing) -> tuple[float, float, float]:
    """Poorest share of a fair one, worst wait in ms, and accepts a second of all together."""
    members = [start(body, folder) for _ in range(PROCESSES)]
    for _, pipe in members:
        pipe.recv()
    for _, pipe in members:
        pipe.send("go")
    told = [pipe.recv() for _, pipe in members]
    for process, _ in members:
        process.join()
    counts = [count for count, _ in told]
    fair = sum(counts) / PROCESSES
    return min(counts) / fair, max(wait for _, wait in told), sum(counts) / SECONDS


async def opening(folder: Path, pipe: Connection) -> None:
    """Open fresh files on command, and tell what went wrong."""
    pipe.send("ready")
    while (name := pipe.recv()) is not None:
        async with Runtime(journal=folder / name) as rt:
            pipe.send(not rt.journal.problems())


def start_errors(folder: Path, starts: int) -> int:
    """How many of so many starts, four processes at once on a fresh file each time, do not come up well."""
    members = [start(opening, folder) for _ in range(PROCESSES)]
    for _, pipe in members:
        pipe.recv()
    bad = 0
    for number in range(starts // PROCESSES):
        for _, pipe in members:
            pipe.send(f"{number}.db")
        bad += sum(not pipe.recv() for _, pipe in members)
    for process, pipe in members:
        pipe.send(None)
        process.join()
    return bad


async def dying(folder: Path, pipe: Connection) -> None:
    """Take a job and wait for the end."""
    async with Runtime(journal=folder / "jobs.db") as rt:
        _ = await rt.submit(long, 1)
        await started.get()
        await rt.journal.stats()  # its start is on disk now
        pipe.send("ready")
        await asyncio.Event().wait()


async def take_overs(folder: Path, deaths: int) -> list[float]:
    """Seconds from a death to the start of the dead process's job in this one."""
    took: list[float] = []
    async with Runtime(journal=folder / "jobs.db") as rt:
        for _ in range(deaths):
            process, pipe = start(dying, folder)
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
            killed = time.monotonic()
            process.kill()
            took.append(await started.get() - killed)
            process.join()
            for job in rt.jobs(state="running"):
                job.cancel()
                await job.wait()
    return took


def several_processes(plan: Plan) -> Iterator[Figure]:
    shares: list[tuple[float, float, float]] = []
    frozen: list[float] = []
    for _ in range(plan.rounds):
        with tempfile.TemporaryDirectory(dir=PLACE) as folder:
            shares.append(pressed(Path(folder)))
        with tempfile.TemporaryDirectory(dir=PLACE) as folder:
            frozen.append(pressed(Path(folder), pressing_frozen)[1])
    yield Figure("4 processes on one file: poorest share of a fair one", "share", [one[0] for one in shares])
    yield Figure("4 processes on one file: worst wait", "ms", [one[1] for one in shares])
    yield Figure("4 processes on one file: worst wait after gc.freeze()", "ms", frozen)
    yield Figure("4 processes on one file: accepts together", "1/s", [one[2] for one in shares])
    starts = 40 if plan.quick else 500
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        yield Figure(
            "4 processes at once on a fresh file: bad starts", "", [start_errors(Path(folder), starts)]
        )
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        took = sorted(run(plan.loop, partial(take_overs, Path(folder), 5 if plan.quick else 25)))
    yield Figure("take-over after a death: median", "s", [median(took)])
    yield Figure("take-over after a death: longest", "s", [took[-1]])


# -- many rows --------------------------------------------------------------------------------------------

FILL = """
INSERT INTO ended(key, id, task, args, state, reason, error, message, cause, attempt, crashes, durable,
                  redrives, budget, created_ms, failed_ms, changed_ms)
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
SELECT i, printf('%016x%016x', i, i), 'bench.t' || i % 10, '{"number": ' || i || ', "text": "' || ?3 || '"}',
       5, 'failed', 'ValueError', 'number ' || i, 1 + i % 10, 1, 0, 0, 0, 0, ?2 + i, ?2 + i, ?2 + i FROM n"""


async def make(path: Path, rows: int, text: str) -> None:
    """A journal with so many failures of ten tasks, all of them of last hour."""
    async with Journal(path):
        pass
    begin_ms = int(time.time() * 1000) - 3_600_000
    with closing(sqlite3.connect(path)) as connection:
        causes = [(f"bench.t{number}", "ValueError", "bench.py:1") for number in range(10)]
        connection.executemany("INSERT INTO cause(task, error, place) VALUES(?, ?, ?)", causes)
        connection.execute(FILL, (rows, begin_ms, text))
        connection.commit()


async def timed(call: Callable[[], Awaitable[Any]], times: int = 20) -> float:
    """The median of so many calls in ms, after one that is not counted."""
    await call()
    took: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        await call()
        took.append((time.perf_counter() - began) * 1e3)
    return median(took)


async def looked_at(folder: Path, rows: int) -> dict[str, float]:
    path = folder / "jobs.db"
    await make(path, rows, "")
    size = path.stat().st_size / rows
    async with Journal(path) as journal:
        id = (await journal.failures(limit=1))[0].id
        return {
            "list 50, ms": await timed(lambda: journal.failures(limit=50)),
            "count of one task, ms": await timed(lambda: journal.count(task="bench.t3")),
            "get, ms": await timed(lambda: journal.get(id)),
            "size, B": size,
        }


async def paced(rt: Runtime, until: Coroutine[Any, Any, object]) -> list[float]:
    """Milliseconds of each accept of one submitter, until something is over."""
    took: list[float] = []
    done = asyncio.get_running_loop().create_task(until)
    while not done.done():
        began = time.perf_counter()
        _ = await rt.submit(press_on, 1, TEXT)
        took.append((time.perf_counter() - began) * 1e3)
    await done
    return took


async def beside_a_writer(folder: Path, rows: int) -> dict[str, float]:
    """Accepts of one submitter alone, beside a backup, and beside a purge of everything."""
    path = folder / "jobs.db"
    await make(path, rows, TEXT)
    size = path.stat().st_size / 1e6
    async with Runtime(journal=path) as rt:
        idle = await paced(rt, asyncio.sleep(1.0))
        copying = await paced(rt, rt.journal.backup(folder / "copy.db"))
        purging = await paced(rt, rt.journal.purge(older_than=0))
    return {
        "size of the file, MB": size,
        "backup, accepts blocked at most, ms": max(copying),
        "purge, p50 of an accept ÷ idle, ×": median(purging) / median(idle),
    }


def large_files(plan: Plan) -> Iterator[Figure]:
    rows = ROWS[plan.quick]
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        looked: dict[str, float] = run(plan.loop, partial(looked_at, Path(folder), rows))
    for name, value in looked.items():
        what, _, unit = name.rpartition(", ")
        yield Figure(f"{rows:,} failures: {what}", unit, [value])
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        beside: dict[str, float] = run(
            plan.loop, partial(beside_a_writer, Path(folder), BACKUP_ROWS[plan.quick])
        )
    for name, value in beside.items():
        what, _, unit = name.rpartition(", ")
        yield Figure(f"beside a writer: {what}", unit, [value])
