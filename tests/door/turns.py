"""Waiting for facts instead of for time, and jobs that can be held and let go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from bgruntime import Runtime, task


async def turns(count: int = 12) -> None:
    """Lets the loop turn `count` times: long enough to show that nothing happens."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], Any], limit: float = 10.0) -> None:
    """Returns once `condition()` holds; fails the test after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"never came true within {limit} s"
        await asyncio.sleep(0.0005)


def faults_of(rt: Runtime) -> dict[str, int]:
    """What `rt` counted of others' faults; on a busy machine an observer may be slow, which is none here."""
    return {about: count for about, count in rt.stats().faults.items() if "held the loop" not in about}


async def from_thread(submit: Callable[[], Future[Any]]) -> Any:
    """What the future that `submit` makes gives in the end; the loop goes on meanwhile."""
    return await asyncio.wrap_future(submit())


class Gate:
    """Holds the jobs that wait at it, and says which of them started and how they ended."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.started: list[Any] = []
        self.finished: list[Any] = []
        self.cancelled: list[Any] = []
        self.now = 0
        self.most = 0

    def open(self) -> None:
        self.opened.set()

    async def wait(self, value: Any = None) -> Any:
        self.started.append(value)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled.append(value)
            raise
        finally:
            self.now -= 1
        self.finished.append(value)
        return value


@task(timeout=None)
async def hold(gate: Gate, value: Any = None) -> Any:
    """Waits at the gate and returns `value`."""
    return await gate.wait(value)


def word(value: object) -> str:
    """The plain word of a state, reason or outcome."""
    return str(value)
