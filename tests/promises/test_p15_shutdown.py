"""P15: shutdown ends within its deadline + 100 ms for every job that yields, and accounts for every job."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest

import bgruntime
from bgruntime import (
    JobCancelled,
    JobInterrupted,
    Queue,
    Runtime,
    RuntimeClosed,
    Shutdown,
    current_job,
    task,
)

from .steps import Gate, complaints, python, said, turns, until, word
from .zoo import ANIMALS, STUCK, Zoo

TERMINAL = {"completed", "cancelled", "discarded"}


async def stopped(stopping: asyncio.Future, clock, limit: float) -> float:
    """Advance the clock until the stop is over; return the seconds it took, at most `limit`."""
    begun = clock.now
    while not stopping.done():
        assert clock.now - begun <= limit, f"the stop goes on after {clock.now - begun:.2f} s"
        await clock.advance(0.05)
    return clock.now - begun


def test_p15_leaving_cleanly_drains_without_limit(run, clock):
    async def main():
        gate = Gate()

        async def app():
            async with Runtime(concurrency=1) as rt:
                return [await rt.submit(task(timeout=None)(gate.hold), number) for number in range(3)]

        leaving = asyncio.ensure_future(app())
        await until(lambda: gate.started)
        await clock.advance(100_000.0)
        assert not leaving.done()
        gate.open()
        assert [job.result() for job in await leaving] == [0, 1, 2]

    run(main)


def test_p15_leaving_by_an_exception_skips_the_drain_and_the_exception_goes_on(run):
    async def main():
        gate, jobs = Gate(), []
        with pytest.raises(LookupError, match="body"):
            async with Runtime(concurrency=1) as rt:
                jobs += [await rt.submit(gate.hold, number) for number in range(2)]
                await until(lambda: gate.started)
                raise LookupError("body")
        assert gate.started == gate.cancelled == [0]
        for job in jobs:
            with pytest.raises(JobInterrupted):
                job.result()

    run(main)


def test_p15_leaving_by_a_cancellation_skips_the_drain_and_is_not_lost(run):
    async def main():
        gate, jobs = Gate(), []

        async def app():
            async with Runtime() as rt:
                jobs.append(await rt.submit(gate.hold))
                await asyncio.Event().wait()

        running = asyncio.ensure_future(app())
        await until(lambda: gate.started)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert word(jobs[0].state) == "cancelled"
        assert gate.running == 0

    run(main)


def test_p15_a_cancellation_while_leaving_cuts_the_drain_short_and_is_not_lost(run):
    async def main():
        gate, jobs = Gate(), []

        async def app():
            async with Runtime() as rt:
                jobs.append(await rt.submit(gate.hold))

        leaving = asyncio.ensure_future(app())
        await until(lambda: gate.started)
        await turns()
        leaving.cancel()
        await turns(30)
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert word(jobs[0].state) == "cancelled"
        assert gate.running == 0

    run(main)


def test_p15_during_the_drain_new_work_is_refused_and_accepted_work_goes_on(run):
    async def main():
        gate, late = Gate(), Gate()
        async with Runtime(concurrency=1) as rt:
            jobs = [await rt.submit(gate.hold, number) for number in range(3)]
            await until(lambda: gate.started)
            stopping = asyncio.ensure_future(rt.stop(drain=30, cancel=5, close=1))
            await turns()
            with pytest.raises(RuntimeClosed):
                await rt.submit(late.note)
            with pytest.raises(RuntimeClosed):
                rt.submit_nowait(late.note)
            with pytest.raises(RuntimeClosed):
                await rt.submit_many(late.note, [(1,)])
            gate.open()
            report = await stopping
            assert [await job for job in jobs] == [0, 1, 2]
            assert set(report.completed) == {job.id for job in jobs}
        assert late.started == []

    run(main)


def test_p15_a_job_refused_by_its_stopping_runtime_sees_runtimeclosed(run):
    async def main():
        gate, late = Gate(), Gate()
        async with Runtime() as rt:

            @task
            async def work():
                await gate.hold()
                with pytest.raises(RuntimeClosed):
                    await rt.submit(late.note)
                return "ok"

            job = await rt.submit(work)
            await until(lambda: gate.started)
            stopping = asyncio.ensure_future(rt.stop(drain=30, cancel=5, close=1))
            await turns()
            gate.open()
            await stopping
            assert await job == "ok"
        assert late.started == []

    run(main)


def test_p15_stopping_is_set_when_the_drain_begins(run):
    async def main():
        contexts = []

        @task
        async def work():
            contexts.append(current_job())
            while not current_job().stopping.is_set():
                await asyncio.sleep(0)
            return "saw it"

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: contexts)
            assert not contexts[0].stopping.is_set()
            report = await rt.stop(drain=30, cancel=5, close=1)
            assert await job == "saw it"
            assert report.completed == (job.id,)

    run(main)


def test_p15_after_the_drain_jobs_are_cancelled_and_the_queue_is_interrupted(run, clock):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            running = await rt.submit(gate.hold, "running")
            queued = await rt.submit(gate.hold, "queued")
            scheduled = await rt.submit(task(gate.note).with_options(delay=1e6), "scheduled")
            await until(lambda: gate.started)
            stopping = asyncio.ensure_future(rt.stop(drain=10, cancel=5, close=1))
            await clock.advance(9.9)
            assert word(running.state) == "running"
            await clock.advance(0.1)
            report = await stopping
            for job in (running, queued, scheduled):
                assert word(job.state) == "cancelled"
                assert word(job.reason) == "interrupted"
                with pytest.raises(JobInterrupted) as raised:
                    await job
                assert raised.value.requeued is False
            assert set(report.cancelled) == {running.id, queued.id, scheduled.id}
            assert report.completed == report.requeued == report.stuck == report.lost == ()
        assert gate.started == ["running"]

    run(main)


def test_p15_a_retryable_job_is_drained_when_its_time_comes_and_else_interrupted(run, clock):
    async def main():
        for wait, ended in ((5.0, "completed"), (500.0, "cancelled")):
            calls = []

            @task(max_attempts=2, backoff=lambda _, wait=wait: wait)
            async def flaky(calls=calls):
                calls.append(1)
                if len(calls) == 1:
                    raise ValueError

            async with Runtime() as rt:
                job = await rt.submit(flaky)
                await until(lambda job=job: word(job.state) == "retryable")
                stopping = asyncio.ensure_future(rt.stop(drain=10, cancel=5, close=1))
                await stopped(stopping, clock, 16.0)
                assert word(job.state) == ended

    run(main)


def test_p15_an_interrupted_attempt_is_no_failure(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(task(max_attempts=3)(gate.hold))
            await until(lambda: gate.started)
            await rt.stop(drain=0, cancel=5, close=1)
            assert word(job.state) == "cancelled"
            assert len(gate.started) == 1

    run(main)


def test_p15_the_second_cancel_falls_at_half_of_cancel(run, clock):
    async def main():
        seen = []

        @task
        async def work():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("first")
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    seen.append("second")
                    raise

        async with Runtime() as rt:
            await rt.submit(work)
            await until(lambda: rt.stats().running)
            await turns()
            stopping = asyncio.ensure_future(rt.stop(drain=0, cancel=8, close=1))
            await clock.advance(3.9)
            assert seen == ["first"]
            await clock.advance(0.1)
            assert seen == ["first", "second"]
            await stopping

    run(main)


def test_p15_a_stop_with_every_animal_of_the_zoo_ends_within_its_deadline(run, clock):
    async def main():
        zoo, quick = Zoo(), Gate()
        async with Runtime(concurrency=50, threads=4) as rt:
            animals = {name: await rt.submit(task(timeout=None)(getattr(zoo, name))) for name in ANIMALS}
            await until(lambda: len(zoo.started) == len(ANIMALS), "every animal's start")
            quick_job = await rt.submit(quick.hold, "quick")
            await until(lambda: quick.started)
            queued = [await rt.submit(task(zoo.tidy).with_options(delay=1e6)) for _ in range(3)]
            stopping = asyncio.ensure_future(rt.stop(drain=3, cancel=4, close=2))
            await turns()
            quick.open()
            took = await stopped(stopping, clock, 9.1)
            report = stopping.result()
            ids = {job.id: name for name, job in animals.items()}
            assert took <= 9.1
            assert {ids[each] for each in report.stuck} == STUCK
            assert report.completed == (quick_job.id,)
            assert {ids.get(each, "queued") for each in report.cancelled} == (set(ANIMALS) - STUCK) | {
                "queued"
            }
            assert report.lost == ()
            assert report.requeued == ()
            everyone = [*animals.values(), quick_job, *queued]
            accounted = [*report.completed, *report.cancelled, *report.stuck]
            assert sorted(accounted) == sorted(job.id for job in everyone), "each job is in one list, once"
            for job in everyone:
                assert word(job.state) in TERMINAL
            assert zoo.cleaned == ["tidy"]
            zoo.open()
            await zoo.rest()
            await turns()

    run(main)


def test_ctrl_c_ends_a_test_whose_clock_stands_still_while_its_runtime_waits(run, clock):
    """It is no promise of the runtime's, but of the tests to whoever runs them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    zoo = Zoo()

    async def main():
        async with Runtime() as rt:
            await rt.submit(zoo.swallower)
            await until(lambda: zoo.started)
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()

    try:
        with pytest.raises(KeyboardInterrupt):
            run(main)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.timing
