"""P01: submit gives a job that reaches exactly one terminal state, or raises having had no effect."""

from __future__ import annotations

import asyncio
import gc
import random

import pytest

import bgruntime
from bgruntime import (
    Cancel,
    Discard,
    JobCancelled,
    JobDiscarded,
    JobExited,
    JobInterrupted,
    JobTimedOut,
    Queue,
    QueueFull,
    Retry,
    Runtime,
    RuntimeClosed,
    Snooze,
    task,
)

from .steps import Gate, turns, until, word

TERMINAL = {"completed", "cancelled", "discarded"}


class Refusal(Exception):
    """What the failing jobs of this file raise."""


def test_p01_a_job_that_returns_is_completed_and_gives_its_value(run):
    async def main():
        @task
        async def answer():
            return 42

        async with Runtime() as rt:
            job = await rt.submit(answer)
            assert await job == 42
            assert word(job.state) == "completed"
            assert job.result() == 42
            assert job.exception() is None

    run(main)


def test_p01_a_job_that_raises_is_discarded_and_gives_that_very_exception(run):
    async def main():
        problem = Refusal("no")

        @task
        async def fail():
            raise problem

        async with Runtime() as rt:
            job = await rt.submit(fail)
            with pytest.raises(Refusal) as raised:
                await job
            assert raised.value is problem
            assert job.exception() is problem
            assert word(job.state) == "discarded"
            with pytest.raises(Refusal):
                job.result()

    run(main)


def test_p01_a_job_past_its_timeout_is_discarded_and_raises_jobtimedout(run, clock):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(task(timeout=2.0)(gate.hold))
            await until(lambda: gate.started)
            await clock.advance(2.0)
            with pytest.raises(JobTimedOut) as raised:
                await job
            assert isinstance(raised.value, TimeoutError)
            assert raised.value.stuck is False
            assert word(job.state) == "discarded"
            assert word(job.reason) == "timed_out"

    run(main)


@pytest.mark.parametrize(
    "problem", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=lambda p: type(p).__name__
)
def test_p01_a_job_that_exits_is_discarded_and_raises_jobexited_with_its_cause(run, problem):
    async def main():
        @task
        async def leave():
            raise problem

        rt = Runtime()
        async with rt:
            job = await rt.submit(leave)
            with pytest.raises(JobExited) as raised:
                await job
            assert raised.value.__cause__ is problem
            assert word(job.state) == "discarded"

    run(main)


def test_p01_a_base_exception_of_the_users_own_is_jobexited(run):
    class Odd(BaseException):
        pass

    async def main():
        @task
        async def odd():
            raise Odd("odd")

        async with Runtime() as rt:
            job = await rt.submit(odd)
            with pytest.raises(JobExited) as raised:
                await job
            assert isinstance(raised.value.__cause__, Odd)

    run(main)


def test_p01_discard_is_discarded_and_raises_jobdiscarded(run):
    async def main():
        @task(max_attempts=5)
        async def give_up():
            raise Discard("not worth it")

        async with Runtime() as rt:
            job = await rt.submit(give_up)
            with pytest.raises(JobDiscarded, match="not worth it"):
                await job
            assert word(job.state) == "discarded"
            assert job.attempt == 1

    run(main)


def test_p01_cancel_raised_by_the_job_is_cancelled_with_its_reason(run):
    async def main():
        @task(max_attempts=5)
        async def withdraw():
            raise Cancel("withdrawn")

        async with Runtime() as rt:
            job = await rt.submit(withdraw)
            with pytest.raises(JobCancelled) as raised:
                await job
            assert "withdrawn" in str(raised.value.reason)
            assert word(job.state) == "cancelled"
            assert job.attempt == 1

    run(main)


def test_p01_a_cancellederror_the_job_raised_itself_is_cancelled_never_cancellederror(run):
    async def main():
        @task(max_attempts=3)
        async def own():
            raise asyncio.CancelledError("my own")

        async with Runtime() as rt:
            job = await rt.submit(own)
            with pytest.raises(JobCancelled) as raised:
                await job
            assert not isinstance(raised.value, (asyncio.CancelledError, JobInterrupted))
            assert isinstance(raised.value, Exception)
            assert word(job.state) == "cancelled"

    run(main)


def test_p01_a_job_that_expires_before_its_first_start_is_cancelled_as_expired(run, clock):
    async def main():
        gate, late = Gate(), Gate()
        async with Runtime(concurrency=1) as rt:
            await rt.submit(gate.hold)
            await until(lambda: gate.started)
            job = await rt.submit(task(expires_in=5.0)(late.note))
            await clock.advance(6.0)
            gate.open()
            with pytest.raises(JobCancelled) as raised:
                await job
            assert word(job.state) == "cancelled"
            assert word(job.reason) == "expired"
            assert "expired" in str(raised.value.reason)
            assert late.started == []

    run(main)


def test_p01_expires_in_counts_from_when_the_job_first_becomes_available(run, clock):
    async def main():
        gate = Gate()
        patient = task(expires_in=5.0)(gate.note)
        async with Runtime() as rt:
            job = await rt.submit(patient.with_options(delay=60.0), "ran")
            await turns()
            await clock.advance(60.0)
            assert await job == "ran"

    run(main)


