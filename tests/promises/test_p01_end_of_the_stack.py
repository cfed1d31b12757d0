"""P01: a submit that finds too little room on the stack raises, and nothing has happened."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bgruntime import Job, Runtime, task
from bgruntime.extend import JobAccepted

ran: list[int] = []
DEEPEST = 60  # frames from the end of the stack that a submission surely finds enough


@task(name="p01.plain")
async def plain(n: int) -> None:
    ran.append(n)


@task(name="p01.threaded")
def threaded(n: int) -> None:
    ran.append(n)


class Listening:
    listens_to = (JobAccepted,)

    def on_event(self, event: JobAccepted) -> None:
        pass


@asynccontextmanager
async def stopping(rt: Runtime) -> AsyncIterator[None]:
    """Waits for no job that got lost."""
    try:
        yield
    finally:
        await rt.stop(drain=0)


def depth() -> int:
    """How many frames there are."""
    return len(inspect.stack(0))


def at_depth(frames: int, call: Callable[[], Any]) -> Any:
    """What *call* gives so many frames further down."""
    return call() if frames <= 0 else at_depth(frames - 1, call)


def submit(rt: Runtime, what: Any, n: int) -> Job[Any]:
    """What `await rt.submit(...)` gives where it needs not wait, without a frame of the loop in between."""
    coroutine = rt.submit(what, n)
    try:
        coroutine.send(None)
    except StopIteration as end:
        job: Job[Any] = end.value
        return job
    raise AssertionError("it waits")


def submit_nowait(rt: Runtime, what: Any, n: int) -> Job[Any]:
    return rt.submit_nowait(what, n)


KINDS = {
    "plain": plain,
    "threaded": threaded,
    "urgent": plain.with_options(priority=1),
    "tags": plain.with_options(tags=("a",)),
    "expires": plain.with_options(expires_in=50),
    "delayed": plain.with_options(delay=0.01),
}


@pytest.mark.parametrize("observers", [(), (Listening(),)], ids=["unheard", "heard"])
@pytest.mark.parametrize("how", [submit, submit_nowait])
@pytest.mark.parametrize("what", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("idle", [True, False], ids=["idle", "busy"])
def test_p01_at_the_end_of_the_stack_a_submit_is_accepted_or_raises(run, how, what, observers, idle):
    async def main():
        ran.clear()
        async with Runtime(observers=observers) as rt, stopping(rt):
            room = sys.getrecursionlimit() - depth()
            accepted, refused = [], 0
            for frames in range(room - DEEPEST, room):
                if idle:
                    await rt.drain(timeout=5)
                try:
                    at_depth(frames, lambda n=frames: how(rt, what, n))
                except RecursionError:
                    refused += 1
                else:
                    accepted.append(frames)
            async with asyncio.timeout(5):
                while len(ran) < len(accepted):
                    await asyncio.sleep(0.001)
                await rt.drain()
            stats = rt.stats()
        assert accepted
        assert refused
        assert sorted(ran) == accepted
        assert (stats.submitted, stats.completed, stats.failed) == (len(accepted), len(accepted), 0)

    run(main)
