"""Numbers about jobs: how many, how long, how often and why they fail. A bare `Runtime` has them.

The engine counts; this adds the percentiles, the last five minutes and the reasons to `Runtime.stats`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import sub
from typing import Any, NamedTuple

from bgruntime import RuntimeStats
from bgruntime.extend import (
    Batch,
    Event,
    Failures,
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
from ._records import AT, ENTRY, LAST, OTHER, OUTCOME, RAN, SERIES, STATE, WAITED
from ._trends import Trends
from ._window import MINUTE, End, Ends, Seen, Window, finished, minute_of

_COMPLETED: End = (JobState.COMPLETED, Outcome.SUCCEEDED, None)
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
        self._told_apart: set[str] = set()
        self._windows: dict[str, Window] = {}
        self._whole = Window()
        self._reasons: dict[str, Reasons] = {}
        self._rejections: Counter[str] = Counter()
        self._process = Process()

    def on_event(self, event: Event, /) -> None:
        """Count why a job failed, or was not taken."""
        match event:
            case JobSettled(job=job, state=state) if self.on and state in _FAILED:
                reasons = self._reasons.setdefault(self._named(job.task), Reasons())
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
            self._windows.setdefault(self._named(name), Window()).add(at, ends, run_times, waits, self._whole)

    def _named(self, name: str) -> str:
        """What a task is counted as, always the same: whoever comes first is told apart, in every number."""
        if name not in self._told_apart:
            if len(self._told_apart) >= SERIES:
                return OTHER
            self._told_apart.add(name)
        return name

    def complete(self, stats: RuntimeStats, /) -> RuntimeStats:
        """*stats* with the percentiles, the last five minutes, the reasons and the process."""
        if not self.on:
            return stats
        now = self._ports.monotonic()
        whole = self._whole.seen(now)
        return replace(
            stats,
            tasks=self._tasks(stats, now),
            run_time=whole.run_time(),
            queue_wait=whole.queue_wait(),
            recent=whole.recent(),
            failures=together(self._reasons.values()),
            rejections=dict(self._rejections),
            process=self._process.read(),
        )

    def _tasks(self, stats: RuntimeStats, now: float) -> dict[str, TaskStats]:
        nothing = Window()
        tasks: dict[str, TaskStats] = {}
        for name, task in self._bounded(stats.tasks).items():
            seen = self._windows.get(name, nothing).seen(now)
            reasons = self._reasons.get(name)
            failures = {} if reasons is None else reasons.counted()
            tasks[name] = TaskStats.later(partial(_task_stats, task, seen, failures))
        return tasks

    def _bounded(self, tasks: Mapping[str, TaskStats]) -> dict[str, TaskStats]:
        """*tasks* by what they are counted as."""
        by_name: dict[str, list[TaskStats]] = {}
        for name, task in tasks.items():
            by_name.setdefault(self._named(name), []).append(task)
        return {name: _summed(several) for name, several in by_name.items()}


def _task_stats(task: TaskStats, seen: Seen, failures: Mapping[str, Failures]) -> TaskStats:
    """*task* with what was measured of it."""
    return replace(
        task,
        run_time=seen.run_time(),
        queue_wait=seen.queue_wait(),
        recent=seen.recent(),
        failures=failures,
        finished=finished(seen.ends()),
    )


def _of_successes(some: Successes) -> Iterator[_Piece]:
    """First attempts of one task that succeeded, in one piece for each minute."""
    at, over = 0, len(some.ended)
    while at < over:
        end = over
        if minute_of(some.ended[-1]) != minute_of(some.ended[at]):
            end = bisect_left(some.ended, (minute_of(some.ended[at]) + 1) * MINUTE, at)
        since, started, ended = some.since[at:end], some.started[at:end], some.ended[at:end]
        run_times, waits = [*map(sub, ended, started)], [*map(sub, started, since)]
        yield _Piece(some.entry.name, ended[-1], {_COMPLETED: end - at}, run_times, waits)
        at = end


def _of_records(name: str, records: Sequence[Any]) -> _Piece:
    """Records of one task, from one minute."""
    ran = [record for record in records if record[OUTCOME] is not None]
    run_times, waits = [record[RAN] for record in ran], [record[WAITED] for record in ran]
    return _Piece(name, records[-1][AT], Counter(map(_end_of, records)), run_times, waits)


def _minute_of(piece: _Piece) -> int:
    return minute_of(piece.at)


def _by_minute(records: Sequence[Any]) -> Iterable[Sequence[Any]]:
    """*records*, which are in the order of their ends, in one piece for each minute."""
    if not records:
        return ()
    if minute_of(records[0][AT]) == minute_of(records[-1][AT]):
        return (records,)
    return [list(group) for _, group in groupby(records, lambda record: minute_of(record[AT]))]


def _by_task(records: Sequence[Any]) -> dict[str, list[Any]]:
    """*records* by the name of their task, each list in their order."""
    by_task: dict[str, list[Any]] = {}
    for record in records:
        by_task.setdefault(record[ENTRY].name, []).append(record)
    return by_task


def _summed(tasks: Sequence[TaskStats]) -> TaskStats:
    """What was counted of several *tasks*, as of one."""
    if len(tasks) == 1:
        return tasks[0]
    outcomes: Counter[str] = Counter()
    for task in tasks:
        outcomes.update(task.outcomes)
    completed, failed = sum(task.completed for task in tasks), sum(task.failed for task in tasks)
    return TaskStats(
        submitted=sum(task.submitted for task in tasks),
        rejected=sum(task.rejected for task in tasks),
        completed=completed,
        failed=failed,
        cancelled=sum(task.cancelled for task in tasks),
        timed_out=sum(task.timed_out for task in tasks),
        retried=sum(task.retried for task in tasks),
        outcomes=outcomes,
        success_rate=success_rate(completed, failed),
    )


def _end_of(record: Any) -> End:
    return record[STATE], record[OUTCOME], record[LAST] if len(record) > LAST else None


def _error_of(event: JobSettled) -> str:
    """The type of the error, as log lines name it."""
    error = event.error
    if event.outcome is Outcome.EXITED and error is not None:
        error = error.__cause__
    return str(event.reason) if error is None else type(error).__name__


__all__ = ["Metrics", "Trends"]
