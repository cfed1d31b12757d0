"""bgruntime as it is measured: with everything on.

A timeout of 30 s on each job, the context of its submitter, and what a bare `Runtime()` comes with:
the metrics, which count the durations of its wait and its run, and the log of failures; every job
cancellable, and every result awaited one by one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.harness import Job, Way
from bgruntime import Runtime, Task, task

TIMEOUT = 30.0
BACKLOG = 1000


def runtime(limit: int, queue_size: int) -> Runtime:
    """A runtime that has yet to be entered."""
    return Runtime(concurrency=limit, queue_size=queue_size)


def a_task(job: Job, timeout: float | None = TIMEOUT) -> Task[[], Any]:
    """*job* as a task of ours."""
    return task(job, timeout=timeout)


async def submit_nowait(jobs: int, limit: int, job: Job, portion: int | None = None) -> int:
    """Submit all of them, or a *portion* at a time, and then await each."""
    work = a_task(job)
    size = portion or jobs
    async with runtime(limit, size) as rt:
        for begin in range(0, jobs, size):
            handles = [rt.submit_nowait(work) for _ in range(min(size, jobs - begin))]
            for handle in handles:
                await handle  # a job that did not complete raises here
    return jobs


async def submit(jobs: int, limit: int, job: Job, portion: int | None = None) -> int:
    """The same with the call that waits for room when there is none."""
    work = a_task(job)
    size = portion or jobs
    async with runtime(limit, size) as rt:
        for begin in range(0, jobs, size):
            handles = [await rt.submit(work) for _ in range(min(size, jobs - begin))]
            for handle in handles:
                await handle  # a job that did not complete raises here
    return jobs


async def map_all(jobs: int, limit: int, job: Job) -> int:
    async def call(_: int) -> None:
        await job()

    work = task(call, timeout=TIMEOUT)
    async with runtime(limit, limit) as rt:
        return len(await rt.map(work, range(jobs), limit=limit))


async def one_at_a_time(jobs: int, limit: int, job: Job) -> int:
    work = a_task(job)
    async with runtime(limit, BACKLOG) as rt:
        for _ in range(jobs):
            await rt.submit_nowait(work)
    return jobs


NOWAIT = Way("bgruntime, submit_nowait", submit_nowait)
SUBMIT = Way("bgruntime, await submit", submit)
SHORT = Way("bgruntime, backlog 1,000", partial(submit_nowait, portion=BACKLOG))
MAP = Way("bgruntime, map", map_all)
