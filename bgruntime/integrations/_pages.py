"""The status pages behind their paths: what they look up, and how long they wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.exceptions import HTTPException

from bgruntime import Job
from bgruntime.journal import Failure, Journal

from ._shown import OVER
from ._starlette import Serving

LONGEST_WAIT = 30.0  # seconds
MOST_WAITING = 100  # requests at once, in one process
LOOK_AGAIN = 0.5  # seconds, at a job that another process runs
MOST_AT_ONCE = 1_000  # failures that one request may redrive or discard


def journal_of(serving: Serving) -> Journal:
    """The journal. Raises 404 where there is none."""
    journal: Journal | None = serving.runtime.journal
    if journal is None:
        raise HTTPException(404, "this runtime has no journal: Runtime(journal=...)")
    return journal


async def find(serving: Serving, id: str) -> Job[Any] | Failure:
    """The job of that id: of this process, or durable, or a failure in the journal. Raises 404."""
    job = serving.runtime.job(id)
    if job is not None and not is_elsewhere(job):
        return job
    journal: Journal | None = serving.runtime.journal
    kept = None if journal is None else await journal.get(id)
    if kept is not None:
        return kept
    if job is not None:
        return job
    raise HTTPException(
        404,
        "no such job here: neither among the last of this process nor in its journal. A job that is not "
        "durable is known to the process that accepted it, and to no other",
    )


def is_elsewhere(job: Job[Any]) -> bool:
    """Whether this process has let go of a job that is not over: it was put back into the journal."""
    return job.done() and str(job.state) not in OVER


def state_of(found: Job[Any] | Failure) -> str:
    """Where it stands."""
    return str(found.state)


async def wait_for(serving: Serving, id: str, seconds: float) -> Job[Any] | Failure:
    """What `find` finds, when it is over, or after *seconds*, or when the server stops. Raises 404, 503."""
    found = await find(serving, id)
    if seconds <= 0 or state_of(found) in OVER or serving.closing.is_set():
        return found
    with _counted(serving):
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while state_of(found) not in OVER and not serving.closing.is_set():
            left = deadline - loop.time()
            if left <= 0:
                break
            if isinstance(found, Job) and not found.done():
                await _first(found.wait(), serving.closing.wait(), left)
            else:
                await _first(None, serving.closing.wait(), min(left, LOOK_AGAIN))
            found = await _again(serving, id, found)
    return found


async def _again(serving: Serving, id: str, before: Job[Any] | Failure) -> Job[Any] | Failure:
    """The same once more. A durable job that is gone has completed: nothing else takes it out."""
    if isinstance(before, Job) and state_of(before) in OVER:
        return before
    return await find(serving, id)


@contextmanager
def _counted(serving: Serving) -> Iterator[None]:
    if serving.waiting >= MOST_WAITING:
        raise HTTPException(503, f"{MOST_WAITING} requests wait already", {"Retry-After": "5"})
    serving.waiting += 1
    try:
        yield
    finally:
        serving.waiting -= 1


async def _first(one: Any, other: Any, seconds: float) -> None:
    """Return when one of both is done, or after *seconds*."""
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(each) for each in (one, other) if each is not None]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # a cancellation of ours comes after theirs


def page_of(items: list[Any], total: int, offset: int, limit: int) -> dict[str, Any]:
    """A page, and where the next one begins."""
    following = offset + limit
    return {"items": items, "total": total, "next": following if following < total else None}
