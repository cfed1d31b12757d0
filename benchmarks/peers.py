"""How a user would run so many jobs, at most so many at once, without bgruntime.

None of these has a timeout (unless it says so), durations, or counters, and aiojobs runs a job that
had to wait in the context of whichever job made room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import aiojobs
import aiometer
import anyio
from taskiq import InMemoryBroker

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


async def anyio_limiter(jobs: int, limit: int, job: Job) -> int:
    limiter = anyio.CapacityLimiter(limit)
    completed = 0

    async def one() -> None:
        nonlocal completed
        async with limiter:
            await job()
            completed += 1

    async with anyio.create_task_group() as group:
        for _ in range(jobs):
            group.start_soon(one)
    return completed


async def aiojobs_countdown(jobs: int, limit: int, job: Job) -> int:
    """Nobody waits for a single job: the last one tells. Its own `wait_and_close` costs more."""
    scheduler = aiojobs.Scheduler(limit=limit, pending_limit=10_000)
    await _count_down(scheduler, jobs, job)
    await scheduler.close()
    return jobs


async def aiojobs_wait(jobs: int, limit: int, job: Job) -> int:
    """Every job waited for, as ours are."""
    scheduler = aiojobs.Scheduler(limit=limit, pending_limit=0)
    handles = [await scheduler.spawn(job()) for _ in range(jobs)]
    for handle in handles:
        await handle.wait()
    await scheduler.close()
    return len(handles)


async def aiojobs_portions(jobs: int, limit: int, job: Job, portion: int) -> int:
    scheduler = aiojobs.Scheduler(limit=limit, pending_limit=0)
    for begin in range(0, jobs, portion):
        await _count_down(scheduler, min(portion, jobs - begin), job)
    await scheduler.close()
    return jobs


async def _count_down(scheduler: aiojobs.Scheduler, jobs: int, job: Job) -> None:
    left = jobs
    last = asyncio.Event()

    async def one() -> None:
        nonlocal left
        await job()
        left -= 1
        if not left:
            last.set()

    for _ in range(jobs):
        await scheduler.spawn(one())
    await last.wait()


async def aiometer_all(jobs: int, limit: int, job: Job) -> int:
    return len(await aiometer.run_all([job] * jobs, max_at_once=limit))


async def taskiq_in_memory(jobs: int, limit: int, job: Job) -> int:
    """Its broker does not keep to the limit: all of them run at once."""
    broker = InMemoryBroker(max_async_tasks=limit)
    completed = 0

    async def one() -> None:
        nonlocal completed
        await job()
        completed += 1

    work = broker.register_task(one, task_name="one")
    await broker.startup()
    for _ in range(jobs):
        await work.kiq()
    await broker.wait_all()
    await broker.shutdown()
    return completed


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
ANYIO = Way("anyio group + CapacityLimiter", anyio_limiter, most=10_000)
AIOJOBS = Way("aiojobs", aiojobs_countdown)
AIOJOBS_WAIT = Way("aiojobs, each job waited for", aiojobs_wait)
AIOMETER = Way("aiometer", aiometer_all, most=10_000)
TASKIQ = Way("taskiq, in-memory broker", taskiq_in_memory, most=5_000)
GATHER_SHORT = Way("gather + Semaphore, backlog 1,000", partial(in_portions, gather_semaphore, BACKLOG))
AIOJOBS_SHORT = Way("aiojobs, backlog 1,000", partial(aiojobs_portions, portion=BACKLOG))
