"""The table "What awaiting a job gives": error, state and reason of each row."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest

import bgruntime
from bgruntime import (
    Cancel,
    Discard,
    Job,
    JobCancelled,
    JobDiscarded,
    JobExited,
    JobInterrupted,
    JobTimedOut,
    Retry,
    Runtime,
    task,
)
from tests.door.turns import Gate, hold, turns, until, word


class Odd(BaseException):
    """Neither an Exception nor one of the interpreter's own."""


async def ended(job: Job[Any], error: type[BaseException], state: str) -> Any:
    """What awaiting `job` raised; it is of that very type and the job is in that state."""
    with pytest.raises(error) as caught:
        await job
    assert type(caught.value) is error
    assert isinstance(caught.value, Exception)
    assert word(job.state) == state
    assert job.exception() is caught.value
    return caught.value


def test_returned_is_completed_with_the_value(run: Any) -> None:
    @task
    async def work() -> str:
        return "value"

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            assert await job == "value"
            assert word(job.state) == "completed"
            assert job.exception() is None

    run(main)


@pytest.mark.parametrize("value", [None, False, 0, ValueError("a value, not a failure")])
def test_any_value_is_a_value(run: Any, value: Any) -> None:
    @task
    async def work() -> Any:
        return value

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            assert await job is value
            assert job.result() is value

    run(main)


@pytest.mark.parametrize("plain", [False, True])
def test_raised_is_discarded_with_that_very_exception(run: Any, plain: bool) -> None:
    error = LookupError("that very one")

    async def work() -> None:
        raise error

    def plain_work() -> None:
        raise error

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(plain_work if plain else work)
            assert await ended(job, LookupError, "discarded") is error

    run(main)


@pytest.mark.parametrize("plain", [False, True])
def test_an_exception_that_is_kept_keeps_no_frame_alive(run: Any, plain: bool) -> None:
    class Heavy: ...

    seen: list[weakref.ref[Heavy]] = []

    def deeper() -> None:
        heavy = Heavy()
        seen.append(weakref.ref(heavy))
        raise LookupError("heavy")

    async def work() -> None:
        deeper()

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(deeper if plain else work)
            error = await ended(job, LookupError, "discarded")
            await until(lambda: gc.collect() is not None and seen[0]() is None)
            assert error is job.exception()

    run(main)


def test_all_attempts_used_is_discarded_with_the_last_exception(run: Any, clock: Any) -> None:
    @task(max_attempts=3, backoff=lambda state: 1)
    async def work() -> None:
        raise LookupError(f"attempt {bgruntime.current_job().attempt}")

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            await clock.advance(5)
            error = await ended(job, LookupError, "discarded")
            assert str(error) == "attempt 3"
            assert job.attempt == 3

    run(main)


def test_a_retry_on_the_last_attempt_is_discarded_with_its_cause(run: Any) -> None:
    cause = LookupError("why")

    @task
    async def work() -> None:
        raise Retry(after=5) from cause

    async def main() -> None:
        async with Runtime() as rt:
            assert await ended(await rt.submit(work), LookupError, "discarded") is cause

    run(main)


def test_a_retry_without_cause_on_the_last_attempt_is_discarded_with_itself(run: Any) -> None:
    @task
    async def work() -> None:
        raise Retry(after=5)

    async def main() -> None:
        async with Runtime() as rt:
            await ended(await rt.submit(work), Retry, "discarded")

    run(main)


def test_timed_out_is_discarded_and_says_so(run: Any, clock: Any) -> None:
    forever = task(hold.__wrapped__, name="door.forever", timeout=30)

    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(forever, gate, 1)
            await clock.advance(29)
            assert word(job.state) == "running"
            await clock.advance(2)
            error = await ended(job, JobTimedOut, "discarded")
            assert isinstance(error, TimeoutError)
            assert error.stuck is False
            assert word(job.reason) == "timed_out"
            assert "30" in str(error)
            assert forever.name in str(error)
            assert gate.cancelled == [1]

    run(main)


def test_a_timeout_error_of_the_jobs_own_is_a_failure_and_not_our_timeout(run: Any) -> None:
    @task(timeout=30)
    async def work() -> None:
        raise TimeoutError("the socket's")

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            await ended(job, TimeoutError, "discarded")
            assert word(job.reason) != "timed_out"

    run(main)


