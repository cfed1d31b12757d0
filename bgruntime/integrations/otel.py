"""OpenTelemetry: a span for each submission and each attempt (``pip install 'bgruntime[otel]'``).

    Runtime(observers=[Tracing()])

Only the API is needed here. Without an SDK, or another provider of tracers, nothing is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from weakref import WeakKeyDictionary

import structlog

from ._extras import missing

try:
    from opentelemetry import context as otel_context
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace import (
        Link,
        NonRecordingSpan,
        NoOpTracerProvider,
        ProxyTracerProvider,
        Span,
        SpanContext,
        SpanKind,
        StatusCode,
        Tracer,
        TracerProvider,
    )
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as error:
    raise missing("otel", error) from error

from bgruntime import Job, __version__
from bgruntime.extend import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptStarted,
    Event,
    JobAccepted,
    JobSettled,
    ObserverHost,
    Outcome,
    definition_of,
    is_adopted,
    mark_trace,
    name_of,
)
from bgruntime.logs import written

SYSTEM = "bgruntime"
NOTHING = (type(None),)
KINDS = (JobAccepted, AttemptStarted, AttemptEnded, AttemptAbandoned, JobSettled)

# How an attempt ends that is no failure; an attempt that succeeded has no status either.
NO_ERRORS = frozenset({Outcome.SUCCEEDED, Outcome.SNOOZED, Outcome.CANCELLED, Outcome.INTERRUPTED})

_propagator = TraceContextTextMapPropagator()


class Tracing:
    """An observer that makes spans: ``send {task}`` for a submission, ``process {task}`` for each attempt.

    The span of an attempt is the current one inside the job, and its trace_id stands in the job's log
    lines. It is the root of a trace of its own, with a link to the submission; with ``parent="submitter"``
    it is a child of it. A job that comes out of the journal, in another process too, is linked to the
    ``send`` span of its submission.

    Attributes follow OpenTelemetry's conventions for messaging, ``bgruntime.*`` holds the rest. Arguments
    and results are never among them, texts of errors are without the secrets of the job.

    Args:
        provider: where the tracer comes from; the global one unless given.
        parent: "link" or "submitter".

    Raises:
        ValueError: *parent* is neither.
    """

    def __init__(
        self, provider: TracerProvider | None = None, *, parent: Literal["link", "submitter"] = "link"
    ) -> None:
        if parent not in ("link", "submitter"):
            raise ValueError(f"parent is 'link' or 'submitter', got {parent!r}")
        self._provider = provider
        self._is_child = parent == "submitter"
        self._tracer: Tracer = NoOpTracerProvider().get_tracer(SYSTEM)
        self._sent: WeakKeyDictionary[Job[Any], tuple[SpanContext, ...]] = WeakKeyDictionary()
        self._sending: WeakKeyDictionary[Job[Any], Span] = WeakKeyDictionary()
        self._spans: WeakKeyDictionary[Job[Any], Span] = WeakKeyDictionary()

    @property
    def listens_to(self) -> tuple[type, ...]:
        """To nothing where nobody makes spans."""
        return NOTHING if isinstance(self._found(), NoOpTracerProvider | ProxyTracerProvider) else KINDS

    def _found(self) -> TracerProvider:
        return trace.get_tracer_provider() if self._provider is None else self._provider

    def attach(self, host: ObserverHost, /) -> None:
        """Trace the jobs of the runtime behind *host*."""
        self._tracer = self._found().get_tracer(SYSTEM, __version__)
        if self.listens_to is KINDS:
            host.trace_by(self._traceparent)

    def on_event(self, event: Event, /) -> None:
        """Begin or end the span that *event* is about."""
        match event:
            case JobAccepted(job=job):
                self._accepted(job)
            case AttemptStarted(job=job):
                self._started(job, event)
            case AttemptEnded(job=job):
                self._ended(job, event)
            case AttemptAbandoned(job=job) if job in self._spans:
                self._spans[job].add_event("bgruntime.abandoned")
            case JobSettled(job=job):
                self._settled(job, event)
            case _:
                pass

    def _accepted(self, job: Job[Any]) -> None:
        """Note where *job* was submitted: here, in a span of its own, or before it was in the journal."""
        here = trace.get_current_span().get_span_context()
        earlier = span_context_of(definition_of(job).trace)
        if earlier.is_valid:
            self._sent[job] = (earlier, here) if here.is_valid else (earlier,)
            return
        if is_adopted(job):
            return  # whoever submitted it did not trace
        span = self._sending.pop(job, None) or self._send(job)
        span.end()
        sent = span.get_span_context()
        self._sent[job] = (sent,)
        mark_trace(job, traceparent_of(sent))

    def _traceparent(self, job: Job[Any]) -> str:
        """What is written down with a durable *job*: its ``send`` span, which lasts until it is accepted."""
        self._sending[job] = span = self._send(job)
        return traceparent_of(span.get_span_context())

    def _send(self, job: Job[Any]) -> Span:
        return self._tracer.start_span(
            f"send {job.task}", kind=SpanKind.PRODUCER, attributes=_attributes(job, "send")
        )

    def _started(self, job: Job[Any], event: AttemptStarted) -> None:
        """Begin the span of an attempt and make it the current one of the job, in whose context this runs."""
        sent = self._sent.get(job, ())
        parent = Context()
        if self._is_child and sent:
            parent = trace.set_span_in_context(NonRecordingSpan(sent[0]), parent)
        span = self._tracer.start_span(
            f"process {job.task}",
            context=parent,
            kind=SpanKind.CONSUMER,
            attributes={
                **_attributes(job, "process"),
                "bgruntime.attempt": event.attempt,
                "bgruntime.queue_wait_s": event.queue_wait,
            },
            links=[Link(one) for one in (sent[1:] if self._is_child else sent)],
        )
        self._spans[job] = span
        otel_context.attach(trace.set_span_in_context(span))  # the context goes with the attempt
        context = span.get_span_context()
        if context.is_valid:
            structlog.contextvars.bind_contextvars(trace_id=trace.format_trace_id(context.trace_id))
            mark_trace(job, traceparent_of(context))

    def _ended(self, job: Job[Any], event: AttemptEnded) -> None:
        span = self._spans.pop(job, None)
        if span is None:
            return
        span.set_attribute("bgruntime.outcome", str(event.outcome))
        if event.outcome not in NO_ERRORS:
            _fail(span, event)
        span.end()

    def _settled(self, job: Job[Any], event: JobSettled) -> None:
        """End what no attempt has ended: it was abandoned before its end was told."""
        self._sent.pop(job, None)
        span = self._spans.pop(job, None)
        if span is not None:
            stuck = str(Outcome.STUCK)
            span.set_attributes({"bgruntime.outcome": stuck, "error.type": stuck})
            span.set_status(StatusCode.ERROR, event.message or stuck)
            span.end()


def _attributes(job: Job[Any], operation: str) -> dict[str, str]:
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": definition_of(job).options.queue,
        "messaging.message.id": job.id,
        "bgruntime.task": job.task,
    }


def _fail(span: Span, event: AttemptEnded) -> None:
    error = event.error
    kind = str(event.outcome) if error is None else name_of(type(error))
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR, event.message or kind)
    if error is not None and span.is_recording():
        # `Span.record_exception` would write what the error says as it is, secrets included.
        told = {"exception.type": kind, "exception.message": event.message}
        span.add_event("exception", told | {"exception.stacktrace": written(error, event.scrub)})


def traceparent_of(context: SpanContext) -> str:
    """The W3C traceparent of a span; "" for an invalid one."""
    if not context.is_valid:
        return ""
    ids = f"{trace.format_trace_id(context.trace_id)}-{trace.format_span_id(context.span_id)}"
    return f"00-{ids}-{context.trace_flags:02x}"


def span_context_of(traceparent: str) -> SpanContext:
    """The span that a W3C traceparent names, an invalid one for anything else."""
    carrier: Mapping[str, str] = {"traceparent": traceparent}
    return trace.get_current_span(_propagator.extract(carrier, Context())).get_span_context()


__all__ = ["Tracing"]
