"""Retries: who asks for one, when it comes, what it costs."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import tenacity

import bgruntime
from bgruntime import Job, Retry, Runtime, Snooze, current_job, task
from bgruntime.extend import RetryScheduled
from tests.door.turns import Gate, hold, until, word


class Flaky:
    """A function that fails the first `failures` times."""

    def __init__(self, failures: int = 10**9, error: Callable[[], BaseException] = OSError) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0
        self.attempts: list[int] = []

    async def __call__(self) -> int:
        self.calls += 1
        self.attempts.append(current_job().attempt)
        if self.calls <= self.failures:
            raise self.error()
        return self.calls


async def due_after(clock: Any, job: Job[Any], flaky: Flaky, seconds: float) -> None:
    """The next attempt of `job` starts after `seconds` and not a moment before."""
    await until(lambda: word(job.state) == "retryable")
    calls = flaky.calls
    await clock.advance(seconds * 0.99)
    assert flaky.calls == calls
    assert word(job.state) == "retryable"
    await clock.advance(seconds * 0.01 + 1e-6)
    await until(lambda: flaky.calls == calls + 1)


def test_a_job_runs_once_by_default(run: Any, clock: Any) -> None:
    flaky = Flaky()

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(task(flaky, name="door.once"))
            with pytest.raises(OSError):  # noqa: PT011
                await job
            await clock.advance(1000)
            assert flaky.calls == 1

    run(main)


def test_a_failed_attempt_is_repeated_until_the_attempts_are_used(run: Any, clock: Any) -> None:
    flaky = Flaky()

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(task(flaky, name="door.four", max_attempts=4))
            for _ in range(10):
                await clock.advance(300)
            assert word(job.state) == "discarded"
            assert flaky.attempts == [1, 2, 3, 4]

    run(main)


def test_a_job_that_waits_for_its_next_attempt_holds_no_slot(run: Any, clock: Any) -> None:
    flaky = Flaky(1)

    async def main() -> None:
        gate = Gate()
        gate.open()
        async with Runtime(concurrency=1) as rt:
            waiting = await rt.submit(
                task(flaky, name="door.no-slot", max_attempts=2, backoff=lambda state: 60)
            )
            await until(lambda: word(waiting.state) == "retryable")
            assert await (await rt.submit(hold, gate, "meanwhile")) == "meanwhile"
            await clock.advance(61)
            assert await waiting == 2

    run(main)


def test_only_what_is_in_retry_on_is_tried_again(run: Any, clock: Any) -> None:
    wrong = Flaky(error=lambda: LookupError("not this one"))
    right = Flaky(1, error=ConnectionError)

    async def main() -> None:
        async with Runtime() as rt:
            options: dict[str, Any] = {"max_attempts": 3, "retry_on": (OSError,)}
            refused = await rt.submit(task(wrong, name="door.retry-on-wrong", **options))
            repeated = await rt.submit(task(right, name="door.retry-on-right", **options))
            await clock.advance(400)
            with pytest.raises(LookupError):
                await refused
            assert await repeated == 2
            assert wrong.calls == 1

    run(main)


def test_what_is_in_give_up_on_is_not_tried_again(run: Any, clock: Any) -> None:
    flaky = Flaky(error=FileNotFoundError)

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(
                task(
                    flaky,
                    name="door.give-up-on",
                    max_attempts=3,
                    retry_on=(OSError,),
                    give_up_on=(FileNotFoundError,),
                )
            )
            await clock.advance(400)
            with pytest.raises(FileNotFoundError):
                await job
            assert flaky.calls == 1

    run(main)


def test_a_timed_out_attempt_is_tried_again(run: Any, clock: Any) -> None:
    starts: list[int] = []

    @task(timeout=5, max_attempts=2, backoff=lambda state: 1)
    async def slow_at_first() -> str:
        starts.append(current_job().attempt)
        if len(starts) == 1:
            await asyncio.Event().wait()
        return "in time"

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(slow_at_first)
            await clock.advance(8)
            assert await job == "in time"

    run(main)
    assert starts == [1, 2]


def test_the_timeout_is_of_each_attempt(run: Any, clock: Any) -> None:
    @task(timeout=5, max_attempts=3, backoff=lambda state: 4)
    async def work() -> float | None:
        if current_job().attempt < 3:
            raise OSError("down")
        return current_job().remaining()

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            await clock.advance(9)
            assert await job == pytest.approx(5)

    run(main)


def test_retry_asks_for_the_next_attempt_after_so_many_seconds(run: Any, clock: Any) -> None:
    flaky = Flaky(2, error=lambda: Retry(after=17))

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(task(flaky, name="door.retry-after", max_attempts=3))
            await due_after(clock, job, flaky, 17)
            await due_after(clock, job, flaky, 17)
            assert await job == 3
            assert flaky.attempts == [1, 2, 3]

    run(main)


def test_retry_without_a_time_uses_the_backoff(run: Any, clock: Any) -> None:
    flaky = Flaky(1, error=Retry)

    async def main() -> None:
        async with Runtime() as rt:
            made = task(flaky, name="door.retry-bare", max_attempts=2, backoff=lambda state: 9)
            job = await rt.submit(made)
            await due_after(clock, job, flaky, 9)
            assert await job == 2

    run(main)


def test_retry_is_heeded_whatever_retry_on_says(run: Any, clock: Any) -> None:
    flaky = Flaky(1, error=lambda: Retry(after=1))

    async def main() -> None:
        async with Runtime() as rt:
            made = task(flaky, name="door.retry-heeded", max_attempts=2, retry_on=(LookupError,))
            job = await rt.submit(made)
            await clock.advance(2)
            assert await job == 2

    run(main)


def test_a_snooze_costs_no_attempt(run: Any, clock: Any) -> None:
    flaky = Flaky(3, error=lambda: Snooze(30))

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(task(flaky, name="door.snooze"))
            for _ in range(3):
                await due_after(clock, job, flaky, 30)
            assert await job == 4
            assert flaky.attempts == [1, 1, 1, 1]
            assert job.attempt == 1

    run(main)


@pytest.mark.parametrize("make", [lambda n: Retry(after=n), lambda n: Snooze(n)])
@pytest.mark.parametrize("seconds", [-1, math.nan])
def test_a_time_that_makes_no_sense_is_a_value_error_where_it_is_said(make: Any, seconds: float) -> None:
    with pytest.raises(ValueError, match=str(seconds)):
        make(seconds)


def test_a_snooze_needs_its_seconds() -> None:
    with pytest.raises(TypeError):
        Snooze()  # type: ignore[call-arg]


def test_the_default_backoff_is_full_jitter_from_one_second_to_three_hundred(run: Any, clock: Any) -> None:
    """The n-th wait is uniform in 0 … min(300, 2ⁿ⁻¹) s: never longer, and evenly spread."""
    jobs, attempts = 200, 12
    delays: list[list[float]] = [[] for _ in range(attempts)]

    class Ear:
        listens_to = (RetryScheduled,)

        def on_event(self, event: RetryScheduled) -> None:
            delays[event.attempt - 1].append(event.delay)

    @task(max_attempts=attempts + 1)
    async def fail() -> None:
        raise OSError("down")

    async def main() -> None:
        async with Runtime(concurrency=jobs, observers=[Ear()]) as rt:
            await rt.submit_many(fail, [()] * jobs)
            while any(len(each) < jobs for each in delays):
                await clock.advance(100)
            await rt.stop(drain=0)

    run(main)
    for n, waits in enumerate(delays):
        longest = min(300.0, 2.0**n)
        assert 0 <= min(waits) < 0.1 * longest
        assert 0.9 * longest < max(waits) <= longest
        assert 0.4 * longest < statistics.fmean(waits) < 0.6 * longest


def test_the_default_backoff_uses_the_random_port(run: Any, clock: Any) -> None:
    async def first_wait() -> float:
        from bgruntime.extend import ports

        ports.current().random.seed(7)
        flaky = Flaky(1)
        async with Runtime() as rt:
            job = await rt.submit(task(flaky, name="door.seeded", max_attempts=2))
            await until(lambda: word(job.state) == "retryable")
            waited = 0.0
            while flaky.calls == 1:
                await clock.advance(0.01)
                waited += 0.01
            await job
        return waited

    async def main() -> None:
        assert await first_wait() == pytest.approx(await first_wait())

    run(main)


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [
        (tenacity.wait_fixed(7), [7, 7, 7]),
        (tenacity.wait_incrementing(start=5, increment=10), [5, 15, 25]),
        (tenacity.wait_exponential(multiplier=2, max=6), [2, 4, 6]),
        (tenacity.wait_fixed(1) + tenacity.wait_fixed(2), [3, 3, 3]),
        (tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(9)), [1, 9, 9]),
    ],
    ids=["fixed", "incrementing", "exponential", "sum", "chain"],
)
def test_any_tenacity_wait_serves_as_backoff(run: Any, clock: Any, wait: Any, seconds: list[float]) -> None:
    flaky = Flaky(3)

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(task(flaky, name="door.tenacity", max_attempts=4, backoff=wait))
            for each in seconds:
                await due_after(clock, job, flaky, each)
            assert await job == 4

    run(main)


@pytest.mark.skipif(not hasattr(tenacity, "wait_exception"), reason="tenacity 9.1.3 brought wait_exception")
def test_a_tenacity_wait_that_reads_the_exception_serves_too(run: Any, clock: Any) -> None:
    class Busy(Exception):
        retry_after = 11

    flaky = Flaky(1, error=Busy)
    wait = tenacity.wait_exception(lambda error: error.retry_after)  # type: ignore[attr-defined]

    async def main() -> None:
        async with Runtime() as rt:
            made = task(flaky, name="door.tenacity-exception", max_attempts=2, backoff=wait)
            job = await rt.submit(made)
            await due_after(clock, job, flaky, 11)
            assert await job == 2

    run(main)


def test_a_callable_from_the_attempts_state_to_seconds_serves_as_backoff(run: Any, clock: Any) -> None:
    flaky = Flaky(3)
    seen: list[Any] = []

    def backoff(state: Any) -> float:
        seen.append(state)
        return float(10 * len(seen))

    async def main() -> None:
        async with Runtime() as rt:
            made = task(flaky, name="door.callable", max_attempts=4, backoff=backoff)
            job = await rt.submit(made)
            for each in (10, 20, 30):
                await due_after(clock, job, flaky, each)
            assert await job == 4

    run(main)
    assert len(seen) == 3


@pytest.mark.parametrize(
    "backoff",
    [lambda state: 1 / 0, lambda state: -5, lambda state: math.nan, lambda state: "soon"],
    ids=["raises", "negative", "nan", "text"],
)
def test_a_broken_backoff_loses_no_job(run: Any, clock: Any, backoff: Any) -> None:
    flaky = Flaky()

    async def main() -> None:
        async with Runtime() as rt:
            made = task(flaky, name="door.broken-backoff", max_attempts=2, backoff=backoff)
            job = await rt.submit(made)
            for _ in range(3):
                await clock.advance(300)
            await job.wait()
            assert word(job.state) == "discarded"
            assert await (await rt.submit(lambda: "alive")) == "alive"

    run(main)


def test_a_new_attempt_goes_behind_nobody_for_ever(run: Any, clock: Any) -> None:
    flaky = Flaky(1)

    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            made = task(flaky, name="door.reenters", max_attempts=2, backoff=lambda state: 5)
            job = await rt.submit(made)
            await until(lambda: word(job.state) == "retryable")
            await rt.submit(hold, gate, "in the way")
            await clock.advance(6)
            assert word(job.state) == "available"
            gate.open()
            assert await job == 2

    run(main)


def test_plain_functions_are_tried_again_too(run: Any, clock: Any) -> None:
    calls: list[int] = []

    @task(max_attempts=2, backoff=lambda state: 3)
    def work() -> int:
        calls.append(current_job().attempt)
        if len(calls) == 1:
            raise OSError("down")
        return len(calls)

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: word(job.state) == "retryable")
            await clock.advance(4)
            assert await job == 2

    run(main)
    assert calls == [1, 2]


def test_a_coroutine_object_cannot_have_more_than_one_attempt(run: Any) -> None:
    async def once() -> None:
        raise OSError("down")

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(once())
            with pytest.raises(OSError, match="down"):
                await job
            assert job.attempt == 1

    run(main)


def test_a_coroutine_object_that_asks_for_a_retry_or_snooze_is_not_run_again(run: Any, clock: Any) -> None:
    ran: list[str] = []

    async def ask(error: Exception) -> None:
        ran.append(type(error).__name__)
        raise error

    async def main() -> None:
        async with Runtime() as rt:
            retry, snooze = await rt.submit(ask(Retry(after=1))), await rt.submit(ask(Snooze(1)))
            await clock.advance(5)
            for job in (retry, snooze):
                await job.wait()
                assert word(job.state) == "discarded"
                assert isinstance(job.exception(), (Retry, Snooze, bgruntime.BgRuntimeError))

    run(main)
    assert ran == ["Retry", "Snooze"]
