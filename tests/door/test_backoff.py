"""The backoff of a task is asked once for each attempt that is followed by another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bgruntime import JobTimedOut, Runtime, task

from .turns import until


def asked_for(run: Any, clock: Any, backoff: Any, *, seconds: float) -> list[Any]:
    """What *backoff* was asked while a job of two attempts ran into its timeout twice."""
    asked = []

    def recorded(state: Any) -> float:
        asked.append(state)
        return backoff(state)

    @task(max_attempts=2, timeout=10, backoff=recorded)
    async def hang() -> None:
        await asyncio.Event().wait()

    async def main() -> Any:
        async with Runtime() as rt:
            job = await rt.submit(hang)
            await until(lambda: job.attempt == 1)
            await clock.advance(10)
            assert str(job.state) == "retryable"
            await clock.advance(seconds)
            await until(lambda: job.attempt == 2)
            await clock.advance(10)
            with pytest.raises(JobTimedOut):
                await job
            return rt.stats().faults

    return [asked, run(main)]


def test_a_backoff_is_asked_once_after_a_timeout_and_sees_that_it_was_one(run: Any, clock: Any) -> None:
    asked, faults = asked_for(run, clock, lambda state: 7.0, seconds=7.0)
    [state] = asked
    assert (state.attempt, type(state.error)) == (1, JobTimedOut)
    assert not faults


@pytest.mark.parametrize(
    "answer", [-1.0, float("nan"), float("inf"), "soon", None, LookupError("no idea"), SystemExit(3)]
)
def test_a_backoff_that_fails_is_said_once_and_costs_the_job_no_attempt(
    run: Any, clock: Any, answer: Any
) -> None:
    def backoff(state: Any) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    asked, faults = asked_for(run, clock, backoff, seconds=1.0)  # the usual one gives at most a second
    assert len(asked) == 1
    [(about, count)] = faults.items()
    assert "backoff" in about
    assert "hang" in about
    assert count == 1
