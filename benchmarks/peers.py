"""How a user would run so many jobs, at most so many at once, with another library.

None of these has a timeout, durations, or counters, and aiojobs runs a job that had to wait in the
context of whichever job made room.
"""

from __future__ import annotations

import asyncio
from functools import partial

import aiojobs
import aiometer
import anyio
from taskiq import InMemoryBroker

from benchmarks.harness import Job, Way

BACKLOG = 1000


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


ANYIO = Way("anyio group + CapacityLimiter", anyio_limiter, most=10_000)
AIOJOBS = Way("aiojobs", aiojobs_countdown)
AIOJOBS_WAIT = Way("aiojobs, each job waited for", aiojobs_wait)
AIOMETER = Way("aiometer", aiometer_all, most=10_000)
TASKIQ = Way("taskiq, in-memory broker", taskiq_in_memory, most=5_000)
AIOJOBS_SHORT = Way("aiojobs, backlog 1,000", partial(aiojobs_portions, portion=BACKLOG))