def test_p01_expires_in_does_not_concern_a_second_attempt(run, clock):
    async def main():
        calls = []

        @task(expires_in=5.0, max_attempts=2, backoff=lambda _: 60.0)
        async def twice():
            calls.append(1)
            if len(calls) == 1:
                raise Refusal
            return "second"

        async with Runtime() as rt:
            job = await rt.submit(twice)
            await until(lambda: word(job.state) == "retryable")
            await clock.advance(60.0)
            assert await job == "second"

    run(main)


def test_p01_a_dropped_job_is_cancelled_as_dropped(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1, overflow="drop_oldest") as rt:
            await rt.submit(gate.hold)
            await until(lambda: gate.started)
            victim = await rt.submit(gate.note, "victim")
            await rt.submit(gate.note, "heir")
            with pytest.raises(JobCancelled) as raised:
                await victim
            assert word(victim.state) == "cancelled"
            assert word(victim.reason) == "dropped"
            assert "dropped" in str(raised.value.reason)
            gate.open()

    run(main)


def test_p01_interrupted_by_shutdown_is_cancelled_and_raises_jobinterrupted(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.hold)
            await until(lambda: gate.started)
            await rt.stop(drain=0, cancel=1, close=1)
            with pytest.raises(JobInterrupted) as raised:
                await job
            assert isinstance(raised.value, JobCancelled)
            assert raised.value.requeued is False
            assert word(job.state) == "cancelled"
            assert word(job.reason) == "interrupted"

    run(main)


def test_p01_after_retry_on_the_last_attempt_awaiting_raises_its_cause(run, clock):
    async def main():
        cause = Refusal("the reason")

        @task(max_attempts=2)
        async def again():
            raise Retry(after=1.0) from cause

        async with Runtime() as rt:
            job = await rt.submit(again)
            await until(lambda: word(job.state) == "retryable")
            await clock.advance(1.0)
            with pytest.raises(Refusal) as raised:
                await job
            assert raised.value is cause
            assert job.attempt == 2
            assert word(job.state) == "discarded"

    run(main)


def test_p01_retry_without_a_cause_on_the_last_attempt_raises_itself(run):
    async def main():
        @task(max_attempts=1)
        async def again():
            raise Retry(after=1.0)

        async with Runtime() as rt:
            with pytest.raises(Retry):
                await (await rt.submit(again))

    run(main)


def test_p01_before_the_end_result_and_exception_are_invalid_state(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.hold, "x")
            with pytest.raises(asyncio.InvalidStateError):
                job.result()
            with pytest.raises(asyncio.InvalidStateError):
                job.exception()
            gate.open()
            assert await job == "x"

    run(main)


def test_p01_submit_before_entering_and_after_the_stop_is_runtimeclosed_and_runs_nothing(run):
    async def main():
        gate = Gate()
        rt = Runtime()
        with pytest.raises(RuntimeClosed):
            await rt.submit(gate.note)
        with pytest.raises(RuntimeClosed):
            rt.submit_nowait(gate.note)
        async with rt:
            pass
        with pytest.raises(RuntimeClosed):
            await rt.submit(gate.note)
        with pytest.raises(RuntimeClosed):
            rt.submit_nowait(gate.note)
        with pytest.raises(RuntimeClosed):
            await rt.submit_many(gate.note, [("a",), ("b",)])
        await turns()
        assert gate.started == []
        assert list(rt.jobs()) == []

    run(main)


def test_p01_a_runtime_is_restartable(run):
    async def main():
        gate = Gate()
        rt = Runtime()
        for label in ("first", "second"):
            async with rt:
                assert await (await rt.submit(gate.note, label)) == label
        assert gate.ended == ["first", "second"]

    run(main)


def test_p01_an_unknown_queue_is_an_error_at_submit_that_names_it(run):
    async def main():
        gate = Gate()
        async with Runtime(queues=[Queue("mail")]) as rt:
            with pytest.raises(Exception, match="mial"):
                await rt.submit(task(queue="mial")(gate.note))
            await turns()
            assert gate.started == []
            assert list(rt.jobs()) == []

    run(main)


def test_p01_a_refused_submit_leaves_no_job_and_runs_nothing(run):
    async def main():
        gate, refused = Gate(), Gate()
        async with Runtime(concurrency=1, queue_size=1, overflow="reject") as rt:
            kept = [await rt.submit(gate.hold, "a"), await rt.submit(gate.hold, "b")]
            for _ in range(20):
                with pytest.raises(QueueFull):
                    await rt.submit(refused.note)
                with pytest.raises(QueueFull):
                    rt.submit_nowait(refused.note)
            assert {job.id for job in rt.jobs()} == {job.id for job in kept}
            gate.open()
            await rt.drain()
        assert refused.started == []
        assert sorted(gate.ended) == ["a", "b"]

    run(main)


