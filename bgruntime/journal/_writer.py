"""The one task that writes: what has come together by the time the last commit is done is the next one."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from bgruntime import AcceptUnknown, JournalUnavailable
from bgruntime.extend import ports

from ._access import LOCK_LIMIT, Access
from ._batch import Accept, Batch, Step, keys_of
from ._faults import CommitUnknown, Fault, Gone, describe, fault_of, in_doubt, unavailable
from ._keys import milliseconds
from ._ledger import Ledger, abandon, answer, settle
from ._line import finish

R = TypeVar("R")

ACCEPT_LIMIT = LOCK_LIMIT
GRACE = 1.0  # seconds in which a commit that was begun in time may end
LAZY = 0.02  # seconds an ending waits for a commit to ride in
CLOSE_LIMIT = 2.0  # seconds for what is still unwritten when the journal closes


class Writer:
    """Writes what the ledger has, in commits that grow with the load; keeps trying while the file is ill."""

    def __init__(self, access: Access, ledger: Ledger) -> None:
        self._access = access
        self._ledger = ledger
        self._path = str(access.path)
        self.commits = 0
        self._bell: asyncio.Future[None] | None = None
        self._murmuring = False
        self._closing = False
        self._in_flight: Batch | None = None
        self._rescued: list[tuple[object, ...]] = []  # our rows of a file that was taken away
        self._alarm: ports.Cancellable | None = None
        self._task: asyncio.Task[None] | None = None
        ledger.ring, ledger.murmur = self._ring, self._murmur

    async def start(self) -> None:
        """Returns when the file is open, or known to be ill; the writer goes on trying then."""
        self._loop = asyncio.get_running_loop()
        self._ports = ports.current()
        self._tried = self._loop.create_future()
        self._task = self._loop.create_task(self._run(), name="bgruntime-journal-writer")
        await self._tried

    @property
    def takes(self) -> bool:
        """Can something be written now?"""
        return self._task is not None and not self._closing and self._access.ill is None

    def accept(
        self, rows: list[tuple[Any, ...]], then: tuple[str, list[tuple[Any, ...]]] | None = None
    ) -> asyncio.Future[None]:
        """Is done when all rows are on disk. `JournalUnavailable`: none is; `AcceptUnknown`: it hangs."""
        if not self.takes:
            raise self._access.refusal()
        future: asyncio.Future[None] = self._loop.create_future()
        accept = Accept(rows, self._ports.monotonic() + ACCEPT_LIMIT, future, then)
        if self._alarm is None:
            self._set_alarm(ACCEPT_LIMIT + GRACE)
        self._ledger.add_accept(accept)
        return future

    async def step(
        self,
        function: Callable[..., R],
        *args: Any,
        durable: bool = False,
        bind: Callable[[], tuple[Any, ...]] | None = None,
        abandoned: Callable[[R], None] | None = None,
    ) -> R:
        """What `function(connection, *args)` returns, in a transaction; once, or not at all.

        With `bind` the arguments are what it returns, on the loop, when the step's batch is made up: for
        those that may change while the step waits for its turn. `abandoned` gets, later and on the loop,
        what the function returned if that is not the answer: the one who asked was cancelled, or it is not
        known whether it was written.
        """
        if not self.takes:
            raise self._access.refusal()
        step = Step(function, args, durable, self._loop.create_future(), bind, abandoned)
        self._ledger.add_step(step)
        try:
            value: R = await step.future
        except asyncio.CancelledError:
            if not step.future.cancelled():  # the answer had come already
                step.future.exception()
                abandon(step)
            raise
        return value

    async def flush(self) -> None:
        """Returns when all that was given so far is written, or cannot be."""
        with contextlib.suppress(JournalUnavailable):
            if self._in_flight is not None or not self._ledger.idle:
                for _ in range(self._ledger.commits_due):
                    await self.step(_nothing)

    async def close(self) -> None:
        """Writes what is left, for at most 2 s, and closes in every case. Never raises."""
        if self._task is None:
            return
        self._closing = True
        self._set_limit(CLOSE_LIMIT)
        self._ring()
        try:
            await finish(self._task)
        finally:
            self._limit.cancel()
            self._task = None

    def _set_limit(self, seconds: float) -> None:
        self._limit = self._ports.call_later(self._loop, seconds, self._hurry)

    def _hurry(self) -> None:
        self._access.abort()
        self._set_limit(0.05)  # there may be another statement by then

    # The bell

    def _ring(self) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    def _murmur(self) -> None:
        if not self._murmuring and self._task is not None:
            self._murmuring = True
            self._ports.call_later(self._loop, LAZY, self._speak_up)

    def _speak_up(self) -> None:
        self._murmuring = False
        self._ring()

    async def _heard(self) -> None:
        self._bell = self._loop.create_future()
        try:
            await self._bell
        finally:
            self._bell = None

    # The task

    async def _run(self) -> None:
        try:
            while not self._closing:
                if await self._ready():
                    await self._write_next()
            while not self._ledger.idle and await self._ready() and await self._write_next():
                pass
        finally:
            self._refuse_all()
            self._leave()
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None
            await self._access.close(CLOSE_LIMIT)
            settle(self._tried, None)

    def _leave(self) -> None:
        """What could not be written is counted, and told: nobody else will know of it."""
        records, ends = self._ledger.give_up()
        if records or ends:
            trouble = self._access.ill or f"journal {self._path} was not given the time to write all"
            self._access.on_change(
                f"{trouble}; closed with {records} failure records, which are lost, and the ends"
                f" of {ends} durable jobs, which run again, unwritten"
            )

    async def _ready(self) -> bool:
        """Have an open file, or wait a while after failing to have one."""
        if self._access.is_open and self._access.ill is None:
            return True
        try:
            await self._access.open()
            await self._take_in()
        except Exception as error:
            await self._access.suffer(error)
            self._refuse_all()
            settle(self._tried, None)
            await self._rest(self._access.next_pause())
            return False
        settle(self._tried, None)
        return True

    async def _rest(self, pause: float) -> None:
        until = self._ports.monotonic() + pause
        while not self._closing and (left := until - self._ports.monotonic()) > 0:
            timer = self._ports.call_later(self._loop, left, self._ring)
            try:
                await self._heard()
            finally:
                timer.cancel()

    async def _write_next(self) -> bool:
        """Write what there is, or wait until there is something; False where one had better wait."""
        if self._ledger.idle:
            self._access.is_well()
            if not self._closing:
                await self._heard()
            return True
        batch = self._ledger.take()
        if not batch:
            return True
        self._in_flight = batch
        batch.now_ms = milliseconds(self._ports.time())
        try:
            await self._access.write(self._access.session.write, batch, self._patience(batch))
        except Exception as error:
            again = await self._failed(batch, error)
        else:
            again = True
            self.commits += 1
            self._access.is_well()
            self._ledger.written(batch)
        finally:
            self._in_flight = None
        if not again:
            await self._rest(self._access.next_pause())
        elif batch.accepts:
            await asyncio.sleep(0)  # who was answered just now may submit again, into the same commit
        return again

    def _patience(self, batch: Batch) -> float:
        """How long this batch may wait for its turn: until its first accept has waited long enough."""
        first = min((accept.deadline for accept in batch.accepts), default=None)
        return LOCK_LIMIT if first is None else max(0.0, first - self._ports.monotonic())

    # Trouble

    async def _failed(self, batch: Batch, error: Exception) -> bool:
        """Keep what can be kept of a batch that was not written, and answer the others.

        True when it may be tried again at once: not if that was tried already.
        """
        stumbles = self._access.stumbles
        try:
            if isinstance(error, CommitUnknown):
                await self._find_out(batch, error)
            elif isinstance(error, Gone):
                if batch.step is not None and batch.committed:
                    answer(batch.step, in_doubt(self._path, error))
                await self._move()
                for accept in batch.accepts:
                    accept.rescued = True
            elif fault_of(error) is not Fault.INTERRUPTED:  # that is by us, when a step takes too long
                raise error
        except Exception as second:
            if isinstance(error, (CommitUnknown, Gone)):
                self._answer_unknown(batch, error)
            self._give_back(batch, second)
            await self._access.suffer(second)
            return False
        self._give_back(batch, error)
        if stumbles:
            self._access.note(error)
        else:
            self._access.errors += 1
            self._access.next_pause()
        return not stumbles

    async def _find_out(self, batch: Batch, error: Exception) -> None:
        """A commit failed half way. After another one, made anew, its rows are there or never will be."""
        await self._access.hang_up()
        await self._access.open()
        await self._access.write(self._access.session.beat, LOCK_LIMIT)
        written = [accept for accept in batch.accepts if accept.error is None]
        made = await self._access.write(self._access.session.present, keys_of(written))
        if made:
            for accept in written:
                settle(accept.future, None)
        step = batch.step
        if step is not None and made and written:  # in the same transaction
            answer(step)
        elif step is not None and made:  # of no rows: that says nothing
            answer(step, in_doubt(self._path, error))

    async def _move(self) -> None:
        """The file was taken away: what is ours goes into the one there is now, then this batch again."""
        self._access.note(Gone("it was replaced or removed; opening the one that is there now"))
        self._rescued += await self._access.write(self._access.session.rescue)
        await self._access.hang_up()
        await self._access.open()
        await self._take_in()

    async def _take_in(self) -> None:
        """Write what was rescued, as soon as there is a file again."""
        if self._rescued:
            await self._access.write(self._access.session.take_in, self._rescued, LOCK_LIMIT)
            self._rescued = []

    def _answer_unknown(self, batch: Batch, error: Exception) -> None:
        for accept in batch.accepts:
            settle(accept.future, unknown(accept, describe(self._path, error)))
        if batch.step is not None:
            answer(batch.step, in_doubt(self._path, error))

    def _give_back(self, batch: Batch, error: Exception) -> None:
        """Whoever has waited for too long, or for nothing, is told; the rest goes back to the ledger."""
        fault, now = fault_of(error), self._ports.monotonic()
        for accept in batch.accepts:
            if fault is Fault.GONE or (fault is Fault.LOCKED and accept.deadline > now + 0.001):
                continue
            self._refuse(accept, unavailable(self._path, error), describe(self._path, error))
        if batch.step is not None:
            settle(batch.step.future, unavailable(self._path, error))
        self._ledger.restore(batch)

    def _refuse(self, accept: Accept, error: Exception, why: str) -> None:
        """Nobody is writing it: its rows are not there, unless they came with those of another file."""
        settle(accept.future, unknown(accept, why) if accept.rescued else error)

    def _set_alarm(self, seconds: float) -> None:
        self._alarm = self._ports.call_later(self._loop, seconds, self._expire_old)

    def _expire_old(self) -> None:
        """Tell those who have waited for too long; one timer does for all that wait."""
        self._alarm = None
        now = self._ports.monotonic()
        in_flight = [] if self._in_flight is None else self._in_flight.accepts
        begun = set(in_flight)
        why = f"journal {self._path} has not answered within {ACCEPT_LIMIT + GRACE:.0f} s"
        for accept in (*in_flight, *self._ledger.accepts):
            if accept.future.done():
                continue
            if accept.deadline + GRACE > now:  # and so are all that came after it
                self._set_alarm(accept.deadline + GRACE - now)
                return
            if accept in begun:
                settle(accept.future, unknown(accept, why))
            else:
                trouble = self._access.ill or why
                self._refuse(accept, JournalUnavailable(f"{trouble}; nothing was written"), trouble)

    def _refuse_all(self) -> None:
        while self._ledger.steps:
            settle(self._ledger.steps.popleft().future, self._access.refusal())
        while self._ledger.accepts:
            self._refuse(self._ledger.accepts.popleft(), self._access.refusal(), self._access.trouble)


def unknown(accept: Accept, why: str) -> AcceptUnknown:
    """Its rows may be on disk."""
    return AcceptUnknown(accept.rows[0][1], why)


def _nothing(connection: sqlite3.Connection) -> None:
    """A step that only has its place in the order of things."""
