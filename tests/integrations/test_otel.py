"""What OpenTelemetry's own SDK exports: a span per attempt, linked to the submission, with its status."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import nullcontext

import pytest

pytest.importorskip("opentelemetry.sdk")

import structlog
from opentelemetry import trace
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode

from bgruntime import Cancel, JobTimedOut, JournalUnavailable, Runtime, Snooze, current_job, task
from bgruntime.extend import JobAccepted, JobSettled, trace_of
from bgruntime.integrations.otel import Tracing, span_context_of
from bgruntime.logs import configure
from tests.integrations.recorders import Spans


@pytest.fixture
def spans():
    spans = Spans()
    yield spans
    spans.provider.shutdown()


@task(name="otel.pay", queue="default")
async def pay(card: str) -> str:
    return card


@task(name="otel.broken")
async def broken() -> None:
    raise LookupError("no such account")


def test_a_submission_and_its_attempt_are_two_spans_of_two_traces_that_are_linked(run, spans):
    async def main():
        async with Runtime(observers=[Tracing(spans.provider)]) as rt:
            with spans.tracer.start_as_current_span("request"):
                job = await rt.submit(pay, "4711")
            assert await job == "4711"
            return job.id

    id = run(main)
    request, send, process = spans.one("request"), spans.one("send otel.pay"), spans.one("process otel.pay")
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert send.parent.span_id == request.context.span_id
    assert process.parent is None
    assert process.context.trace_id != send.context.trace_id
    assert [link.context.span_id for link in process.links] == [send.context.span_id]
    assert process.status.status_code is StatusCode.UNSET
    about = dict(process.attributes)
    assert about.pop("bgruntime.queue_wait_s") >= 0
    assert about == {
        "messaging.system": "bgruntime",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "default",
        "messaging.message.id": id,
        "bgruntime.task": "otel.pay",
        "bgruntime.attempt": 1,
        "bgruntime.outcome": "succeeded",
    }


def test_on_request_an_attempt_is_a_child_of_the_submission(run, spans):
    async def main():
        async with Runtime(observers=[Tracing(spans.provider, parent="submitter")]) as rt:
            await (await rt.submit(pay, "1"))

    run(main)
    send, process = spans.one("send otel.pay"), spans.one("process otel.pay")
    assert process.parent.span_id == send.context.span_id
    assert process.context.trace_id == send.context.trace_id
    assert process.links == ()


def test_a_word_that_is_no_parent_is_an_error():
    with pytest.raises(ValueError, match="'link' or 'submitter', got 'root'"):
        Tracing(parent="root")


def test_each_attempt_has_a_span_and_a_failed_one_says_why(run, spans, clock):
    @task(name="otel.flaky", max_attempts=2, backoff=lambda state: 1)
    async def flaky() -> None:
        if current_job().attempt == 1:
            raise ConnectionError("no route")

    async def main():
        async with Runtime(observers=[Tracing(spans.provider)]) as rt:
            job = await rt.submit(flaky)
            await clock.advance(2)
            await job

    run(main)
    first, second = spans.named("process otel.flaky")
    assert [span.attributes["bgruntime.attempt"] for span in (first, second)] == [1, 2]
    assert first.links[0].context == second.links[0].context == spans.one("send otel.flaky").context
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "no route")
    assert first.attributes["error.type"] == "ConnectionError"
    [event] = first.events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "ConnectionError"
    assert "test_otel.py" in event.attributes["exception.stacktrace"]
    assert second.status.status_code is StatusCode.UNSET


def test_the_span_of_an_attempt_is_current_in_its_job_its_tasks_and_its_thread_and_nowhere_else(run, spans):
    @task(name="otel.outer")
    async def outer(rt: Runtime) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
        await (await rt.submit(inner))

    async def child() -> None:
        with spans.tracer.start_as_current_span("child"):
            pass

    @task(name="otel.inner")
    def inner() -> None:
        with spans.tracer.start_as_current_span("in a thread"):
            pass

    async def main():
        async with Runtime(observers=[Tracing(spans.provider)]) as rt:
            await (await rt.submit(outer, rt))
            assert not trace.get_current_span().get_span_context().is_valid

    run(main)
    outer_span, inner_span = spans.one("process otel.outer"), spans.one("process otel.inner")
    assert spans.one("child").parent.span_id == outer_span.context.span_id
    assert spans.one("send otel.inner").parent.span_id == outer_span.context.span_id
    assert spans.one("in a thread").parent.span_id == inner_span.context.span_id


def test_ends_that_are_no_failures_have_no_error_status_and_timeouts_have(run, spans, clock):
    @task(name="otel.ends", timeout=5)
    async def ends(how: str) -> None:
        if how == "cancel":
            raise Cancel("not needed")
        if how == "snooze" and current_job().attempt == 1 and not snoozed:
            snoozed.append(1)
            raise Snooze(1)
        if how == "hang":
            await asyncio.Event().wait()

    snoozed: list[int] = []

    async def main():
        async with Runtime(observers=[Tracing(spans.provider)]) as rt:
            jobs = [await rt.submit(ends, how) for how in ("cancel", "snooze", "hang")]
            await clock.advance(2)
            await clock.advance(5)
            for job in jobs:
                await job.wait()
            assert isinstance(jobs[2].exception(), JobTimedOut)

    run(main)
    found = {
        span.attributes["bgruntime.outcome"]: span.status.status_code
        for span in spans.named("process otel.ends")
    }
    assert found == {
        "cancelled": StatusCode.UNSET,
        "snoozed": StatusCode.UNSET,
        "succeeded": StatusCode.UNSET,
        "timed_out": StatusCode.ERROR,
    }


def test_an_attempt_that_never_stops_has_its_span_ended_all_the_same(run, spans, clock):
    async def main():
        release = asyncio.Event()

        @task(name="otel.stubborn", timeout=None)
        async def stubborn() -> None:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    pass

        async with Runtime(observers=[Tracing(spans.provider)]) as rt:
            job = await rt.submit(stubborn)
            await clock.advance(1)
            job.cancel()
            for _ in range(4):
                await clock.advance(5)
            await job.wait()
            ended = len(spans.named("process otel.stubborn"))
            release.set()
        return ended

    assert run(main) == 1
    span = spans.one("process otel.stubborn")
    assert [event.name for event in span.events] == ["bgruntime.abandoned"]
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes["bgruntime.outcome"], span.attributes["error.type"]) == ("stuck", "stuck")


@pytest.mark.parametrize("provider", [None, NoOpTracerProvider()], ids=["no SDK", "no-op"])
def test_without_an_sdk_nothing_is_heard_and_nothing_is_done(run, provider):
    tracing = Tracing(provider)

    async def main():
        async with Runtime(observers=[tracing]) as rt:
            assert not rt._engine.tell.wanted(JobAccepted)
            assert not rt._engine.tell.wanted(JobSettled)
            job = await rt.submit(pay, "1")
            await job
            assert trace_of(job) == ""

    run(main)


def test_the_lines_of_a_job_bear_the_trace_id_of_its_attempt(run, spans):
    @task(name="otel.says")
    async def says() -> None:
        structlog.get_logger().warning("a line of the application")
        raise OSError("disk")

    async def main():
        async with Runtime(observers=[Tracing(spans.provider)]) as rt:
            await (await rt.submit(says)).wait()

    stream = io.StringIO()
    with configure(json=True, stream=stream) as logs:
        run(main)
        logs.flush()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    found = {line["event"]: line.get("trace_id") for line in lines}
    expected = trace.format_trace_id(spans.one("process otel.says").context.trace_id)
    assert found == {"a line of the application": expected, "job.failed": expected}


def test_a_redriven_failure_is_linked_to_the_attempt_that_failed(run, spans, tmp_path):
    async def main():
        async with Runtime(observers=[Tracing(spans.provider)], journal=tmp_path / "jobs.db") as rt:
            await (await rt.submit(broken)).wait()
            [again] = await rt.journal.redrive()
            await again.wait()

    run(main)
    first, second = spans.named("process otel.broken")
    assert [link.context.span_id for link in second.links] == [first.context.span_id]
    assert len(spans.named("send otel.broken")) == 1


@task(name="otel.durable", durable=True)
async def durable() -> None:
    return


@pytest.mark.parametrize("inside", [True, False], ids=["in a span", "outside of spans"])
def test_a_durable_job_that_another_run_takes_up_is_linked_to_its_submission(run, spans, tmp_path, inside):
    async def main():
        async with Runtime(observers=[Tracing(spans.provider)], journal=tmp_path / "jobs.db") as rt:
            rt.pause()
            with spans.tracer.start_as_current_span("request") if inside else nullcontext():
                await rt.submit(durable)
            await rt.stop(drain=0)
        assert spans.named("process otel.durable") == []
        async with Runtime(observers=[Tracing(spans.provider)], journal=tmp_path / "jobs.db") as rt:
            async with asyncio.timeout(10):
                while not spans.named("process otel.durable"):
                    await asyncio.sleep(0.01)

    run(main)
    [link] = spans.one("process otel.durable").links
    send = spans.one("send otel.durable")
    assert link.context.span_id == send.context.span_id
    assert link.context.trace_id == send.context.trace_id
    request = spans.one("request").context.span_id if inside else None
    assert (send.parent and send.parent.span_id) == request


def test_a_durable_job_that_the_journal_refuses_was_not_sent(run, spans, tmp_path, monkeypatch):
    async def refuses(*about):
        raise JournalUnavailable("full")

    async def main():
        async with Runtime(observers=[Tracing(spans.provider)], journal=tmp_path / "jobs.db") as rt:
            with monkeypatch.context() as patch:
                patch.setattr(rt.journal._writer, "accept", refuses)
                with pytest.raises(JournalUnavailable):
                    await rt.submit(durable)
            await (await rt.submit(durable))

    run(main)
    assert len(spans.named("send otel.durable")) == 1
    assert len(spans.named("process otel.durable")) == 1


def test_a_child_of_its_submitter_is_that_in_another_run_too(run, spans, tmp_path):
    async def main():
        def traced():
            tracing = Tracing(spans.provider, parent="submitter")
            return Runtime(observers=[tracing], journal=tmp_path / "jobs.db")

        async with traced() as rt:
            rt.pause()
            await rt.submit(durable)
            await rt.stop(drain=0)
        async with traced():
            async with asyncio.timeout(10):
                while not spans.named("process otel.durable"):
                    await asyncio.sleep(0.01)

    run(main)
    send, process = spans.one("send otel.durable"), spans.one("process otel.durable")
    assert process.parent.span_id == send.context.span_id
    assert process.context.trace_id == send.context.trace_id


def test_a_durable_job_that_another_run_takes_up_was_sent_once(run, spans, tmp_path):
    async def main():
        async with Runtime(observers=[Tracing(spans.provider)], journal=tmp_path / "jobs.db") as rt:
            rt.pause()
            await rt.submit(durable)
            await rt.stop(drain=0)
        async with Runtime(observers=[Tracing(spans.provider)], journal=tmp_path / "jobs.db"):
            async with asyncio.timeout(10):
                while not spans.named("process otel.durable"):
                    await asyncio.sleep(0.01)

    run(main)
    assert len(spans.named("send otel.durable")) == 1


def test_what_is_no_traceparent_names_no_span():
    for text in ("", "x", "00-0-0-01", json.dumps({})):
        assert not span_context_of(text).is_valid
