"""What asyncio only mutters about when the collector comes by: lost tasks, coroutines and exceptions."""

from __future__ import annotations

import asyncio
import gc

import pytest

from bgruntime import Runtime, RuntimeClosed, task
from tests.promises.steps import Gate, turns, until, word


def test_a_running_job_is_held_although_nobody_else_holds_anything(run):
    async def main():
        ended = []

        @task
        async def work():
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.02, future.set_result, None)
            # A reference from the loop alone is enough for the future, not for the job.
            await future
            ended.append(1)

        async with Runtime() as rt:
            for _ in range(5):
                await rt.submit(work)
            for _ in range(5):
                gc.collect()
                await turns(3)
        assert len(ended) == 5

    run(main)


def test_a_task_the_job_left_behind_is_its_own_affair_and_disturbs_no_one(run):
    async def main():
        strays, gate = [], Gate()

        @task
        async def work():
            strays.append(asyncio.ensure_future(gate.hold("stray")))
            return "left"

        async with Runtime() as rt:
            assert await (await rt.submit(work)) == "left"
            await rt.drain()
        assert not strays[0].done()
        gate.open()
        await strays[0]

    run(main)


REFUSALS = {
    "submit closed": lambda closed, rt, coroutine: closed.submit(coroutine),
    "submit with arguments": lambda closed, rt, coroutine: rt.submit(coroutine, "argument"),
    "submit_many": lambda closed, rt, coroutine: rt.submit_many(coroutine, [(1,), (2,)]),
    "gather closed": lambda closed, rt, coroutine: closed.gather(coroutine),
    "gather limit": lambda closed, rt, coroutine: rt.gather(coroutine, limit=0),
    "gather beside nonsense": lambda closed, rt, coroutine: rt.gather(coroutine, object()),
    "group before entry": lambda closed, rt, coroutine: rt.group().submit(coroutine),
}


@pytest.mark.parametrize("how", REFUSALS)
def test_a_coroutine_object_that_is_refused_is_closed(run, how):
    async def main():
        gate = Gate()

        async def work():
            await gate.hold()

        coroutine = work()
        async with Runtime() as rt:
            with pytest.raises((RuntimeClosed, RuntimeError, TypeError, ValueError)):
                await REFUSALS[how](Runtime(), rt, coroutine)
            assert coroutine.cr_frame is None
        assert gate.started == []

    run(main)


def test_a_coroutine_object_refused_by_submit_nowait_is_closed(run):
    async def main():
        gate = Gate()
        coroutine = gate.hold()
        with pytest.raises(RuntimeClosed):
            Runtime().submit_nowait(coroutine)
        assert coroutine.cr_frame is None

    run(main)


def test_an_awaited_fanout_that_was_never_used_says_nothing(run):
    async def main():
        gate = Gate()

        async def work():
            await gate.hold()

        async with Runtime() as rt:
            rt.map(gate.note, range(3))
            fanout = rt.map(gate.note, range(3))
            await fanout.aclose()
            gc.collect()
            await turns()
        assert gate.started == []

    run(main)


def test_an_abandoned_iteration_is_cleaned_up_when_it_is_collected(run):
    async def main():
        gate = Gate()

        @task
        async def work(number):
            return number if number == 0 else await gate.hold(number)

        async with Runtime() as rt:

            async def reads_one():
                async for result in rt.map(work, range(10), limit=3):
                    return result

            assert await reads_one() == 0
            await until(
                lambda: gc.collect() is not None and gate.running == 0, "the collected iterator's jobs ending"
            )
            await turns()
            assert len(gate.started) == len(gate.cancelled)

    run(main)


def test_an_async_generator_a_job_leaves_open_does_not_hold_it(run):
    async def main():
        closed = []

        async def numbers():
            try:
                yield 1
                yield 2
            finally:
                closed.append(1)

        @task
        async def work():
            async for number in numbers():
                return number

        async with Runtime() as rt:
            assert await (await rt.submit(work)) == 1
        gc.collect()
        await turns()
        assert closed == [1]

    run(main)


def test_failures_nobody_awaits_are_not_reported_by_the_loop(run):
    async def main():
        @task(max_attempts=2, backoff=lambda _: 0.0)
        async def fail():
            raise ValueError("unseen")

        async with Runtime() as rt:
            jobs = [await rt.submit(fail) for _ in range(5)]
            await rt.drain()
            assert {word(job.state) for job in jobs} == {"discarded"}
            del jobs
            gc.collect()
            await turns()
            with pytest.raises(ValueError, match="unseen"):
                await rt.gather(*(fail.bind() for _ in range(4)))
            gc.collect()
            await turns()

    run(main)
