"""Entering, leaving, stopping, entering again; and what stop reports."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
import threading
from typing import Any

import pytest

import bgruntime
from bgruntime import JobInterrupted, Runtime, RuntimeClosed, Shutdown, ShutdownReport, task
from tests.door.turns import Gate, hold, turns, until, word

MISUSE = (RuntimeError, bgruntime.BgRuntimeError)


@task
async def double(n: int) -> int:
    return n * 2


def test_a_runtime_is_made_without_a_loop_and_entered_as_itself(run: Any) -> None:
    rt = Runtime()

    async def main() -> None:
        async with rt as entered:
            assert entered is rt

    run(main)


def test_entering_without_a_journal_does_not_suspend(run: Any) -> None:
    async def main() -> None:
        rt = Runtime()
        entering = rt.__aenter__()
        with pytest.raises(StopIteration):
            entering.__await__().send(None)  # type: ignore[union-attr]
        assert await (await rt.submit(double, 1)) == 2
        await rt.stop()
        await rt.__aexit__(None, None, None)

    run(main)


def test_leaving_cleanly_waits_for_every_job(run: Any) -> None:
    async def main() -> None:
        gate = Gate()

        async def work() -> None:
            async with Runtime(concurrency=1) as rt:
                for n in range(3):
                    await rt.submit(hold, gate, n)

        leaving = asyncio.create_task(work())
        await until(lambda: gate.started)
        await turns()
        assert not leaving.done()
        gate.open()
        await leaving
        assert gate.finished == [0, 1, 2]

    run(main)


def test_leaving_cleanly_waits_for_retries(run: Any, clock: Any) -> None:
    calls: list[int] = []

    @task(max_attempts=2, backoff=lambda state: 30)
    async def second_time() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("down")

    async def main() -> None:
        async def work() -> None:
            async with Runtime() as rt:
                await rt.submit(second_time)

        leaving = asyncio.create_task(work())
        await clock.advance(29)
        assert not leaving.done()
        await clock.advance(2)
        await leaving

    run(main)
    assert len(calls) == 2


@pytest.mark.parametrize("kind", ["exception", "cancellation"])
def test_leaving_by_an_exception_or_a_cancellation_skips_the_drain(run: Any, kind: str) -> None:
    async def main() -> None:
        gate = Gate()
        jobs: list[Any] = []

        async def work() -> None:
            async with Runtime(concurrency=1) as rt:
                jobs.extend([await rt.submit(hold, gate, n) for n in range(3)])
                await until(lambda: gate.started)
                if kind == "exception":
                    raise LookupError("the body's")
                await asyncio.Event().wait()

        leaving = asyncio.create_task(work())
        await until(lambda: gate.started)
        if kind == "cancellation":
            leaving.cancel()
        with pytest.raises((LookupError, asyncio.CancelledError)) as caught:
            await leaving
        assert caught.type is (LookupError if kind == "exception" else asyncio.CancelledError)
        assert gate.started == gate.cancelled == [0]
        for job in jobs:
            with pytest.raises(JobInterrupted):
                await job

    run(main)


def test_a_runtime_is_used_and_stopped_from_other_tasks_than_the_one_that_entered_it(
    run: Any,
) -> None:
    async def main() -> None:
        rt = Runtime()
        await rt.__aenter__()

        async def user() -> int:
            return await (await rt.submit(double, 4))

        async def stopper() -> ShutdownReport:
            return await rt.stop()

        assert await asyncio.create_task(user()) == 8
        assert isinstance(await asyncio.create_task(stopper()), ShutdownReport)
        await rt.__aexit__(None, None, None)

    run(main)


def test_a_runtime_can_be_entered_again_after_it_stopped(run: Any) -> None:
    async def main() -> None:
        rt = Runtime(concurrency=2)
        for n in range(3):
            async with rt:
                assert await (await rt.submit(double, n)) == n * 2
            with pytest.raises(RuntimeClosed):
                await rt.submit(double, n)

    run(main)


def test_a_runtime_can_be_entered_on_another_loop_after_it_stopped(run: Any) -> None:
    rt = Runtime()

    async def main() -> int:
        async with rt:
            return await (await rt.submit(double, 3))

    assert run(main) == 6
    assert run(main) == 6


def test_entering_a_runtime_inside_itself_is_an_error_and_it_goes_on(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(MISUSE):
                async with rt:
                    pass
            assert await (await rt.submit(double, 3)) == 6

    run(main)


def test_entering_a_runtime_in_its_own_job_is_an_error_of_that_job(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:

            async def nested() -> None:
                async with rt:
                    pass

            with pytest.raises(MISUSE):
                await (await rt.submit(nested))
            assert await (await rt.submit(double, 3)) == 6

    run(main)


def test_a_runtime_inside_a_job_of_another_works(run: Any) -> None:
    async def main() -> None:
        async with Runtime(concurrency=1) as outer:

            async def work() -> int:
                async with Runtime(concurrency=1) as inner:
                    return await (await inner.submit(double, 3))

            assert await (await outer.submit(work)) == 6

    run(main)


def test_two_runtimes_side_by_side_know_nothing_of_each_other(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1) as one, Runtime(concurrency=1) as other:
            held = await one.submit(hold, gate, "held")
            assert await (await other.submit(double, 2)) == 4
            assert other.job(held.id) is None
            gate.open()

    run(main)


def test_stop_gives_a_report_of_ids_in_tuples(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=2) as rt:
            before = await rt.submit(double, 1)
            await before
            held = await rt.submit(hold, gate, 1)
            await until(lambda: gate.started)
            stopping = asyncio.create_task(rt.stop(drain=30))
            await turns()
            gate.open()
            report = await stopping
            assert isinstance(report, ShutdownReport)
            assert report.completed == (held.id,)
            assert report.cancelled == report.requeued == report.stuck == report.lost == ()
            with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
                report.lost = ("x",)  # type: ignore[misc]

    run(main)


def test_stop_without_a_drain_reports_what_it_interrupted(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            jobs = [await rt.submit(hold, gate, n) for n in range(3)]
            jobs.append(await rt.submit(hold.with_options(delay=60), gate, 3))
            await until(lambda: gate.started)
            report = await rt.stop(drain=0)
            assert set(report.cancelled) == {job.id for job in jobs}
            assert report.completed == report.lost == ()
            assert gate.started == gate.cancelled == [0]

    run(main)


def test_stop_interrupts_what_is_left_when_the_drain_takes_too_long(run: Any, clock: Any) -> None:
    async def main() -> None:
        quick, slow = Gate(), Gate()
        async with Runtime() as rt:
            first, second = await rt.submit(hold, quick, 1), await rt.submit(hold, slow, 2)
            await until(lambda: quick.started and slow.started)
            stopping = asyncio.create_task(rt.stop(drain=20))
            await turns()
            quick.open()
            await clock.advance(19)
            assert not stopping.done()
            await clock.advance(2)
            report = await stopping
            assert report.completed == (first.id,)
            assert report.cancelled == (second.id,)
            assert await first == 1

    run(main)


def test_stop_reports_a_job_that_will_not_end_as_stuck(run: Any, clock: Any) -> None:
    async def main() -> None:
        let_go = asyncio.Event()

        @task
        async def stubborn() -> None:
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    pass

        async with Runtime() as rt:
            job = await rt.submit(stubborn)
            await until(lambda: word(job.state) == "running")
            stopping = asyncio.create_task(rt.stop(drain=0, cancel=5, close=2))
            await clock.advance(10)
            report = await stopping
            assert report.stuck == (job.id,)
            assert report.lost == ()
            let_go.set()
            await turns()

    run(main)


def test_stop_does_not_wait_for_a_thread_that_will_not_end(run: Any, clock: Any) -> None:
    started, let_go = threading.Event(), threading.Event()

    @task
    def stubborn() -> None:
        started.set()
        let_go.wait(30)

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(stubborn)
            await until(started.is_set)
            stopping = asyncio.create_task(rt.stop(drain=0, cancel=5, close=2))
            await clock.advance(10)
            report = await stopping
            assert report.stuck == (job.id,)
            let_go.set()
            await until(lambda: len(asyncio.all_tasks()) == 1)

    run(main)


def test_the_limits_of_the_shutdown_option_hold_for_a_bare_stop(run: Any, clock: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(shutdown=Shutdown(drain=7)) as rt:
            await rt.submit(hold, gate, 1)
            await until(lambda: gate.started)
            stopping = asyncio.create_task(rt.stop())
            await clock.advance(6)
            assert not stopping.done()
            assert gate.cancelled == []
            await clock.advance(2)
            await stopping
            assert gate.cancelled == [1]

    run(main)


def test_stopping_again_skips_the_drain_and_gives_the_same_report(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold, gate, 1)
            await until(lambda: gate.started)
            first = asyncio.create_task(rt.stop(drain=1000))
            await turns()
            assert not first.done()
            second = await rt.stop()
            assert await first == second
            assert second.cancelled == (job.id,)
            assert await rt.stop() == second

    run(main)


def test_stop_after_leaving_gives_the_report_of_the_leaving(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        gate.open()
        async with Runtime() as rt:
            job = await rt.submit(hold, gate, 1)
        report = await rt.stop()
        assert report.completed in ((job.id,), ())
        assert report.lost == ()

    run(main)


def test_cancelling_the_task_that_waits_for_a_stop_cancels_the_wait_only(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold, gate, 1)
            await until(lambda: gate.started)
            waiting = asyncio.create_task(rt.stop(drain=30))
            await turns()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            with pytest.raises(RuntimeClosed):
                await rt.submit(double, 1)
            gate.open()
            await job
            assert (await rt.stop()).completed == (job.id,)

    run(main)


def test_a_job_may_stop_the_runtime_and_is_not_waited_for(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:

            async def last() -> ShutdownReport:
                return await rt.stop(drain=0)

            job = await rt.submit(last)
            await job.wait()
            with pytest.raises(RuntimeClosed):
                await rt.submit(double, 1)

    run(main)


@pytest.mark.parametrize("limit", ["drain", "cancel", "close"])
def test_a_negative_limit_of_stop_is_a_value_error_and_stops_nothing(run: Any, limit: str) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(ValueError, match=f"(?s){limit}.*-1"):
                await rt.stop(**{limit: -1})
            assert await (await rt.submit(double, 1)) == 2

    run(main)


def test_stats_are_a_frozen_snapshot(run: Any) -> None:
    async def main() -> None:
        gate = Gate()

        async def fail() -> None:
            raise LookupError("failed")

        async with Runtime(concurrency=3) as rt:
            await (await rt.submit(double, 1))
            await (await rt.submit(fail)).wait()
            held = [await rt.submit(hold, gate, n) for n in range(4)]
            await until(lambda: len(gate.started) == 3)
            stats = rt.stats()
            assert isinstance(stats, bgruntime.RuntimeStats)
            assert dataclasses.is_dataclass(stats)
            assert (stats.submitted, stats.completed, stats.failed) == (6, 1, 1)
            assert (stats.running, stats.waiting) == (3, 1)
            with pytest.raises(dataclasses.FrozenInstanceError):
                stats.running = 7  # type: ignore[misc]
            held[0].cancel()
            await held[0].wait()
            assert stats.running == 3
            assert rt.stats().cancelled == 1
            gate.open()

    run(main)


def test_stats_count_retries_timeouts_and_refusals(run: Any, clock: Any) -> None:
    @task(max_attempts=2, backoff=lambda state: 1, timeout=5)
    async def never() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1, overflow="reject") as rt:
            job = await rt.submit(never)
            await clock.advance(30)
            await job.wait()
            assert rt.stats().retried == 1
            assert rt.stats().timed_out >= 1
            await rt.submit(hold, gate)
            await rt.submit(hold, gate)
            with pytest.raises(bgruntime.QueueFull):
                await rt.submit(hold, gate)
            assert rt.stats().rejected == 1
            gate.open()

    run(main)


def test_health_is_a_frozen_snapshot_that_passes_while_all_is_well(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            health = rt.health()
            assert isinstance(health, bgruntime.Health)
            assert dataclasses.is_dataclass(health)
            assert health.status == "pass"
            with pytest.raises(dataclasses.FrozenInstanceError):
                health.status = "fail"  # type: ignore[misc]
        assert rt.health().status != "pass"

    run(main)


def test_a_runtime_whose_loop_was_closed_under_it_is_not_live_and_says_why() -> None:
    async def main() -> Runtime:
        return await Runtime().__aenter__()

    loop = asyncio.new_event_loop()
    rt = loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    for left in asyncio.all_tasks(loop):
        left.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    health = rt.health()
    assert (health.status, health.live, health.ready) == ("fail", False, False)
    assert "closed" in health.reasons[0]


def test_run_gives_the_value_of_main() -> None:
    async def main() -> int:
        async with Runtime() as rt:
            return await (await rt.submit(double, 21))

    assert bgruntime.run(main) == 42


def test_run_uses_uvloop_where_it_exists() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> bool:
        return isinstance(asyncio.get_running_loop(), uvloop.Loop)

    assert bgruntime.run(main) is True


def test_run_raises_what_main_raises() -> None:
    async def main() -> None:
        raise LookupError("from main")

    with pytest.raises(LookupError, match="from main"):
        bgruntime.run(main)


def test_run_inside_a_running_loop_is_an_error(run: Any) -> None:
    async def inner() -> None: ...

    async def main() -> None:
        with pytest.raises(RuntimeError):
            bgruntime.run(inner)

    run(main)


def test_run_raises_the_keyboard_interrupt_of_a_job_again_and_main_does_not_go_on() -> None:
    jobs: list[Any] = []

    async def main() -> None:
        async def ctrl_c() -> None:
            raise KeyboardInterrupt

        async with Runtime() as rt:
            jobs.append(await rt.submit(ctrl_c))
            await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        bgruntime.run(main)
    assert isinstance(jobs[0].exception(), bgruntime.JobExited)


INTERRUPTED = """
import asyncio, os, signal, threading
from bgruntime import Runtime, run, JobInterrupted

# Who starts the tests in the background has it ignored, and that is inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)

async def main():
    async with Runtime() as rt:
        async def wait():
            try:
                await asyncio.Event().wait()
            finally:
                print("tidied", flush=True)
        await rt.submit(wait)
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)

try:
    run(main)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_a_real_ctrl_c_stops_the_runtime_and_is_raised_by_run() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=40)
    assert done.stdout.split() == ["tidied", "interrupted"], done.stderr
    assert done.stderr == ""
