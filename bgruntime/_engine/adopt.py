"""Adopt: a durable job comes in without a submitter, out of the journal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._model.events import JobAccepted
from .._model.jobs import Adopted, Definition, Job
from .._model.states import JobState
from .._parts import contexts
from .admit import new_job, room_for, wait_for_room
from .dispatch import Line, enqueue

if TYPE_CHECKING:
    from .supervise import Supervisor


async def reserve(engine: Supervisor, definition: Definition, wanted: int) -> int:
    """Take room for at most *wanted* jobs in the queue of *definition*; wait for one like any submitter.

    Returns how much was taken: 0 while the queue is paused, or full and not one to wait for. What is
    not used goes back with `adopt`.

    Raises:
        RuntimeClosed: the runtime stopped meanwhile.
    """
    entry = engine.entry_of(definition)
    line: Line = entry.queue
    if line.paused or engine.phase != "running":
        return 0
    room = wanted
    while room > 1 and not line.has_room(engine, room_for(entry, room)):
        room //= 2
    if line.overflow != "wait" and not line.has_room(engine, room_for(entry, room)):
        return 0
    await wait_for_room(engine, entry, room)
    return room


def adopt(engine: Supervisor, definition: Definition, jobs: Sequence[Adopted], reserved: int) -> None:
    """Let these jobs wait where they belong, in room that was reserved for the queue of *definition*."""
    entry = engine.entry_of(definition)
    entry.queue.give(room_for(entry, reserved))
    for adopted in jobs:
        _place(engine, adopted)
    engine.offer_room()


def _place(engine: Supervisor, adopted: Adopted) -> None:
    entry = engine.entry_of(adopted.definition)
    job = new_job(engine, entry, adopted.args, adopted.kwargs)
    job._context = contexts.fresh(())
    job._id = adopted.id
    if adopted.id not in engine.named:
        engine.named[adopted.id] = job
    job._attempt = adopted.attempt
    job._get_more().tags = adopted.tags
    job._get_more().payload = adopted
    now = engine.clock()
    wait = adopted.due_in(engine.ports.time())
    job._since = min(now, now + wait)  # it has waited since it was due
    if wait > 0:
        _wait(engine, job, now + wait, again=adopted.attempt > 0 or not adopted.fresh)
    else:
        if adopted.fresh:
            engine.watch_expiry(job)
        enqueue(engine, job)
    if engine.tells_accept:
        engine.tell(JobAccepted(now, job))


def _wait(engine: Supervisor, job: Job[Any], due: float, *, again: bool) -> None:
    job._state = JobState.RETRYABLE if again else JobState.SCHEDULED
    if again:
        job._entry.queue.retrying += 1
    engine.wait_until(job, due, engine.become_available)
