"""Groups of exceptions out of a job: plain ones are failures, those with an exit inside are exits."""

from __future__ import annotations

import asyncio

import pytest

from bgruntime import JobExited, Runtime, task
from tests.promises.steps import Gate, word


@task(max_attempts=1)
async def raises(problem):
    await asyncio.sleep(0)
    raise problem


def test_an_exception_group_is_that_very_failure(run):
    async def main():
        problem = ExceptionGroup("two", [ValueError(1), KeyError(2)])
        async with Runtime() as rt:
            job = await rt.submit(raises, problem)
            with pytest.raises(ExceptionGroup) as raised:
                await job
            assert raised.value is problem
            assert word(job.state) == "discarded"

    run(main)


@pytest.mark.parametrize("inner", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_a_base_exception_group_with_an_exit_inside_is_jobexited(run, inner):
    async def main():
        problem = BaseExceptionGroup("exit", [ValueError(1), BaseExceptionGroup("deeper", [inner])])
        async with Runtime() as rt:
            job = await rt.submit(raises, problem)
            with pytest.raises(JobExited) as raised:
                await job
            assert raised.value.__cause__ is problem
            assert word(job.state) == "discarded"

    run(main)


def test_a_group_of_nothing_but_cancellations_ends_the_job_without_touching_anyone(run):
    async def main():
        problem = BaseExceptionGroup("cancelled", [asyncio.CancelledError(), asyncio.CancelledError()])
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(raises, problem)
            await job.wait()
            assert word(job.state) in {"cancelled", "discarded"}
            assert isinstance(job.exception(), Exception)
            assert await (await rt.submit(gate.note, "fine")) == "fine"

    run(main)


def test_retry_on_looks_at_the_group_as_an_exception(run, clock):
    async def main():
        calls = []

        @task(max_attempts=2, backoff=lambda _: 1.0, retry_on=(ExceptionGroup,))
        async def work():
            calls.append(1)
            raise ExceptionGroup("again", [ValueError()])

        async with Runtime() as rt:
            job = await rt.submit(work)
            await clock.advance(1.0)
            await job.wait()
        assert len(calls) == 2

    run(main)


def test_a_cycle_of_causes_ends_the_job_like_any_other(run):
    async def main():
        first, second = ValueError("first"), ValueError("second")
        first.__cause__, second.__cause__ = second, first
        first.__context__, second.__context__ = second, first
        async with Runtime() as rt:
            job = await rt.submit(raises, first)
            await job.wait()
            assert job.exception() is first

    run(main)


def test_a_very_deep_group_ends_the_job_like_any_other(run):
    async def main():
        problem = ValueError("leaf")
        for _ in range(200):
            problem = ExceptionGroup("layer", [problem])
        async with Runtime() as rt:
            job = await rt.submit(raises, problem)
            await job.wait()
            assert job.exception() is problem

    run(main)
