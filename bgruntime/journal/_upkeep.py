"""What keeps the file small, and copies of it: in steps so short that nobody waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bgruntime.extend import ports

from ._access import Access
from ._batch import SEEN_MS
from ._faults import Refused
from ._keys import milliseconds
from ._leader import pause
from ._ledger import settle
from ._states import Row
from ._writer import Writer

R = TypeVar("R")

BATCH = 500  # rows deleted at a time
REST = 3.0  # times as long as a batch took, between two of them
VACUUM = 200  # pages given back after a batch
COPIED = 512  # pages copied at a time, 2 MB
CHECKED = 50_000  # steps of SQLite's machine at a time, about 2 ms, while a copy is checked
REST_AT_MOST = 0.1  # seconds after either
UNSEEN_MS = 2 * SEEN_MS  # a traceback that was unused a moment ago may have come again

PURGEABLE = "SELECT {what} FROM ended WHERE state = ? AND failed_ms < ? AND changed_ms < ? AND owner IS NULL"
PURGE = f"DELETE FROM ended WHERE key IN ({PURGEABLE.format(what='key')} ORDER BY failed_ms LIMIT ?)"
EXCESS = """
DELETE FROM ended WHERE key IN (SELECT key FROM ended WHERE state = ? AND owner IS NULL
ORDER BY failed_ms LIMIT ?)"""
UNUSED_TRACES = (
    "SELECT hash FROM trace WHERE hash NOT IN (SELECT trace FROM ended WHERE trace IS NOT NULL) LIMIT 10000"
)
DELETE_TRACES = "DELETE FROM trace WHERE hash = ? AND seen_ms < ?"
NOBODYS = (  # no process works on a copy
    """UPDATE job SET owner = NULL, due_ms = coalesce(due_ms, created_ms),
              state = CASE state WHEN 2 THEN 0 ELSE state END
       WHERE owner IS NOT NULL""",
    "UPDATE ended SET owner = NULL WHERE owner > 0",
    "DELETE FROM owner",
)
DELETE_CAUSES = """
DELETE FROM cause WHERE id IN (SELECT id FROM cause
WHERE NOT EXISTS(SELECT 1 FROM ended WHERE ended.cause = cause.id)
LIMIT 1000)"""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is over stays in the journal: seconds by state, and how many at most.

    `completed` counts for failures that were redriven with success, and for durable jobs where
    `Journal(keep=…)` keeps them.
    """

    completed: float = 86_400.0
    cancelled: float = 86_400.0
    discarded: float = 30 * 86_400.0
    quarantined: float = 30 * 86_400.0
    most_discarded: int = 100_000

    def limits(self) -> Iterator[tuple[Row, float]]:
        """Each state and its seconds."""
        yield Row.COMPLETED, self.completed
        yield Row.CANCELLED, self.cancelled
        yield Row.GIVEN_UP, self.completed
        yield Row.DISCARDED, self.discarded
        yield Row.QUARANTINED, self.quarantined


class Upkeep:
    """Deletes what has stayed long enough, and makes copies."""

    def __init__(self, access: Access, writer: Writer, retention: Retention) -> None:
        self._access = access
        self._writer = writer
        self._retention = retention

    async def tidy(self) -> None:
        """Deletes what the retention no longer keeps. For the leader, once a minute."""
        now = ports.current().time()
        for state, seconds in self._retention.limits():
            await self.purge(state, milliseconds(now - seconds))
        await self._trim()
        await self._forget_traces(milliseconds(now))

    async def purge(self, state: Row, before_ms: int) -> int:
        """Deletes what ended in `state` before then; returns how many that were."""
        total, deleted = 0, BATCH
        while deleted == BATCH and await self._access.read(is_purgeable, int(state), before_ms):
            deleted = await self._rested(purge, int(state), before_ms)
            total += deleted
        return total

    async def _rested(self, step: Callable[..., R], *args: Any) -> R:
        """Do a step, and leave the file to others for longer than it took."""
        clock = ports.current().monotonic
        began = clock()
        done: R = await self._writer.step(step, *args)
        await pause(asyncio.get_running_loop(), (clock() - began) * REST)
        return done

    async def purgeable(self, state: Row, before_ms: int) -> int:
        """How many `purge` would delete."""
        return await self._access.read(count_purgeable, int(state), before_ms)

    async def _trim(self) -> None:
        most = self._retention.most_discarded
        if await self._access.read(count_state, int(Row.DISCARDED)) <= most:
            return
        while await self._rested(trim, int(Row.DISCARDED), most) == BATCH:
            pass

    async def _forget_traces(self, now_ms: int) -> None:
        hashes = await self._access.read(unused_traces)
        for first in range(0, len(hashes), BATCH):
            await self._rested(delete_traces, hashes[first : first + BATCH], now_ms - UNSEEN_MS)

    async def backup(self, path: Path) -> None:
        """Copies the journal to `path` while it is in use, and checks the copy; see `Journal.backup`."""
        if path.absolute() == self._access.path.absolute():  # noqa: ASYNC240 -- it reads no disk
            raise ValueError(f"{path} is the journal itself")
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        over.add_done_callback(_seen)
        source = str(self._access.path)

        def run() -> None:
            error: BaseException | None = None
            try:
                copy(source, path)
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(settle, over, error)

        ports.current().spawn(run, "bgruntime-journal-backup")
        await over


