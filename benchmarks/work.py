"""The jobs that are run: they do nothing, and suspend so and so often."""

from __future__ import annotations

import asyncio

from benchmarks.harness import Job


async def no_op() -> None:
    """Return at once."""


async def suspend_once() -> None:
    """Let the loop turn once."""
    await asyncio.sleep(0)


async def suspend_three_times() -> None:
    """Let the loop turn three times."""
    for _ in range(3):
        await asyncio.sleep(0)


async def wait_10_ms() -> None:
    """What a call to a service nearby takes."""
    await asyncio.sleep(0.010)


JOBS: dict[str, Job] = {
    "no-op": no_op,
    "suspends once": suspend_once,
    "suspends three times": suspend_three_times,
}