def test_p15_a_stop_with_the_zoo_ends_within_100_ms_of_its_deadline_on_a_real_clock(run):
    async def main():
        zoo = Zoo()
        loop = asyncio.get_running_loop()
        async with Runtime(concurrency=50, threads=4) as rt:
            for name in ANIMALS:
                await rt.submit(getattr(zoo, name))
            await until(lambda: len(zoo.started) == len(ANIMALS), "every animal's start")
            begun = loop.time()
            report = await rt.stop(drain=0.1, cancel=0.2, close=0.1)
            took = loop.time() - begun
            assert took <= 0.4 + 0.1
            assert len(report.stuck) == len(STUCK)
            zoo.open()
            await zoo.rest()
            await turns()

    run(main)


def test_p15_one_deadline_for_all_queues_together(run, clock):
    async def main():
        zoo = Zoo()
        queues = [Queue(name, concurrency=1) for name in "abcdef"]
        async with Runtime(queues=queues) as rt:
            for queue in "abcdef":
                await rt.submit(task(queue=queue, timeout=None)(zoo.swallower))
            await until(lambda: len(zoo.started) == 6)
            stopping = asyncio.ensure_future(rt.stop(drain=2, cancel=2, close=1))
            assert await stopped(stopping, clock, 5.1) <= 5.1
            assert len(stopping.result().stuck) == 6
            zoo.open()
            await turns()

    run(main)


