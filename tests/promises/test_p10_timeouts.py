"""P10: a timeout is declared at its due time, whatever the job does."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time

import pytest

from bgruntime import JobCancelled, JobTimedOut, Retry, Runtime, current_job, task
from bgruntime.extend import AttemptAbandoned, AttemptEnded, JobSettled, ports

from .steps import Gate, turns, until, word
from .test_p09_one_outcome import Stubborn


def test_p10_a_timeout_is_declared_within_50_ms_of_its_due_time_on_a_real_clock(run):
    async def main():
        body = Stubborn(swallow=1000)
        loop = asyncio.get_running_loop()
        async with Runtime(concurrency=50) as rt:
            jobs = [await rt.submit(task(timeout=0.1 + number / 100)(body.run)) for number in range(10)]
            begun = loop.time()
            await until(lambda: body.started == 10)

            async def declared(number, job):
                await job.wait()
                return loop.time() - begun - (0.1 + number / 100)

            late = await asyncio.gather(*(declared(number, job) for number, job in enumerate(jobs)))
            body.let_go.set()
        assert min(late) >= -0.001
        assert max(late) < 0.25, "the loop of a busy machine may lag, but not this much"
        assert sorted(late)[5] < 0.05

    run(main)


def test_p10_a_timeout_is_declared_though_the_job_swallows_its_cancellation(run, clock):
    async def main():
        body = Stubborn(swallow=1000)
        async with Runtime(cancel_grace=5, cancel_hard=5) as rt:
            job = await rt.submit(task(timeout=30.0)(body.run))
            await until(lambda: body.started)
            await clock.advance(29.9)
            await turns()
            assert word(job.state) == "running"
            await clock.advance(0.1)
            await turns()
            assert word(job.state) == "discarded"
            assert word(job.reason) == "timed_out"
            assert isinstance(job.exception(), JobTimedOut)
            assert body.ended == 0
            body.let_go.set()

    run(main)


def test_p10_waiters_wake_at_the_timeout_while_the_attempt_keeps_its_slot(run, clock):
    async def main():
        body, gate = Stubborn(swallow=1000), Gate()
        async with Runtime(concurrency=1, cancel_grace=60) as rt:
            job = await rt.submit(task(timeout=1.0)(body.run))
            await until(lambda: body.started)
            waiter = asyncio.ensure_future(job.wait())
            queued = await rt.submit(gate.note, "next")
            await clock.advance(1.0)
            await waiter
            await turns()
            assert gate.started == [], "the slot is taken until the attempt has ended"
            draining = asyncio.ensure_future(rt.drain())
            await turns()
            assert not draining.done()
            body.let_go.set()
            await draining
            assert await queued == "next"

    run(main)


def test_p10_stop_waits_for_the_clean_up_of_a_timed_out_attempt(run, clock):
    async def main():
        cleaned, let_go = [], asyncio.Event()

        @task(timeout=1.0)
        async def work():
            try:
                await asyncio.Event().wait()
            finally:
                await let_go.wait()
                cleaned.append(1)

        async with Runtime(cancel_grace=60) as rt:
            job = await rt.submit(work)
            await until(lambda: rt.stats().running)
            await turns()
            await clock.advance(1.0)
            await job.wait()
            stopping = asyncio.ensure_future(rt.stop(drain=30, cancel=5, close=1))
            await turns()
            assert not stopping.done()
            let_go.set()
            await stopping
        assert cleaned == [1]

    run(main)


def test_p10_clean_up_may_await_for_the_grace_then_comes_a_second_cancel(run, clock):
    async def main():
        seen = []

        @task(timeout=10.0)
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

        async with Runtime(cancel_grace=5, cancel_hard=5) as rt:
            await rt.submit(work)
            await until(lambda: rt.stats().running)
            await turns()
            await clock.advance(10.0)
            await turns()
            assert seen == ["first"]
            await clock.advance(4.9)
            await turns()
            assert seen == ["first"]
            await clock.advance(0.1)
            await turns()
            assert seen == ["first", "second"]
            await rt.drain()
            assert rt.stats().stuck == 0

    run(main)


def test_p10_after_the_hard_limit_the_attempt_is_abandoned_as_stuck(run, clock):
    async def main():
        body = Stubborn(swallow=1000)
        async with Runtime(cancel_grace=5, cancel_hard=5) as rt:
            job = await rt.submit(task(timeout=1.0)(body.run))
            await until(lambda: body.started)
            await clock.advance(1.0)
            await turns()
            await clock.advance(5.0)
            await turns()
            await clock.advance(4.9)
            await turns()
            assert rt.stats().stuck == 0
            assert body.cancels == 2
            await clock.advance(0.1)
            await turns()
            assert rt.stats().stuck == 1
            assert word(job.state) == "discarded"
            assert word(job.reason) == "timed_out", "it ended at its timeout; what came later changes nothing"
            body.let_go.set()
            await until(lambda: rt.stats().stuck == 0, "the stuck attempt being let go when it ends")

    run(main)


def test_p10_a_user_cancelled_job_that_swallows_is_cancelled_again_then_stuck(run, clock):
    async def main():
        body = Stubborn(swallow=1000)
        async with Runtime(cancel_grace=5, cancel_hard=5) as rt:
            job = await rt.submit(task(timeout=None)(body.run))
            await until(lambda: body.started)
            job.cancel("user")
            await turns()
            assert body.cancels == 1
            await clock.advance(5.0)
            await turns()
            assert body.cancels == 2
            await clock.advance(5.0)
            await job.wait()
            assert rt.stats().stuck == 1
            body.let_go.set()

    run(main)


def test_p10_a_job_cancelled_after_its_timeout_is_cancelled_also_when_it_gets_stuck(run, clock):
    """Its attempt timed out and is stuck, and both are told; the job was the user's to cancel."""
    heard = []

    class Listening:
        listens_to = (AttemptEnded, AttemptAbandoned, JobSettled)

        def on_event(self, event):
            heard.append((type(event).__name__, word(getattr(event, "outcome", ""))))

    async def main():
        body = Stubborn(swallow=1000)
        options = task(timeout=1.0, max_attempts=3, name="p10.cancelled late")
        async with Runtime(cancel_grace=5, cancel_hard=5, observers=[Listening()]) as rt:
            job = await rt.submit(options(body.run))
            await until(lambda: body.started)
            await clock.advance(1.0)
            await turns()
            assert job.cancel("user")
            assert not job.cancel("again")
            await clock.advance(10.0)
            with pytest.raises(JobCancelled) as raised:
                await job
            assert (word(job.state), word(job.reason), raised.value.reason) == ("cancelled", "user", "user")
            stats = rt.stats()
            assert (stats.stuck, stats.cancelled, stats.failed) == (1, 1, 0)
            one = stats.tasks["p10.cancelled late"]
            assert (one.outcomes, one.finished) == ({"timed_out": 1}, {"stuck": 1})
            body.let_go.set()
            await until(lambda: rt.stats().stuck == 0, "the stuck attempt being let go when it ends")
            assert body.started == 1

    run(main)
    assert heard == [
        ("AttemptEnded", "timed_out"),
        ("AttemptAbandoned", ""),
        ("JobSettled", "stuck"),
    ]


