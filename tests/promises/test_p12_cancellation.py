"""P12: a cancelled queued job never starts; a running one gets CancelledError within a turn."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import pytest

from bgruntime import JobCancelled, JobInterrupted, Runtime, current_job, task
from bgruntime.extend import ports

from .steps import Gate, turns, until, word


def test_p12_a_cancelled_queued_job_never_starts(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            await rt.submit(gate.hold, "running")
            await until(lambda: gate.started)
            job = await rt.submit(gate.hold, "queued")
            assert job.cancel("not now") is True
            assert word(job.state) == "cancelled"
            with pytest.raises(JobCancelled) as raised:
                await job
            assert "not now" in str(raised.value.reason)
            assert not isinstance(raised.value, JobInterrupted)
            gate.open()
        assert gate.started == ["running"]

    run(main)


def test_p12_a_job_cancelled_right_after_submit_never_starts(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            for _ in range(20):
                job = rt.submit_nowait(gate.note)
                assert job.cancel() is True
                await job.wait()
                assert word(job.state) == "cancelled"
        assert gate.started == []

    run(main)


def test_p12_a_cancelled_scheduled_or_retryable_job_never_starts(run, clock):
    async def main():
        gate, calls = Gate(), []

        @task(max_attempts=5, backoff=lambda _: 10.0)
        async def flaky():
            calls.append(1)
            raise ValueError

        async with Runtime() as rt:
            scheduled = await rt.submit(task(gate.note).with_options(delay=10.0))
            retryable = await rt.submit(flaky)
            await until(lambda: word(retryable.state) == "retryable")
            assert scheduled.cancel() is True
            assert retryable.cancel() is True
            await clock.advance(60.0)
            await turns()
            for job in (scheduled, retryable):
                with pytest.raises(JobCancelled):
                    await job
        assert gate.started == []
        assert calls == [1]

    run(main)


def test_p12_a_running_job_gets_cancellederror_within_a_turn(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.hold, "x")
            await until(lambda: gate.started)
            assert job.cancel() is True
            await turns(2)
            assert gate.cancelled == ["x"]
            with pytest.raises(JobCancelled):
                await job
            assert word(job.state) == "cancelled"

    run(main)


def test_p12_a_job_that_never_suspends_is_not_cancelled_in_the_middle(run):
    async def main():
        jobs = []

        @task
        async def work():
            jobs[0].cancel()
            return "value"

        async with Runtime() as rt:
            jobs.append(await rt.submit(work))
            with pytest.raises(JobCancelled):
                await jobs[0]
            assert word(jobs[0].state) == "cancelled"

    run(main)


def test_p12_cancel_without_a_reason_still_has_one(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.hold)
            await turns()
            job.cancel()
            with pytest.raises(JobCancelled) as raised:
                await job
            assert str(raised.value)
            assert word(job.reason) == "cancelled"

    run(main)


def test_p12_a_cancelled_plain_function_that_has_not_started_never_runs(run):
    async def main():
        hold, ran = threading.Event(), []

        @task
        def work(label):
            ran.append(label)
            hold.wait(10)

        async with Runtime(threads=1) as rt:
            first, second = await rt.submit(work, 1), await rt.submit(work, 2)
            await until(lambda: ran)
            assert second.cancel() is True
            await second.wait()
            hold.set()
            await first
        assert ran == [1]

    run(main)


def test_p12_a_cancelled_plain_function_is_told_to_stop(run):
    async def main():
        seen = []

        @task
        def work():
            seen.append("started")
            seen.append(current_job().stopping.wait(10))

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: seen)
            job.cancel("enough")
            with pytest.raises(JobCancelled):
                await job
            await rt.drain()
        assert seen == ["started", True]

    run(main)


def test_p12_a_job_may_cancel_another_and_itself(run):
    async def main():
        gate = Gate()
        own = []

        @task
        async def itself():
            own[0].cancel("suicide")
            await asyncio.Event().wait()

        @task
        async def killer(victim):
            return victim.cancel("murder")

        async with Runtime() as rt:
            victim = await rt.submit(gate.hold)
            await until(lambda: gate.started)
            assert await (await rt.submit(killer, victim)) is True
            with pytest.raises(JobCancelled):
                await victim
            own.append(await rt.submit(itself))
            with pytest.raises(JobCancelled) as raised:
                await own[0]
            assert "suicide" in str(raised.value.reason)

    run(main)


def test_p12_a_failure_while_being_cancelled_is_still_the_cancellation(run):
    async def main():
        @task
        async def work():
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("clean-up went wrong")

        async with Runtime() as rt:
            job = await rt.submit(work)
            await turns()
            job.cancel("stop")
            with pytest.raises(JobCancelled):
                await job
            assert word(job.state) == "cancelled"

    run(main)


def test_p12_cancel_all_of_a_full_queue_runs_none_and_frees_the_room(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=100) as rt:
            await rt.submit(gate.hold, "running")
            await until(lambda: gate.started)
            jobs = [await rt.submit(gate.hold, number) for number in range(100)]
            for job in jobs:
                assert job.cancel()
            again = [rt.submit_nowait(gate.hold, f"again-{number}") for number in range(100)]
            gate.open()
            for job in again:
                await job
        assert len(gate.started) == 101

    run(main)


def test_p12_a_plain_function_that_is_cancelled_before_its_thread_comes_to_it_never_runs(run):
    late, ran = [], []

    def work() -> None:
        ran.append(1)

    async def main():
        slow = dataclasses.replace(ports.current(), spawn=lambda target, name: late.append(target))
        with ports.use(slow):
            rt = Runtime(threads=1)
            async with rt:
                job = await rt.submit(work)
                await until(lambda: late)
                assert job.cancel("no")
                thread = threading.Thread(target=late.pop())
                thread.start()
                await job.wait()
                thread.join()
                assert (str(job.state), job.reason) == ("cancelled", "no")
                assert rt.stats().threads_in_use == 0

    run(main)
    assert not ran
