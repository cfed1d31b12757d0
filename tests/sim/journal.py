"""
Crash and restart, simulated: durable jobs on a real file, processes that die between any two steps.

``python -m tests.sim.journal 500`` runs seeds 0 … 499. One seed is a few lives of one or two
runtimes on one journal. A life ends between two steps, nothing more of it runs, and the next one
finds what was committed. What each commit changes, what each submit answers and what each body
finds is compared with what was promised.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import sqlite3
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from bgruntime import Job, JobCancelled, JournalUnavailable, Runtime, Snooze, current_job, task
from bgruntime.journal._flocks import _opened, is_free
from bgruntime.journal._line import _open
from bgruntime.journal._session import Session
from bgruntime.testing import SimLoop, run_seed

JOBS = 10  # at most, for each client of a life
SHORTEST, LONGEST = 30, 700  # steps of a life
FOREVER = float("inf")
TIDY = 30.0  # virtual seconds in which all that waits becomes due
FAST = "/dev/shm" if os.path.isdir("/dev/shm") else None


class Crash(BaseException):
    """The end of a life."""


class Broken(AssertionError):
    """A promise was broken."""


class Row(NamedTuple):
    """One durable job in the file."""

    number: int
    owner: int | None
    run: int
    state: int
    attempt: int
    crashes: int


class Book:
    """What was promised to whom and what was seen, over all lives of one seed."""

    def __init__(self, seed: int, path: Path) -> None:
        self.chance = random.Random(f"{seed}/journal")
        self.path = path
        self.numbers = 0
        self.kinds: dict[int, str] = {}
        self.acknowledged: set[int] = set()
        self.finished: set[int] = set()  # its effect is there
        self.withdrawn: dict[int, int] = {}  # its submit was cancelled, in which life
        self.withdrawn_by: dict[int, Session] = {}
        self.taken_back: set[int] = set()  # somebody was told that it is cancelled
        self.cancelled: set[int] = set()
        self.life = 0
        self.dead = False
        self.zombies: set[int] = set()  # owners that live and are thought dead
        self.undead: set[Session] = set()  # what they write with, under whatever name
        self.running: set[int] = set()
        self.done_here: set[int] = set()  # finished in this life
        self.sessions: dict[Any, Session] = {}
        self.wall = 0.0
        self.last_step = FOREVER
        self.violations: list[str] = []

    def violate(self, promise: str, what: str) -> None:
        if not self.dead:
            self.violations.append(f"{promise}: {what} (life {self.life})")

    def step(self, loop: SimLoop) -> None:
        """Before each step: fail the seed if a promise was broken, or die."""
        if self.violations:
            raise Broken(self.violations[0])
        if loop.steps >= self.last_step:
            lay_to_rest()
            raise Crash

    def begin(self, loop: SimLoop, steps: float) -> None:
        """A new life on the same file."""
        self.life += 1
        self.dead = False
        self.last_step = steps
        self.running, self.done_here, self.zombies, self.undead = set(), set(), set(), set()
        self.sessions = {}
        self.wall += 100.0
        loop.step_wall_clock(self.wall)

    def rows(self) -> dict[int, Row]:
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            sql = "SELECT key, args ->> '$.number', owner, run, state, attempt, crashes FROM job"
            return {key: Row(*rest) for key, *rest in connection.execute(sql)}

    def ended(self) -> dict[int, tuple[int, int, int]]:
        """State, attempts and crashes of what is kept of jobs that are over."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            sql = "SELECT args ->> '$.number', state, attempt, crashes FROM ended"
            return {number: rest for number, *rest in map(tuple, connection.execute(sql))}  # type: ignore[misc]


book: Book


# The jobs --------------------------------------------------------------------------------


@task(durable=True, name="sim.durable", max_attempts=3, backoff=0.5, timeout=60)
async def work(number: int, kind: str, seconds: float) -> None:
    """The effect of a job is that its number is in `finished`."""
    job = current_job()
    begin(number, job.attempt)
    try:
        await asyncio.sleep(seconds)
        if kind == "fails" or (kind == "recovers" and job.attempt == 1):
            raise ValueError("as it should")
        if kind == "snoozes" and book.chance.random() < 0.5:
            raise Snooze(1.0)
        if not book.dead:
            book.finished.add(number)
            book.done_here.add(number)
    finally:
        if not book.dead:
            book.running.discard(number)


def begin(number: int, attempt: int) -> None:
    if attempt > 3:
        book.violate("P07", f"job {number} is at attempt {attempt} of 3")
    if number in book.taken_back:
        book.violate("P12", f"job {number} starts after its cancellation was confirmed")
    by = book.withdrawn_by.get(number)
    if book.withdrawn.get(number) == book.life and by not in book.undead:  # a crash may forget that it was
        book.violate("P02", f"job {number} starts though its submit was cancelled")
    session = book.sessions[current_job()._job._entry.engine]
    if not book.undead:
        if number in book.running:
            book.violate("P22", f"job {number} starts while it runs in another living process")
        if number in book.done_here:
            book.violate("P07", f"job {number} runs again though nobody died")
    book.running.add(number)
    if session in book.undead or session.owner is None:
        return
    me = session.owner.id
    row = next((row for row in book.rows().values() if row.number == number), None)
    if row is None or row.owner != me:
        book.violate("P22", f"job {number} starts in {me} without being its own: {row}")
    elif row.run > 1 and row.state != 2:
        book.violate("P08", f"job {number} was taken over and starts without a mark on disk: {row}")