def test_p01_a_coroutine_object_is_closed_when_its_submit_is_refused(run):
    async def main():
        gate = Gate()
        ran = []

        async def work():
            ran.append(1)

        async with Runtime(concurrency=1, queue_size=1, overflow="reject") as rt:
            await rt.submit(gate.hold)
            await rt.submit(gate.hold)
            coroutine = work()
            with pytest.raises(QueueFull):
                await rt.submit(coroutine)
            with pytest.raises(RuntimeError):
                coroutine.send(None)
            gate.open()
        with pytest.raises(RuntimeClosed):
            await rt.submit(work())
        gc.collect()
        assert ran == []

    run(main)


def test_p01_a_coroutine_object_runs_once_and_is_refused_the_second_time(run):
    async def main():
        ran = []

        async def work():
            ran.append(1)
            return "done"

        async with Runtime() as rt:
            coroutine = work()
            assert await (await rt.submit(coroutine)) == "done"
            with pytest.raises((RuntimeError, TypeError, ValueError)):
                await rt.submit(coroutine)
            with pytest.raises((TypeError, ValueError)):
                await rt.submit(work(), "an argument")
        gc.collect()
        assert ran == [1]

    run(main)


def test_p01_a_coroutine_object_whose_job_never_runs_is_closed(run):
    async def main():
        gate = Gate()
        ran = []

        async def work():
            ran.append(1)

        async with Runtime(concurrency=1) as rt:
            await rt.submit(gate.hold)
            job = await rt.submit(work())
            assert job.cancel() is True
            await job.wait()
            gate.open()
        gc.collect()
        assert ran == []

    run(main)


def test_p01_a_generator_function_is_refused(run):
    async def main():
        async def agen():
            yield 1

        def gen():
            yield 1

        async with Runtime() as rt:
            for bad in (agen, gen):
                with pytest.raises(TypeError):
                    await rt.submit(bad)
            assert list(rt.jobs()) == []

    run(main)


def test_p01_every_job_of_a_mixed_storm_settles_exactly_once_and_stays_settled(run, clock):
    async def main():
        rng = random.Random(7)
        calls: dict[int, int] = {}

        @task(max_attempts=2, backoff=lambda _: 1.0, timeout=10.0)
        async def work(number: int, kind: str):
            calls[number] = calls.get(number, 0) + 1
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            match kind:
                case "return":
                    return number
                case "raise":
                    raise Refusal(number)
                case "once":
                    if calls[number] == 1:
                        raise Refusal(number)
                    return number
                case "exit":
                    raise SystemExit(number)
                case "self":
                    raise asyncio.CancelledError
                case "snooze":
                    if calls[number] == 1:
                        raise Snooze(3.0)
                    return number
                case "discard":
                    raise Discard("d")
                case "cancel":
                    raise Cancel("c")
                case "hang":
                    await asyncio.Event().wait()

        kinds = ["return", "raise", "once", "exit", "self", "snooze", "discard", "cancel", "hang"]
        async with Runtime(concurrency=7, queue_size=2000) as rt:
            jobs = []
            for number in range(300):
                job = await rt.submit(work, number, rng.choice(kinds))
                jobs.append(job)
                if rng.random() < 0.1:
                    rng.choice(jobs).cancel("storm")
                if rng.random() < 0.3:
                    await clock.advance(0.5)
                    await asyncio.sleep(0)
            settled: dict[str, tuple[str, object]] = {}

            async def watch(job):
                await job.wait()
                settled[job.id] = (word(job.state), job.exception())

            watchers = [asyncio.ensure_future(watch(job)) for job in jobs]
            while not all(watcher.done() for watcher in watchers):
                await clock.advance(1.0)
                await turns(5)
            await asyncio.gather(*watchers)
            assert len(settled) == len(jobs) == 300
            assert {state for state, _ in settled.values()} == TERMINAL
            await clock.advance(1000.0)
            await turns()
            for job in jobs:
                assert (word(job.state), job.exception()) == settled[job.id]
            assert not [job for job in rt.jobs() if word(job.state) not in TERMINAL]

    run(main)


def test_p01_job_errors_are_exceptions_and_bgruntime_errors():
    for error in (
        JobTimedOut,
        JobExited,
        JobDiscarded,
        JobCancelled,
        JobInterrupted,
        QueueFull,
        RuntimeClosed,
    ):
        assert issubclass(error, bgruntime.BgRuntimeError)
        assert issubclass(error, Exception)
        assert not issubclass(error, asyncio.CancelledError)


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"concurrency": -1},
        {"queue_size": 0},
        {"threads": 0},
        {"overflow": "explode"},
        {"wait_limit": -1},
        {"cancel_grace": -1},
        {"cancel_hard": -1},
    ],
    ids=str,
)
def test_p01_bad_values_are_a_valueerror_at_construction(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Runtime(**options)


def test_p01_an_unknown_option_answers_did_you_mean():
    with pytest.raises(TypeError, match="did you mean.*concurrency"):
        Runtime(concurency=3)
    with pytest.raises(TypeError, match="did you mean.*max_attempts"):
        task(max_attempt=3)
