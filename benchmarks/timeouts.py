"""What a timeout costs that does not fire.

The same jobs through the same runtime, with a timeout of 30 s and with none; and, beside it, what
`asyncio.timeout` and `asyncio.wait_for` add to a coroutine awaited in place.

    python -m benchmarks.timeouts
"""

from __future__ import annotations

import asyncio
from functools import partial

from benchmarks import ours
from benchmarks.harness import Figure, Job, Plan, Way, command, measure, note
from benchmarks.work import JOBS

MANY = 50_000


async def through_runtime(timeout: float | None, jobs: int, limit: int, job: Job) -> int:
    work = ours.a_task(job, timeout)
    async with ours.runtime(limit, ours.BACKLOG) as rt:
        for begin in range(0, jobs, ours.BACKLOG):
            handles = [rt.submit_nowait(work) for _ in range(min(ours.BACKLOG, jobs - begin))]
            for handle in handles:
                await handle
    return jobs


async def in_place(jobs: int, limit: int, job: Job) -> int:
    for _ in range(jobs):
        await job()
    return jobs


async def with_timeout(jobs: int, limit: int, job: Job) -> int:
    for _ in range(jobs):
        async with asyncio.timeout(ours.TIMEOUT):
            await job()
    return jobs


async def with_wait_for(jobs: int, limit: int, job: Job) -> int:
    for _ in range(jobs):
        await asyncio.wait_for(job(), ours.TIMEOUT)
    return jobs


OURS = Way("bgruntime, timeout=30", partial(through_runtime, ours.TIMEOUT))
OURS_NONE = Way("bgruntime, timeout=None", partial(through_runtime, None))
BARE = Way("awaited in place", in_place)
ASYNCIO = Way("asyncio.timeout", with_timeout)
WAIT_FOR = Way("asyncio.wait_for", with_wait_for)


def figures(plan: Plan) -> list[Figure]:
    found: list[Figure] = []
    for kind in ("no-op", "suspends once"):
        note(f"timeouts, {kind}, {plan.loop}")
        samples = measure((OURS, OURS_NONE, BARE, ASYNCIO, WAIT_FOR), MANY, JOBS[kind], plan)
        for name, way, without in (
            ("bgruntime's timeout", OURS, OURS_NONE),
            ("asyncio.timeout", ASYNCIO, BARE),
            ("asyncio.wait_for", WAIT_FOR, BARE),
        ):
            added = [
                (more - less) * 1e9
                for more, less in zip(samples[way.name], samples[without.name], strict=True)
            ]
            found.append(Figure(f"{kind}: {name} adds", "ns", added))
    return found


if __name__ == "__main__":
    command("timeouts", figures, rounds=9, quick=3)
