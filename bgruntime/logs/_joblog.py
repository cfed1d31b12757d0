"""What is written of jobs: one event a line, dotted names, never an argument or a result."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import structlog

from bgruntime import Job
from bgruntime.extend import (
    AttemptAbandoned,
    AttemptStarted,
    Event,
    JobQuarantined,
    JobSettled,
    JobState,
    JobUncompleted,
    JournalDegraded,
    JournalRecovered,
    LoopBlocked,
    RedriveExhausted,
    RetryScheduled,
    trace_of,
)

from ._lines import Console, stamp
from ._traces import place_of, written

WARNINGS = (
    RetryScheduled,
    JobUncompleted,
    AttemptAbandoned,
    JobQuarantined,
    RedriveExhausted,
    JournalDegraded,
    JournalRecovered,
    LoopBlocked,
)
DETAILS = (AttemptStarted, JobSettled)

TRACE_ID = slice(3, 35)  # where it stands in a traceparent
_FAILED = frozenset({JobState.DISCARDED, JobState.QUARANTINED})

_level: int | None = None


def set_level(level: int | None) -> None:
    """From which level on a `JobLog` that is not told otherwise writes; None where nobody said."""
    global _level
    _level = level


class JobLog:
    """Writes what happens to jobs through structlog: a retry at WARNING, a final failure at ERROR.

    With *level* DEBUG the starts and the ends that are no failures, too. The fields are job_id, task,
    attempt, queue_wait_s, duration_s, outcome, reason, error_type, error (what it said, without
    secrets), delay_s for a retry, trace_id where somebody traces; for a failure also place, the
    application's own line that raised, and traceback (without local variables) where asked for.

    Args:
        logger: where to write; the application's structlog, or stderr where it has none.
        level: a level of `logging`; that of `configure`, else WARNING.
        tracebacks: whether failures have theirs; by default with `configure` only.
    """

    def __init__(
        self, logger: Any = None, *, level: int | None = None, tracebacks: bool | None = None
    ) -> None:
        self._log = logger_for("bgruntime") if logger is None else logger
        self._tracebacks = _level is not None if tracebacks is None else tracebacks
        wanted = _level if level is None else level
        self._detailed = wanted is not None and wanted <= logging.DEBUG
        self.listens_to: tuple[type[Event], ...] = (*WARNINGS, *(DETAILS if self._detailed else ()))

    def on_event(self, event: Event, /) -> None:
        """Write the line of *event*, if it has one."""
        if isinstance(event, JobSettled):
            self._settled(event)
        elif isinstance(event, RetryScheduled) and event.outcome == "snoozed":
            if self._detailed:
                _snoozed(self._log, event)
        elif (write := _WRITERS.get(type(event))) is not None:
            write(self._log, event)

    def _settled(self, event: JobSettled) -> None:
        ended: dict[str, Any] = {
            **_about(event.job, event.job.attempt),
            "outcome": None if event.outcome is None else str(event.outcome),
            "reason": event.reason,
            "queue_wait_s": _seconds(event.queue_wait),
            "duration_s": _seconds(event.duration),
        }
        if event.state in _FAILED:
            self._log.error("job.failed", **ended, **_error(event), **self._trace(event))
        elif not self._detailed:
            return
        elif event.state is JobState.COMPLETED:
            self._log.debug("job.completed", **ended)
        elif event.state is JobState.CANCELLED:
            self._log.debug("job.cancelled", **ended)

    def _trace(self, event: JobSettled) -> dict[str, Any]:
        if event.error is None or not (place := place_of(event.error)):
            return {}
        if not self._tracebacks:
            return {"place": place}
        return {"place": place, "traceback": written(event.error, event.scrub)}


def complain(about: str, error: BaseException | None) -> None:
    """Write that something outside the kernel misbehaved. Never raises: a log sink is outside too."""
    try:
        log = logger_for("bgruntime")
        if error is None:
            log.warning("runtime.fault", about=about)
        else:
            log.warning("runtime.fault", about=about, error_type=type(error).__name__)
    except BaseException:
        return


def logger_for(name: str) -> Any:
    """The application's structlog; where it has not configured one, lines on stderr from WARNING on."""
    if structlog.is_configured():
        return structlog.get_logger(name)
    return structlog.wrap_logger(
        _Stderr(),
        processors=[structlog.stdlib.add_log_level, stamp, Console(colors=False)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )


class _Stderr:
    """Where lines go in an application that has not configured structlog: not among its output."""

    def msg(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    debug = info = warning = error = critical = log = msg


def _started(log: Any, event: AttemptStarted) -> None:
    log.debug("job.started", **_about(event.job, event.attempt), queue_wait_s=_seconds(event.queue_wait))


def _snoozed(log: Any, event: RetryScheduled) -> None:
    log.debug("job.snoozed", **_about(event.job, event.attempt), delay_s=_seconds(event.delay))


def _retry(log: Any, event: RetryScheduled) -> None:
    log.warning(
        "job.retry_scheduled",
        **_about(event.job, event.attempt),
        outcome=str(event.outcome),
        **_error(event),
        delay_s=_seconds(event.delay),
    )


def _abandoned(log: Any, event: AttemptAbandoned) -> None:
    stack = {"traceback": event.stack} if event.stack else {}
    log.error("job.stuck", **_about(event.job, event.attempt), **stack)


def _quarantined(log: Any, event: JobQuarantined) -> None:
    log.error("job.quarantined", job_id=event.id, task=event.task, reason=event.reason)


def _exhausted(log: Any, event: RedriveExhausted) -> None:
    log.error("job.redrive_exhausted", job_id=event.id, task=event.task)


def _degraded(log: Any, event: JournalDegraded) -> None:
    log.warning("journal.degraded", reason=event.reason)


def _recovered(log: Any, event: JournalRecovered) -> None:
    log.warning("journal.recovered", dropped=event.dropped)


def _blocked(log: Any, event: LoopBlocked) -> None:
    about = {} if event.job is None else _about(event.job, event.job.attempt)
    log.warning("loop.blocked", **about, duration_s=_seconds(event.duration), place=event.place)


_WRITERS: dict[type[Event], Callable[[Any, Any], None]] = {
    AttemptStarted: _started,
    RetryScheduled: _retry,
    AttemptAbandoned: _abandoned,
    JobQuarantined: _quarantined,
    RedriveExhausted: _exhausted,
    JournalDegraded: _degraded,
    JournalRecovered: _recovered,
    LoopBlocked: _blocked,
}


def _about(job: Job[Any], attempt: int) -> dict[str, Any]:
    about = {"job_id": job.id, "task": job.task, "attempt": attempt}
    trace = trace_of(job)
    return about | {"trace_id": trace[TRACE_ID]} if trace else about


def _error(event: RetryScheduled | JobSettled) -> dict[str, Any]:
    if event.error is None:
        return {"error_type": None}
    return {"error_type": type(event.error).__name__, "error": event.message}


def _seconds(value: float) -> float:
    return round(value, 6)
