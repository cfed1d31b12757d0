"""Real SDKs whose output stays here: what OpenTelemetry exports, and what Sentry sends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import sentry_sdk
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport


class Spans:
    """A provider whose finished spans can be asked for."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("application")

    def named(self, name: str):
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def one(self, name: str):
        [span] = self.named(name)
        return span

    @property
    def text(self) -> str:
        return "\n".join(span.to_json() for span in self.exporter.get_finished_spans())


class Sent(Transport):
    """A transport that keeps what it is given, as it would go over the wire."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[tuple[str, dict]] = []

    def capture_envelope(self, envelope) -> None:
        for item in envelope.items:
            if item.type in ("event", "transaction"):
                self.items.append((item.type, json.loads(item.payload.get_bytes())))

    @property
    def events(self) -> list[dict]:
        return [told for kind, told in self.items if kind == "event"]

    @property
    def transactions(self) -> list[dict]:
        return [told for kind, told in self.items if kind == "transaction"]

    @property
    def text(self) -> str:
        return json.dumps(self.items)


@contextmanager
def sentry_set_up() -> Iterator[Sent]:
    """Sentry as an application has it, but for what would stay behind in the process."""
    sent = Sent()
    with sentry_sdk.isolation_scope(), sentry_sdk.new_scope():
        sentry_sdk.init(
            dsn="https://key@sentry.invalid/1",
            transport=sent,
            traces_sample_rate=1.0,
            default_integrations=False,  # which patch threads, for all tests that follow
            auto_enabling_integrations=False,
            integrations=[LoggingIntegration()],
            enable_backpressure_handling=False,  # which has a thread
            auto_session_tracking=False,
        )
        yield sent
        sentry_sdk.get_client().close(timeout=0)
        sentry_sdk.get_global_scope().set_client(None)
