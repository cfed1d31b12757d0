"""The longest that the loop is held while 20,000 ready jobs are worked off: what others must wait.

A ticker asks for every turn of the loop; the longest gap between two of its turns is the figure.
Submitting is not in it. Wall time, so on a busy machine look at the lowest.

    python -m benchmarks.loop_hold
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from functools import partial

import aiojobs

from benchmarks import ours
from benchmarks.harness import LIMIT, Figure, Plan, command, note, run
from benchmarks.work import no_op
from bgruntime import task

READY = 20_000
REPEATS = 3  # the least of so many, for it is the runtime and not the machine that is asked about
Finish = Callable[[], Awaitable[object]]
Build = Callable[[asyncio.Event, Callable[[Finish], Awaitable[None]]], Awaitable[None]]


async def bgruntime(gate: asyncio.Event, watch: Callable[[Finish], Awaitable[None]]) -> None:
    blocker, work = task(gate.wait, timeout=ours.TIMEOUT, name="blocker"), ours.a_task(no_op)
    async with ours.runtime(LIMIT, READY + LIMIT) as rt:
        handles = [rt.submit_nowait(blocker) for _ in range(LIMIT)]
        await asyncio.sleep(0.01)
        handles += [rt.submit_nowait(work) for _ in range(READY)]
        await watch(rt.drain)
    if not all(handle.done() for handle in handles):
        raise SystemExit("not every job ended")


async def semaphore(gate: asyncio.Event, watch: Callable[[Finish], Awaitable[None]]) -> None:
    limit = asyncio.Semaphore(LIMIT)

    async def blocked() -> None:
        async with limit:
            await gate.wait()

    async def one() -> None:
        async with limit:
            await no_op()

    tasks = [asyncio.get_running_loop().create_task(blocked()) for _ in range(LIMIT)]
    tasks += [asyncio.get_running_loop().create_task(one()) for _ in range(READY)]
    await asyncio.sleep(0.01)

    async def finish() -> None:
        for one in tasks:
            await one

    await watch(finish)


async def aiojobs_scheduler(gate: asyncio.Event, watch: Callable[[Finish], Awaitable[None]]) -> None:
    scheduler = aiojobs.Scheduler(limit=LIMIT, pending_limit=0)
    left, last = READY, asyncio.Event()

    async def one() -> None:
        nonlocal left
        left -= 1
        if not left:
            last.set()

    for _ in range(LIMIT):
        await scheduler.spawn(gate.wait())
    for _ in range(READY):
        await scheduler.spawn(one())
    await watch(last.wait)
    await scheduler.close()


WAYS: dict[str, Build] = {
    "bgruntime": bgruntime,
    "create_task + Semaphore": semaphore,
    "aiojobs": aiojobs_scheduler,
}


async def longest_gap(build: Build) -> float:
    """The longest time in ms between two turns of the loop, from the opening of the gate to the last job."""
    gate = asyncio.Event()
    gaps: list[float] = []

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    async def watch(finish: Finish) -> None:
        gc.collect()
        ticker = asyncio.get_running_loop().create_task(tick())
        await asyncio.sleep(0)
        gate.set()
        await finish()
        ticker.cancel()
        await asyncio.wait([ticker])

    await build(gate, watch)
    return max(gaps) * 1e3


def figures(plan: Plan) -> list[Figure]:
    note(f"loop hold, {plan.loop}")
    gaps: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(plan.rounds):
        for name in (*WAYS, *reversed(WAYS)):
            gaps[name].append(min(run(plan.loop, partial(longest_gap, WAYS[name])) for _ in range(REPEATS)))
    return [Figure(f"20,000 ready jobs: longest hold, {name}", "ms", found) for name, found in gaps.items()]


if __name__ == "__main__":
    command("loop_hold", figures, rounds=5, quick=1)
