"""asyncio.timeout, TaskGroup and anyio's scopes inside a job: their cancellations are theirs, not ours."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from bgruntime import JobCancelled, JobTimedOut, Runtime, task
from tests.promises.steps import Gate, turns, until, word


def test_a_timeout_scope_inside_a_job_times_out_by_itself_and_is_a_failure(run):
    async def main():
        @task
        async def work():
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()

        async with Runtime() as rt:
            job = await rt.submit(work)
            with pytest.raises(TimeoutError) as raised:
                await job
            assert not isinstance(raised.value, JobTimedOut)
            assert word(job.state) == "discarded"

    run(main)


def test_a_timeout_scope_the_job_handles_is_no_cancellation(run):
    async def main():
        @task
        async def work():
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            except TimeoutError:
                await asyncio.sleep(0)
                return "handled"

        async with Runtime() as rt:
            assert await (await rt.submit(work)) == "handled"

    run(main)


def test_our_timeout_passes_through_a_longer_scope_of_the_job(run, clock):
    async def main():
        seen = []

        @task(timeout=5.0)
        async def work():
            try:
                async with asyncio.timeout(1000):
                    await asyncio.Event().wait()
            except BaseException as error:
                seen.append(type(error))
                raise

        async with Runtime() as rt:
            job = await rt.submit(work)
            await turns()
            await clock.advance(5.0)
            with pytest.raises(JobTimedOut):
                await job
            await rt.drain()
        assert seen == [asyncio.CancelledError]

    run(main)


def test_a_taskgroup_inside_a_cancelled_job_cancels_its_children_and_ends(run):
    async def main():
        gate = Gate()

        @task
        async def work():
            async with asyncio.TaskGroup() as group:
                for number in range(3):
                    group.create_task(gate.hold(number))

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: len(gate.started) == 3)
            job.cancel()
            with pytest.raises(JobCancelled):
                await job
            assert sorted(gate.cancelled) == [0, 1, 2]

    run(main)


def test_a_failing_taskgroup_inside_a_job_fails_it_with_the_group(run):
    async def main():
        @task
        async def work():
            async def bad():
                raise ValueError("child")

            async with asyncio.TaskGroup() as group:
                group.create_task(bad())

        async with Runtime() as rt:
            job = await rt.submit(work)
            with pytest.raises(ExceptionGroup) as raised:
                await job
            assert raised.group_contains(ValueError, match="child")
            assert word(job.state) == "discarded"

    run(main)


def test_a_cancel_that_lands_while_a_child_of_the_jobs_taskgroup_fails_is_not_lost(run):
    """TaskGroup before 3.13 and anyio's groups lose it: the job goes on, and so must the second cancel."""

    async def main():
        @task(timeout=None)
        async def work(enter):
            async def bad():
                await asyncio.sleep(0)
                raise ValueError("child")

            async def slow():
                try:
                    await asyncio.Event().wait()
                finally:
                    await turns(5)

            try:
                async with enter() as group:
                    spawn = getattr(group, "start_soon", None) or (
                        lambda function: group.create_task(function())
                    )
                    spawn(bad)
                    spawn(slow)
            except ExceptionGroup:
                pass
            return "went on"

        for enter in (asyncio.TaskGroup, anyio.create_task_group):
            for turn in range(10):
                async with Runtime() as rt:
                    job = await rt.submit(work, enter)
                    await turns(turn)
                    accepted = job.cancel("user")
                    await job.wait()
                    assert word(job.state) == ("cancelled" if accepted else "completed")

    run(main)


@pytest.mark.parametrize("ending", ["cancel", "timeout"])
def test_an_anyio_shield_does_not_stop_our_cancel(run, clock, ending):
    async def main():
        started = []

        @task(timeout=5.0)
        async def work():
            with anyio.CancelScope(shield=True):
                started.append(1)
                await anyio.sleep_forever()

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: started)
            if ending == "cancel":
                job.cancel()
            else:
                await clock.advance(5.0)
            with pytest.raises(JobCancelled if ending == "cancel" else JobTimedOut):
                await job
            await rt.drain()
            assert rt.stats().stuck == 0

    run(main)


def test_anyio_scopes_of_a_job_work_as_they_do_anywhere(run):
    async def main():
        @task
        async def work():
            with anyio.move_on_after(0.01) as scope:
                await anyio.sleep_forever()
            assert scope.cancelled_caught
            with pytest.raises(TimeoutError):
                with anyio.fail_after(0.01):
                    await anyio.sleep_forever()
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 0)
                group.cancel_scope.cancel()
            return await anyio.to_thread.run_sync(lambda: "from a thread")

        async with Runtime() as rt:
            assert await (await rt.submit(work)) == "from a thread"

    run(main)


def test_a_job_awaited_inside_an_anyio_scope_that_is_cancelled_goes_on(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.hold, "value")
            with anyio.move_on_after(0.01) as scope:
                await job
            assert scope.cancelled_caught
            assert word(job.state) == "running"
            with anyio.move_on_after(0.01) as scope:
                await rt.map(gate.hold, range(3))
            assert scope.cancelled_caught
            assert gate.running == 1, "a map is owned: its jobs were cancelled with its scope"
            gate.open()
            assert await job == "value"

    run(main)


def test_a_runtime_inside_a_cancelled_anyio_scope_stops_and_leaves(run):
    async def main():
        gate = Gate()
        with anyio.move_on_after(0.02) as scope:
            async with Runtime() as rt:
                await rt.submit(gate.hold)
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert gate.running == 0
        assert len(gate.cancelled) == 1

    run(main)


def test_a_runtime_inside_a_taskgroup_whose_sibling_fails_stops_and_leaves(run):
    async def main():
        gate = Gate()

        async def app():
            async with Runtime() as rt:
                await rt.submit(gate.hold)
                await asyncio.Event().wait()

        async def bad():
            await until(lambda: gate.started)
            raise ValueError("sibling")

        with pytest.raises(ExceptionGroup) as raised:
            async with asyncio.TaskGroup() as group:
                group.create_task(app())
                group.create_task(bad())
        assert [type(error) for error in raised.value.exceptions] == [ValueError]
        assert gate.running == 0

    run(main)
