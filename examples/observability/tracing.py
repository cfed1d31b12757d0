"""OpenTelemetry: a request submits a job; the attempt is a span of its own, linked to the request.

python examples/observability/tracing.py

Here the spans are printed. For a collector: OTLPSpanExporter() of opentelemetry-exporter-otlp.
"""

from __future__ import annotations

import asyncio

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from bgruntime import Runtime, task
from bgruntime.integrations.otel import Tracing


@task(name="shop.pay")
async def pay(order: int) -> None:
    with trace.get_tracer("shop").start_as_current_span("ask the bank"):  # below the span of the attempt
        await asyncio.sleep(0.01)


def one_line(span: ReadableSpan) -> str:
    about = span.get_span_context()
    links = ", ".join(f"{link.context.trace_id:x}" for link in span.links)
    return f"{about.trace_id:x} {span.name}{f' linked to {links}' if links else ''}\n" if about else "\n"


async def main() -> None:
    async with Runtime(observers=[Tracing()]) as rt:
        with trace.get_tracer("shop").start_as_current_span("POST /orders"):
            job = await rt.submit(pay, 1)
        await job


if __name__ == "__main__":
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=one_line)))
    trace.set_tracer_provider(provider)
    asyncio.run(main())
    provider.shutdown()
