"""Numbers that outlive the process: hour by hour, in the journal."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from operator import sub
from typing import Any

from bgruntime.extend import (
    Batch,
    JobState,
    ObserverHost,
    Outcome,
    ShutdownProgress,
    Sketch,
    Successes,
    ports,
)

from ._records import AT, ENTRY, OTHER, OUTCOME, RAN, SERIES, STATE, WAITED

HOUR = 3600.0
EVERY = 60.0  # seconds between two writes
KEPT = 90 * 86_400.0  # seconds that an hour stays


class Trends:
    """An observer that adds what jobs do, hour by hour, to the journal of its runtime: `rt.journal.trends()`.

    Counts and percentiles of run time and queue wait, by task; several processes add to the same hours.
    It writes once a minute and when the journal closes; hours stay for 90 days. Without a journal it does
    nothing.
    """

    listens_to = (ShutdownProgress,)  # it gets the ends in bulk

    def __init__(self) -> None:
        self._hours: dict[tuple[int, str], _Hour] = {}
        self._host: ObserverHost | None = None
        self._timer: Any = None
        self._writing: asyncio.Task[None] | None = None
        self._has_journal = False  # it is opened after the observers are attached

    async def __aenter__(self) -> Trends:
        self._hours = {}
        self._timer = self._writing = None  # of an earlier run, on another loop perhaps
        self._has_journal = False
        return self

    async def __aexit__(self, *about: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            await asyncio.wait([self._writing])

    def attach(self, host: ObserverHost, /) -> None:
        """Begin to count for the runtime behind *host*."""
        self._host = host
        self._ports = ports.current()
        self._loop = asyncio.get_running_loop()
        self._set_timer()

    def _writes(self) -> bool:
        """Whether there is a journal by now, which is asked to let this write once more before it closes."""
        assert self._host is not None
        if not self._has_journal and self._host.journal is not None:
            self._has_journal = True
            self._host.journal.before_close(self.write)
        return self._has_journal

    def _set_timer(self) -> None:
        self._timer = self._ports.call_later(self._loop, EVERY, self._turn)

    def _turn(self) -> None:
        self._set_timer()
        if not self._writes():
            self._hours = {}
        elif self._writing is None or self._writing.done():
            self._writing = self._loop.create_task(self._try_to_write(), name="bgruntime-trends")

    def on_event(self, event: Any, /) -> None:
        """The runtime stops: see to it that the rest is written, too."""
        self._writes()

    def on_batch(self, records: Sequence[Any], /) -> None:
        """Count attempts that have ended."""
        to_wall = self._ports.time() - self._ports.monotonic()
        others: list[Any] = []
        if isinstance(records, Batch):
            for some in records.successes:
                number = int((some.ended[0] + to_wall) // HOUR)
                if number == int((some.ended[-1] + to_wall) // HOUR):
                    self._hour(number, some.entry.name).add_successes(some)
                else:
                    others += some.records()
            records = records.others
        for record in (*others, *records):
            self._hour(int((record[AT] + to_wall) // HOUR), record[ENTRY].name).records.append(record)
        for hour in self._hours.values():
            hour.fold()

    def _hour(self, number: int, task: str) -> _Hour:
        key = (number, task)
        if key not in self._hours and len(self._hours) >= SERIES:
            key = (number, OTHER)
        return self._hours.setdefault(key, _Hour())

    async def write(self) -> None:
        """Add what was counted since the last time to the journal. Raises JournalUnavailable."""
        assert self._host is not None
        self._host.counts()  # what has ended by now comes in through `on_batch` here
        hours, self._hours = self._hours, {}
        if hours:
            try:
                await self._host.journal.add_trends(
                    [
                        (number, task, hour.counts, hour.run_time, hour.queue_wait)
                        for (number, task), hour in hours.items()
                    ],
                    forget_before=self._ports.time() - KEPT,
                )
            except BaseException:
                for key, hour in self._hours.items():
                    hours.setdefault(key, _Hour()).merge(hour)
                self._hours = hours  # for the next time
                raise

    async def _try_to_write(self) -> None:
        try:
            await self.write()
        except Exception as error:
            assert self._host is not None
            self._host.complain("trends could not be written", error)


class _Hour:
    """What is counted of one task in one hour."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.run_time, self.queue_wait = Sketch(), Sketch()
        self.records: list[Any] = []

    def add_successes(self, some: Successes) -> None:
        self.counts[str(JobState.COMPLETED)] += len(some.ended)
        self.run_time.extend([*map(sub, some.ended, some.started)])
        self.queue_wait.extend([*map(sub, some.started, some.since)])

    def fold(self) -> None:
        ran = [record for record in self.records if record[OUTCOME] is not None]
        self.counts.update(str(record[STATE]) for record in self.records)
        self.counts["timed_out"] += sum(record[OUTCOME] is Outcome.TIMED_OUT for record in ran)
        self.run_time.extend([record[RAN] for record in ran])
        self.queue_wait.extend([record[WAITED] for record in ran])
        self.records = []

    def merge(self, other: _Hour) -> None:
        self.counts.update(other.counts)
        self.run_time.merge(other.run_time)
        self.queue_wait.merge(other.queue_wait)


__all__ = ["Trends"]