@pytest.mark.parametrize(("concurrency", "back"), [(2, 1), (5, 1), (10, 1), (20, 2), (30, 3)])
def test_p10_slots_of_stuck_attempts_come_back_up_to_one_or_ten_percent(run, clock, concurrency, back):
    async def main():
        body, gate = Stubborn(swallow=1000), Gate()
        async with Runtime(concurrency=concurrency, cancel_grace=1, cancel_hard=1) as rt:
            for _ in range(concurrency):
                await rt.submit(task(timeout=1.0)(body.run))
            await until(lambda: body.started == concurrency)
            for number in range(concurrency):
                await rt.submit(gate.hold, number)
            for _ in range(4):
                await clock.advance(1.0)
                await turns()
            assert rt.stats().stuck == concurrency
            await turns(30)
            assert len(gate.started) == back
            body.let_go.set()
            await until(lambda: len(gate.started) == concurrency, "every slot coming back with its attempt")
            gate.open()

    run(main)


def test_p10_health_says_so_when_slots_stay_taken_by_stuck_attempts(run, clock):
    async def main():
        body = Stubborn(swallow=1000)
        async with Runtime(concurrency=3, cancel_grace=1, cancel_hard=1) as rt:
            before = rt.health()
            for _ in range(3):
                await rt.submit(task(timeout=1.0)(body.run))
            await until(lambda: body.started == 3)
            for _ in range(4):
                await clock.advance(1.0)
                await turns()
            assert rt.health() != before
            assert "stuck" in repr(rt.health())
            body.let_go.set()

    run(main)


