"""History: what is kept of attempts that ended, counted and handed on in bulk.

An attempt that succeeded at once leaves four values at its entry and nothing else: a whole `Record`
for each would cost 300 ns and 250 bytes more. The records are made when somebody looks.
"""

from __future__ import annotations

import builtins
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple, overload

from .._model.jobs import Entry
from .._model.outcomes import Outcome
from .._model.states import JobState

FOLD_AT = 600  # attempts begun, until those that ended are counted
KEEP_FINISHED = 1000
RETRYABLE, DISCARDED, COMPLETED = JobState.RETRYABLE, JobState.DISCARDED, JobState.COMPLETED
SUCCEEDED = Outcome.SUCCEEDED


class Record(NamedTuple):
    """What is kept of an attempt that ended, or of a job that ended without one. No arguments, no results.

    `waited` and `ran` are seconds, `at` the monotonic time of the end; `state` is where the job went.
    `error` is the kind of what it raised for good, and what may be said of it, shortened. `last` is how
    the last attempt of a job ended whose attempt was recorded before, at its timeout: `outcome` is None
    then. The tuples of all other ends lack them.
    """

    entry: Entry
    id: str | None
    state: JobState
    outcome: Outcome | None
    attempt: int
    waited: float
    ran: float
    at: float
    reason: str | None
    error: str | None = None
    last: Outcome | None = None


class Successes(NamedTuple):
    """First attempts of one task that succeeded, in the order of their ends, as columns of equal length.

    `id` is None for jobs that nobody has asked for theirs; the others are seconds of the monotonic clock.
    """

    entry: Entry
    id: Sequence[str | None]
    since: Sequence[float]
    started: Sequence[float]
    ended: Sequence[float]

    @classmethod
    def of(cls, entry: Entry, ends: Sequence[Any]) -> Successes:
        """What `attempt` has noted: the four values of each, one after another."""
        return cls(entry, ends[0::4], ends[1::4], ends[2::4], ends[3::4])

    def records(self) -> Iterator[Record]:
        """The same, row by row."""
        for id, since, started, ended in zip(*self[1:], strict=True):
            waited, ran = started - since, ended - started
            yield Record(self.entry, id, COMPLETED, SUCCEEDED, 1, waited, ran, ended, None)


class Batch(Sequence[Record]):
    """Ends of attempts since the last batch, as records that are made when they are asked for.

    They are in the order of their ends. Whoever only counts takes `successes`, and of all that ended
    otherwise `others`, plain tuples with the fields of `Record`.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = parts
        self.successes: list[Successes] = [part for part in parts if isinstance(part, Successes)]
        self.others: list[Any] = [part for part in parts if not isinstance(part, Successes)]
        self._records: list[Record] | None = None

    def __len__(self) -> int:
        return len(self.others) + sum(len(some.ended) for some in self.successes)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if self._records is None:
            made: list[Record] = []
            for part in self._parts:
                made += part.records() if isinstance(part, Successes) else [Record(*part)]
            self._records = sorted(made, key=lambda record: record.at)  # equal ones stay as they are
        return self._records[index]


class History:
    """The last jobs that ended. Failures are kept apart: many that completed do not push them out."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self.recent: list[Any] = []  # not counted yet: records as tuples, and successes before those
        self._successes: deque[Successes] = deque()
        self._kept = 0  # jobs in those
        self._others: deque[Any] = deque(maxlen=KEEP_FINISHED)
        self._failed: deque[Any] = deque(maxlen=KEEP_FINISHED)
        self._late: dict[str, float] = {}  # of jobs whose id was asked for after their end
        self._late_ids: dict[int, str] = {}  # the same, by the identity of the time at which they ended
        self._new_id = new_id

    def add(self, entry: Entry, record: tuple[Any, ...]) -> None:
        """Note an end that is not the plain one, after the plain ones of its *entry*."""
        if entry.ends:
            self.recent.append(Successes.of(entry.shell, entry.ends))
            entry.ends.clear()
        self.recent.append(record)

    def fold(self, entries: Iterable[Entry]) -> Batch | None:
        """Count what came in and what ended since the last time; None if nothing ended."""
        recent, self.recent = self.recent, []
        for entry in entries:
            entry.tally.submitted += entry.submitted
            entry.submitted = 0
            if entry.ends:
                recent.append(Successes.of(entry, entry.ends))
                entry.ends.clear()
        for part in recent:
            if isinstance(part, Successes):
                part.entry.tally.succeeded += len(part.ended)
                self._keep(part)
            else:
                self._count(part)
        return Batch(recent) if recent else None

    def _keep(self, some: Successes) -> None:
        self._successes.append(some)
        self._kept += len(some.ended)
        while self._kept - len(self._successes[0].ended) >= KEEP_FINISHED:
            self._kept -= len(self._successes.popleft().ended)

    def _count(self, record: Any) -> None:
        tally, state, outcome = record[0].tally, record[2], record[3]
        if outcome is SUCCEEDED:
            tally.succeeded += 1
        else:
            tally.states[state] += 1
            if outcome is not None:
                tally.outcomes[outcome] += 1
        if state is DISCARDED:
            self._failed.append(record)
        elif state is not RETRYABLE:
            self._others.append(record)

    def newest_first(self) -> Iterator[Record]:
        """The records of the last jobs that ended; fold first."""
        successes = sorted(self._all_successes(), key=_newest)
        others = (Record(*record) for record in reversed(self._others))
        failed = (Record(*record) for record in reversed(self._failed))
        completed = islice(merge(successes, others, key=_newest), KEEP_FINISHED)
        return merge(completed, failed, key=_newest)

    def _all_successes(self) -> Iterator[Record]:
        for some in self._successes:
            for record in some.records():
                id = self._late_ids.get(builtins.id(record.at))
                yield record if id is None else record._replace(id=id)

    def late_id(self, ended: float) -> str:
        """The id of the job that *ended* then, which had none, made now if nobody has asked for it.

        The very object tells the job: the clock of the engine makes one for each reading.
        """
        id = self._late_ids.get(builtins.id(ended))
        if id is None:
            id = self._new_id()
            self._late[id] = ended
            self._late_ids[builtins.id(ended)] = id
            if len(self._late) > 2 * KEEP_FINISHED:
                self._forget_early_ends()
        return id

    def _forget_early_ends(self) -> None:
        """Let go of the ids of jobs that have ended first: what is still shown keeps its id."""
        late = sorted(self._late.items(), key=itemgetter(1))[-KEEP_FINISHED:]
        self._late = dict(late)
        self._late_ids = {builtins.id(ended): id for id, ended in late}


def _newest(record: Record) -> float:
    return -record.at