def test_p15_calling_stop_again_skips_the_drain(run, clock):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.hold)
            await until(lambda: gate.started)
            first = asyncio.ensure_future(rt.stop(drain=1000, cancel=5, close=1))
            await clock.advance(1.0)
            assert word(job.state) == "running"
            second = asyncio.ensure_future(rt.stop())
            reports = await asyncio.gather(first, second)
            assert word(job.state) == "cancelled"
            assert reports[0] == reports[1]
            assert reports[0].cancelled == (job.id,)

    run(main)


def test_p15_stop_is_idempotent_and_returns_its_report_again(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.hold, 1)
            await until(lambda: gate.started)
            stopping = asyncio.ensure_future(rt.stop(drain=30, cancel=5, close=1))
            await turns()
            gate.open()
            report = await stopping
            assert report.completed == (job.id,)
            assert await rt.stop() == report
        assert await rt.stop() == report

    run(main)


def test_p15_stop_may_be_called_from_a_job_and_does_not_wait_for_it(run):
    async def main():
        reports, after, gate = [], [], Gate()
        async with Runtime() as rt:

            @task
            async def work():
                reports.append(await rt.stop(drain=30, cancel=5, close=1))
                after.append(1)

            other = await rt.submit(gate.hold, "other")
            await until(lambda: gate.started)
            job = await rt.submit(work)
            await turns(20)
            assert reports == [], "it waits for the other job"
            gate.open()
            await job.wait()
            assert other.result() == "other"
        assert len(reports) == 1
        assert after == [1]
        assert reports[0].lost == ()

    run(main)


def test_p15_cancelling_whoever_waits_for_stop_is_not_swallowed_and_the_stop_goes_on(run, clock):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.hold)
            await until(lambda: gate.started)
            waiting = asyncio.ensure_future(rt.stop(drain=10, cancel=5, close=1))
            await turns()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert word(job.state) == "running"
            with pytest.raises(RuntimeClosed):
                rt.submit_nowait(gate.note)
            await clock.advance(10.0)
            assert word(job.state) == "cancelled"
            report = await rt.stop()
            assert report.cancelled == (job.id,)

    run(main)


def test_p15_the_runtimes_own_limits_serve_when_stop_is_given_none(run, clock):
    async def main():
        zoo = Zoo()
        async with Runtime(shutdown=Shutdown(drain=3, cancel=4, close=2)) as rt:
            await rt.submit(zoo.swallower)
            await until(lambda: zoo.started)
            stopping = asyncio.ensure_future(rt.stop())
            await clock.advance(2.9)
            assert not stopping.done()
            took = 2.9 + await stopped(stopping, clock, 7.0)
            assert 6.9 <= took <= 9.1
            zoo.open()
            await turns()

    run(main)


def test_p15_a_job_stuck_before_the_stop_does_not_hold_it_up_twice(run, clock):
    async def main():
        zoo = Zoo()
        async with Runtime(cancel_grace=1, cancel_hard=1) as rt:
            job = await rt.submit(task(timeout=1.0)(zoo.swallower))
            await until(lambda: zoo.started)
            for _ in range(3):
                await clock.advance(1.0)
            assert rt.stats().stuck == 1
            stopping = asyncio.ensure_future(rt.stop(drain=60, cancel=2, close=1))
            await stopped(stopping, clock, 3.1)
            assert job.id in stopping.result().stuck
            zoo.open()
            await turns()

    run(main)


