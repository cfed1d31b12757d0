"""Sentry: one event for each job that failed for good, and a transaction for each attempt.

    sentry_sdk.init(dsn=…)
    Runtime(observers=[Sentry()])

``pip install 'bgruntime[sentry]'``. Without `sentry_sdk.init` nothing is done.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, cast
from weakref import WeakKeyDictionary

from ._extras import missing

try:
    import sentry_sdk
    from sentry_sdk.integrations.logging import ignore_logger
    from sentry_sdk.scope import ScopeType, use_isolation_scope
    from sentry_sdk.utils import event_from_exception
except ModuleNotFoundError as error:
    raise missing("sentry", error) from error

from bgruntime import Cancel, Discard, Job, JobContext, Retry, Snooze
from bgruntime.extend import (
    Event,
    JobAccepted,
    JobSettled,
    JobState,
    Middleware,
    ObserverHost,
    Outcome,
    definition_of,
    name_of,
)

NOTHING = (type(None),)
KINDS = (JobAccepted, JobSettled)
FAILED = frozenset({JobState.DISCARDED, JobState.QUARANTINED})
ORIGIN = "auto.queue.bgruntime"
STATUSES: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((asyncio.CancelledError, Cancel), "cancelled"),
    ((Retry, Snooze), "aborted"),
    ((Discard,), "failed_precondition"),
)


class Sentry:
    """An observer that reports to Sentry: a job's final failure as an event, each attempt as a transaction.

    Attempts that are retried are no events, and the log lines of the runtime about jobs are not counted
    a second time. Events are grouped by task and type of error, and have no local variables, arguments
    or results; texts of errors are without the secrets of the job. Every attempt has an isolation scope
    of its own: what the job sets and logs is on its event, what a request has set is not. Attempts
    (``queue.process``) belong to the trace in which the job was submitted (``queue.publish``).
    """

    def __init__(self) -> None:
        self._headers: WeakKeyDictionary[Job[Any], dict[str, str]] = WeakKeyDictionary()
        self._scopes: WeakKeyDictionary[Job[Any], tuple[Any, Any]] = WeakKeyDictionary()

    @property
    def listens_to(self) -> tuple[type, ...]:
        """To nothing where Sentry was not set up."""
        return KINDS if sentry_sdk.get_client().is_active() else NOTHING

    def attach(self, host: ObserverHost, /) -> None:
        """Keep the runtime's own log lines from being events of their own."""
        ignore_logger("bgruntime")

    def on_event(self, event: Event, /) -> None:
        """Note where a job was submitted; report one that failed."""
        match event:
            case JobAccepted(job=job):
                self._headers[job] = _published(job)
            case JobSettled(job=job, state=state):
                if state in FAILED:
                    self._report(job, event)
                self._scopes.pop(job, None)
                self._headers.pop(job, None)
            case _:
                pass

    @property
    def around(self) -> Middleware | None:
        """An isolation scope and a transaction for each attempt, where Sentry was set up."""
        return self._around if sentry_sdk.get_client().is_active() else None

    def _around(self, context: JobContext, /) -> AbstractContextManager[None]:
        job = context._job
        scope = sentry_sdk.Scope(ty=ScopeType.ISOLATION)
        scope.set_tag("bgruntime.task", job.task)
        return _Attempt(job, scope, self._headers.get(job, {}), self._scopes)

    def _report(self, job: Job[Any], event: JobSettled) -> None:
        assert event.error is not None
        scope, transaction = self._scopes.get(job, (sentry_sdk.Scope(ty=ScopeType.ISOLATION), None))
        told = _event_of(event.error, event)
        told["transaction"] = job.task
        told["fingerprint"] = ["bgruntime", job.task, _cause(event.error)]
        told["tags"] = {"bgruntime.task": job.task, "bgruntime.reason": str(event.reason)}
        told["contexts"] = {
            "job": {
                "id": job.id,
                "task": job.task,
                "queue": definition_of(job).options.queue,
                "attempt": job.attempt,
                "outcome": None if event.outcome is None else str(event.outcome),
                "reason": event.reason,
                "queue_wait_s": event.queue_wait,
                "duration_s": event.duration,
            }
        }
        if transaction is not None:
            told["contexts"]["trace"] = transaction.get_trace_context()
        with use_isolation_scope(scope):
            sentry_sdk.capture_event(cast("Any", told))


class _Attempt:
    """What surrounds one attempt. Not a generator: that would stand in the traceback of the job's error."""

    def __init__(
        self,
        job: Job[Any],
        scope: Any,
        headers: dict[str, str],
        scopes: WeakKeyDictionary[Job[Any], tuple[Any, Any]],
    ) -> None:
        self._job, self._scope, self._headers, self._scopes = job, scope, headers, scopes
        self._open = ExitStack()

    def __enter__(self) -> None:
        job, name = self._job, self._job.task
        self._open.enter_context(use_isolation_scope(self._scope))
        self._transaction = sentry_sdk.continue_trace(
            self._headers, op="queue.process", name=name, source="task", origin=ORIGIN
        )
        _describe(self._transaction, job)
        self._transaction.set_data("messaging.message.retry.count", job.attempt - 1)
        self._scopes[job] = self._scope, self._transaction
        self._open.enter_context(sentry_sdk.start_transaction(self._transaction))
        self._open.callback(self._tell_status)
        self._status = "ok"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop = self._job._stop
        if stop is not None and stop.outcome is Outcome.TIMED_OUT:
            self._status = "deadline_exceeded"
        elif error is not None:
            self._status = _status_of(error)
        self._open.close()

    def _tell_status(self) -> None:
        self._transaction.set_status(self._status)


def _published(job: Job[Any]) -> dict[str, str]:
    """The headers by which the attempts continue the trace of whoever submits *job*."""
    if sentry_sdk.get_current_span() is None:
        return _headers_here()
    with sentry_sdk.start_span(op="queue.publish", name=job.task, origin=ORIGIN) as span:
        _describe(span, job)
        return _headers_here()


def _headers_here() -> dict[str, str]:
    return {
        "sentry-trace": sentry_sdk.get_traceparent() or "",
        "baggage": sentry_sdk.get_baggage() or "",
    }


def _describe(span: Any, job: Job[Any]) -> None:
    span.set_data("messaging.system", "bgruntime")
    span.set_data("messaging.message.id", job.id)
    span.set_data("messaging.destination.name", definition_of(job).options.queue)


def _status_of(error: BaseException) -> str:
    return next((status for kinds, status in STATUSES if isinstance(error, kinds)), "internal_error")


def _event_of(error: BaseException, event: JobSettled) -> dict[str, Any]:
    """The event of *error* with its causes, without local variables and secrets."""
    options = {**sentry_sdk.get_client().options, "include_local_variables": False}
    made, _ = event_from_exception(
        error, client_options=options, mechanism={"type": "bgruntime", "handled": False}
    )
    told = cast("dict[str, Any]", made)
    values: list[dict[str, Any]] = told["exception"]["values"]
    for value in values:
        value["value"] = event.scrub(str(value.get("value") or ""))
        frames: list[dict[str, Any]] = value["stacktrace"]["frames"] if value.get("stacktrace") else []
        for frame in frames:
            frame.pop("vars", None)
    return told


def _cause(error: BaseException) -> str:
    """The type of what the job raised, by which events are grouped."""
    raised = error.__cause__ if type(error).__name__ == "JobExited" and error.__cause__ else error
    return name_of(type(raised))


__all__ = ["Sentry"]
