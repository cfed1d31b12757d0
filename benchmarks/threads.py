"""A plain function that does nothing, run in a thread: one call at a time, and 64 in flight.

python -m benchmarks.threads
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.to_thread

from benchmarks import ours
from benchmarks.harness import WALL, Figure, Job, Plan, Samples, Way, command, measure, note, scaled
from benchmarks.work import no_op
from bgruntime import Runtime, task

CALLS = 4000
THREADS = 8
IN_FLIGHT = (1, 64)


def nothing() -> None:
    """The work."""


async def in_flight(calls: int, limit: int, call: Callable[[], Awaitable[object]]) -> int:
    """So many calls by *limit* callers, each one after another."""

    async def caller() -> None:
        for _ in range(calls // limit):
            await call()

    await asyncio.gather(*(caller() for _ in range(limit)))
    return calls


async def bgruntime(calls: int, limit: int, _: Job) -> int:
    work = task(nothing, timeout=ours.TIMEOUT)
    async with Runtime(threads=THREADS) as rt:

        async def call() -> None:
            await rt.submit_nowait(work)

        return await in_flight(calls, limit, call)


async def executor(calls: int, limit: int, _: Job) -> int:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS) as pool:
        return await in_flight(calls, limit, lambda: loop.run_in_executor(pool, nothing))


async def anyio_thread(calls: int, limit: int, _: Job) -> int:
    limiter = anyio.CapacityLimiter(THREADS)
    return await in_flight(calls, limit, lambda: anyio.to_thread.run_sync(nothing, limiter=limiter))


async def asyncio_thread(calls: int, limit: int, _: Job) -> int:
    return await in_flight(calls, limit, lambda: asyncio.to_thread(nothing))


WAYS = (
    Way("bgruntime, 8 threads", bgruntime),
    Way("run_in_executor, 8 threads", executor),
    Way("anyio.to_thread, 8 threads", anyio_thread),
    Way("asyncio.to_thread", asyncio_thread),
)


def figures(plan: Plan) -> list[Figure]:
    found: list[Figure] = []
    for flight in IN_FLIGHT:
        note(f"threads, {flight} in flight, {plan.loop}")
        calls = CALLS // flight * flight
        samples: Samples = measure(WAYS, calls, no_op, plan, limit=flight, clock=WALL, warm_up=flight * 8)
        found += [
            Figure(f"a call in a thread, {flight} in flight: {name}", "µs", scaled(values, 1e6))
            for name, values in samples.items()
        ]
    return found


if __name__ == "__main__":
    command("threads", figures)
