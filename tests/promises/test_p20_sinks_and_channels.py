"""P20: what listens (logs, channels, metrics, spans) may hang or fail; jobs and submitters do not notice."""

from __future__ import annotations

import asyncio
import io
import logging
import threading
import time

import pytest
import structlog

from bgruntime import Runtime, task
from bgruntime.alerts import AlertRule, Alerts
from bgruntime.logs import JobLog, configure
from bgruntime.metrics import Metrics
from tests.alerts.inbox import Inbox

JOBS = 30
AT_ONCE = AlertRule("row", "consecutive_failures", threshold=1)


@task(name="p20.works")
async def works(number: int) -> int:
    logging.getLogger("p20").warning("a line of job %d", number)
    structlog.get_logger().warning("another one")
    return number


@task(name="p20.fails")
async def fails(number: int) -> None:
    raise LookupError(number)


async def do_the_work(rt: Runtime) -> float:
    """Every job has its right end; how long it took in all."""
    began = time.monotonic()
    for number in range(JOBS):
        good, bad = await rt.submit(works, number), await rt.submit(fails, number)
        assert await good == number
        with pytest.raises(LookupError, match=str(number)):
            await bad
    assert (rt.stats().completed, rt.stats().failed) == (JOBS, JOBS)
    return time.monotonic() - began


class Hanging(io.StringIO):
    """A sink that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def write(self, text: str) -> int:
        self.free.wait()
        return super().write(text)


def test_p20_a_log_sink_that_hangs_holds_no_job(run):
    async def main():
        async with Runtime() as rt:
            return await do_the_work(rt)

    sink = Hanging()
    with configure(json=True, stream=sink, queue_size=10) as logs:
        assert run(main) < 5
        assert logs.dropped > 0
        sink.free.set()


def test_p20_a_log_sink_that_fails_fails_no_job(run):
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("no space left on device")

    async def main():
        async with Runtime() as rt:
            return await do_the_work(rt)

    with configure(json=True, stream=Broken()) as logs:
        run(main)
        assert logs.flush()
        assert logs.failed > 0


def test_p20_a_logger_that_raises_fails_no_job_and_is_counted(run):
    class Broken:
        def error(self, *args, **fields):
            raise RuntimeError("no log today")

        debug = warning = error

    async def main():
        async with Runtime(observers=[JobLog(Broken())]) as rt:
            await do_the_work(rt)
            assert rt.stats().faults["observer JobLog failed"] >= 1

    run(main)


@pytest.mark.parametrize("trouble", ["hang", "deaf", "broken"])
def test_p20_a_channel_that_hangs_or_fails_changes_nothing_for_jobs_and_for_other_channels(
    run, clock, trouble
):
    sick, well = Inbox(), Inbox()
    sick.hang = trouble in ("hang", "deaf")
    sick.deaf = trouble == "deaf"
    sick.broken = trouble == "broken"

    async def main():
        async with Runtime(observers=[Alerts(rules=[AT_ONCE], channels=[sick, well])]) as rt:
            assert await do_the_work(rt) < 5
            await clock.advance(10)
            assert well.told[0] == ("raised", "row", fails.name)
            sick.hang = False
            await clock.advance(10)

    run(main)


def test_p20_metrics_that_fail_at_every_turn_change_nothing(run):
    class Broken(Metrics):
        def on_event(self, event, /) -> None:
            raise ZeroDivisionError

        def on_batch(self, records, /) -> None:
            raise ZeroDivisionError

        def complete(self, stats, /):
            raise ZeroDivisionError

    async def main():
        async with Runtime(observers=[Broken()]) as rt:
            await do_the_work(rt)
            assert any("Broken" in about for about in rt.stats().faults)

    run(main)


def test_p20_a_tracer_and_a_sentry_that_fail_change_nothing(run, monkeypatch):
    otel = pytest.importorskip("bgruntime.integrations.otel")
    sentry = pytest.importorskip("bgruntime.integrations.sentry")
    from tests.integrations.recorders import Spans, sentry_set_up

    def fail(*args, **options):
        raise ZeroDivisionError

    async def main():
        tracing = otel.Tracing(spans.provider)
        async with Runtime(observers=[tracing, sentry.Sentry()]) as rt:
            tracing._tracer.start_span = fail
            monkeypatch.setattr(sentry.sentry_sdk, "continue_trace", fail)
            monkeypatch.setattr(sentry.sentry_sdk, "capture_event", fail)
            await do_the_work(rt)
            told = " ".join(rt.stats().faults)
            assert "Tracing" in told
            assert "Sentry" in told

    spans = Spans()
    with sentry_set_up():
        run(main)


def test_p20_the_application_goes_on_while_all_of_them_fail(run):
    """A request beside the runtime is answered as quickly as ever."""

    class Well:
        listens_to = ()

        def on_event(self, event) -> None: ...

    class Sick(Well):
        def on_event(self, event) -> None:
            raise ZeroDivisionError

    async def longest_turn(observer: type[Well]) -> float:
        """Seconds of this thread's work in one turn of the loop."""
        async with Runtime(observers=[observer(), observer()], middleware=[lambda context: None]) as rt:
            work = asyncio.get_running_loop().create_task(do_the_work(rt))
            longest = 0.0
            while not work.done():
                began = time.thread_time()
                await asyncio.sleep(0)
                longest = max(longest, time.thread_time() - began)
            await work
            return longest

    turns = {
        observer: min(run(lambda observer=observer: longest_turn(observer)) for _ in range(5))
        for observer in (Well, Sick)
    }
    assert turns[Sick] <= 2 * turns[Well], f"seconds of the longest turn: {turns}"