@pytest.mark.parametrize("problem", [TimeoutError("mine"), TimeoutError()], ids=["text", "bare"])
def test_p10_a_jobs_own_timeouterror_is_a_failure_not_our_timeout(run, clock, problem):
    async def main():
        @task(timeout=30.0)
        async def work():
            raise problem

        async with Runtime() as rt:
            job = await rt.submit(work)
            with pytest.raises(TimeoutError) as raised:
                await job
            assert raised.value is problem
            assert not isinstance(raised.value, JobTimedOut)
            assert word(job.reason) != "timed_out"

    run(main)


def test_p10_a_timeout_is_per_attempt(run, clock):
    async def main():
        seen = []

        @task(timeout=10.0, max_attempts=3, backoff=lambda _: 60.0)
        async def work():
            seen.append(current_job().remaining())
            if len(seen) < 3:
                raise Retry(after=60.0)
            return "third"

        async with Runtime() as rt:
            job = await rt.submit(work)
            for _ in range(2):
                await until(lambda: word(job.state) == "retryable")
                await clock.advance(60.0)
                await turns()
            assert await job == "third"
        assert seen == [pytest.approx(10.0)] * 3

    run(main)


def test_p10_time_in_the_queue_does_not_count(run, clock):
    async def main():
        gate, seen = Gate(), []

        @task(timeout=5.0)
        async def work():
            seen.append(current_job().remaining())
            return "in time"

        async with Runtime(concurrency=1) as rt:
            await rt.submit(task(timeout=None)(gate.hold))
            await until(lambda: gate.started)
            job = await rt.submit(work)
            await clock.advance(100.0)
            await turns()
            gate.open()
            assert await job == "in time"
        assert seen == [pytest.approx(5.0)]

    run(main)


def test_p10_none_is_unlimited_and_the_default_is_three_hundred_seconds(run, clock):
    async def main():
        default, unlimited = Gate(), Gate()
        async with Runtime() as rt:
            short = await rt.submit(default.hold)
            long = await rt.submit(task(timeout=None)(unlimited.hold), "still here")
            await until(lambda: default.started and unlimited.started)
            await clock.advance(299.0)
            await turns()
            assert word(short.state) == "running"
            await clock.advance(1.0)
            with pytest.raises(JobTimedOut):
                await short
            await clock.advance(1_000_000.0)
            await turns()
            unlimited.open()
            assert await long == "still here"

    run(main)


def test_p10_with_options_changes_the_timeout_of_one_submission(run, clock):
    async def main():
        gate = Gate()
        work = task(timeout=100.0)(gate.hold)
        async with Runtime() as rt:
            short = await rt.submit(work.with_options(timeout=1.0), "short")
            long = await rt.submit(work, "long")
            await until(lambda: len(gate.started) == 2)
            await clock.advance(1.0)
            with pytest.raises(JobTimedOut):
                await short
            assert word(long.state) == "running"
            gate.open()

    run(main)


def test_p10_timeouts_of_many_jobs_are_each_their_own(run, clock):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=100) as rt:
            jobs = [await rt.submit(task(timeout=float(number))(gate.hold)) for number in range(50, 0, -1)]
            await until(lambda: len(gate.started) == 50)
            for second in range(1, 51):
                await clock.advance(1.0)
                await turns(4)
                ended = [word(job.state) == "discarded" for job in jobs]
                assert sum(ended) == second
                assert all(ended[-second:])

    run(main)


def test_p10_a_plain_function_times_out_and_sees_that_it_should_stop(run, clock):
    async def main():
        seen = []

        @task(timeout=1.0)
        def work():
            context = current_job()
            seen.append(context.stopping.is_set())
            seen.append(context.stopping.wait(10))
            return "late"

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: seen)
            await clock.advance(1.0)
            with pytest.raises(JobTimedOut):
                await job
            await until(lambda: rt.stats().stuck == 0, "the thread's end")
        assert seen == [False, True]

    run(main)


