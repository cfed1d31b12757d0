"""Other queues in SQLite files, each doing what the journal benchmark asks: accept jobs, then run them.

Every one has its own defaults for safety, which its name tells. None commits for several callers at
once, so that more submitters do not make it faster: one thread does the work.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import note
from bgruntime.journal import Journal
from bgruntime.journal._batch import INSERT_JOB

TEXT = "x" * 180  # with it the arguments of a job are 199 bytes of JSON


class Took(NamedTuple):
    """Seconds for so many jobs: until the last was accepted, and until the last had run and was gone."""

    accepted: float
    completed: float


class Peer(NamedTuple):
    """One queue; `run(folder, jobs)` works in an empty folder, on `most` jobs at most."""

    name: str
    run: Callable[[Path, int], Took]
    most: int = 1_000_000


def module(name: str) -> Any:
    """A peer, which has no types worth the name; imported when it has its turn."""
    return importlib.import_module(name)


def work(number: int, text: str) -> None:
    """The job."""


def huey(folder: Path, jobs: int) -> Took:
    queue: Any = module("huey").SqliteHuey(filename=str(folder / "huey.db"), results=False)
    call: Any = queue.task()(work)
    began = time.perf_counter()
    for number in range(jobs):
        call(number, TEXT)
    accepted = time.perf_counter()
    done = 0
    while (job := queue.dequeue()) is not None:
        queue.execute(job)
        done += 1
    ended = time.perf_counter()
    queue.storage.close()
    return took(jobs, done, began, accepted, ended)


def persist_queue(folder: Path, jobs: int) -> Took:
    queue: Any = module("persistqueue").SQLiteAckQueue(str(folder), auto_commit=True)
    began = time.perf_counter()
    for number in range(jobs):
        queue.put((number, TEXT))
    accepted = time.perf_counter()
    for _ in range(jobs):
        item = queue.get()
        work(*item)
        queue.ack(item)
    ended = time.perf_counter()
    done = jobs - queue.active_size()
    queue.close()
    return took(jobs, done, began, accepted, ended)


def litequeue(folder: Path, jobs: int) -> Took:
    queue: Any = module("litequeue").LiteQueue(str(folder / "lite.db"))
    began = time.perf_counter()
    for number in range(jobs):
        queue.put(json.dumps([number, TEXT]))
    accepted = time.perf_counter()
    done = 0
    while (message := queue.pop()) is not None:
        work(*json.loads(message.data))
        queue.done(message.message_id)
        done += 1
    ended = time.perf_counter()
    queue.close()
    return took(jobs, done, began, accepted, ended)


def dbos(folder: Path, jobs: int) -> Took:
    """A workflow engine: it writes several rows for each job, and looks for new ones now and then."""
    DBOS = module("dbos").DBOS  # noqa: N806 -- a class of theirs
    DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{folder / 'dbos.db'}",
            "log_level": "ERROR",
        }
    )
    call: Any = DBOS.workflow(name=f"work-{folder.name}")(work)
    DBOS.launch()
    try:
        queue: Any = DBOS.register_queue(f"queue-{folder.name}", polling_interval_sec=0.05)
        began = time.perf_counter()
        handles = [queue.enqueue(call, number, TEXT) for number in range(jobs)]
        accepted = time.perf_counter()
        for handle in handles:
            handle.get_result()
        ended = time.perf_counter()
    finally:
        DBOS.destroy(destroy_registry=True)
    return took(jobs, len(handles), began, accepted, ended)


def raw(folder: Path, jobs: int, rows: int) -> Took:
    """The same rows into the same table, so many in one commit, by `sqlite3` alone."""
    path = folder / "raw.db"
    asyncio.run(make(path))
    text = json.dumps({"number": 0, "text": TEXT})
    row = (None, 0, "work", text, None, 0, None, 0, None)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("synchronous=FULL", "cell_size_check=ON", "secure_delete=OFF"):
            connection.execute(f"PRAGMA {pragma}")
        insert = INSERT_JOB.format(owner=1)
        began = time.perf_counter()
        for first in range(0, jobs, rows):
            connection.execute("BEGIN IMMEDIATE")
            numbers = range(first, min(first + rows, jobs))
            connection.executemany(insert, [(number, f"{number:032x}", *row[1:]) for number in numbers])
            connection.execute("COMMIT")
        accepted = time.perf_counter()
        done = connection.execute("SELECT count(*) FROM job").fetchone()[0]
    return took(jobs, done, began, accepted, accepted)


async def make(path: Path) -> None:
    async with Journal(path):
        pass


def took(jobs: int, done: int, began: float, accepted: float, ended: float) -> Took:
    if done != jobs:
        raise SystemExit(f"{done} of {jobs} jobs done")
    return Took(accepted - began, ended - began)


HUEY = Peer("huey, WAL FULL, deletes before it runs", huey)
PERSIST = Peer("persist-queue with acks, WAL FULL", persist_queue)
LITEQUEUE = Peer("litequeue, WAL NORMAL", litequeue, most=2_000)
DBOS = Peer("DBOS, DELETE FULL", dbos, most=40)
PEERS = (HUEY, PERSIST, LITEQUEUE, DBOS)


def peers() -> tuple[Peer, ...]:
    """Those that work here; why another one does not is told."""
    if sys.version_info >= (3, 12) and sqlite3.sqlite_version_info < (3, 42):
        note(f"DBOS left out: on Python 3.12 and later it needs SQLite 3.42, not {sqlite3.sqlite_version}")
        return tuple(peer for peer in PEERS if peer is not DBOS)
    return PEERS
