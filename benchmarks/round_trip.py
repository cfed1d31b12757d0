"""One job at a time: submit it and await its result, nothing else waiting.

python -m benchmarks.round_trip
"""

from __future__ import annotations

import asyncio

import aiojobs

from benchmarks import ours
from benchmarks.harness import Figure, Job, Plan, Way, command, costs, measure, note, ratio
from benchmarks.work import JOBS

JOBS_IN_A_ROW = 10_000


async def create_task(jobs: int, limit: int, job: Job) -> int:
    loop = asyncio.get_running_loop()
    for _ in range(jobs):
        await loop.create_task(job())
    return jobs


async def create_task_timeout(jobs: int, limit: int, job: Job) -> int:
    loop = asyncio.get_running_loop()

    async def one() -> None:
        async with asyncio.timeout(ours.TIMEOUT):
            await job()

    for _ in range(jobs):
        await loop.create_task(one())
    return jobs


async def aiojobs_one(jobs: int, limit: int, job: Job) -> int:
    scheduler = aiojobs.Scheduler(limit=limit)
    for _ in range(jobs):
        await (await scheduler.spawn(job())).wait()
    await scheduler.close()
    return jobs


RAW = Way("await create_task(…)", create_task)
RAW_TIMEOUT = Way("await create_task(… asyncio.timeout …)", create_task_timeout)
AIOJOBS = Way("aiojobs, spawn and wait", aiojobs_one)
OURS = Way("bgruntime, await submit_nowait(…)", ours.one_at_a_time)


def figures(plan: Plan) -> list[Figure]:
    found: list[Figure] = []
    for kind in ("no-op", "suspends once"):
        note(f"round trip, {kind}, {plan.loop}")
        samples = measure((OURS, RAW, RAW_TIMEOUT, AIOJOBS), JOBS_IN_A_ROW, JOBS[kind], plan)
        mine = samples[OURS.name]
        found += costs(samples, f"one at a time, {kind}: ")
        found.append(
            Figure(f"one at a time, {kind}: cost ÷ create_task", "×", ratio(mine, samples[RAW.name]))
        )
        found.append(
            Figure(
                f"one at a time, {kind}: cost ÷ create_task + timeout",
                "×",
                ratio(mine, samples[RAW_TIMEOUT.name]),
            )
        )
    return found


if __name__ == "__main__":
    command("round_trip", figures, quick=3)
