"""P01, P06: a job that somebody awaits is started there and then, where that disturbs nothing."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

import pytest

from bgruntime import Job, Runtime, task
from bgruntime.extend import JobAccepted

eager_factory = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")


@task
async def number(n: int) -> int:
    return n


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a Task's first step is not part of its start")
def test_p01_a_job_that_does_not_suspend_is_over_without_a_turn_of_the_loop_when_it_is_awaited(run, clock):
    async def main():
        async with Runtime() as rt:
            await rt.submit_nowait(number, 0)
            turns = []
            asyncio.get_running_loop().call_soon(turns.append, 1)
            assert [await rt.submit_nowait(number, n) for n in range(10)] == list(range(10))
            assert not turns

    run(main)


def test_p01_jobs_are_not_started_on_top_of_a_deep_stack(run):
    """There they would lack the room that they have when the loop starts them."""

    @task
    async def innocent() -> int:
        return len([await number(n) for n in range(3)])

    async def deep(job: Job[int], frames: int) -> None:
        if frames:
            await deep(job, frames - 1)
        else:
            await job

    async def main():
        room = sys.getrecursionlimit()
        async with Runtime(queue_size=1_000) as rt:
            for frames in range(room - 150, room - 30):
                await asyncio.sleep(0)
                rt.submit_nowait(innocent)
                awaited = rt.submit_nowait(number, 1)
                with suppress(RecursionError):
                    await deep(awaited, frames)
            await rt.drain()
            stats = rt.stats()
            assert (stats.failed, stats.running, stats.completed) == (0, 0, stats.submitted)

    run(main)


class Follows:
    """Awaits each job as soon as it is told of it, in a task of its own."""

    listens_to = (JobAccepted,)

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    def on_event(self, event: JobAccepted) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(event.job.wait()))


@eager_factory
def test_p01_no_line_of_a_job_runs_before_its_submit_has_returned_whoever_awaits_it_meanwhile(run):
    heard: list[str] = []

    @task
    async def says(n: int) -> None:
        heard.append(f"job {n} runs")

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        follows = Follows()
        async with Runtime(observers=[follows]) as rt:
            await (await rt.submit(says, 0))
            heard.clear()
            for n in range(3):
                rt.submit_nowait(says, n)
                heard.append(f"submit {n} returned")
            await rt.drain()
            await asyncio.gather(*follows.tasks)

    if run.loop_name == "uvloop":
        pytest.skip("uvloop does not take an eager task factory")
    run(main)
    assert heard[:3] == [f"submit {n} returned" for n in range(3)]


@eager_factory
def test_p16_a_map_ends_whoever_awaits_its_jobs_while_it_submits_them(run):
    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        follows = Follows()
        async with Runtime(observers=[follows]) as rt:
            for _ in range(5):
                rt.submit_nowait(number, 0)
                await asyncio.sleep(0)
                async with asyncio.timeout(5):
                    assert await rt.map(number, range(5), limit=2) == list(range(5))
            await asyncio.gather(*follows.tasks)

    if run.loop_name == "uvloop":
        pytest.skip("uvloop does not take an eager task factory")
    run(main)


@eager_factory
def test_p06_a_wait_that_ends_within_the_first_step_of_its_job_costs_no_slot(run):
    running: list[int] = []
    most = 0

    @task
    async def waits(n: int) -> None:
        await asyncio.sleep(1)

    @task
    async def parent(rt: Runtime) -> None:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        child = rt.submit_nowait(waits, 1)
        wait = asyncio.get_running_loop().create_task(child.wait())
        child.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        await wait
        for _ in range(3):
            await asyncio.sleep(0)
        running.pop()

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async with Runtime(concurrency=1) as rt:
            await asyncio.gather(*(job.wait() for job in [rt.submit_nowait(parent, rt) for _ in range(5)]))
            assert rt.stats().running == 0

    if run.loop_name == "uvloop":
        pytest.skip("uvloop does not take an eager task factory")
    run(main)
    assert most == 1
