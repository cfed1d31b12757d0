"""What the status pages show: of a job, of failures, of the numbers. Times are seconds since the epoch."""

from __future__ import annotations

import inspect
import math
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from bgruntime import Health, Job, RuntimeStats
from bgruntime.extend import MASK, arguments_of, definition_of, finite, secrets_of, times_of
from bgruntime.journal import Failure

from ._problems import json_of

Pass = Literal["pass", "warn", "fail"]
State = Literal[
    "scheduled", "available", "running", "retryable", "completed", "cancelled", "discarded", "quarantined"
]
WORD = re.compile(r"[a-z_]+")
OVER = frozenset({"completed", "cancelled", "discarded", "quarantined"})


class Problem(BaseModel):
    """What went wrong, as RFC 9457 tells it."""

    type: str
    title: str
    status: int
    detail: str


class Liveness(BaseModel):
    """Whether to go on with this process."""

    status: Pass


class CheckShown(BaseModel):
    """One thing that health looks at."""

    name: str
    status: Pass


class ReasonedCheck(CheckShown):
    """The same, and why."""

    reason: str


class HealthShown(BaseModel):
    """Whether the runtime is well."""

    status: Pass
    ready: bool
    checks: list[CheckShown]


class HealthDetails(BaseModel):
    """The same, with the reasons."""

    status: Pass
    ready: bool
    reasons: list[str]
    checks: list[ReasonedCheck]


class Numbers(BaseModel):
    """What was counted, and where things stand; names and numbers only."""

    model_config = ConfigDict(extra="allow")

    submitted: int
    completed: int
    failed: int


class RuntimeNumbers(Numbers):
    """The numbers of the whole runtime."""

    running: int
    waiting: int
    queues: dict[str, dict[str, Any]]
    tasks: dict[str, Numbers]


class JobShown(BaseModel):
    """Where a job stands. `attempt` counts from 1, 0 before the first."""

    id: str
    task: str
    state: State
    attempt: int
    created_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None


class AttemptShown(BaseModel):
    """How one attempt failed."""

    attempt: int
    outcome: str
    error: str
    message: str
    at: float


class JobDetails(JobShown):
    """The same, with what must not be shown to everybody."""

    reason: str | None = None
    tags: list[str] = []
    durable: bool = False
    progress: float | None = None
    note: str | None = None
    error: str | None = None
    message: str | None = None
    traceback: str | None = None
    attempts: list[AttemptShown] = []
    arguments: dict[str, Any] | None = None
    obstacle: str | None = None


class JobPage(BaseModel):
    """Some jobs, the newest first. `next` is the offset of the next page."""

    items: list[JobDetails]
    total: int
    next: int | None


class GroupShown(BaseModel):
    """Failures with one cause."""

    task: str
    error: str
    place: str
    count: int
    first_seen: float
    last_seen: float


def health_shown(health: Health, *, ready: bool) -> dict[str, Any]:
    """*health* without its reasons, which may name files and hosts."""
    checks = [{"name": check.name, "status": check.status} for check in health.checks]
    return {"status": health.status, "ready": ready, "checks": checks}


def health_details(health: Health, *, ready: bool) -> dict[str, Any]:
    """*health* as it is."""
    checks = [{"name": check.name, "status": check.status, "reason": check.reason} for check in health.checks]
    return {"status": health.status, "ready": ready, "reasons": list(health.reasons), "checks": checks}


def numbers_of(stats: RuntimeStats) -> Iterator[str]:
    """The numbers among *stats*, and the names they belong to; no texts. JSON, in a piece for each task."""
    shown: dict[str, Any] = _numbers(replace(stats, tasks={}))
    shown["faults"] = sum(stats.faults.values())
    del shown["tasks"]
    yield json_of(shown)[:-1] + ',"tasks":{'
    comma = ""
    for name, task in stats.tasks.items():
        yield f"{comma}{json_of(name)}:{json_of(_numbers(task))}"
        comma = ","
    yield "}}"


def _numbers(value: Any) -> Any:
    """*value* with only numbers left in it: what is a text gives way to nothing."""
    if is_dataclass(value):
        names = [field.name for field in fields(value) if field.name != "up_to"]  # buckets are Prometheus's
        return _kept({name: getattr(value, name) for name in names})
    if isinstance(value, Mapping):
        return _kept(value)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) or value is None else ...


def _kept(items: Mapping[Any, Any]) -> dict[str, Any]:
    shown = {str(name): _numbers(item) for name, item in items.items()}
    return {name: item for name, item in shown.items() if item is not ...}


def job_shown(job: Job[Any]) -> dict[str, Any]:
    """*job* as everybody who knows its id may see it."""
    times = times_of(job)
    return {
        "id": job.id,
        "task": job.task,
        "state": str(job.state),
        "attempt": job.attempt,
        "created_at": times.waiting_since,
        "started_at": times.started_at,
        "ended_at": times.ended_at,
    }


def job_details(job: Job[Any], *, arguments: bool) -> dict[str, Any]:
    """*job* with its reason and its error, and with its arguments where they may be seen."""
    fraction, note = job.progress or (None, None)
    shown = {
        **job_shown(job),
        "reason": _reason_of(job),
        "tags": list(job.tags),
        "durable": definition_of(job).options.durable,
        "progress": fraction,
        "note": note,
    }
    if arguments and not job.done():
        shown["arguments"] = _arguments(job)
    return shown


def _reason_of(job: Job[Any]) -> str | None:
    """Why, as far as it can be told without the secrets of a job that are no longer known."""
    reason = None if job.reason is None else str(job.reason)
    if reason is None or WORD.fullmatch(reason):
        return reason
    return None if job.done() else secrets_of(job).scrub(reason)


def _arguments(job: Job[Any]) -> dict[str, Any]:
    """The arguments of *job* by parameter, as text; those that are redacted are masked."""
    definition = definition_of(job)
    args, kwargs = arguments_of(job)
    try:
        given: Mapping[str, Any] = inspect.signature(definition.function).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        given = {str(place): value for place, value in enumerate(args)} | kwargs
    secrets = secrets_of(job)
    return {
        name: MASK if name in definition.options.redact else secrets.scrub(reprlib.repr(value))
        for name, value in given.items()
    }


def failure_shown(failure: Failure) -> dict[str, Any]:
    """A job in the journal as everybody who knows its id may see it."""
    return {
        "id": failure.id,
        "task": failure.task,
        "state": failure.state,
        "attempt": failure.attempt,
        "created_at": failure.created_at,
        "ended_at": failure.failed_at if failure.state in OVER else None,
    }


def failure_details(failure: Failure, *, arguments: bool) -> dict[str, Any]:
    """A job in the journal with its error, and with its arguments where they may be seen."""
    shown: dict[str, Any] = {
        **failure_shown(failure),
        "reason": failure.reason or None,
        "tags": list(failure.tags),
        "durable": failure.durable,
        "error": failure.error or None,
        "message": failure.message or None,
        "traceback": failure.traceback or None,
        "attempts": [
            {
                "attempt": one.attempt,
                "outcome": one.outcome,
                "error": one.error,
                "message": one.message,
                "at": one.at,
            }
            for one in failure.attempts
        ],
        "obstacle": failure.obstacle,
    }
    if arguments:
        kept: Any = finite(failure.args)
        shown["arguments"] = kept if isinstance(kept, dict) else {"args": kept}
    return shown
