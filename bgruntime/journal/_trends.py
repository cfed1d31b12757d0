"""Hour by hour, what became of jobs and how long they took: over restarts, and of all processes together."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bgruntime.extend import Sketch, Spread, success_rate

HOUR = 3600  # seconds

READ = "SELECT counts, run_time, queue_wait FROM trend WHERE hour = ? AND task = ?"
WRITE = "INSERT OR REPLACE INTO trend(hour, task, counts, run_time, queue_wait) VALUES(?, ?, ?, ?, ?)"
FIND = """
SELECT hour, task, counts, run_time, queue_wait FROM trend
WHERE hour >= ? AND (?2 IS NULL OR task = ?2) ORDER BY hour, task"""
FORGET = "DELETE FROM trend WHERE hour < ?"


@dataclass(slots=True)
class Hour:
    """What one process has counted of one task in one hour, to be added to what is there.

    `hour` is its number since the epoch; `counts` are attempts by the state they led to, "timed_out" those
    that did.
    """

    hour: int
    task: str
    counts: Counter[str]
    run_time: Sketch
    queue_wait: Sketch


@dataclass(frozen=True, slots=True)
class Trend:
    """One task in one hour, which began at `at`, in seconds since the epoch."""

    at: float
    task: str
    completed: int
    failed: int
    cancelled: int
    retried: int
    timed_out: int
    success_rate: float | None
    run_time: Spread
    queue_wait: Spread


def add(connection: sqlite3.Connection, hours: Sequence[Hour], forget_before: int) -> None:
    """Add *hours* to what is there, and forget the old ones."""
    for one in hours:
        row = connection.execute(READ, (one.hour, one.task)).fetchone()
        counts, run_time, queue_wait = Counter(one.counts), one.run_time, one.queue_wait
        if row is not None:
            counts.update(json.loads(row[0]))
            run_time, queue_wait = _merged(row[1], run_time), _merged(row[2], queue_wait)
        values = (one.hour, one.task, json.dumps(counts), run_time.to_bytes(), queue_wait.to_bytes())
        connection.execute(WRITE, values)
    connection.execute(FORGET, (forget_before,))


def find(connection: sqlite3.Connection, since_hour: int, task: str | None) -> list[Trend]:
    """The hours from then on, the oldest first."""
    return [_trend(*row) for row in connection.execute(FIND, (since_hour, task))]


def _merged(there: bytes, more: Sketch) -> Sketch:
    whole = Sketch.from_bytes(there)
    whole.merge(more)
    return whole


def _trend(hour: int, task: str, counts: str, run_time: bytes, queue_wait: bytes) -> Trend:
    found: Counter[str] = Counter(json.loads(counts))
    completed, failed = found["completed"], found["discarded"] + found["quarantined"]
    return Trend(
        at=hour * HOUR,
        task=task,
        completed=completed,
        failed=failed,
        cancelled=found["cancelled"],
        retried=found["retryable"],
        timed_out=found["timed_out"],
        success_rate=success_rate(completed, failed),
        run_time=Spread.of(Sketch.from_bytes(run_time)),
        queue_wait=Spread.of(Sketch.from_bytes(queue_wait)),
    )


__all__ = ["HOUR", "Hour", "Trend", "add", "find"]
