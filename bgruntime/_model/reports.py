"""Reports: frozen, plain, made when asked for."""

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
class Check:
    """One thing that health looks at: its `status` is pass, warn or fail, and `reason` says why."""

    name: str
    status: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the runtime is well: `status` is pass, warn or fail; `ready` whether it takes jobs.

    `live` is whether its loop turns. Every check that does not pass gives one of the `reasons`.
    `totals` are the numbers an operator looks for first.
    """

    status: str
    live: bool
    ready: bool
    reasons: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    totals: Mapping[str, float] = field(default_factory=dict[str, float])
