"""What people ask of a journal, with a runtime around it or without."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from bgruntime.extend import Sketch, ports

from . import _exchange, _failures, _trends
from ._access import Access
from ._failures import Failure, FailureGroup, Filter
from ._keys import milliseconds
from ._ledger import Ledger
from ._schema import NEWEST
from ._states import OPEN, Row, rows_of
from ._texts import storable
from ._trends import Trend
from ._upkeep import Upkeep
from ._writer import Writer

Moment = float | datetime | timedelta
When = Moment | None

PAGE = 500  # failures changed at a time

TURN = """
INSERT INTO meta(name, value) VALUES(?1, ?2)
ON CONFLICT(name) DO UPDATE SET value = ?2 WHERE ?2 - CAST(value AS REAL) NOT BETWEEN 0 AND ?3"""
COUNT_JOBS = "SELECT state, count(*) FROM job GROUP BY state"
COUNT_ENDED = "SELECT state, count(*) FROM ended GROUP BY state"
COUNT_OWNERS = "SELECT count(*) FROM owner"
ONE_TO_GIVE_UP = """
WHERE owner IS NULL AND state IN (3, 5, 6)
AND key IN (SELECT key FROM ended WHERE id = ? ORDER BY key DESC LIMIT 1)"""
GIVE_UP = f"UPDATE ended SET state = 8, due_ms = NULL, changed_ms = ? {ONE_TO_GIVE_UP}"
COUNT_TO_GIVE_UP = f"SELECT count(*) FROM ended {ONE_TO_GIVE_UP}"
GIVE_UP_PAGE = """
UPDATE ended SET state = 8, due_ms = NULL, changed_ms = ?1
WHERE owner IS NULL AND state IN (3, 5, 6) AND key = ?2 RETURNING id"""
ASK = """
UPDATE ended SET state = 3, due_ms = ?1, budget = max(budget, redrives + 1), changed_ms = ?1
WHERE owner IS NULL AND obstacle IS NULL AND state IN (3, 5, 6, 7) AND failed_ms <= ?3 AND key = ?2
RETURNING id"""


@dataclass(frozen=True, slots=True)
class JournalStats:
    """A journal in numbers. `jobs` are durable and not over, `failures` are over; both by state.

    The counts after them are of this process since the journal was opened: commits, rows that were
    no longer ours when they were to be written, failure records that were lost, rows that could not
    be written at all, and errors of the file.
    """

    jobs: Mapping[str, int]
    failures: Mapping[str, int]
    processes: int
    bytes: int
    commits: int
    late: int
    dropped: int
    poisoned: int
    errors: int


class Shelf:
    """Finds, counts and puts away what is in a journal. Times are seconds since the epoch.

    Everything here raises `JournalUnavailable` while the file cannot be used.
    """

    def __init__(self, access: Access, writer: Writer, ledger: Ledger, upkeep: Upkeep) -> None:
        self._access = access
        self._writer = writer
        self._ledger = ledger
        self._upkeep = upkeep
        self._known: tuple[str, ...] = ()  # tasks of this process, which are not unknown

    async def failures(
        self,
        *,
        task: str | None = None,
        error: str | None = None,
        since: When = None,
        until: When = None,
        state: str | None = None,
        reason: str | None = None,
        limit: int = 100,
    ) -> list[Failure]:
        """The newest failures first: those that are open, unless a state is named.

        Open are retryable, discarded and quarantined ones. With a `reason` (``"interrupted"``) those
        that ended cancelled are meant too.

        Args:
            task: the name of the task.
            error: the name of the exception, with its module or without.
            since: seconds since the epoch, a `datetime`, or a `timedelta` back from now.
            until: the same; before it.
            state: retryable, discarded, quarantined, cancelled or completed.
            reason: why it entered its state.
            limit: how many at most.

        Raises:
            ValueError: *limit* is below 0 or no whole number, there is no such *state*, or a `datetime`
                has no time zone.
        """
        wanted = filter_of(task=task, error=error, since=since, until=until, state=state, reason=reason)
        most = how_many(limit)
        await self._settled()
        return await self._access.read(_failures.failures, wanted, most, self._known, self._now())

    async def trends(self, *, task: str | None = None, since: When = None) -> list[Trend]:
        """Hour by hour what became of jobs and how long they took, of all processes; the oldest hour first.

        It is there as far as `bgruntime.metrics.Trends` was among the observers.

        Args:
            task: the name of one task.
            since: seconds since the epoch, a `datetime`, or a `timedelta` back from now; by default a week.
        """
        first = seconds(timedelta(days=7) if since is None else since) or 0.0
        return await self._access.read(_trends.find, int(first // _trends.HOUR), task)

    async def add_trends(
        self, hours: Iterable[tuple[int, str, Counter[str], Sketch, Sketch]], *, forget_before: float
    ) -> None:
        """Add to hours, by their number since the epoch, and tasks: counts by state, run times, waits.

        Hours that began before *forget_before*, in seconds since the epoch, go.
        """
        added = [
            _trends.Hour(number, storable(task), counts, run_time, queue_wait)
            for number, task, counts, run_time, queue_wait in hours
        ]
        await self._writer.step(_trends.add, added, int(forget_before // _trends.HOUR))

    async def is_time(self, name: str, every: float) -> bool:
        """True once in *every* so many seconds, whichever process asks, restarts included."""
        return await self._writer.step(take_turn, name, ports.current().time(), every)

    async def count(
        self,
        *,
        task: str | None = None,
        error: str | None = None,
        since: When = None,
        until: When = None,
        state: str | None = None,
        reason: str | None = None,
    ) -> int:
        """How many failures there are; the arguments are those of `failures`."""
        wanted = filter_of(task=task, error=error, since=since, until=until, state=state, reason=reason)
        await self._settled()
        return await self._access.read(_failures.count, wanted)

    async def get(self, id: str) -> Failure | None:
        """The job with this id, over or not; None when there is none."""
        await self._settled()
        return await self._access.read(_failures.get, storable(id), self._known, self._now())

    async def groups(
        self, *, task: str | None = None, error: str | None = None, since: When = None, limit: int = 100
    ) -> list[FailureGroup]:
        """Open failures by task, exception and innermost line of the application; the most frequent first."""
        wanted = filter_of(task=task, error=error, since=since)
        most = how_many(limit)
        await self._settled()
        return await self._access.read(_failures.groups, wanted, most)

    async def discard(
        self,
        id: str | None = None,
        *,
        task: str | None = None,
        error: str | None = None,
        since: When = None,
        dry_run: bool = False,
    ) -> int:
        """Put failures away: they will not be redriven and are no longer open. Returns how many.

        Args:
            id: the one that is meant; without it all open ones that match the filters, of which at
                least one must be given.
            dry_run: only say how many.
        """
        if id is not None:
            if dry_run:
                await self._settled()
                return await self._access.read(count_to_give_up, storable(id))
            return await self._writer.step(give_up, storable(id), self._now())
        if task is None and error is None and since is None:
            raise ValueError("discard needs an id or a filter; to delete what is old, use purge")
        wanted = filter_of(task=task, error=error, since=since)
        await self._settled()
        if dry_run:
            return await self._access.read(_failures.count, wanted)
        return len(await self._in_pages(GIVE_UP_PAGE, wanted))

    async def purge(
        self, *, older_than: float | timedelta = 0.0, state: str | None = None, dry_run: bool = False
    ) -> int:
        """Delete what ended, and has not changed, for `older_than` seconds; returns how many.

        Failures that are still to be redriven stay, unless ``state="retryable"`` names them.
        """
        age = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        before = milliseconds(ports.current().time() - age)
        endings = (Row.COMPLETED, Row.DISCARDED, Row.QUARANTINED, Row.CANCELLED, Row.GIVEN_UP)
        states = endings if state is None else rows_of(state)
        await self._settled()
        work = self._upkeep.purgeable if dry_run else self._upkeep.purge
        return sum([await work(row, before + 1) for row in states])

    async def backup(self, path: str | os.PathLike[str]) -> Path:
        """Copy the journal to `path` while it is in use; no submit waits for it. Returns the path.

        The copy appears only when it is complete and has passed SQLite's integrity check.
        """
        await self._writer.flush()
        await self._upkeep.backup(Path(path))
        return Path(path)

    async def export(self, path: str | os.PathLike[str]) -> int:
        """Write all that is in the journal to `path` as JSON lines; returns how many jobs that were."""
        await self._settled()
        total = 0
        with open(path, "w", encoding="utf-8", opener=_private) as file:  # noqa: ASYNC230 -- a page at a time
            file.write(_exchange.header(NEWEST) + "\n")
            for kind in ("ended", "job"):
                after = -1
                while lines := (page := await self._access.read(_exchange.page, kind, after))[0]:
                    after = page[1]
                    file.writelines(line + "\n" for line in lines)
                    total += len(lines)
        return total

    async def import_(self, path: str | os.PathLike[str], *, jobs: bool = False) -> int:
        """Take in what `export` wrote; what is here already stays as it is. Returns how many were new.

        Durable jobs that were not over come in with ``jobs=True`` only, for they will run; failures that
        were still to be redriven by themselves are so with ``jobs=True`` only.
        Raises `ValueError`, naming the line, for a file that is no export; pages before it are in then.
        """
        total = 0
        with open(path, encoding="utf-8") as file:  # noqa: ASYNC230 -- a page at a time
            told = _exchange.parse(iter(file), NEWEST)
            if not jobs:
                told = (_exchange.at_rest(job) for job in told if job["kind"] != "job")
            for page in pages(told, _exchange.PAGE):
                total += await self._writer.step(_exchange.take_in, page, durable=True)
        return total

    async def stats(self) -> JournalStats:
        """What is in the journal, and what this process has done with it."""
        await self._settled()
        jobs, failures, processes = await self._access.read(count_all)
        return JournalStats(
            jobs=jobs,
            failures=failures,
            processes=processes,
            bytes=sum(size_of(f"{self._access.path}{side}") for side in ("", "-wal")),
            commits=self._writer.commits,
            late=self._ledger.late,
            dropped=self._ledger.dropped,
            poisoned=self._ledger.poisoned,
            errors=self._access.errors,
        )

    async def ask_redrive(self, wanted: Filter) -> list[str]:
        """Have a process that knows the tasks redrive these failures soon; returns their ids."""
        return await self._in_pages(ASK, wanted, self._now())  # what fails again meanwhile is not meant

    async def _in_pages(self, sql: str, wanted: Filter, *values: int) -> list[str]:
        """The ids of those that were changed: what came to another end since they were read stays so."""
        ids: list[str] = []
        keys = await self._access.read(keys_of, wanted)
        for first in range(0, len(keys), PAGE):
            rows = [(self._now(), key, *values) for key in keys[first : first + PAGE]]
            ids += await self._writer.step(each, sql, rows)
        return ids

    async def _settled(self) -> None:
        """Have what was said so far written, so that it is found."""
        await self._writer.flush()

    def _now(self) -> int:
        return milliseconds(ports.current().time())


def filter_of(
    *,
    task: str | None = None,
    error: str | None = None,
    since: When = None,
    until: When = None,
    state: str | None = None,
    reason: str | None = None,
) -> Filter:
    """The filter that people mean."""
    task, error, reason = (text and storable(text) for text in (task, error, reason))  # as it was written
    return Filter.of(
        task=task, error=error, since=seconds(since), until=seconds(until), state=state, reason=reason
    )


def how_many(limit: int) -> int:
    """*limit* as SQLite can count it. Raises ValueError for what is no number of rows."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise ValueError(f"limit is a whole number and at least 0, got {limit!r}")
    return min(limit, sys.maxsize)


