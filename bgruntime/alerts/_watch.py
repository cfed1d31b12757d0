"""What the rules look at: the ends of jobs by task, and what else is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import sub
from typing import Any

from bgruntime import RuntimeStats
from bgruntime.extend import Batch, JobState, Successes

from ._rules import AlertRule
from ._window import Window

TASKS = 1_000  # that are told apart
OTHER = "other"
BLOCKS = 100  # times the loop was held that are remembered

_ENTRY, _STATE, _OUTCOME, _RAN, _AT = 0, 2, 3, 6, 7  # where they stand in a Record
_FAILED = frozenset({JobState.DISCARDED, JobState.QUARANTINED})


@dataclass(slots=True)
class Subject:
    """One task, or with the name None all of them."""

    name: str | None
    windows: dict[float, Window]
    failed_in_a_row: int = 0
    worst_row: int = 0  # since the last look: a row that ended in between counts, too
    error: str = ""
    message: str = ""


@dataclass(slots=True)
class Reading:
    """What one rule finds about one subject: the value, from how many jobs, and whether that is enough."""

    value: float
    jobs: int = 0
    enough: bool = True
    place: str = ""


@dataclass(slots=True)
class Watch:
    """Counts by task what the rules need, and reads it."""

    rules: Sequence[AlertRule]
    subjects: dict[str | None, Subject] = field(default_factory=dict[str | None, Subject])
    changed: set[str | None] = field(default_factory=set[str | None])
    journal_problem: str = ""
    _blocks: deque[tuple[float, float, str]] = field(default_factory=lambda: deque(maxlen=BLOCKS))

    def count(self, records: Sequence[Any]) -> None:
        """Count attempts that have ended, in the order of their ends."""
        if isinstance(records, Batch) and not records.others:
            for some in records.successes:
                self._count_successes(self.subject(some.entry.name), some)
                self._count_successes(self.subject(None), some)
            return
        by_task: dict[str, list[Any]] = {}
        for record in records:
            by_task.setdefault(record[_ENTRY].name, []).append(record)
        for name, of_task in by_task.items():
            self._count(self.subject(name), of_task)
        if records:
            self._count(self.subject(None), records)

    def failed(self, name: str, error: str, message: str) -> None:
        """Remember what the newest failure of a task said."""
        for subject in (self.subject(name), self.subject(None)):
            subject.error, subject.message = error, message

    def blocked(self, at: float, seconds: float, place: str) -> None:
        """Remember that the loop was held."""
        self._blocks.append((at, seconds, place))

    def subject(self, name: str | None) -> Subject:
        """What is counted of the task of that *name*, or of all."""
        if name not in self.subjects and name is not None and len(self.subjects) > TASKS:
            name = OTHER
        subject = self.subjects.get(name)
        if subject is None:
            subject = self.subjects[name] = Subject(name, self._windows_for(name))
        return subject

    def read(self, rule: AlertRule, name: str | None, now: float, stats: RuntimeStats) -> Reading:
        """The value of *rule* for the task of that *name*, or for the whole runtime."""
        match rule.metric:
            case "failure_rate":
                window = self._window(rule, name, now)
                return Reading(window.failure_rate, window.ended, window.ended >= rule.min_jobs)
            case "p95":
                value, size = self._window(rule, name, now).p95()
                return Reading(value, size, size >= rule.min_jobs)
            case "consecutive_failures":
                in_a_row = self.subject(name).worst_row
                return Reading(in_a_row, in_a_row)
            case "queue_age":
                return Reading(stats.oldest_wait)
            case "stuck":
                return Reading(stats.stuck)
            case "loop_lag":
                return self._worst_block(now - rule.window)
            case "journal":
                return Reading(float(bool(self.journal_problem)), place=self.journal_problem)

    def looked(self) -> None:
        """Begin anew to note what has changed since the last look."""
        for name in self.changed:
            subject = self.subject(name)
            subject.worst_row = subject.failed_in_a_row
        self.changed.clear()

    def _windows_for(self, name: str | None) -> dict[float, Window]:
        windows: dict[float, Window] = {}
        for rule in self.rules:
            if rule.metric in ("failure_rate", "p95") and rule.task in (None, name):
                window = windows.setdefault(rule.window, Window(rule.window))
                window.with_run_time |= rule.metric == "p95"
        return windows

    def _window(self, rule: AlertRule, name: str | None, now: float) -> Window:
        window = self.subject(name).windows[rule.window]
        window.forget(now)
        return window

    def _count_successes(self, subject: Subject, some: Successes) -> None:
        self.changed.add(subject.name)
        subject.failed_in_a_row = 0
        for window in subject.windows.values():
            if window.slice_of(some.ended[0]) == window.slice_of(some.ended[-1]):
                run_times = [*map(sub, some.ended, some.started)] if window.with_run_time else ()
                window.add(some.ended[-1], len(some.ended), 0, run_times)
            else:
                _add(window, list(some.records()))

    def _count(self, subject: Subject, records: Sequence[Any]) -> None:
        self.changed.add(subject.name)
        for record in records:
            if record[_STATE] is JobState.COMPLETED:
                subject.failed_in_a_row = 0
            elif record[_STATE] in _FAILED:
                subject.failed_in_a_row += 1
                subject.worst_row = max(subject.worst_row, subject.failed_in_a_row)
        for window in subject.windows.values():
            _add(window, records)

    def _worst_block(self, since: float) -> Reading:
        inside = [(seconds, place) for at, seconds, place in self._blocks if at >= since]
        seconds, place = max(inside, default=(0.0, ""))
        return Reading(seconds, place=place)


def _add(window: Window, records: Sequence[Any]) -> None:
    """Count *records*, which are in the order of their ends, in *window*."""
    for _, group in groupby(records, lambda record: window.slice_of(record[_AT])):
        of_slice = list(group)
        completed = sum(record[_STATE] is JobState.COMPLETED for record in of_slice)
        failed = sum(record[_STATE] in _FAILED for record in of_slice)
        ran = [record[_RAN] for record in of_slice if record[_OUTCOME] is not None]
        window.add(of_slice[-1][_AT], completed, failed, ran if window.with_run_time else ())


__all__ = ["Reading", "Subject", "Watch"]
