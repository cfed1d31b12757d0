"""What is in the journals that the command line is tried on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bgruntime import Runtime
from tests.journal.steps import ordinary


async def failing(n: int) -> None:
    raise ValueError(f"number {n}")


async def hostile(text: str) -> None:
    raise ConnectionError("\x1b[2J\nsecond line\u202e")


def filled(path: Path) -> list[str]:
    """Ids of five failures of one task, two of another."""
    first = ordinary(failing, name="cli.failing").with_options(tags=["x"])
    second = ordinary(hostile, name="cli.hostile")
    return failed(path, *((first, n) for n in range(5)), (second, "\x1b[31m"), (second, "\x1b[31m"))


def failed(path: Path, *calls: tuple[Any, ...]) -> list[str]:
    """Ids of the jobs, one for each task with its arguments, when all are over and in the journal."""

    async def fill() -> list[str]:
        async with Runtime(journal=path) as rt:
            jobs = [await rt.submit(task, *args) for task, *args in calls]
            for job in jobs:
                await job.wait()
            return [job.id for job in jobs]

    return asyncio.run(fill())


def in_the_journal(path: Path, do: Callable[[Any], Any]) -> Any:
    """What the coroutine function *do* returns of the journal, opened alone."""
    from bgruntime.journal import Journal

    async def main() -> Any:
        async with Journal(path) as journal:
            return await do(journal)

    return asyncio.run(main())
