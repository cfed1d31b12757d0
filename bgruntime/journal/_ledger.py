"""What is still to be written, and the rows of this process that are not over. Lives on the loop."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._batch import Accept, Batch, Check, Ending, Row, Step
from ._states import Row as State

ROWS = 1_000  # of new jobs in one commit, unless one submit has more
ENDINGS = 4_000
RECORDS_AT_ONCE = 500  # of failures: each may have a traceback to be written out
RECORDS = 10_000  # failures of ordinary jobs that wait for a disk that does not take them


@dataclass(slots=True, eq=False)
class Entry:
    """The row of one durable job that this process owns, as it should be."""

    id: str
    key: int
    run: int
    attempt: int = 0
    crashes: int = 0
    state: State = State.AVAILABLE
    due_ms: int | None = None
    created_ms: int = 0
    errors: list[dict[str, Any]] | None = None  # of its attempts, in short
    origin: int | None = None  # the failure it was redriven from
    marked: bool = False  # its first start here has been noted

    @property
    def adopted(self) -> bool:
        """Has it belonged to somebody before? Then its start must be on disk before it starts."""
        return self.run > 1

    def update(self, owner: int) -> Row:
        errors = json.dumps(self.errors) if self.errors else None
        return (int(self.state), self.attempt, self.due_ms, errors, self.key, self.run, owner)

    def fence(self, owner: int) -> Row:
        return (self.key, self.run, owner)


class Ledger:
    """Collects what is to be written until the next commit takes it.

    Of one job only its newest state is written. `late`, `dropped` and `poisoned` count what was not.
    """

    def __init__(self) -> None:
        self.owner = 0
        self.accepts: deque[Accept] = deque()
        self.steps: deque[Step] = deque()
        self._dirty: dict[int, Entry] = {}
        self._checks: list[tuple[Entry, asyncio.Future[Any]]] = []
        self._endings: deque[tuple[Entry | None, Ending]] = deque()
        self._completed: deque[Entry] = deque()
        self._records: deque[Ending] = deque()
        self._hurried = False
        self.dropped = 0
        self.late = 0
        self.poisoned = 0
        self.ring: Callable[[], None] = lambda: None  # something wants to be written at once
        self.murmur: Callable[[], None] = lambda: None  # … or within a moment

    # What comes in

    def add_accept(self, accept: Accept) -> None:
        self.accepts.append(accept)
        self.ring()

    def add_step(self, step: Step) -> None:
        self.steps.append(step)
        self.ring()

    def touch(self, entry: Entry) -> None:
        """The row of `entry` is to be written as it is by then."""
        self._dirty[entry.key] = entry
        self.murmur()

    def check(self, entry: Entry, future: asyncio.Future[bool | None]) -> None:
        """The same, at once; `future` gets whether the row was still ours, None if nothing can be written."""
        self._dirty.pop(entry.key, None)
        self._checks.append((entry, future))
        self.ring()

    def complete(self, entry: Entry) -> None:
        """A job is over and nothing is kept of it: its row goes."""
        self._dirty.pop(entry.key, None)
        self._completed.append(entry)
        self.murmur()

    def end(self, entry: Entry | None, ending: Ending) -> None:
        """A job is over: the row of `entry` goes, a record may come."""
        if entry is not None:
            self._dirty.pop(entry.key, None)
        if entry is None and ending.record is not None:
            self._records.append(ending)
            self._drop_excess()
        else:
            self._endings.append((entry, ending))
        if ending.future is not None:
            self._hurried = True
            self.ring()
        else:
            self.murmur()

    # What goes out

    @property
    def idle(self) -> bool:
        """Is there nothing to write?"""
        return not (
            self.accepts
            or self.steps
            or self._dirty
            or self._checks
            or self._completed
            or self._endings
            or self._records
        )

    @property
    def commits_due(self) -> int:
        """How many commits it takes, at most, until all that is here now is written."""
        rows = sum(len(accept.rows) for accept in self.accepts)
        return 1 + max(
            rows // ROWS + len(self.accepts) // ROWS,
            len(self._completed) // ENDINGS,
            len(self._endings) // ENDINGS,
            len(self._records) // RECORDS_AT_ONCE,
        )

    def over(self) -> list[int]:
        """The keys of jobs that are over, whose rows are still to go."""
        ended = [entry.key for entry, _ in self._endings if entry is not None]
        return [*ended, *(entry.key for entry in self._completed)]

    def take(self) -> Batch:
        """The next commit: new jobs first come first served, and all small things that fit."""
        batch = Batch(self.owner)
        rows = 0
        behind = len(self._completed) > ENDINGS or len(self._endings) > ENDINGS
        while self.accepts and (not rows or rows + len(self.accepts[0].rows) <= ROWS):
            if behind and self.accepts[0].given:
                break  # the row of a job that is over may have the same id
            accept = self.accepts.popleft()
            if not accept.future.done():  # whoever gave up waiting wants it not to run
                batch.accepts.append(accept)
                rows += len(accept.rows)
        batch.marked = list(self._dirty.values())
        batch.updates = [entry.update(self.owner) for entry in batch.marked]
        self._dirty.clear()
        batch.checks = [Check(entry.update(self.owner), future) for entry, future in self._checks]
        self._checks.clear()
        batch.completed = [self._completed.popleft() for _ in range(min(len(self._completed), ENDINGS))]
        batch.fences = [entry.fence(self.owner) for entry in batch.completed]
        for _ in range(min(len(self._endings), ENDINGS)):
            batch.endings.append(self._fenced(*self._endings.popleft()))
        for _ in range(min(len(self._records), RECORDS_AT_ONCE)):
            batch.endings.append(self._records.popleft())
        batch.step = self.steps.popleft() if self.steps else None
        if batch.step is not None and batch.step.bind is not None:
            batch.step.args = batch.step.bind()
        batch.durable = bool(batch.accepts) or self._hurried or bool(batch.step and batch.step.durable)
        self._hurried = bool(self._hurried and self._endings)
        return batch

    def _fenced(self, entry: Entry | None, ending: Ending) -> Ending:
        if entry is not None:
            ending.fence = entry.fence(self.owner)
            if ending.record is not None:
                ending.record.update(run=entry.run, owner=self.owner)
        ending.entry = entry
        return ending

    def restore(self, batch: Batch) -> None:
        """Takes a batch back that was not written; its accepts, where they still have time, come first.

        Its step does not come again: whoever asked has been told.
        """
        for accept in reversed(batch.accepts):
            accept.error = None  # what one file did not take the next one may
            if not accept.future.done():
                self.accepts.appendleft(accept)
        self._completed.extendleft(reversed(batch.completed))
        gone = {entry.key for entry in self._completed}
        gone |= {entry.key for entry, _ in self._endings if entry is not None}
        gone |= {ending.fence[0] for ending in batch.endings if ending.fence is not None}
        for entry in batch.marked:
            if entry.key not in gone:
                self._dirty.setdefault(entry.key, entry)
        for check in batch.checks:
            settle(check.future, None)
        for ending in reversed(batch.endings):
            if ending.entry is None and ending.record is not None:
                self._records.appendleft(ending)
            else:
                self._endings.appendleft((ending.entry, ending))
        self._hurried = self._hurried or any(ending.future is not None for ending in batch.endings)
        self._drop_excess()

    def _drop_excess(self) -> None:
        """Keep the newest of the records; what belongs to durable jobs stays."""
        while len(self._records) > RECORDS:
            self._records.popleft()
            self.dropped += 1

    @property
    def over_unwritten(self) -> int:
        """How many durable jobs are over of which that is not on disk."""
        return len(self._completed) + sum(entry is not None for entry, _ in self._endings)

    def give_up(self) -> tuple[int, int]:
        """How many records are lost now, and of how many durable jobs the end is."""
        records, ends = len(self._records), self.over_unwritten
        self.dropped += records
        self._records.clear()
        for _, ending in self._endings:
            if ending.future is not None:
                settle(ending.future, None)
        return records, ends

    def written(self, batch: Batch) -> None:
        """Tells whoever waited for the batch."""
        self.late += batch.late
        self.poisoned += len(batch.poisoned)
        for accept in batch.accepts:
            if accept.error is None and not accept.future.done():
                accept.future.set_result(None)
            else:
                settle(accept.future, accept.error)
        for check in batch.checks:
            settle(check.future, None, check.written)
        for ending in batch.endings:
            if ending.future is not None:
                settle(ending.future, None)
        if batch.step is not None:
            answer(batch.step)


def answer(step: Step, doubt: BaseException | None = None) -> None:
    """Tell whoever asked for the step what became of it: *doubt*, where nobody can say."""
    if doubt is not None or step.future.done():
        abandon(step)
    settle(step.future, doubt or step.error, step.value)


def abandon(step: Step) -> None:
    """What the step did is in nobody's hands; said once."""
    abandoned, step.abandoned = step.abandoned, None
    if abandoned is not None and step.value is not None:
        abandoned(step.value)


def settle(future: asyncio.Future[Any], error: BaseException | None, value: Any = None) -> None:
    """Give a future its end, unless whoever waited has left."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