# What commits may do ---------------------------------------------------------------------


def check_commit(me: int, before: dict[int, Row], after: dict[int, Row], alive: set[int]) -> None:
    """A commit of owner *me*: only rows of its own change, and those of the dead."""
    for key, old in before.items():
        new = after.get(key)
        if new == old:
            continue
        if old.owner != me and old.owner in alive:
            book.violate("P22", f"owner {me} changed a row of owner {old.owner}, who lives: {old} {new}")
        elif old.owner not in (None, me) and new is not None and new.owner is not None:
            book.violate("P22", f"owner {me} wrote a row that is not its own: {old} {new}")
        if new is None:
            check_gone(me, old)
        elif old.owner not in (None, me):
            check_buried(old, new)
        elif new.run < old.run or (new.owner != old.owner and new.run == old.run and new.owner is not None):
            book.violate("P22", f"a row changed hands without a new run: {old} {new}")


def check_buried(old: Row, new: Row) -> None:
    if new.attempt != old.attempt:
        book.violate("P08", f"the death of its process cost job {old.number} an attempt: {old} {new}")
    if new.crashes != old.crashes + (old.state == 2):
        book.violate("P08", f"the deaths of job {old.number} are counted wrongly: {old} {new}")


def check_gone(me: int, row: Row) -> None:
    number = row.number
    over = number in book.finished | book.withdrawn.keys() | book.cancelled or number not in book.acknowledged
    if row.owner not in (None, me) and number not in book.ended():
        book.violate("P22", f"owner {me} removed a row that is not its own: {row}")
    elif not over and number not in book.ended():
        book.violate("P08", f"the row of job {number} is gone and it has not ended: {row}")


