"""A Task cancelled before its first step runs no line of its coroutine, not even `finally`."""

from __future__ import annotations

import asyncio
import gc

import pytest

from bgruntime import JobCancelled, Resource, Runtime, task
from tests.promises.steps import Gate, turns, until, word


@pytest.mark.parametrize("turn", range(5))
def test_a_job_cancelled_around_its_first_step_settles_and_frees_its_slot(run, turn):
    async def main():
        entered, left = [], []

        @task
        async def work():
            entered.append(1)
            try:
                await asyncio.Event().wait()
            finally:
                left.append(1)

        async with Runtime(concurrency=1) as rt:
            for _ in range(10):
                job = await rt.submit(work)
                await turns(turn)
                job.cancel()
                with pytest.raises(JobCancelled):
                    await job
                await rt.drain()
            assert len(entered) == len(left)
            gate = Gate()
            assert await (await rt.submit(gate.note, "slot")) == "slot"

    run(main)


def test_a_coroutine_object_whose_job_is_cancelled_before_it_starts_is_closed(run):
    async def main():
        ran = []

        async def work():
            ran.append(1)

        async with Runtime() as rt:
            for turn in range(4):
                coroutine = work()
                job = await rt.submit(coroutine)
                job.cancel()
                await turns(turn)
                await job.wait()
                await turns()
                assert coroutine.cr_frame is None
        gc.collect()
        assert ran == []

    run(main)


def test_a_coroutine_object_that_is_cancelled_between_its_start_and_its_first_step_is_closed(run):
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options))
        ran = []

        async def work():
            ran.append(1)

        async with Runtime() as rt:
            coroutine = work()
            job = await rt.submit(coroutine)
            await until(lambda: job.state == "running")
            job.cancel()
            await job.wait()
            assert coroutine.cr_frame is None
        assert ran == []

    run(main)


def test_the_whole_runtime_cancelled_before_anything_ran_leaves_nothing(run):
    async def main():
        gate, coroutines = Gate(), []

        async def work():
            await gate.hold()

        async def app():
            async with Runtime(concurrency=1) as rt:
                for _ in range(5):
                    coroutines.append(work())
                    rt.submit_nowait(coroutines[-1])
                asyncio.current_task().cancel()
                await asyncio.sleep(0)

        running = asyncio.ensure_future(app())
        await asyncio.wait([running])
        assert running.cancelled()
        assert all(coroutine.cr_frame is None for coroutine in coroutines)

    run(main)


def test_entering_a_runtime_in_a_task_that_is_already_cancelled_leaves_it_closed(run):
    async def main():
        runtimes = []

        async def app():
            runtimes.append(Runtime())
            async with runtimes[0]:
                await asyncio.sleep(0)

        running = asyncio.ensure_future(app())
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        async with runtimes[0] as rt:
            assert await (await rt.submit(task(lambda: 1, name="trap-one"))) == 1

    run(main)


def test_a_resource_opened_for_an_attempt_cancelled_meanwhile_is_closed(run):
    async def main():
        log = []

        class Slow:
            async def __aenter__(self):
                log.append("opening")
                await turns(5)
                log.append("opened")
                return self

            async def __aexit__(self, *exc_info):
                log.append("closed")

        @task
        async def work(thing=Resource(Slow)):
            log.append("ran")
            await asyncio.Event().wait()

        async with Runtime() as rt:
            for turn in range(12):
                log.clear()
                job = await rt.submit(work)
                await turns(turn)
                job.cancel()
                await job.wait()
                await rt.drain()
                assert ("opened" in log) == ("closed" in log), (turn, log)

    run(main)


def test_a_job_waiting_in_line_for_a_slot_is_cancelled_with_no_trace(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            await rt.submit(gate.hold)
            await until(lambda: gate.started)
            job = await rt.submit(gate.hold)
            before = asyncio.all_tasks()
            job.cancel()
            await turns()
            assert word(job.state) == "cancelled"
            assert asyncio.all_tasks() == before
            gate.open()

    run(main)
