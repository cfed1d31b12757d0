"""
Bugs of asyncio and anyio that were published, and fixed in some version, as small programs.

A simulated loop that does not find them where they live is blind.
``python -m tests.sim.canaries lock 2000`` prints the first seed that finds one, or ``None``.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import anyio

from bgruntime.testing import SimLoop, run_seed

LONG = 1_000.0


def chance() -> SimLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    return loop


async def some_turns(most: int) -> None:
    for _ in range(chance().random.randrange(most)):
        await asyncio.sleep(0)


async def lock() -> None:
    """anyio 4.13: a waiter that is cancelled at the wrong moment takes the lock into its grave."""
    held = anyio.Lock(fast_acquire=False)

    async def work() -> None:
        async with held:
            await some_turns(2)

    async def cancel_one() -> None:
        await some_turns(3)
        chance().random.choice(workers).cancel()

    workers = [asyncio.create_task(work()) for _ in range(4)]
    canceller = asyncio.create_task(cancel_one())
    await asyncio.gather(*workers, return_exceptions=True)
    await canceller


async def survives_its_cancellation(body: Callable[[], Awaitable[object]]) -> None:
    """Cancel a task in the middle of *body*; what it does next must not take place."""

    async def victim() -> None:
        try:
            await body()
        except* ValueError:
            pass
        await asyncio.sleep(LONG)

    task = asyncio.create_task(victim())
    await some_turns(6)
    task.cancel()
    asked = chance().time()
    await asyncio.wait([task])
    assert chance().time() - asked < LONG / 2, "the cancellation was lost"


async def fail_soon() -> None:
    await some_turns(3)
    raise ValueError


async def taskgroup() -> None:
    """Until 3.13: a group whose child fails swallows the cancellation of its owner."""

    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail_soon())
            await some_turns(3)

    await survives_its_cancellation(body)


async def wait_for() -> None:
    """Until 3.12: a cancellation that comes together with the result is dropped."""
    event = asyncio.Event()

    async def set_it() -> None:
        await some_turns(4)
        event.set()

    setter = asyncio.create_task(set_it())
    await survives_its_cancellation(lambda: asyncio.wait_for(event.wait(), 10))
    await setter


CANARIES = {program.__name__: program for program in (lock, taskgroup, wait_for)}


def first_seed(name: str, seeds: int, policy: str = "soft") -> int | None:
    """The first of so many seeds under which the canary falls, if any does."""
    for seed in range(seeds):
        if run_seed(CANARIES[name], seed, policy=policy).failure is not None:
            return seed
    return None


if __name__ == "__main__":
    print(first_seed(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
