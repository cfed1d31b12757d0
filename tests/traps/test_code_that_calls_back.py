"""Observers, finalizers and Tasks of others that use the runtime amid its own work: the books balance."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
from contextlib import suppress
from typing import Any

import pytest

from bgruntime import Job, QueueFull, Runtime, task

eager = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")


@task
async def number(n: int = 0) -> int:
    return n


class Canceller:
    """An observer that cancels jobs when it is given its first batch."""

    kinds = ()

    def __init__(self) -> None:
        self.jobs: list[Job[Any]] = []

    def on_event(self, event: object) -> None: ...

    def on_batch(self, batch: object) -> None:
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job.cancel()


@pytest.mark.parametrize("others_only", [True, False])
def test_an_observer_may_cancel_jobs_while_another_is_being_cancelled(run, clock, others_only):
    async def main():
        canceller = Canceller()
        async with Runtime(observers=[canceller], queue_size=2_000) as rt:
            rt.pause()
            jobs = [rt.submit_nowait(number) for _ in range(1_300)]
            canceller.jobs = jobs[600:] if others_only else list(jobs)
            assert all(job.cancel() for job in jobs[:600])
            assert rt.stats().waiting == 0
            rt.resume()
            await rt.drain()
            stats = rt.stats()
            assert (stats.cancelled, stats.waiting, stats.running) == (1_300, 0, 0)

    run(main)


@eager
def test_a_task_in_the_context_of_another_job_takes_no_slot_with_it(run):
    """It waits for a job on behalf of that one, which gives up its slot meanwhile."""
    contexts: list[contextvars.Context] = []
    waiting: list[asyncio.Task[Any]] = []

    @task
    async def lend(done: asyncio.Event) -> None:
        contexts.append(contextvars.copy_context())
        await done.wait()

    async def until_over(job: Job[int]) -> None:
        await job

    async def main():
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        async with Runtime(concurrency=4) as rt:

            @task
            async def borrow() -> None:
                waiter: Any = asyncio.Task
                coroutine = until_over(rt.submit_nowait(number))
                waiting.append(waiter(coroutine, loop=loop, context=contexts[0], eager_start=True))

            rt.submit_nowait(lend, done)
            while not contexts:
                await asyncio.sleep(0)
            for _ in range(3):
                await rt.submit_nowait(borrow)
                await asyncio.wait(waiting)
            done.set()
            await rt.drain()
            assert rt.stats().running == 0

    run(main)


@eager
def test_a_factory_whose_tasks_go_on_after_their_job_loses_no_slot(run):
    """A Task of such a factory lives on when its job has come to its end."""
    finished = 0

    async def wrapped(coroutine: Any) -> Any:
        nonlocal finished
        try:
            return await coroutine
        finally:
            await asyncio.sleep(0)
            finished += 1

    def factory(loop: Any, coroutine: Any, **options: Any) -> Any:
        make: Any = asyncio.Task
        return make(wrapped(coroutine), loop=loop, eager_start=True, **options)

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        async with Runtime(concurrency=2) as rt:
            jobs = [rt.submit_nowait(number, n) for n in range(10)]
            assert [await job for job in jobs] == list(range(10))
            await rt.drain()
            assert rt.stats().running == 0
        while finished < 10:
            await asyncio.sleep(0)
        loop.set_task_factory(None)

    if run.loop_name == "uvloop":
        pytest.skip("uvloop does not take an eager task factory")
    run(main)


def test_finalizers_that_submit_do_not_add_up_to_a_queue_beyond_its_size(run):
    async def main():
        async with Runtime(queue_size=200, overflow="reject") as rt:
            rt.pause()

            class Garbage:
                def __init__(self) -> None:
                    self.me = self

                def __del__(self) -> None:
                    with suppress(QueueFull):
                        rt.submit_nowait(number)

            before = gc.get_threshold()
            gc.set_threshold(3, 1, 1)
            try:
                with suppress(QueueFull):
                    for n in range(500):
                        if n % 4 == 0:
                            Garbage()
                        rt.submit_nowait(number)
            finally:
                gc.set_threshold(*before)
                gc.collect()
            assert rt.stats().waiting in (200, 201)  # one may come in while another is on its way in
            rt.resume()
            await rt.drain()

    run(main)
