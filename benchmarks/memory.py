"""Memory: bytes per waiting job with a million of them, and what a map of a million items grows by.

Each figure is taken in a process of its own, from the pages that it occupies.

    python -m benchmarks.memory
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator

import aiojobs

from benchmarks import ours
from benchmarks.harness import Figure, Plan, command, note, resident_bytes, run
from benchmarks.work import no_op, suspend_once
from bgruntime import task

MILLION = 1_000_000
LIMIT = 100
SETTLED = 20_000  # items after which a map is as large as it should ever be
Fill = Callable[[list[object]], Awaitable[None]]


# -- a million waiting --------------------------------------------------------------------------------


async def bgruntime_pending(handles: list[object], measure: Callable[[], None]) -> None:
    work = ours.a_task(no_op)
    async with ours.runtime(1, MILLION + 1) as rt:
        rt.pause()
        for index in range(MILLION):
            handles[index] = rt.submit_nowait(work)
        measure()


async def gather_pending(handles: list[object], measure: Callable[[], None]) -> None:
    semaphore = asyncio.Semaphore(1)
    await semaphore.acquire()

    async def one() -> None:
        async with semaphore:
            await no_op()

    create_task = asyncio.get_running_loop().create_task
    for index in range(MILLION):
        handles[index] = create_task(one())
    await asyncio.sleep(0)
    measure()


async def create_task_pending(handles: list[object], measure: Callable[[], None]) -> None:
    create_task = asyncio.get_running_loop().create_task
    for index in range(MILLION):
        handles[index] = create_task(suspend_once())
    measure()


async def aiojobs_pending(handles: list[object], measure: Callable[[], None]) -> None:
    scheduler = aiojobs.Scheduler(limit=1, pending_limit=0)
    await scheduler.spawn(asyncio.Event().wait())
    for index in range(MILLION):
        handles[index] = await scheduler.spawn(no_op())
    measure()


async def deque_pending(handles: list[object], measure: Callable[[], None]) -> None:
    waiting: deque[object] = deque()
    create_future = asyncio.get_running_loop().create_future
    for index in range(MILLION):
        handles[index] = future = create_future()
        waiting.append((no_op, future))
    measure()


PENDING = {
    "bgruntime": bgruntime_pending,
    "aiojobs": aiojobs_pending,
    "create_task": create_task_pending,
    "gather + Semaphore": gather_pending,
    "a deque of (function, future)": deque_pending,
}


async def pending(name: str) -> float:
    """Bytes per waiting job, the list that holds their handles not counted."""
    handles: list[object] = [None] * MILLION
    gc.collect()
    before = resident_bytes()

    def measure() -> None:
        gc.collect()
        leave((resident_bytes() - before) / MILLION)

    await PENDING[name](handles, measure)
    raise AssertionError("not reached")


# -- a million passing through ------------------------------------------------------------------------


async def passing(name: str) -> float:
    """MB that a map of a million items grows by after its first few thousand."""

    async def call(number: int) -> int:
        await asyncio.sleep(0)
        return number

    work = task(call, timeout=ours.TIMEOUT)
    settled = peak = 0
    async with ours.runtime(LIMIT, LIMIT) as rt:
        async for number in rt.map(work, range(MILLION), limit=LIMIT, ordered=name == "ordered"):
            if number == SETTLED:
                gc.collect()
                settled = peak = resident_bytes()
            elif settled and number % 5000 == 0:
                peak = max(peak, resident_bytes())
    return (peak - settled) / 1e6


# -- each in a process of its own ---------------------------------------------------------------------


def leave(value: float) -> None:
    """Say the figure and go, without taking a million jobs apart."""
    import os

    print(value, flush=True)
    os._exit(0)


def alone(kind: str, name: str, loop: str) -> float:
    """The figure of one case, measured by a new process."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", "--one", kind, name, loop],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(ran.stdout)


def cases(plan: Plan) -> Iterator[tuple[str, str, str, str]]:
    for name in ("bgruntime",) if plan.quick else PENDING:
        yield f"1,000,000 pending: {name}", "B/job", "pending", name
    for name in ("ordered",) if plan.quick else ("ordered", "unordered"):
        yield f"1,000,000-item map, {name}: growth", "MB", "passing", name


def figures(plan: Plan) -> list[Figure]:
    found: list[Figure] = []
    for title, unit, kind, name in cases(plan):
        note(f"memory, {title}, {plan.loop}")
        found.append(Figure(title, unit, [alone(kind, name, plan.loop) for _ in range(plan.rounds)]))
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        kind, name, loop = sys.argv[2:]
        leave(run(loop, lambda: {"pending": pending, "passing": passing}[kind](name)))
    command("memory", figures, rounds=1)
