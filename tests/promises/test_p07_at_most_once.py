"""P07: unless max_attempts, redrive or durable says otherwise a function is called at most once."""

from __future__ import annotations

import asyncio
import threading

import pytest

from bgruntime import Discard, JobTimedOut, Retry, Runtime, Snooze, current_job, task

from .steps import Gate, turns, until, word


@pytest.mark.parametrize(
    "problem",
    [ValueError("x"), TimeoutError(), SystemExit(1), asyncio.CancelledError(), Retry(after=0.0), OSError()],
    ids=lambda problem: type(problem).__name__,
)
def test_p07_a_failed_job_is_not_run_again_by_default(run, clock, problem):
    async def main():
        calls = []

        @task
        async def work():
            calls.append(1)
            raise problem

        async with Runtime() as rt:
            job = await rt.submit(work)
            await job.wait()
            await clock.advance(10_000.0)
            await turns()
        assert calls == [1]

    run(main)


def test_p07_a_timed_out_job_is_not_run_again_by_default(run, clock):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(task(timeout=1.0)(gate.hold))
            await until(lambda: gate.started)
            await clock.advance(1.0)
            with pytest.raises(JobTimedOut):
                await job
            await clock.advance(10_000.0)
            await turns()
        assert len(gate.started) == 1

    run(main)


def test_p07_an_interrupted_job_is_not_run_again_by_a_restart(run):
    async def main():
        gate = Gate()
        rt = Runtime()
        async with rt:
            await rt.submit(gate.hold)
            await until(lambda: gate.started)
            await rt.stop(drain=0, cancel=1, close=1)
        async with rt:
            await turns()
        assert len(gate.started) == 1

    run(main)


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_p07_max_attempts_is_how_many_runs(run, clock, attempts):
    async def main():
        seen = []

        @task(max_attempts=attempts, backoff=lambda _: 1.0)
        async def work():
            seen.append(current_job().attempt)
            raise ValueError(len(seen))

        async with Runtime() as rt:
            job = await rt.submit(work)
            for _ in range(attempts + 3):
                await turns()
                await clock.advance(1.0)
            with pytest.raises(ValueError, match=str(attempts)):
                await job
        assert seen == list(range(1, attempts + 1))

    run(main)


def test_p07_a_success_ends_the_attempts(run, clock):
    async def main():
        calls = []

        @task(max_attempts=5, backoff=lambda _: 1.0)
        async def work():
            calls.append(1)
            if len(calls) < 3:
                raise ValueError
            return "third"

        async with Runtime() as rt:
            job = await rt.submit(work)
            for _ in range(6):
                await turns()
                await clock.advance(1.0)
            assert await job == "third"
            assert job.attempt == 3
        assert len(calls) == 3

    run(main)


def test_p07_retry_on_and_give_up_on_choose_what_is_run_again(run, clock):
    async def main():
        calls = []

        @task(max_attempts=3, backoff=lambda _: 1.0, retry_on=(OSError,), give_up_on=(FileNotFoundError,))
        async def work(kind):
            calls.append(kind)
            raise kind("x")

        async with Runtime() as rt:
            for kind in (ValueError, FileNotFoundError, OSError):
                job = await rt.submit(work, kind)
                for _ in range(4):
                    await turns()
                    await clock.advance(1.0)
                await job.wait()
        assert calls == [ValueError, FileNotFoundError, OSError, OSError, OSError]

    run(main)


def test_p07_timeouts_are_run_again_within_max_attempts(run, clock):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(task(timeout=1.0, max_attempts=2, backoff=lambda _: 1.0)(gate.hold))
            await until(lambda: gate.started)
            await clock.advance(1.0)
            await until(lambda: word(job.state) == "retryable")
            await clock.advance(1.0)
            await until(lambda: len(gate.started) == 2)
            await clock.advance(1.0)
            with pytest.raises(JobTimedOut):
                await job
            assert job.attempt == 2

    run(main)


