"""The journal of a runtime: what the engine calls, and how its parts are put together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from bgruntime import AcceptUnknown, Job, JournalUnavailable, PayloadError
from bgruntime.extend import (
    Definition,
    Ended,
    JobState,
    JournalDegraded,
    JournalHost,
    JournalRecovered,
    Outcome,
    RedriveExhausted,
    definition_of,
    ports,
    trace_of,
)

from ._access import LOCK_LIMIT, Access
from ._batch import Ending
from ._codec import Payload
from ._failures import HELD, INTERRUPTED, Filter, matching
from ._feed import Feed
from ._keys import SLOTS, Keys, key_of, milliseconds
from ._leader import Leader, Service
from ._ledger import Entry, Ledger, settle
from ._line import finish
from ._owners import Owner, is_first
from ._recorder import ERRORS, Recorder, options_of
from ._redrive import HOLD, Redriver, freed, succeeded
from ._shelf import Shelf, When, filter_of
from ._states import Row
from ._texts import storable
from ._upkeep import Retention, Upkeep
from ._writer import Writer

TIDY = 60.0  # seconds
REDRIVE = 0.5

EXHAUSTED = "SELECT id, task FROM ended WHERE key = ? AND state = 5 AND budget > 0 AND redrives >= budget"
ASK_ONE = """
UPDATE ended SET state = 3, due_ms = ?2, budget = max(budget, redrives + 1), changed_ms = ?2
WHERE owner IS NULL AND obstacle IS NULL AND state IN (3, 5, 6, 7)
AND key IN (SELECT key FROM ended WHERE id = ?1 ORDER BY key DESC LIMIT 1)"""


class Journal(Shelf):
    """One SQLite file that keeps every final failure, and durable jobs from acceptance to completion.

    Made for a runtime: ``Runtime(journal="jobs.db")``, or ``Runtime(journal=Journal("jobs.db", …))``
    for what is not the default. Alone, ``async with Journal("jobs.db") as journal`` opens a file to look
    at and to put in order.

    Args:
        path: the file; made for its user only, with its directory, when it is not there.
        synchronous: ``"FULL"`` for acceptances that outlive a power cut, ``"NORMAL"`` for those that
            outlive their process.
        keep: seconds that completed durable jobs stay; 0 deletes them at once.
        retention: how long failures stay.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        keep: float = 0.0,
        retention: Retention | None = None,
    ) -> None:
        if synchronous not in ("FULL", "NORMAL"):
            raise ValueError(f"synchronous is FULL or NORMAL, got {synchronous!r}")
        if not keep >= 0:
            raise ValueError(f"keep is in seconds and at least 0, got {keep!r}")
        self.path = Path(path).absolute()
        self._synchronous = synchronous
        self._keep = keep
        self._retention = retention or Retention(completed=max(keep, 86_400.0) if keep else 86_400.0)
        self._host: JournalHost | None = None
        self._entries: dict[str, Entry] = {}
        self._open = False
        self._quiet = False
        self._assemble()

    def _assemble(self) -> None:
        access = Access(self.path, power_safe=self._synchronous == "FULL")
        ledger = Ledger()
        writer = Writer(access, ledger)
        access.on_change = self._changed
        access.on_open = self._opened
        super().__init__(access, writer, ledger, Upkeep(access, writer, self._retention))
        self.leader = Leader(f"{self.path}.leader", self._is_first, self._complain)
        self._ports = ports.current()
        self._keys = Keys(int.from_bytes(self._ports.token(2), "big") % SLOTS)
        self._feed: Feed | None = None
        self._recorder: Recorder | None = None
        self._redriver: Redriver | None = None
        self._looking: set[asyncio.Task[None]] = set()
        self._before_close: list[Callable[[], Awaitable[None]]] = []

    def __repr__(self) -> str:
        state = self._access.ill or ("open" if self._open else "closed")
        return f"<Journal {self.path.name}: {state}, {len(self._entries)} durable jobs here>"

    # Its life

    async def __aenter__(self) -> Self:
        await self.open(None)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self, host: JournalHost | None) -> None:
        """Open the file for the runtime behind `host`. What is wrong with the file is no error here.

        The runtime starts all the same: durable submits raise `JournalUnavailable`, and the journal
        tries again by itself.
        """
        if self._open:
            raise RuntimeError(f"{self!r} is open already")
        self._assemble()
        self._host, self._open, self._quiet = host, True, False
        self._entries.clear()
        try:
            await self._writer.start()
        except BaseException:
            await self.close()
            raise
        if host is not None:
            self._begin(host)

    def _begin(self, host: JournalHost) -> None:
        self._recorder = Recorder(host, self._keys_next)
        self._redriver = Redriver(host, self._access, self._writer, self._ledger, self._recorder, self.new_id)
        self._feed = Feed(host, self._access, self._writer, self._ledger, self._recorder, self._entries)
        self.leader.add("redrive", self._redriver.run_due, REDRIVE)
        self.leader.add("retention", self._upkeep.tidy, TIDY)
        self._feed.start()
        self.leader.start()

    def quiet(self) -> None:
        """The runtime stops: nothing more comes out of the journal."""
        self._quiet = True
        if self._feed is not None:
            self._feed.stop()
        if self._redriver is not None:
            self._redriver.stop()

    async def close(self) -> None:
        """Write what is left, within two seconds, and close. Durable jobs not over yet run again later."""
        if not self._open:
            return
        loop = asyncio.get_running_loop()
        await finish(loop.create_task(self._close(), name="bgruntime-journal-close"))

    async def _close(self) -> None:
        self.quiet()
        for last in self._before_close:
            with contextlib.suppress(JournalUnavailable):
                await last()
        for look in list(self._looking):
            look.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)
        for part in (self._feed, self.leader, self._redriver):
            if part is not None:
                await part.close()
        await self._writer.close()
        self._open = False

    async def _is_first(self) -> bool:
        """Does this process lead where locks do not work?"""
        try:
            return await self._access.read(is_first, self._ledger.owner, Path(f"{self.path}.owners"))
        except JournalUnavailable:
            return False

    def _opened(self, owner: Owner) -> None:
        self._ledger.owner = owner.id
        self._keys = Keys(owner.slot, after=max(self._access.session.newest_key, self._keys.next()))
        if self._feed is not None:
            self._feed.unsure = True

    def _changed(self, words: str | None) -> None:
        if self._host is None:
            return
        now = ports.current().monotonic()
        if words is None:
            self._host.emit(JournalRecovered(now, self._ledger.dropped))
        else:
            self._host.emit(JournalDegraded(now, words))

    def _complain(self, service: str, error: Exception) -> None:
        if not isinstance(error, JournalUnavailable):
            told = {"message": f"the journal's {service} failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)

    # What the engine calls

    def new_id(self) -> str:
        """An id for a durable job: its row is found by it without an index."""
        return self._keys.next_id()

    def _keys_next(self) -> int:
        return self._keys.next()

    def encode(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Payload:
        """Write arguments down and read them back. Raises PayloadError; TypeError where they do not fit."""
        return self._recording().codec(definition).encode(args, kwargs)

    async def accept(self, jobs: Sequence[Job[Any]], payloads: Sequence[Payload]) -> None:
        """Return when all of `jobs` are on disk; a cancelled call takes them back."""
        now = self._ports.time()
        entries: list[Entry] = []
        rows: list[tuple[Any, ...]] = []
        origins: list[tuple[int]] = []
        for job, payload in zip(jobs, payloads, strict=True):
            entry = self._entry(job, now)
            entries.append(entry)
            rows.append(self._row(job, entry, payload))
            if entry.origin is not None:
                origins.append((entry.origin,))
        for entry in entries:
            self._entries[entry.id] = entry
        try:
            await self._writer.accept(rows, (HOLD, origins) if origins else None)
        except BaseException as error:
            self._refused(entries, error)
            if isinstance(error, sqlite3.IntegrityError):
                raise ValueError(f"an id of {[job.id for job in jobs]} is in the journal already") from error
            if isinstance(error, (UnicodeError, OverflowError)):
                raise PayloadError(f"task {jobs[0].task!r} cannot be written: {error}") from error
            raise
        if self._redriver is not None and origins:
            for job in jobs:
                self._redriver.over(job.id)

    def _entry(self, job: Job[Any], now: float) -> Entry:
        options, id = definition_of(job).options, job.id
        key = key_of(id) if options.id is None else None
        entry = Entry(id, self._keys_next() if key is None else key, 1)
        entry.created_ms = milliseconds(now)
        assert self._redriver is not None
        entry.origin = self._redriver.origin_of(id)
        if options.delay or options.run_at is not None:
            due = now + options.delay if options.run_at_s is None else options.run_at_s
            entry.due_ms = milliseconds(due)
            if due > now:
                entry.state = Row.SCHEDULED
        return entry

    def _row(self, job: Job[Any], entry: Entry, payload: Payload) -> tuple[Any, ...]:
        definition = definition_of(job)
        trace = trace_of(job) or ("" if self._host is None else self._host.trace(job))
        options = None if definition.kept and not trace else options_of(definition, trace)
        return (
            entry.key,
            entry.id,
            int(definition.options.id is not None),
            definition.name,
            payload.text,
            options,
            int(entry.state),
            entry.due_ms,
            entry.created_ms,
            entry.origin,
        )

    def _refused(self, entries: Sequence[Entry], error: BaseException) -> None:
        for entry in entries:
            self._entries.pop(entry.id, None)
            if isinstance(error, asyncio.CancelledError):
                self._ledger.end(entry, Ending(withdrawn=True))
        if isinstance(error, AcceptUnknown) and self._feed is not None:
            self._feed.unsure = True

    def withdraw(self, jobs: Sequence[Job[Any]]) -> None:
        """Take accepted jobs back: they shall not run."""
        for job in jobs:
            entry = self._entries.pop(job.id)
            resolve = None if entry.origin is None else freed(entry.origin, self._now())
            self._ledger.end(entry, Ending(withdrawn=True, resolve=resolve))

    def begin(self, job: Job[Any]) -> Awaitable[bool | None] | None:
        """An attempt of a durable job is about to start: note it; wait for that where it was adopted."""
        entry = self._entries.get(job.id)
        if entry is None:
            return _not_ours()  # it was taken in twice, and the other one has come to its end
        entry.state = Row.RUNNING
        if not entry.adopted:
            self._ledger.touch(entry)
            return None
        return self._marked(job.id, entry)

    async def _marked(self, id: str, entry: Entry) -> bool | None:
        if not self._writer.takes:
            return None
        future: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        self._ledger.check(entry, future)
        written = await future
        if written is False:
            self._entries.pop(id, None)
        return written

    def retrying(self, job: Job[Any], ended: Ended, due: float) -> None:
        """An attempt ended and another one follows."""
        entry = self._entries.get(job.id) if definition_of(job).options.durable else None
        if entry is None:
            if ended.outcome is not Outcome.SNOOZED:
                self._recording().remember(job, ended)
            return
        if ended.outcome is not Outcome.SNOOZED and len(entry.errors or ()) < ERRORS:
            entry.errors = [*(entry.errors or ()), self._recording().attempt(job, ended)]
        entry.state, entry.attempt, entry.due_ms = Row.RETRYABLE, job.attempt, milliseconds(due)
        self._ledger.touch(entry)

    def settled(self, job: Job[Any], ended: Ended) -> Awaitable[None] | None:
        """A job is over; of a cancelled durable one that is on disk when what this returns is done."""
        if not definition_of(job).options.durable:
            self._ordinary_over(job, ended)
            return None
        entry = self._entries.pop(job.id, None)
        return None if entry is None else self._durable_over(job, entry, ended)

    def _ordinary_over(self, job: Job[Any], ended: Ended) -> None:
        redriver = self._redriver
        assert redriver is not None
        if job.state is JobState.DISCARDED:
            origin = redriver.over(job.id)
            self._ledger.end(None, self._recording().ordinary(job, ended, origin))
            if origin is not None:
                self._look_again(origin)
        elif redriver.origin_of(job.id) is not None:
            redriver.free(job.id)
        elif self._recording().wants(job, ended):
            self._ledger.end(None, self._recording().ordinary(job, ended, None))

    def _durable_over(self, job: Job[Any], entry: Entry, ended: Ended) -> Awaitable[None] | None:
        origin = entry.origin
        if job.state is JobState.COMPLETED:
            if origin is not None:
                self._ledger.end(entry, Ending(resolve=succeeded(origin, self._now())))
            elif self._keep:
                self._ledger.end(entry, self._recording().durable(job, ended, entry))
            else:
                self._ledger.complete(entry)
            return None
        if job.state is JobState.DISCARDED:
            self._ledger.end(entry, self._recording().durable(job, ended, entry))
            if origin is not None:
                self._look_again(origin)
            return None
        future = self._within(LOCK_LIMIT)
        if origin is not None:
            self._ledger.end(entry, Ending(resolve=freed(origin, self._now()), future=future))
        else:
            self._ledger.end(entry, self._recording().durable(job, ended, entry, future))
        return future

    def _within(self, limit: float) -> asyncio.Future[None]:
        """A future that is done after `limit` seconds, if nobody does it sooner."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = ports.current().call_later(loop, limit, lambda: settle(future, None))
        future.add_done_callback(lambda _: timer.cancel())
        return future

    def _look_again(self, origin: int) -> None:
        """A redrive failed: was it the last one?"""
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._tell_exhausted(origin), name="bgruntime-journal-look")
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _tell_exhausted(self, origin: int) -> None:
        with contextlib.suppress(JournalUnavailable):
            await self._writer.flush()
            row = await self._access.read(exhausted, origin)
            if row is not None and self._host is not None:
                self._host.emit(RedriveExhausted(ports.current().monotonic(), *row))

    def waiting(self) -> bool:
        """Are jobs on their way from here to the runtime?"""
        if self._quiet or not self._writer.takes:
            return False
        on_the_way = self._redriver is not None and self._redriver.submitting > 0
        return on_the_way or (self._feed is not None and self._feed.busy)

    def problems(self) -> list[str]:
        """What is wrong, in words."""
        found: list[str] = []
        if self._access.ill is not None:
            found.append(self._access.ill)
            if over := self._ledger.over_unwritten:
                found.append(f"journal {self.path}: {over} durable jobs are over, which is not on disk yet")
        if self._ledger.dropped:
            found.append(f"journal {self.path}: {self._ledger.dropped} failure records were dropped")
        if self._ledger.poisoned:
            found.append(f"journal {self.path}: {self._ledger.poisoned} rows could not be written at all")
        return found

    # What people ask

    async def redrive(
        self,
        id: str | None = None,
        *,
        task: str | None = None,
        error: str | None = None,
        since: When = None,
        reason: str | None = None,
        dry_run: bool = False,
    ) -> list[Job[Any]] | list[str]:
        """Run journaled failures again, each as a new job; returns when these are accepted, with them.

        Without an argument everything that can be redriven is. Without a runtime around the journal the
        failures are marked, and a process that knows their tasks redrives them soon; the answer is
        their ids then, as it is with `dry_run`, which changes nothing.

        Raises:
            LookupError: there is no open failure with this `id`, or it is being redriven now.
            PayloadError: `id` was given and its arguments no longer fit the task.
            UnknownTask: `id` was given and this process does not know the task.
            QueueFull, RuntimeClosed: as `submit`; what was accepted before that runs.
        """
        filters = self._redrivable(task=task, error=error, since=since, reason=reason)
        id = id and storable(id)
        if dry_run or self._redriver is None:
            return await self._mark(id, filters, dry_run=dry_run)
        if id is not None:
            await self._check_redrivable(id)
            return [await self._redriver.run_one(id)]
        await self._writer.flush()
        return [job for wanted in filters for job in await self._redriver.run_matching(wanted)]

    def _redrivable(
        self, *, task: str | None, error: str | None, since: When, reason: str | None
    ) -> list[Filter]:
        """Open failures, and what a shutdown interrupted."""
        wanted = filter_of(task=task, error=error, since=since, reason=reason)
        if reason is not None:
            return [wanted]
        return [wanted, filter_of(task=task, error=error, since=since, reason=INTERRUPTED, state="cancelled")]

    async def _mark(self, id: str | None, filters: Sequence[Filter], *, dry_run: bool) -> list[str]:
        if id is not None:
            await self._check_redrivable(id)
            if not dry_run and not await self._writer.step(ask_one, id, self._now()):
                raise LookupError(f"failure {id!r} cannot be redriven: {HELD}")
            return [id]
        await self._settled()
        ids: list[str] = []
        for wanted in filters:
            wanted = replace(wanted, redrivable=True)
            ids += await (self._access.read(ids_of, wanted) if dry_run else self.ask_redrive(wanted))
        return ids

    async def _check_redrivable(self, id: str) -> None:
        found = await self.get(id)
        if found is None:
            raise LookupError(f"no failure {id!r} is in the journal")
        if found.obstacle is not None:
            raise LookupError(f"failure {id!r} cannot be redriven: {found.obstacle}")

    def _recording(self) -> Recorder:
        assert self._recorder is not None  # only a runtime asks for it
        return self._recorder

    def before_close(self, service: Callable[[], Awaitable[None]]) -> None:
        """Have *service*, a coroutine function, called once, before this journal closes."""
        self._before_close.append(service)

    def lead(self, name: str, service: Service, every: float) -> None:
        """Have `service`, a coroutine function, called every so many seconds in one process of the file."""
        self.leader.add(name, service, every)


async def _not_ours() -> bool:
    return False


def exhausted(connection: sqlite3.Connection, key: int) -> tuple[str, str] | None:
    """Id and task of a failure that has used up its automatic redrives."""
    row: tuple[str, str] | None = connection.execute(EXHAUSTED, (key,)).fetchone()
    return row


def ask_one(connection: sqlite3.Connection, id: str, now: int) -> int:
    """Mark one failure to be redriven soon."""
    return connection.execute(ASK_ONE, (id, now)).rowcount


def ids_of(connection: sqlite3.Connection, wanted: Filter) -> list[str]:
    """The ids of all that is meant."""
    return [row[2] for row in matching(connection, wanted, "ended.id", "FROM ended", None)]
