"""Snapshots and reports: frozen, plain, made when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ShutdownReport:
    """What became of the jobs that were there when the stop began. Tuples of job ids.

    `completed` ended by themselves during the stop, `cancelled` were interrupted, `requeued` are kept
    and will run again, `stuck` would not stop. `lost` were accepted, never ended, and are neither
    requeued nor in the journal: the report exists to show that it is empty.
    """

    completed: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()
    requeued: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    duration: float = 0.0

    def __str__(self) -> str:
        names = ("completed", "cancelled", "requeued", "stuck", "lost")
        counts = ", ".join(f"{len(getattr(self, name))} {name}" for name in names)
        return f"stopped in {self.duration:.2f} s: {counts}"


@dataclass(frozen=True, slots=True)
class JobTimes:
    """When a job came to wait, and when its last attempt started and ended, as far as it has.

    Seconds since the epoch. `waiting_since` is the time of its acceptance, or the time it was due.
    """

    waiting_since: float
    started_at: float | None
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class TaskStats:
    """What was counted of one task since the runtime was entered."""

    submitted: int
    rejected: int
    completed: int
    failed: int
    cancelled: int
    timed_out: int
    retried: int
    outcomes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class QueueStats:
    """One queue now. `oldest_wait` is in seconds, 0 when nothing waits."""

    waiting: int
    scheduled: int
    retryable: int
    running: int
    concurrency: int | None
    size: int
    paused: bool
    oldest_wait: float


@dataclass(frozen=True, slots=True)
class RuntimeStats:
    """One runtime now, and what it has counted since it was entered."""

    phase: str
    concurrency: int
    running: int
    waiting: int
    scheduled: int
    retryable: int
    stuck: int
    threads: int
    threads_in_use: int
    submitted: int
    completed: int
    failed: int
    cancelled: int
    timed_out: int
    retried: int
    rejected: int
    queues: Mapping[str, QueueStats]
    tasks: Mapping[str, TaskStats]
    faults: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that health looks at."""

    name: str
    status: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the runtime is well: `status` is pass, warn or fail; `ready` whether it takes jobs."""

    status: str
    live: bool
    ready: bool
    reasons: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