def dead(owner: int) -> bool:
    with closing(sqlite3.connect(f"file:{book.path}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT lock FROM owner WHERE id = ?", (owner,)).fetchone()
    return found is None or is_free(f"{book.path}.owners/{found[0]}")


@contextmanager
def watched() -> Iterator[None]:
    """Every commit is looked at, and now and then a life ends right after one."""
    real = Session.write

    def write(session: Session, connection: sqlite3.Connection, batch: Any, limit: float) -> Any:
        before = book.rows()
        alive = {row.owner for row in before.values() if row.owner is not None and not dead(row.owner)}
        result = real(session, connection, batch, limit)
        assert session.owner is not None
        check_commit(session.owner.id, before, book.rows(), alive - book.zombies)
        if book.chance.random() < 0.03 and book.life < LIVES:
            book.last_step = 0
        return result

    Session.write = write  # type: ignore[method-assign]
    try:
        yield
    finally:
        Session.write = real  # type: ignore[method-assign]


# The clients -----------------------------------------------------------------------------


async def client(rt: Runtime) -> None:
    for _ in range(book.chance.randint(1, JOBS)):
        await asyncio.sleep(book.chance.choice([0, 0, 0.1, 1.0]))
        await (many if book.chance.random() < 0.15 else one)(rt)


async def one(rt: Runtime) -> None:
    number, kind, seconds = drawn()
    asked: Any = work if book.chance.random() < 0.7 else work.with_options(delay=book.chance.choice([0.2, 3]))
    submitting = asyncio.get_running_loop().create_task(rt.submit(asked, number, kind, seconds))
    if book.chance.random() < 0.15:
        for _ in range(book.chance.randint(1, 12)):  # that is before, in or after its commit
            await asyncio.sleep(0)
        submitting.cancel()
    await asyncio.wait([submitting])
    if submitting.cancelled() or isinstance(submitting.exception(), JournalUnavailable):
        book.withdrawn[number], book.withdrawn_by[number] = book.life, book.sessions[rt._engine]
        return
    acknowledge([number])
    if book.chance.random() < 0.15:
        await take_back(rt, number, submitting.result())


async def many(rt: Runtime) -> None:
    calls = [drawn() for _ in range(book.chance.randint(1, 4))]
    numbers = [number for number, _, _ in calls]
    try:
        await rt.submit_many(work, calls)
    except JournalUnavailable:  # only while it signs in again
        book.withdrawn.update(dict.fromkeys(numbers, book.life))
    else:
        acknowledge(numbers)


def drawn() -> tuple[int, str, float]:
    book.numbers += 1
    kind = book.chance.choice(["works", "works", "works", "fails", "recovers", "snoozes"])
    book.kinds[book.numbers] = kind
    return book.numbers, kind, book.chance.choice([0, 0.01, 0.5, 2.0])


def acknowledge(numbers: list[int]) -> None:
    if book.dead:
        return
    there = {row.number for row in book.rows().values()} | book.finished | book.ended().keys()
    for number in numbers:
        if number not in there:
            book.violate("P08", f"job {number} was acknowledged and is not in the file")
    book.acknowledged.update(numbers)


async def take_back(rt: Runtime, number: int, job: Job[None]) -> None:
    await asyncio.sleep(book.chance.choice([0, 0.01, 0.3]))
    if job.cancel():
        book.cancelled.add(number)
        await job.wait()
        thought_dead = book.sessions[rt._engine] in book.undead  # its heir may be running it
        if not book.dead and not thought_dead and isinstance(job.exception(), JobCancelled):
            book.taken_back.add(number)


# A life ----------------------------------------------------------------------------------


async def live() -> None:
    """One or two runtimes with some clients; sometimes one is thought dead that is not."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    book.begin(loop, book.chance.randint(SHORTEST, LONGEST))
    async with AsyncExitStack() as stack:
        runtimes = [await enter(stack) for _ in range(book.chance.randint(1, 2))]
        clients = [
            loop.create_task(client(book.chance.choice(runtimes))) for _ in range(book.chance.randint(1, 3))
        ]
        if len(runtimes) == 2 and book.chance.random() < 0.3:
            loop.call_later(book.chance.uniform(0.1, 3), lose_lock, runtimes[0])
        await asyncio.wait(clients)
        for one in clients:
            one.result()


async def enter(stack: AsyncExitStack) -> Runtime:
    rt = await stack.enter_async_context(
        Runtime(concurrency=book.chance.randint(1, 4), journal=book.path, cancel_grace=1, cancel_hard=1)
    )
    book.sessions[rt._engine] = rt.journal._access.session
    return rt


def lose_lock(rt: Runtime) -> None:
    """From here on the others take it for dead: all it writes from now on must be refused."""
    owner = rt.journal._access.session.owner
    if owner is not None and not book.dead:
        book.zombies.add(owner.id)
        book.undead.add(rt.journal._access.session)
        owner._flock.close()


async def finish() -> None:
    """The last life: everything comes to its end."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    book.begin(loop, FOREVER)
    async with AsyncExitStack() as stack:
        rt = await enter(stack)
        await asyncio.sleep(TIDY)
        await rt.drain()
        await rt.journal.stats()
        check_end()
    book.step(loop)


def check_end() -> None:
    ended, left = book.ended(), book.rows()
    for number in sorted(book.acknowledged):
        if number not in book.finished | ended.keys() | book.cancelled:
            book.violate("P08", f"job {number} ({book.kinds[number]}) is lost")
    for row in left.values():
        book.violate("P08", f"a row is left of job {row.number}: {row}")
    for number, (state, attempt, crashes) in ended.items():
        if state == 5 and attempt != 3:
            book.violate("P07", f"job {number} was given up after attempt {attempt} of 3")
        if state == 6 and crashes < 2:
            book.violate("P08", f"job {number} is quarantined after {crashes} crashes")
        if state == 5 and book.kinds[number] != "fails":
            book.violate("P17", f"job {number} ({book.kinds[number]}) is kept as failed")


# Seeds -----------------------------------------------------------------------------------

LIVES = 4


def run(seed: int) -> BaseException | None:
    """All lives of one seed; what went wrong, or None."""
    global book
    structlog.configure(processors=[silent])
    with tempfile.TemporaryDirectory(dir=FAST) as folder, watched():
        book = Book(seed, Path(folder) / "jobs.db")
        for life in range(LIVES):
            last = life == LIVES - 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is cut short
                failure = run_seed(finish if last else live, seed * LIVES + life, on_step=step).failure
                lay_to_rest()
                gc.collect()
            if book.violations:
                return Broken(book.violations[0])
            if failure is not None and not isinstance(failure, Crash):
                return failure
            del failure
    return None


def step(loop: SimLoop) -> None:
    book.step(loop)


def silent(logger: object, method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    raise structlog.DropEvent


def lay_to_rest() -> None:
    """What the kernel does for a process that has died: its locks are free, its files are closed."""
    book.dead, book.last_step = True, FOREVER
    for lock in list(_opened):
        lock.close()
    for connection in list(_open):
        file, connection._connection = connection._connection, None
        if file is not None:
            file.close()


def first_failure(seeds: range) -> tuple[int, BaseException] | None:
    for seed in seeds:
        failure = run(seed)
        if failure is not None:
            return seed, failure
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, nargs="?", default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int, help="replay this seed")
    parser.add_argument("--hunt", action="store_true", help="stop at the first failure and say only which")
    options = parser.parse_args()
    began = time.perf_counter()
    if options.only is not None:
        seeds = range(options.only, options.only + 1)
    else:
        seeds = range(options.first, options.first + options.seeds)
    found = first_failure(seeds)
    if options.hunt:
        text = "" if found is None else (str(found[1]).splitlines() or [""])[0]
        print("none" if found is None else f"{found[0]} {type(found[1]).__name__}: {text}")
        return 0
    if found is not None:
        raise found[1]
    seconds = time.perf_counter() - began
    print(f"{len(seeds):,} seeds held, {len(seeds) / seconds:.0f} seeds/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
