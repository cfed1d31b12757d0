"""The metrics of a runtime: their names, and the numbers that stand under them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bgruntime import RuntimeStats
from bgruntime.extend import Spread, TaskStats
from bgruntime.journal import JournalStats

SERIES = 1_000  # label sets of one metric; what comes after those is summed up as `other`
OTHER = "other"
OPEN_STATES = ("retryable", "discarded", "quarantined")

GAUGES = {
    "bgruntime_jobs_running": "Attempts that hold a slot.",
    "bgruntime_jobs_queued": "Jobs that wait for a slot.",
    "bgruntime_jobs_stuck": "Attempts that would not stop.",
    "bgruntime_concurrency_limit": "How many attempts may run at once.",
    "bgruntime_oldest_wait_seconds": "How long the job that waits longest has waited.",
    "bgruntime_event_loop_lag_seconds": "How late the event loop was at most in the last 5 minutes.",
}

Labels = tuple[str, ...]
Values = Mapping[Labels, float]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric, whose name has no ending yet: its numbers by the values of its labels.

    A histogram has `spreads` instead of numbers.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    about: str
    labels: tuple[str, ...] = ()
    values: Values = field(default_factory=dict[Labels, float])
    spreads: Mapping[Labels, Spread] = field(default_factory=dict[Labels, Spread])


class Families:
    """The metrics of one runtime, for whoever writes them down.

    Labels are names of tasks, outcomes, reasons and types of error; of each metric at most 1,000 sets of
    them are told apart.
    """

    def __init__(self) -> None:
        self._known: dict[str, dict[Labels, Labels]] = {}

    def of(self, stats: RuntimeStats | None, journal: JournalStats | None) -> Iterator[Family]:
        """All of them; those of which nothing is known have no numbers."""
        yield from self._counters(stats)
        yield from _histograms(_tasks(stats))
        yield from _gauges(stats)
        yield from _of_journal(journal)

    def _counters(self, stats: RuntimeStats | None) -> Iterator[Family]:
        tasks = _tasks(stats).items()
        yield self._counter(
            "bgruntime_jobs_submitted",
            "Jobs accepted.",
            ("task",),
            {(name,): task.submitted for name, task in tasks},
        )
        yield self._counter(
            "bgruntime_jobs_finished",
            "Jobs that ended, by how their last attempt did.",
            ("task", "outcome"),
            {(name, how): count for name, task in tasks for how, count in task.finished.items()},
        )
        yield self._counter(
            "bgruntime_job_failures",
            "Jobs that failed for good, by the type of the error.",
            ("task", "error"),
            {(name, error): one.count for name, task in tasks for error, one in task.failures.items()},
        )
        yield self._counter(
            "bgruntime_job_retries",
            "Attempts that were followed by another one.",
            (),
            {} if stats is None else {(): stats.retried},
        )
        yield self._counter(
            "bgruntime_jobs_rejected",
            "Submissions that were turned away, by reason.",
            ("reason",),
            {} if stats is None else {(reason,): count for reason, count in stats.rejections.items()},
        )

    def _counter(self, name: str, about: str, labels: tuple[str, ...], values: Values) -> Family:
        return Family(name, "counter", about, labels, self._bounded(name, values))

    def _bounded(self, name: str, values: Values) -> dict[Labels, float]:
        """*values*, those of late labels summed up; who is in stays in, or counters would fall."""
        known = self._known.setdefault(name, {})
        sums: dict[Labels, float] = {}
        for labels, value in values.items():
            if labels not in known:
                known[labels] = labels if len(known) < SERIES else (OTHER,) * len(labels)
            shown = known[labels]
            sums[shown] = sums.get(shown, 0) + value
        return sums


def _tasks(stats: RuntimeStats | None) -> Mapping[str, TaskStats]:
    return stats.tasks if stats is not None else {}


def _histograms(tasks: Mapping[str, TaskStats]) -> Iterator[Family]:
    wanted: list[tuple[str, str, Callable[[TaskStats], Spread]]] = [
        ("bgruntime_job_duration_seconds", "How long attempts ran.", lambda task: task.run_time),
        ("bgruntime_job_queue_wait_seconds", "How long attempts waited.", lambda task: task.queue_wait),
    ]
    for metric, about, spread_of in wanted:
        spreads: dict[Labels, Spread] = {(name,): spread_of(task) for name, task in tasks.items()}
        measured = {labels: spread for labels, spread in spreads.items() if spread.up_to}
        yield Family(metric, "histogram", about, ("task",), spreads=measured)


def _gauges(stats: RuntimeStats | None) -> Iterator[Family]:
    values = {} if stats is None else _gauge_values(stats)
    for name, about in GAUGES.items():
        yield Family(name, "gauge", about, (), {(): values[name]} if name in values else {})


def _gauge_values(stats: RuntimeStats) -> dict[str, float]:
    values = {
        "bgruntime_jobs_running": stats.running,
        "bgruntime_jobs_queued": stats.waiting,
        "bgruntime_jobs_stuck": stats.stuck,
        "bgruntime_concurrency_limit": stats.concurrency,
        "bgruntime_oldest_wait_seconds": stats.oldest_wait,
    }
    return (
        values if stats.loop is None else values | {"bgruntime_event_loop_lag_seconds": stats.loop.recent.max}
    )


def _of_journal(journal: JournalStats | None) -> Iterator[Family]:
    failed: dict[Labels, float] = {}
    errors: dict[Labels, float] = {}
    if journal is not None:
        failed = {(): sum(journal.failures.get(state, 0) for state in OPEN_STATES)}
        errors = {(): journal.errors}
    yield Family("bgruntime_journal_failed_jobs", "gauge", "Open failures in the journal.", (), failed)
    yield Family("bgruntime_journal_write_errors", "counter", "Errors of the journal's file.", (), errors)


__all__ = ["Families", "Family", "Labels"]