def test_p15_a_stop_of_an_idle_runtime_takes_no_time(run, clock):
    async def main():
        async with Runtime() as rt:
            report = await rt.stop(drain=100, cancel=100, close=100)
        assert report.completed == report.cancelled == report.requeued == report.stuck == report.lost == ()
        assert clock.pending == 0

    run(main)


def test_p15_leaving_after_a_stop_does_nothing_more(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            await (await rt.submit(gate.note))
            await rt.stop(drain=1, cancel=1, close=1)
        async with rt:
            assert await (await rt.submit(gate.note, "again")) == "again"

    run(main)


def test_p15_waiting_and_cancelling_still_work_after_the_stop(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.note, "value")
        assert await job == "value"
        await job.wait()
        assert job.cancel() is False

    run(main)


def test_p15_drain_is_over_when_the_runtime_is_stopped_under_it(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            await rt.submit(gate.hold)
            await until(lambda: gate.started)
            draining = asyncio.ensure_future(rt.drain())
            await turns()
            await rt.stop(drain=0, cancel=5, close=1)
            await asyncio.wait([draining])
            assert draining.done()
            assert draining.exception() is None or isinstance(draining.exception(), RuntimeClosed)

    run(main)


def test_p15_a_paused_queue_does_not_hold_up_the_stop(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            rt.pause()
            job = await rt.submit(gate.note)
            report = await rt.stop(drain=30, cancel=5, close=1)
            assert report.cancelled == (job.id,)
            with pytest.raises(JobCancelled):
                await job
        assert gate.started == []

    run(main)


def test_p15_the_process_exits_with_a_thread_stuck_in_sleep():
    begun = time.monotonic()
    done = python(
        """
        import asyncio, time
        from bgruntime import JobTimedOut, Runtime, task

        @task(timeout=0.05)
        def stuck():
            time.sleep(3600)

        async def main():
            async with Runtime() as rt:
                job = await rt.submit(stuck)
                try:
                    await job
                except JobTimedOut as error:
                    print("> timed out")
                report = await rt.stop(drain=0.1, cancel=0.1, close=0.1)
                print(">", report.stuck == (job.id,))

        asyncio.run(main())
        print("> left")
        """,
        timeout=20,
    )
    assert complaints(done) == []
    assert said(done) == ["timed out", "True", "left"]
    assert done.returncode == 0
    assert time.monotonic() - begun < 10


def test_p15_leaving_with_a_stuck_thread_and_an_exception_exits_too():
    done = python(
        """
        import asyncio, time
        from bgruntime import Runtime, Shutdown

        def stuck():
            time.sleep(3600)

        async def main():
            async with Runtime(shutdown=Shutdown(drain=None, cancel=0.1, close=0.1)) as rt:
                await rt.submit(stuck)
                await asyncio.sleep(0.05)
                raise LookupError("leave")

        try:
            asyncio.run(main())
        except LookupError:
            print("> left")
        """,
        timeout=20,
    )
    assert (said(done), complaints(done), done.returncode) == (["left"], [], 0)


def test_p15_a_thread_that_ends_after_the_runtime_disturbs_no_one(run):
    async def main():
        hold, started = threading.Event(), []

        @task
        def work():
            started.append(1)
            hold.wait(10)

        async with Runtime() as rt:
            await rt.submit(work)
            await until(lambda: started)
            await rt.stop(drain=0, cancel=0.02, close=0.02)
        hold.set()
        await turns(50)

    run(main)


def test_p15_a_thread_that_ends_after_its_loop_closed_disturbs_no_one(capsys):
    hold, started = threading.Event(), []

    async def main():
        @task
        def work():
            started.append(threading.current_thread())
            hold.wait(10)

        async with Runtime() as rt:
            await rt.submit(work)
            await until(lambda: started)
            await rt.stop(drain=0, cancel=0.02, close=0.02)

    asyncio.run(main())
    heard = []
    before, threading.excepthook = threading.excepthook, heard.append
    try:
        hold.set()
        started[0].join(0.5)
    finally:
        threading.excepthook = before
    assert heard == []
    [line] = capsys.readouterr().err.splitlines()
    assert "job.stuck" in line


def test_p15_run_gives_the_value_of_main():
    async def main():
        async with Runtime() as rt:
            return await (await rt.submit(task(lambda: "value", name="p15-run")))

    assert bgruntime.run(main()) == "value"


def test_p15_a_job_that_ends_in_the_turn_in_which_the_stop_begins_is_in_its_report(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            jobs = [await rt.submit(task(gate.hold), n) for n in range(3)]
            await until(lambda: len(gate.started) == 3)
            stopping = asyncio.ensure_future(rt.stop(drain=1))
            gate.open()
            report = await stopping
            assert sorted(report.completed) == sorted(job.id for job in jobs)

    run(main)
