"""A job that waits gives its slot away and gets one back, however the wait, or the attempt, ends."""

from __future__ import annotations

import asyncio

import pytest

from bgruntime import JobInterrupted, Runtime, task
from tests.promises.steps import Gate, turns, until, word


async def all_slots_are_free(rt, slots):
    gate = Gate()
    jobs = [await rt.submit(gate.hold, number) for number in range(slots + 1)]
    await until(lambda: len(gate.started) == slots)
    await turns()
    assert len(gate.started) == slots, "one slot too many"
    gate.open()
    for job in jobs:
        await job


def test_a_wait_cut_short_by_the_job_s_own_timeout_leaves_the_slots_as_they_were(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=2) as rt:
            other = await rt.submit(gate.hold, "other")

            async def impatient():
                for _ in range(3):
                    try:
                        async with asyncio.timeout(0.005):
                            await other
                    except TimeoutError:
                        pass
                return rt.stats().running

            jobs = [await rt.submit(impatient) for _ in range(3)]
            assert max([await job for job in jobs]) <= 2
            gate.open()
            await other
            await all_slots_are_free(rt, 2)

    run(main)


def test_a_child_task_that_goes_on_waiting_after_its_attempt_takes_no_slot_from_anyone(run):
    async def main():
        gate, left = Gate(), []
        async with Runtime(concurrency=2) as rt:
            other = await rt.submit(gate.hold, "other")

            async def leaves_a_child():
                left.append(asyncio.ensure_future(other.wait()))
                await asyncio.sleep(0)

            await (await rt.submit(leaves_a_child))
            gate.open()
            await left[0]
            await all_slots_are_free(rt, 2)

    run(main)


def test_the_wait_of_a_former_attempt_does_not_touch_the_slot_of_the_next_one(run):
    async def main():
        gate, second, left = Gate(), Gate(), []
        async with Runtime(concurrency=2) as rt:
            other = await rt.submit(gate.hold, "other")

            @task(max_attempts=2, backoff=0)
            async def leaves_a_child():
                if not left:
                    left.append(asyncio.ensure_future(other.wait()))
                    await asyncio.sleep(0)
                    raise ValueError("again")
                return await second.hold("second")

            job = await rt.submit(leaves_a_child)
            await until(lambda: second.started)
            gate.open()
            await left[0]
            await other
            assert rt.stats().running == 1
            beside = Gate()
            jobs = [await rt.submit(beside.hold, number) for number in range(2)]
            await until(lambda: beside.started)
            await turns()
            assert beside.started == [0], "the second attempt holds one of the two slots"
            beside.open()
            second.open()
            assert await job == "second"
            for one in jobs:
                await one
            await all_slots_are_free(rt, 2)

    run(main)


def test_a_stop_inside_a_job_gives_its_slot_to_the_jobs_it_drains(run):
    async def main():
        ran = []
        async with Runtime(concurrency=1) as rt:

            async def stops():
                report = await rt.stop(drain=None)
                ran.append("stopped")
                return report

            async def behind(number):
                ran.append(number)

            job = await rt.submit(stops)
            others = [await rt.submit(behind, number) for number in range(3)]
            report = await asyncio.ensure_future(finished(job))
            assert ran == [0, 1, 2, "stopped"]
            assert report.completed == tuple(other.id for other in others)
            assert report.lost == report.stuck == ()

    run(main)


async def finished(job):
    return await job


def test_two_jobs_that_stop_their_runtime_both_get_its_report(run):
    async def main():
        async with Runtime(concurrency=1) as rt:

            async def stops():
                return await rt.stop(drain=None, cancel=1, close=1)

            first, second = [await rt.submit(stops) for _ in range(2)]
            reports = [await job for job in (first, second)]
            assert reports[0] is reports[1]
            assert reports[0].lost == reports[0].stuck == ()

    run(main)


def test_a_job_that_stopped_its_runtime_and_goes_on_is_interrupted_when_that_is_left(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:

            async def stops_and_goes_on():
                await rt.stop()
                await gate.hold("goes on")

            job = await rt.submit(stops_and_goes_on)
            await until(lambda: gate.started)
        assert gate.cancelled == ["goes on"]
        assert word(job.state) == "cancelled"
        with pytest.raises(JobInterrupted):
            await job

    run(main)
