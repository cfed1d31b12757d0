"""How a user would run so many jobs, at most so many at once, with the standard library alone.

None of these has a timeout (unless it says so), durations, or counters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from benchmarks.harness import Job, Way

TIMEOUT = 30.0
BACKLOG = 1000


async def all_at_once(jobs: int, limit: int, job: Job) -> int:
    create_task = asyncio.get_running_loop().create_task
    tasks = [create_task(job()) for _ in range(jobs)]
    for one in tasks:
        await one
    return len(tasks)


async def in_batches(jobs: int, limit: int, job: Job) -> int:
    """So few live tasks that they stay in the processor's cache: the hardest to beat."""
    create_task = asyncio.get_running_loop().create_task
    for begin in range(0, jobs, limit):
        tasks = [create_task(job()) for _ in range(min(limit, jobs - begin))]
        for one in tasks:
            await one
    return jobs


async def gather_semaphore(jobs: int, limit: int, job: Job) -> int:
    semaphore = asyncio.Semaphore(limit)

    async def one() -> None:
        async with semaphore:
            await job()

    return len(await asyncio.gather(*(one() for _ in range(jobs))))


async def gather_semaphore_timeout(jobs: int, limit: int, job: Job) -> int:
    semaphore = asyncio.Semaphore(limit)

    async def one() -> None:
        async with semaphore, asyncio.timeout(TIMEOUT):
            await job()

    return len(await asyncio.gather(*(one() for _ in range(jobs))))


async def task_group_semaphore(jobs: int, limit: int, job: Job) -> int:
    semaphore = asyncio.Semaphore(limit)

    async def one() -> None:
        async with semaphore:
            await job()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(jobs)]
    return sum(one.done() for one in tasks)


async def in_portions(
    run: Callable[[int, int, Job], Awaitable[int]], portion: int, jobs: int, limit: int, job: Job
) -> int:
    """*run* again and again, so many jobs at a time."""
    return sum([await run(min(portion, jobs - begin), limit, job) for begin in range(0, jobs, portion)])


RAW_ALL = Way("create_task, all at once", all_at_once)
RAW = Way("create_task, batches of the limit", in_batches)
GATHER = Way("gather + Semaphore", gather_semaphore)
GATHER_TIMEOUT = Way("gather + Semaphore + asyncio.timeout", gather_semaphore_timeout)
GROUP = Way("TaskGroup + Semaphore", task_group_semaphore)
GATHER_SHORT = Way("gather + Semaphore, backlog 1,000", partial(in_portions, gather_semaphore, BACKLOG))