def purge(connection: sqlite3.Connection, state: int, before_ms: int) -> int:
    """Delete one batch, and give some space back."""
    deleted = connection.execute(PURGE, (state, before_ms, before_ms, BATCH)).rowcount
    if deleted < BATCH:
        connection.execute(DELETE_CAUSES)
    connection.execute(f"PRAGMA incremental_vacuum({VACUUM})").fetchall()
    return deleted


def trim(connection: sqlite3.Connection, state: int, most: int) -> int:
    """Delete one batch of the oldest of a state, as far as there are more than `most` now."""
    excess = count_state(connection, state) - most
    if excess <= 0:
        return 0
    return connection.execute(EXCESS, (state, min(BATCH, excess))).rowcount


def is_purgeable(connection: sqlite3.Connection, state: int, before_ms: int) -> bool:
    """Is there anything for `purge` to delete?"""
    sql = f"{PURGEABLE.format(what='1')} LIMIT 1"
    return connection.execute(sql, (state, before_ms, before_ms)).fetchone() is not None


def count_purgeable(connection: sqlite3.Connection, state: int, before_ms: int) -> int:
    """How many rows `purge` would delete in all."""
    sql = PURGEABLE.format(what="count(*)")
    return int(connection.execute(sql, (state, before_ms, before_ms)).fetchone()[0])


def count_state(connection: sqlite3.Connection, state: int) -> int:
    """How many rows are in a state."""
    return int(connection.execute("SELECT count(*) FROM ended WHERE state = ?", (state,)).fetchone()[0])


def unused_traces(connection: sqlite3.Connection) -> list[bytes]:
    """Tracebacks no failure refers to any more."""
    return [key for (key,) in connection.execute(UNUSED_TRACES)]


def delete_traces(connection: sqlite3.Connection, hashes: list[bytes], since_ms: int) -> None:
    """Delete tracebacks that were unused, unless they were seen since then."""
    connection.executemany(DELETE_TRACES, [(key, since_ms) for key in hashes])


def copy(source: str, target: Path) -> None:
    """Copy a database as it is now, on a connection of its own: no writer waits and none disturbs it."""
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    try:
        _copy_and_check(source, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _copy_and_check(source: str, partial: Path) -> None:
    reading = sqlite3.connect(source, isolation_level=None)
    writing = sqlite3.connect(partial, isolation_level=None)
    try:
        reading.execute("PRAGMA query_only=ON")
        pace = Pace()
        _copy(reading, writing, partial, pace)
        writing.set_progress_handler(pace.rest, CHECKED)
        for statement in NOBODYS:
            writing.execute(statement)
        answers = [answer for (answer,) in writing.execute("PRAGMA integrity_check")]
    finally:
        writing.close()
        reading.close()
    if answers != ["ok"]:
        raise Refused(f"the copy of {source} is damaged: {json.dumps(answers[:3])}")
    with open(partial, "rb") as file:
        os.fsync(file.fileno())


def _copy(reading: sqlite3.Connection, writing: sqlite3.Connection, partial: Path, pace: Pace) -> None:
    writing.execute("PRAGMA synchronous=OFF")  # each piece is synced here
    writing.execute("PRAGMA cache_size=10")  # what was copied is in the file soon
    reading.execute("BEGIN")
    reading.execute("SELECT count(*) FROM meta").fetchone()  # from here on nothing that is new is seen
    with open(partial, "rb+") as file:

        def copied(*_: int) -> None:
            os.fsync(file.fileno())
            pace.rest()

        reading.backup(writing, pages=COPIED, progress=copied)
    reading.execute("COMMIT")
    writing.execute("PRAGMA cache_size=-2000")
    writing.execute("PRAGMA synchronous=FULL")
    writing.execute("PRAGMA journal_mode=DELETE").fetchall()


class Pace:
    """Rests for as long as it worked, again and again: the disk and the processor are there for others too.

    A copy that goes to the disk all at once, or that is checked in one go, is in the way of everybody who
    waits for a commit.
    """

    def __init__(self) -> None:
        self._clock = ports.current().monotonic
        self._began = self._clock()

    def rest(self) -> None:
        """Sleep for as long as it is since the last rest."""
        time.sleep(min(self._clock() - self._began, REST_AT_MOST))
        self._began = self._clock()


def _seen(over: asyncio.Future[None]) -> None:
    """Nobody may be left to hear of the error."""
    if not over.cancelled():
        over.exception()
