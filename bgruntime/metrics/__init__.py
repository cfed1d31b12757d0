"""Numbers about jobs: how many, how long, how often and why they fail. A bare `Runtime` has them.

The engine counts; this adds the percentiles, the last five minutes and the reasons to `Runtime.stats`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter, sub
from typing import Any, NamedTuple

from bgruntime import RuntimeStats
from bgruntime.extend import (
    Batch,
    Event,
    JobRejected,
    JobSettled,
    JobState,
    JobUncompleted,
    ObserverHost,
    Outcome,
    Successes,
    TaskStats,
    ports,
    success_rate,
)

from ._failures import Reasons, together
from ._process import Process
from ._trends import Trends
from ._window import MINUTE, Ends, Slice, Window, merged, minute_of, recent_of, spread_of

SERIES = 1_000  # tasks that are told apart
OTHER = "other"

_ENTRY, _STATE, _OUTCOME, _WAITED, _RAN, _AT = 0, 2, 3, 5, 6, 7  # where they stand in a Record
_COMPLETED = (JobState.COMPLETED, Outcome.SUCCEEDED)
_end_of = itemgetter(_STATE, _OUTCOME)
_FAILED = frozenset({JobState.DISCARDED, JobState.QUARANTINED})


class _Piece(NamedTuple):
    """Ends of one task in one minute, the last *at* that time."""

    task: str
    at: float
    ends: Ends
    run_times: Sequence[float]
    waits: Sequence[float]


class Metrics:
    """Measures what the jobs of one runtime do; `Runtime.stats` shows it.

    At most 1,000 tasks are told apart; what comes after those is counted as the task "other".
    Percentiles are within 1 %, everything else is exact. Given as an observer it takes the place of
    the one that every runtime has.

    Args:
        on: False to measure nothing.
    """

    listens_to = (JobUncompleted, JobRejected)

    def __init__(self, *, on: bool = True) -> None:
        self.on = on
        self._forget()

    def attach(self, host: ObserverHost, /) -> None:
        """Begin from nothing with the runtime behind *host*."""
        self._forget()

    def _forget(self) -> None:
        self._ports = ports.current()
        self._windows: dict[str, Window] = {}
        self._reasons: dict[str, Reasons] = {}
        self._rejections: Counter[str] = Counter()
        self._process = Process()

    def on_event(self, event: Event, /) -> None:
        """Count why a job failed, or was not taken."""
        match event:
            case JobSettled(job=job, state=state) if self.on and state in _FAILED:
                name = _named(job.task, self._reasons)
                reasons = self._reasons.setdefault(name, Reasons())
                reasons.add(_error_of(event), event.message, self._ports.time())
            case JobRejected() if self.on:
                self._rejections[event.reason] += 1
            case _:
                pass

    def on_batch(self, records: Sequence[Any], /) -> None:
        """Count attempts that have ended."""
        if not self.on:
            return
        pieces: list[_Piece] = []
        if isinstance(records, Batch):
            for some in records.successes:
                pieces += _of_successes(some)
            records = records.others
        for of_minute in _by_minute(records):
            pieces += [_of_records(name, of_task) for name, of_task in _by_task(of_minute).items()]
        if len(pieces) > 1:
            pieces.sort(key=_minute_of)  # a window does not go back
        for name, at, ends, run_times, waits in pieces:
            self._windows.setdefault(_named(name, self._windows), Window()).add(at, ends, run_times, waits)

    def complete(self, stats: RuntimeStats, /) -> RuntimeStats:
        """*stats* with the percentiles, the last five minutes, the reasons and the process."""
        if not self.on:
            return stats
        now = self._ports.monotonic()
        totals = {name: window.total() for name, window in self._windows.items()}
        recents = {name: window.recent(now) for name, window in self._windows.items()}
        whole = merged(totals.values())
        return replace(
            stats,
            tasks=self._tasks(stats, totals, recents),
            run_time=spread_of(whole.run_time),
            queue_wait=spread_of(whole.queue_wait),
            recent=recent_of(merged(recents.values())),
            failures=together(self._reasons.values()),
            rejections=dict(self._rejections),
            process=self._process.read(),
        )

    def _tasks(
        self, stats: RuntimeStats, totals: dict[str, Slice], recents: dict[str, Slice]
    ) -> dict[str, TaskStats]:
        nothing = Slice()
        tasks: dict[str, TaskStats] = {}
        for name, task in _bounded(stats.tasks).items():
            total, recent = totals.get(name, nothing), recents.get(name, nothing)
            reasons = self._reasons.get(name)
            tasks[name] = replace(
                task,
                run_time=spread_of(total.run_time),
                queue_wait=spread_of(total.queue_wait),
                recent=recent_of(recent),
                failures={} if reasons is None else reasons.counted(),
                finished=total.finished(),
            )
        return tasks


def _of_successes(some: Successes) -> Iterator[_Piece]:
    """First attempts of one task that succeeded, in one piece for each minute."""
    at, over = 0, len(some.ended)
    while at < over:
        end = over
        if minute_of(some.ended[-1]) != minute_of(some.ended[at]):
            end = bisect_left(some.ended, (minute_of(some.ended[at]) + 1) * MINUTE, at)
        since, started, ended = some.since[at:end], some.started[at:end], some.ended[at:end]
        run_times, waits = [*map(sub, ended, started)], [*map(sub, started, since)]
        yield _Piece(some.entry.name, ended[-1], Counter({_COMPLETED: end - at}), run_times, waits)
        at = end


def _of_records(name: str, records: Sequence[Any]) -> _Piece:
    """Records of one task, from one minute."""
    ran = [record for record in records if record[_OUTCOME] is not None]
    run_times, waits = [record[_RAN] for record in ran], [record[_WAITED] for record in ran]
    return _Piece(name, records[-1][_AT], Counter(map(_end_of, records)), run_times, waits)


def _minute_of(piece: _Piece) -> int:
    return minute_of(piece.at)


def _by_minute(records: Sequence[Any]) -> Iterable[Sequence[Any]]:
    """*records*, which are in the order of their ends, in one piece for each minute."""
    if not records:
        return ()
    if minute_of(records[0][_AT]) == minute_of(records[-1][_AT]):
        return (records,)
    return [list(group) for _, group in groupby(records, lambda record: minute_of(record[_AT]))]


def _by_task(records: Sequence[Any]) -> dict[str, list[Any]]:
    """*records* by the name of their task, each list in their order."""
    by_task: dict[str, list[Any]] = {}
    for record in records:
        by_task.setdefault(record[_ENTRY].name, []).append(record)
    return by_task


def _bounded(tasks: Mapping[str, TaskStats]) -> Mapping[str, TaskStats]:
    """*tasks*, those beyond the limit summed up as one."""
    if len(tasks) <= SERIES:
        return tasks
    beyond = list(tasks.values())[SERIES:]
    outcomes: Counter[str] = Counter()
    for task in beyond:
        outcomes.update(task.outcomes)
    completed, failed = sum(task.completed for task in beyond), sum(task.failed for task in beyond)
    other = TaskStats(
        submitted=sum(task.submitted for task in beyond),
        rejected=sum(task.rejected for task in beyond),
        completed=completed,
        failed=failed,
        cancelled=sum(task.cancelled for task in beyond),
        timed_out=sum(task.timed_out for task in beyond),
        retried=sum(task.retried for task in beyond),
        outcomes=outcomes,
        success_rate=success_rate(completed, failed),
    )
    return dict(list(tasks.items())[:SERIES]) | {OTHER: other}


def _named(name: str, known: dict[str, Any]) -> str:
    return name if name in known or len(known) < SERIES else OTHER


def _error_of(event: JobSettled) -> str:
    """The type of the error, as log lines name it."""
    error = event.error
    if event.outcome is Outcome.EXITED and error is not None:
        error = error.__cause__
    return str(event.reason) if error is None else type(error).__name__


__all__ = ["Metrics", "Trends"]
