"""Log lines for what went wrong: one event a line, dotted names, never an argument or a result."""

from __future__ import annotations

import sys
from typing import Any

import structlog

from bgruntime.extend import Event, JobSettled, JobUncompleted, RetryScheduled

_FAILED_STATES = frozenset({"discarded", "quarantined"})


class JobLog:
    """Writes a warning for each retry and an error for each final failure, through structlog.

    The fields are job_id, task, attempt, outcome, reason, error_type, and delay_s for a retry. The
    only file that knows how a line looks.
    """

    listens_to = (RetryScheduled, JobUncompleted)

    def __init__(self, logger: Any = None) -> None:
        self._log = _logger() if logger is None else logger

    def on_event(self, event: Event, /) -> None:
        """Write the line of *event*, if it has one."""
        match event:
            case RetryScheduled(job=job, outcome=outcome) if outcome != "snoozed":
                self._log.warning(
                    "job.retry_scheduled",
                    **_about(job, event.attempt),
                    outcome=str(outcome),
                    error_type=_type_name(event.error),
                    delay_s=round(event.delay, 3),
                )
            case JobSettled(job=job, state=state) if state in _FAILED_STATES:
                self._log.error(
                    "job.failed",
                    **_about(job, job.attempt),
                    outcome=None if event.outcome is None else str(event.outcome),
                    reason=event.reason,
                    error_type=_type_name(event.error),
                    queue_wait_s=round(event.queue_wait, 6),
                    duration_s=round(event.duration, 6),
                )
            case _:
                pass


def complain(about: str, error: BaseException | None) -> None:
    """Write that something outside the kernel misbehaved. Never raises: a log sink is outside too."""
    try:
        _logger().warning("runtime.fault", about=about, error_type=_type_name(error))
    except Exception:
        return


class _Stderr:
    """Where lines go in an application that has not configured structlog: not among its output."""

    def msg(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    debug = info = warning = error = critical = log = msg


def _logger() -> Any:
    if structlog.is_configured():
        return structlog.get_logger("bgruntime")
    return structlog.wrap_logger(_Stderr())


def _about(job: Any, attempt: int) -> dict[str, Any]:
    return {"job_id": job.id, "task": job.task, "attempt": attempt}


def _type_name(error: BaseException | None) -> str | None:
    return None if error is None else type(error).__name__


__all__ = ["JobLog", "complain"]
