"""The numbers of a runtime: frozen, plain, made when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self


class Measured(Protocol):
    """What a `Spread` is read from; `extend.Sketch` is one."""

    size: int
    total: float
    greatest: float

    @property
    def mean(self) -> float: ...
    def quantiles(self, *shares: float) -> tuple[float, ...]: ...
    def at_most(self, bounds: Iterable[float], /) -> tuple[int, ...]: ...


class Later:
    """Something frozen whose fields may be worked out when the first of them is read.

    A snapshot of a thousand tasks has four spreads for each, and few who take one read them all.
    """

    __slots__ = ("_make",)

    @classmethod
    def later(cls, make: Callable[[], Self]) -> Self:
        """What *make* gives, which is called when a field is first read, in whichever thread that is.

        It must give the same whenever that is, and may be called more than once.
        """
        made = object.__new__(cls)
        object.__setattr__(made, "_make", make)
        return made

    if not TYPE_CHECKING:  # pragma: no branch (to a type checker what is not there is no field)

        def __getattr__(self, name: str) -> Any:
            if name not in type(self).__slots__:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            make = object.__getattribute__(self, "_make")
            if make is not None:  # else another thread came first
                made = make()
                for field_name in type(self).__slots__:
                    object.__setattr__(self, field_name, getattr(made, field_name))
                object.__setattr__(self, "_make", None)
            return object.__getattribute__(self, name)


@dataclass(frozen=True, slots=True)
class Spread(Later):
    """How `count` durations are spread, in seconds; all 0 when there are none.

    Percentiles are within 1 % of the true ones, the rest is exact. `up_to` says how many took at
    most so many seconds, for each bound that Prometheus counts by.
    """

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0
    total: float = 0.0
    up_to: Mapping[float, int] = field(default_factory=dict[float, int], repr=False)

    @classmethod
    def of(cls, sketch: Measured, bounds: tuple[float, ...] = ()) -> Spread:
        """What *sketch* has measured."""
        p50, p95, p99 = sketch.quantiles(0.50, 0.95, 0.99)
        up_to = dict(zip(bounds, sketch.at_most(bounds), strict=True))
        return cls(sketch.size, sketch.mean, p50, p95, p99, sketch.greatest, sketch.total, up_to)


@dataclass(frozen=True, slots=True)
class Recent:
    """What was counted in the last 5 minutes: in the minute that runs and the five before it.

    `success_rate` is from 0 to 1, the share of completed among completed and failed, None without any.
    """

    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    timed_out: int = 0
    retried: int = 0
    success_rate: float | None = None
    run_time: Spread = Spread()
    queue_wait: Spread = Spread()


@dataclass(frozen=True, slots=True)
class Failures:
    """How many jobs failed with one type of `error`, and what the newest of them said, without secrets.

    `at` is when, in seconds since the epoch.
    """

    error: str
    count: int
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """The process as the system sees it; None where this system does not say.

    `cpu_seconds` is used since its start, user and system; `cpu_share` is that of one core since the
    last time somebody asked, 1.0 for all of it.
    """

    cpu_seconds: float
    cpu_share: float
    rss_bytes: int | None
    open_files: int | None
    threads: int


@dataclass(frozen=True, slots=True)
class Block:
    """One time that something held the event loop: for how long, until when, whose code, and where.

    `at` is in seconds since the epoch; `job_id` and `task` are None when no job did it.
    """

    duration: float
    at: float
    job_id: str | None
    task: str | None
    place: str


@dataclass(frozen=True, slots=True)
class LoopStats:
    """How late the event loop came to what was due: since the start and in the last 5 minutes.

    `blocks` counts the times it was held for longer than the limit, 100 ms unless set otherwise.
    """

    lag: Spread = Spread()
    recent: Spread = Spread()
    blocks: int = 0
    last_block: Block | None = None


def success_rate(completed: int, failed: int) -> float | None:
    """The share of completed jobs among those that completed or failed; None without any."""
    return completed / (completed + failed) if completed + failed else None


@dataclass(frozen=True, slots=True)
class TaskStats(Later):
    """What was counted of one task since the runtime was entered.

    `run_time` is of attempts, `queue_wait` what they waited for their slot; `failures` are by type of
    error, those of final failures. `outcomes` counts attempts, `finished` jobs by how their last attempt
    ended. `success_rate` is from 0 to 1, None before the first end.
    """

    submitted: int
    rejected: int
    completed: int
    failed: int
    cancelled: int
    timed_out: int
    retried: int
    outcomes: Mapping[str, int]
    success_rate: float | None = None
    run_time: Spread = Spread()
    queue_wait: Spread = Spread()
    recent: Recent = Recent()
    failures: Mapping[str, Failures] = field(default_factory=dict[str, Failures])
    finished: Mapping[str, int] = field(default_factory=dict[str, int])


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
    """One runtime now, and what it has counted since it was entered.

    `oldest_wait` is in seconds, that of the job that has waited longest in any queue. `rejections` are
    by reason. What stands behind `faults` was measured by observers, and is empty without them.
    """

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
    oldest_wait: float = 0.0
    success_rate: float | None = None
    faults: Mapping[str, int] = field(default_factory=dict[str, int])
    run_time: Spread = Spread()
    queue_wait: Spread = Spread()
    recent: Recent = Recent()
    failures: Mapping[str, Failures] = field(default_factory=dict[str, Failures])
    rejections: Mapping[str, int] = field(default_factory=dict[str, int])
    process: ProcessStats | None = None
    loop: LoopStats | None = None
