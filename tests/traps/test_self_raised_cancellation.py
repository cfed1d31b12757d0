"""A CancelledError the job raised itself is not ours: nothing was cancelled, and nothing else may be."""

from __future__ import annotations

import asyncio

import pytest

from bgruntime import JobCancelled, JobInterrupted, JobTimedOut, Runtime, task
from tests.promises.steps import Gate, until, word


@task(max_attempts=3)
async def raises_it():
    raise asyncio.CancelledError("mine")


@task
async def raises_it_later():
    await asyncio.sleep(0)
    raise asyncio.CancelledError


@task
def raises_it_in_a_thread():
    raise asyncio.CancelledError


@task
async def awaits_a_cancelled_task():
    inner = asyncio.ensure_future(asyncio.sleep(100))
    inner.cancel()
    await inner


@task
async def awaits_a_cancelled_future():
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.cancel)
    await future


@task
async def cancels_its_own_task():
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


EVERY = [
    raises_it,
    raises_it_later,
    raises_it_in_a_thread,
    awaits_a_cancelled_task,
    awaits_a_cancelled_future,
    cancels_its_own_task,
]


@pytest.mark.parametrize("which", EVERY, ids=lambda which: which.name.rpartition(":")[2])
def test_it_ends_the_job_as_cancelled_and_not_its_waiter(run, which):
    async def main():
        async with Runtime(concurrency=1) as rt:
            job = await rt.submit(which)
            with pytest.raises(JobCancelled) as raised:
                await job
            assert not isinstance(raised.value, JobInterrupted)
            assert word(job.state) == "cancelled"
            assert job.attempt == 1
            assert asyncio.current_task().cancelling() == 0
            gate = Gate()
            assert await (await rt.submit(gate.note, "the slot is free")) == "the slot is free"

    run(main)


def test_it_is_told_apart_from_a_user_cancel_a_timeout_and_a_shutdown(run, clock):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            own = await rt.submit(raises_it)
            user = await rt.submit(gate.hold, "user")
            timed = await rt.submit(task(timeout=5.0)(gate.hold), "timed")
            shut = await rt.submit(gate.hold, "shut")
            await until(lambda: len(gate.started) == 3)
            user.cancel("by the user")
            await own.wait()
            await user.wait()
            await clock.advance(5.0)
            await timed.wait()
            await rt.stop(drain=0, cancel=5, close=1)
            kinds = [type(job.exception()) for job in (own, user, timed, shut)]
            assert kinds == [JobCancelled, JobCancelled, JobTimedOut, JobInterrupted]
            assert own.exception().reason != user.exception().reason

    run(main)


def test_a_job_that_turns_our_cancel_into_its_own_is_still_ours(run):
    async def main():
        started = []

        @task
        async def work():
            started.append(1)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise asyncio.CancelledError("another") from None

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: started)
            job.cancel("ours")
            with pytest.raises(JobCancelled) as raised:
                await job
            assert "ours" in raised.value.reason

    run(main)


def test_uncancel_in_a_job_confuses_no_one(run):
    async def main():
        started = []

        @task
        async def work():
            started.append(1)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()
                asyncio.current_task().uncancel()
                return "as if nothing happened"

        async with Runtime(concurrency=1) as rt:
            for _ in range(3):
                started.clear()
                job = await rt.submit(work)
                await until(lambda: started)
                job.cancel()
                with pytest.raises(JobCancelled):
                    await job
            gate = Gate()
            assert await (await rt.submit(gate.note, "fine")) == "fine"

    run(main)


def test_a_self_raised_cancellation_in_map_and_gather_raises_jobcancelled_and_not_cancellederror(run):
    async def main():
        async with Runtime() as rt:
            with pytest.raises(JobCancelled):
                await rt.gather(raises_it.bind())
            (result,) = await rt.gather(raises_it.bind(), return_exceptions=True)
            assert isinstance(result, JobCancelled)
            assert asyncio.current_task().cancelling() == 0

    run(main)