def seconds(moment: When) -> float | None:
    """Seconds since the epoch. A `datetime` must know its time zone; a `timedelta` is back from now."""
    if isinstance(moment, timedelta):
        return ports.current().time() - moment.total_seconds()
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError(f"{moment!r} has no time zone")
        return moment.timestamp()
    return moment


def give_up(connection: sqlite3.Connection, id: str, now: int) -> int:
    """Put one failure away."""
    return connection.execute(GIVE_UP, (now, id)).rowcount


def count_to_give_up(connection: sqlite3.Connection, id: str) -> int:
    """How many `give_up` would put away: one or none."""
    found: int = connection.execute(COUNT_TO_GIVE_UP, [id]).fetchone()[0]
    return found


def each(connection: sqlite3.Connection, sql: str, rows: list[tuple[int, ...]]) -> list[str]:
    """Run one statement for each row; the ids of those that were changed."""
    return [id for row in rows for (id,) in connection.execute(sql, row).fetchall()]


def keys_of(connection: sqlite3.Connection, wanted: Filter) -> list[int]:
    """The keys of all that is meant."""
    return [row[1] for row in _failures.matching(connection, wanted, "0", "FROM ended", None)]


def count_all(connection: sqlite3.Connection) -> tuple[dict[str, int], dict[str, int], int]:
    """Jobs and failures by state, and how many processes there are."""
    jobs = {Row(state).word: number for state, number in connection.execute(COUNT_JOBS)}
    failures: dict[str, int] = {}
    for state, number in connection.execute(COUNT_ENDED):
        failures[Row(state).word] = failures.get(Row(state).word, 0) + number
    return jobs, failures, connection.execute(COUNT_OWNERS).fetchone()[0]


def pages(jobs: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """The same in lists of at most `size`."""
    while page := list(islice(jobs, size)):
        yield page


def size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


__all__ = ["OPEN", "JournalStats", "Shelf", "filter_of"]


def take_turn(connection: sqlite3.Connection, name: str, now: float, every: float) -> bool:
    """Note that it is done now, unless that was less than *every* seconds ago; whether it was noted."""
    return connection.execute(TURN, (f"turn {name}", str(now), every)).rowcount == 1