def test_p07_an_exit_is_not_run_again(run, clock):
    async def main():
        calls = []

        @task(max_attempts=5, backoff=lambda _: 1.0)
        async def work():
            calls.append(1)
            raise SystemExit

        async with Runtime() as rt:
            job = await rt.submit(work)
            await job.wait()
            await clock.advance(100.0)
            await turns()
        assert calls == [1]

    run(main)


def test_p07_discard_ends_the_attempts(run, clock):
    async def main():
        calls = []

        @task(max_attempts=5, backoff=lambda _: 1.0)
        async def work():
            calls.append(1)
            raise Discard("enough")

        async with Runtime() as rt:
            await (await rt.submit(work)).wait()
            await clock.advance(100.0)
            await turns()
        assert calls == [1]

    run(main)


def test_p07_retry_after_sets_the_delay_and_costs_an_attempt(run, clock):
    async def main():
        seen = []

        @task(max_attempts=2, backoff=lambda _: 1000.0)
        async def work():
            seen.append(current_job().attempt)
            raise Retry(after=2.0)

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: word(job.state) == "retryable")
            await clock.advance(1.9)
            await turns()
            assert seen == [1]
            await clock.advance(0.1)
            await job.wait()
        assert seen == [1, 2]

    run(main)


def test_p07_snooze_costs_no_attempt(run, clock):
    async def main():
        seen = []

        @task(max_attempts=1)
        async def work():
            seen.append(current_job().attempt)
            if len(seen) < 4:
                raise Snooze(3.0)
            return "awake"

        async with Runtime() as rt:
            job = await rt.submit(work)
            for _ in range(5):
                await turns()
                await clock.advance(3.0)
            assert await job == "awake"
        assert seen == [1, 1, 1, 1]

    run(main)


def test_p07_a_plain_function_is_called_at_most_once_under_timeout(run, clock):
    async def main():
        calls, hold = [], threading.Event()

        @task(timeout=1.0)
        def work():
            calls.append(1)
            hold.wait(10)

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: calls)
            await clock.advance(1.0)
            with pytest.raises(JobTimedOut):
                await job
            hold.set()
            await until(lambda: rt.stats().stuck == 0, "the thread's end")
        assert calls == [1]

    run(main)


def test_p07_an_async_callable_object_a_partial_and_an_awaitable_returning_function_run_once(run):
    from functools import partial

    async def main():
        calls = []

        class Sender:
            async def __call__(self, label):
                calls.append(label)
                return label

        async def work(prefix, label):
            calls.append(label)
            return prefix + label

        def returns_awaitable(label):
            return work("awaited ", label)

        async with Runtime() as rt:
            assert await (await rt.submit(Sender(), "object")) == "object"
            assert await (await rt.submit(partial(work, "a "), "partial")) == "a partial"
            assert await (await rt.submit(returns_awaitable, "plain")) == "awaited plain"
            assert await (await rt.submit(partial(Sender(), "both"))) == "both"
        assert calls == ["object", "partial", "plain", "both"]

    run(main)


def test_p07_attempts_of_one_job_never_overlap(run, clock):
    async def main():
        running, most, calls, let_go = [0], [0], [], asyncio.Event()

        @task(timeout=1.0, max_attempts=2, backoff=lambda _: 0.0)
        async def work():
            calls.append(1)
            running[0] += 1
            most[0] = max(most[0], running[0])
            try:
                if len(calls) == 1:
                    try:
                        await asyncio.Event().wait()
                    finally:
                        await let_go.wait()
                return "second"
            finally:
                running[0] -= 1

        async with Runtime(concurrency=4, cancel_grace=100) as rt:
            job = await rt.submit(work)
            await until(lambda: calls)
            await clock.advance(1.0)
            await turns()
            await clock.advance(50.0)
            await turns()
            assert calls == [1], "the next attempt waits until the former has really ended"
            let_go.set()
            await turns()
            await clock.advance(1.0)
            assert await job == "second"
        assert most[0] == 1

    run(main)