def test_p10_a_thread_past_its_timeout_counts_as_stuck_until_it_ends(run, clock):
    async def main():
        hold, started = threading.Event(), []

        @task(timeout=1.0)
        def work():
            started.append(1)
            hold.wait(10)

        async with Runtime(threads=4) as rt:
            job = await rt.submit(work)
            await until(lambda: started)
            await clock.advance(1.0)
            with pytest.raises(JobTimedOut):
                await job
            await turns()
            assert rt.stats().stuck == 1
            hold.set()
            await until(lambda: rt.stats().stuck == 0, "the thread's end")

    run(main)


def test_p10_the_job_is_told_to_stop_before_it_is_cancelled(run, clock):
    async def main():
        seen = []

        @task(timeout=1.0)
        async def work():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append(current_job().stopping.is_set())
                raise

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: rt.stats().running)
            await turns()
            await clock.advance(1.0)
            await job.wait()
            await rt.drain()
        assert seen == [True]

    run(main)


def test_p10_remaining_counts_down_to_the_timeout(run, clock):
    async def main():
        seen, more, unlimited = [], asyncio.Event(), []

        @task(timeout=10.0)
        async def work():
            seen.append(current_job().remaining())
            await more.wait()
            seen.append(current_job().remaining())

        @task(timeout=None)
        async def endless():
            unlimited.append(current_job().remaining())

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: seen)
            await clock.advance(4.0)
            more.set()
            await job
            await (await rt.submit(endless))
        assert seen == [pytest.approx(10.0), pytest.approx(6.0)]
        assert unlimited[0] is None or unlimited[0] == float("inf")

    run(main)


def test_p10_a_job_that_blocks_the_loop_past_its_timeout_is_timed_out_when_it_yields(run):
    async def main():
        @task(timeout=0.02)
        async def hog():
            time.sleep(0.06)
            await asyncio.Event().wait()

        async with Runtime() as rt:
            with pytest.raises(JobTimedOut):
                await (await rt.submit(hog))

    run(main)


def test_p10_an_abandoned_attempt_is_reported_with_its_stack(run, clock):
    async def main():
        body, heard = Stubborn(swallow=1000), []

        class Watcher:
            listens_to = (AttemptAbandoned,)

            def on_event(self, event):
                heard.append(event)

        async with Runtime(cancel_grace=1, cancel_hard=1, observers=[Watcher()]) as rt:
            job = await rt.submit(task(timeout=1.0)(body.run))
            await until(lambda: body.started)
            await clock.advance(3.0)
            assert [event.job.id for event in heard] == [job.id]
            assert "let_go.wait" in heard[0].stack
            body.let_go.set()

    run(main)


@pytest.mark.parametrize("calls", [1, 2])
def test_p10_a_fault_of_the_clock_costs_no_deadline(run, clock, calls):
    """Where a reading fails while deadlines are looked at, each timeout is declared all the same."""

    async def main():
        heard, left = [], [0]

        def monotonic():
            if left[0]:
                left[0] -= 1
                if not left[0]:
                    raise OSError("no clock")
            return clock.monotonic()

        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
        with ports.use(dataclasses.replace(clock.ports, monotonic=monotonic)):
            async with Runtime() as rt:
                gates = [Gate() for _ in range(3)]
                jobs = [await rt.submit(task(timeout=5 + n)(gate.hold)) for n, gate in enumerate(gates)]
                await until(lambda: all(gate.started for gate in gates))
                left[0] = calls
                await clock.advance(5)
                left[0] = 0
                await clock.advance(5)
                for job in jobs:
                    assert isinstance(job.exception(), JobTimedOut)
        assert len(heard) <= 1

    run(main)


def test_p10_a_timeout_is_on_time_though_the_loop_was_held_between_the_start_and_the_first_step(run):
    @task(timeout=0.05)
    async def work() -> None:
        await asyncio.sleep(5)

    async def main():
        async with Runtime() as rt:
            job = await rt.submit(work)
            asyncio.get_running_loop().call_soon(time.sleep, 0.08)
            began = time.monotonic()
            await job.wait()
            assert isinstance(job.exception(), JobTimedOut)
            assert 0.05 <= time.monotonic() - began < 0.5

    run(main)