def test_a_value_returned_after_the_timeout_is_dropped(run: Any, clock: Any) -> None:
    @task(timeout=1)
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return "late"

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(stubborn)
            await clock.advance(1.5)
            await ended(job, JobTimedOut, "discarded")

    run(main)


def test_a_plain_function_past_its_timeout_is_discarded_though_its_thread_goes_on(
    run: Any, clock: Any
) -> None:
    started, let_go = threading.Event(), threading.Event()

    @task(timeout=5)
    def slow() -> str:
        started.set()
        let_go.wait(30)
        return "late"

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(slow)
            await until(started.is_set)
            await clock.advance(6)
            await ended(job, JobTimedOut, "discarded")
            let_go.set()
            await until(lambda: len(asyncio.all_tasks()) == 1)

    run(main)


def test_an_attempt_that_will_not_stop_is_stuck_and_its_job_is_not_retried(run: Any, clock: Any) -> None:
    runs: list[int] = []

    async def main() -> None:
        let_go = asyncio.Event()

        @task(timeout=1, max_attempts=3, backoff=lambda state: 1)
        async def stubborn() -> None:
            runs.append(1)
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    pass

        async with Runtime(cancel_grace=5, cancel_hard=5) as rt:
            job = await rt.submit(stubborn)
            await clock.advance(2)
            assert runs == [1]
            await clock.advance(11)
            error = await ended(job, JobTimedOut, "discarded")
            assert error.stuck is True
            assert word(job.reason) == "stuck"
            await clock.advance(60)
            assert runs == [1]
            let_go.set()
            await turns()

    run(main)


@pytest.mark.parametrize("kind", [SystemExit, Odd, GeneratorExit])
def test_a_base_exception_is_discarded_as_an_exit(run: Any, kind: type[BaseException]) -> None:
    original = kind("out")

    @task(max_attempts=3)
    async def work() -> None:
        raise original

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            error = await ended(job, JobExited, "discarded")
            assert error.__cause__ is original
            assert job.attempt == 1
            assert await (await rt.submit(hold, opened())) is None

    run(main)


@pytest.mark.parametrize("kind", [SystemExit, Odd, KeyboardInterrupt])
def test_a_base_exception_in_a_thread_is_discarded_as_an_exit(run: Any, kind: type[BaseException]) -> None:
    original = kind("out")

    @task
    def work() -> None:
        raise original

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            assert (await ended(job, JobExited, "discarded")).__cause__ is original

    run(main)


def opened() -> Gate:
    gate = Gate()
    gate.open()
    return gate


def test_a_keyboard_interrupt_in_a_job_is_discarded_and_starts_the_stop(run: Any) -> None:
    async def main() -> None:
        @task
        async def work() -> None:
            raise KeyboardInterrupt

        async with Runtime() as rt:
            job = await rt.submit(work)
            error = await ended(job, JobExited, "discarded")
            assert isinstance(error.__cause__, KeyboardInterrupt)
            assert "begins the stop" in str(error)
            await turns()
            with pytest.raises(bgruntime.RuntimeClosed):
                await rt.submit(work)

    run(main)


def test_discard_is_discarded_with_its_reason(run: Any) -> None:
    runs: list[int] = []

    @task(max_attempts=5)
    async def work() -> None:
        runs.append(1)
        raise Discard("poisoned")

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            error = await ended(job, JobDiscarded, "discarded")
            assert "poisoned" in str(error)
            assert word(job.reason) == "poisoned"

    run(main)
    assert runs == [1]


def test_cancel_is_cancelled_with_its_reason(run: Any) -> None:
    runs: list[int] = []

    @task(max_attempts=5)
    async def work() -> None:
        runs.append(1)
        raise Cancel("not needed")

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            error = await ended(job, JobCancelled, "cancelled")
            assert error.reason == "not needed"
            assert word(job.reason) == "not needed"

    run(main)
    assert runs == [1]


