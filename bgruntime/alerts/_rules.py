"""When something is wrong: rules, and what a notice says."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Metric = Literal["failure_rate", "consecutive_failures", "p95", "queue_age", "stuck", "loop_lag", "journal"]
State = Literal["raised", "reminder", "resolved", "test", "digest"]

PER_TASK = frozenset({"failure_rate", "consecutive_failures", "p95"})
COUNTED = frozenset({"consecutive_failures", "stuck", "journal"})  # they hold from the threshold on
SAMPLED = frozenset({"failure_rate", "p95"})  # they need `min_jobs`
RECOVERED = 0.8  # of the threshold: a value that swings about it raises one alert, not many

_WORDS = {
    "failure_rate": "failure rate",
    "consecutive_failures": "failures in a row",
    "p95": "p95 of the run time",
    "queue_age": "oldest waiting job",
    "stuck": "stuck attempts",
    "loop_lag": "event loop held",
    "journal": "journal problems",
}


@dataclass(frozen=True, slots=True)
class AlertRule:
    """What is watched, and from where on somebody is told.

    A rule on a rate or on seconds holds *above* its threshold, one on a count from it on. It is over
    when the value is at most 80 % of the threshold, or below the count.

    Args:
        name: how the alert is called.
        metric: "failure_rate" (0 to 1, of the jobs that ended in the window), "consecutive_failures" of one
            task whatever the window, "p95" of the run time in seconds, "queue_age" of the oldest waiting job
            in seconds, "stuck" attempts, "loop_lag" in seconds, "journal" problems.
        threshold: the limit, in the unit of the metric.
        window: seconds that are looked back.
        min_jobs: how many jobs must have ended in the window for a rate or a percentile to mean anything.
        task: the name of one task; None watches each task and the total.
        cooldown: seconds until who was told is reminded while it goes on.

    Raises:
        ValueError: a value is out of its range, or the metric is not known.
    """

    name: str
    metric: Metric
    threshold: float
    window: float = 300.0
    min_jobs: int = 20
    task: str | None = None
    cooldown: float = 900.0

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise ValueError(f"name is a word or two, got {self.name!r}")
        if self.metric not in get_args(Metric):
            raise ValueError(f"metric is one of {', '.join(get_args(Metric))}, got {self.metric!r}")
        for field in ("threshold", "window", "cooldown"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{field} is a finite number, got {value!r}")
            if value <= 0 and (field != "threshold" or self.metric in COUNTED or value < 0):
                raise ValueError(f"{field} must be more than 0, got {value!r}")
        if isinstance(self.min_jobs, bool) or not isinstance(self.min_jobs, int) or self.min_jobs < 1:
            raise ValueError(f"min_jobs is a whole number of at least 1, got {self.min_jobs!r}")
        if self.metric == "failure_rate" and self.threshold >= 1:
            raise ValueError(f"a failure rate is from 0 to 1: {self.threshold!r} is never exceeded")
        if self.task is not None and self.metric not in PER_TASK:
            raise ValueError(f"{self.metric} is measured of the whole runtime: leave out task={self.task!r}")

    def holds(self, value: float) -> bool:
        """Whether *value* is reason to tell somebody."""
        return value >= self.threshold if self.metric in COUNTED else value > self.threshold

    def is_over(self, value: float) -> bool:
        """Whether *value* says that it is over, once it was raised."""
        return value < self.threshold if self.metric in COUNTED else value <= self.threshold * RECOVERED


DEFAULT_RULES = (
    AlertRule("failure rate", "failure_rate", threshold=0.10),
    AlertRule("failing in a row", "consecutive_failures", threshold=3),
)


@dataclass(frozen=True, slots=True)
class Alert:
    """One notice: which rule, about what, what was measured.

    `state` is raised, reminder, resolved, test or digest; `task` is None for the whole runtime. `since` and
    `at` are seconds since the epoch. `jobs` is how many jobs the value was taken from. `error` and
    `message` are of the newest failure, without secrets. `place` is where the loop was held.
    """

    rule: str
    metric: str
    state: State
    task: str | None
    value: float
    threshold: float
    window: float
    since: float
    at: float
    jobs: int = 0
    error: str = ""
    message: str = ""
    place: str = ""

    @property
    def title(self) -> str:
        """One line: `[raised] failure rate of shop:pay is 35 % (limit 10 %)`."""
        if self.state == "digest":
            return f"[digest] {self.value:g} open failures"
        what = _WORDS.get(self.metric, self.metric)
        about = what if self.task is None else f"{what} of {self.task}"
        return f"[{self.state}] {about}: {self._shown(self.value)} (limit {self._shown(self.threshold)})"

    @property
    def text(self) -> str:
        """A few lines for a person: the rule, how long it has gone on, the newest failure."""
        if self.state == "digest":
            return self.message
        lines = [f"rule: {self.rule}"]
        if self.jobs:
            lines.append(f"jobs: {self.jobs} in the last {self.window:g} s")
        if self.at > self.since:
            lines.append(f"since: {self.at - self.since:.0f} s")
        if self.error:
            lines.append(f"newest failure: {self.error}: {self.message}".rstrip(": "))
        if self.place:
            lines.append(f"at: {self.place}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Its fields, and `title` and `text`, for JSON."""
        return asdict(self) | {"title": self.title, "text": self.text}

    def _shown(self, value: float) -> str:
        if self.metric == "failure_rate":
            return f"{value:.0%}"
        return f"{value:g}" if self.metric in COUNTED else f"{value:.3g} s"


__all__ = ["COUNTED", "DEFAULT_RULES", "PER_TASK", "SAMPLED", "Alert", "AlertRule", "State"]