@pytest.mark.parametrize("steering", [Cancel("enough"), Discard("enough")])
def test_a_plain_function_steers_its_fate_too(run: Any, steering: Exception) -> None:
    @task(max_attempts=5)
    def work() -> None:
        raise steering

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            await job.wait()
            assert word(job.state) == ("cancelled" if isinstance(steering, Cancel) else "discarded")

    run(main)


def test_the_users_cancel_is_cancelled_with_the_users_reason(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold, gate)
            await until(lambda: gate.started)
            job.cancel("changed my mind")
            error = await ended(job, JobCancelled, "cancelled")
            assert error.reason == "changed my mind"
            assert word(job.reason) == "changed my mind"

    run(main)


def test_a_cancelled_error_the_job_raised_itself_is_cancelled(run: Any) -> None:
    runs: list[int] = []

    @task(max_attempts=3)
    async def work() -> None:
        runs.append(1)
        raise asyncio.CancelledError

    async def main() -> None:
        async with Runtime() as rt:
            await ended(await rt.submit(work), JobCancelled, "cancelled")

    run(main)
    assert runs == [1]


def test_awaiting_a_task_that_was_cancelled_is_cancelled(run: Any) -> None:
    @task
    async def work() -> None:
        other = asyncio.ensure_future(asyncio.Event().wait())
        other.cancel()
        await other

    async def main() -> None:
        async with Runtime() as rt:
            await ended(await rt.submit(work), JobCancelled, "cancelled")

    run(main)


def test_expired_is_cancelled_and_never_started(run: Any, clock: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            await rt.submit(hold, gate, "first")
            job = await rt.submit(hold.with_options(expires_in=5), gate, "late")
            await clock.advance(6)
            gate.open()
            error = await ended(job, JobCancelled, "cancelled")
            assert word(error.reason) == "expired"
            assert word(job.reason) == "expired"
        assert gate.started == ["first"]

    run(main)


def test_dropped_is_cancelled_and_never_started(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1, overflow="drop_oldest") as rt:
            await rt.submit(hold, gate, "first")
            await until(lambda: gate.started)
            job = await rt.submit(hold, gate, "dropped")
            await rt.submit(hold, gate, "last")
            error = await ended(job, JobCancelled, "cancelled")
            assert word(error.reason) == word(job.reason) == "dropped"
            gate.open()
        assert gate.started == ["first", "last"]

    run(main)


@pytest.mark.parametrize("kind", ["running", "queued", "scheduled", "retryable"])
def test_interrupted_by_the_shutdown_is_cancelled_and_not_requeued(run: Any, clock: Any, kind: str) -> None:
    @task(max_attempts=2, backoff=lambda state: 60)
    async def fail() -> None:
        raise OSError("down")

    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            if kind == "retryable":
                job = await rt.submit(fail)
                await until(lambda: word(job.state) == "retryable")
            else:
                running = await rt.submit(hold, gate)
                await until(lambda: gate.started)
                queued = await rt.submit(hold, gate)
                scheduled = await rt.submit(hold.with_options(delay=60), gate)
                job = {"running": running, "queued": queued, "scheduled": scheduled}[kind]
            await rt.stop(drain=0)
            error = await ended(job, JobInterrupted, "cancelled")
            assert isinstance(error, JobCancelled)
            assert error.requeued is False
            assert word(error.reason) == word(job.reason) == "interrupted"

    run(main)


def test_a_value_returned_within_the_grace_of_the_shutdown_counts(run: Any) -> None:
    async def main() -> None:
        started = asyncio.Event()

        @task
        async def tidy() -> str:
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "tidied"
            return "never"

        async with Runtime() as rt:
            job = await rt.submit(tidy)
            await started.wait()
            await rt.stop(drain=0)
            assert await job == "tidied"
            assert word(job.state) == "completed"

    run(main)


def test_a_failure_leaves_every_other_job_alone(run: Any) -> None:
    @task
    async def work(n: int) -> int:
        if n % 2:
            raise LookupError(n)
        return n

    async def main() -> None:
        async with Runtime(concurrency=3) as rt:
            jobs = [await rt.submit(work, n) for n in range(20)]
            for job in jobs:
                await job.wait()
            assert [word(job.state) for job in jobs] == ["completed", "discarded"] * 10

    run(main)
