"""The oracles: what must hold at every event, whenever the program rests, and at the end."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from bgruntime import JobCancelled, JobDiscarded, JobExited, JobState, JobTimedOut, Retry
from bgruntime.extend import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptStarted,
    JobAccepted,
    JobSettled,
    RetryScheduled,
)
from tests.sim.world import BLINK, FOREVER, GRACE, HARD, UNKNOWN, Call, Fan, World

NEWS = 0.2  # seconds in which the loop has surely heard of the end of a thread
FINAL = ("completed", "cancelled", "discarded")


class Witness:
    """An observer of the runtime that checks each event against all that went before."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.known: dict[int, Call] = {}
        self.heard_early: dict[int, list[Any]] = {}
        self.accepted = 0

    def on_event(self, event: Any) -> None:
        job = getattr(event, "job", None)
        if job is None:
            return
        call = self.call_of(job)
        if call is None:
            return
        match event:
            case JobAccepted():
                self.accept(call)
            case AttemptStarted():
                self.start(call, event)
            case AttemptEnded():
                self.end(call, event)
            case JobSettled():
                self.settle(call)
            case RetryScheduled():
                call.wakes_at = self.world.now + event.delay
            case AttemptAbandoned():
                """Checked by what follows from it."""

    def call_of(self, job: Any) -> Call | None:
        """Whose job it is: its first argument says so, for as long as it has arguments."""
        call = self.known.get(id(job))
        if call is None and job._args and isinstance(job._args[0], Call):
            call = self.known[id(job)] = job._args[0]
            call.job = call.job or job
        return call

    def let_in(self, call: Call) -> None:
        """A client has its handle. Where nobody observes, jobs come in by a path of their own."""
        if not self.world.observed:
            self.count(call)

    def count(self, call: Call) -> None:
        """P03, P05: there was room for it, and nobody was overtaken."""
        self.accepted += 1
        call.order = self.accepted
        call.accepted += 1
        check_nobody_was_overtaken(self.world, call)
        if not (call.owner is not None and call.fan is not None):
            check_queue_size(self.world, call)

    def accept(self, call: Call) -> None:
        self.count(call)
        call.accepted_at = self.world.now
        call.wakes_at = self.world.now + call.delay
        if call.accepted > 1:
            self.world.violate("P01", f"accepted twice: {call}")
        if self.world.closed_to_all:
            self.world.violate("P01", f"accepted after the runtime had closed: {call}")
        if self.world.quiet and call.owner is None:
            self.world.violate("P01", f"accepted from outside after the stop began: {call}")

    def start(self, call: Call, event: AttemptStarted) -> None:
        world = self.world
        call.started.append(world.now)
        call.declared = False
        if call.settled:
            world.violate("P09", f"started after it was settled: {call}")
        if call.expires_in < FOREVER and len(call.started) == 1:
            late = world.now - call.accepted_at - call.delay - call.expires_in
            if late > world.stalled + BLINK:
                world.violate("P06", f"started {late:.3f} s after it had expired: {call}")
        for other in world.calls:
            if goes_before(other, call):
                world.violate("P05", f"{call} started before {other}")

    def end(self, call: Call, event: AttemptEnded) -> None:
        if str(event.outcome) != "timed_out":
            return
        call.declared = True
        due = call.started[-1] + (call.timeout or FOREVER)
        if self.world.now < due - BLINK:
            self.world.violate("P11", f"timed out {due - self.world.now:.6f} s early: {call}")

    def settle(self, call: Call) -> None:
        world = self.world
        call.settled += 1
        if call.settled > 1:
            world.violate("P09", f"settled twice: {call}")
        assert call.job is not None
        if call.job.reason == "expired" and call.runs:
            world.violate("P08", f"it expired although it had begun: {call}")
        if call.job.reason == "dropped":
            check_rightly_dropped(world, call)
        asked_long_ago = world.now >= call.cancelled_at + GRACE + HARD - BLINK
        in_thread = call.threaded and call.runs and world.now < call.free_at < UNKNOWN
        if in_thread and not (call.declared or world.stopping or asked_long_ago):
            world.violate("P14", f"its function goes on in a thread, and it is over: {call}")


def check_nobody_was_overtaken(world: World, accepted: Call) -> None:
    """P05: whoever asked earlier and waits for room goes first."""
    if accepted.owner is not None or accepted.way not in ("submit", "nowait", "many"):
        return
    for call in world.calls[: accepted.number - 1]:
        if call.queue == accepted.queue and call.waits_for_room:
            world.violate("P05", f"{accepted} was let in before {call}, which waits for room")


def check_rightly_dropped(world: World, dropped: Call) -> None:
    """P03: the oldest waiting job of the lowest priority is the one to go."""
    for other in world.calls:
        if other.queue != dropped.queue or other.state != "available" or other.started or other.accepted != 1:
            continue
        if other.owner is not None and other.fan is not None:
            continue
        older = other.plain and dropped.plain and other.order < dropped.order
        if other.priority > dropped.priority or (other.priority == dropped.priority and older):
            world.violate("P03", f"{dropped} was dropped, and not {other}")


def goes_before(other: Call, call: Call) -> bool:
    """Should *other* have started before *call* did? Both plain, of one queue, kind and priority."""
    return (
        other.accepted == 1
        and other.order < call.order
        and other.state == "available"
        and not other.started
        and len(call.started) == 1
        and other.plain
        and call.plain
        and other.way not in ("map", "gather", "group")
        and call.way not in ("map", "gather", "group")
        and (other.queue, other.priority, other.threaded) == (call.queue, call.priority, call.threaded)
    )


def check_queue_size(world: World, accepted: Call) -> None:
    """P03: no more jobs wait than the queue may hold beyond the free slots, where none starts at once.

    Who had to wait for room was given it a little earlier, and slots that were free then may
    be taken by now.
    """
    queue = accepted.queue
    states = [
        call.state
        for call in world.calls
        if call.queue == queue
        and call.accepted == 1
        and call.state in ("available", "scheduled", "retryable")
        and not (call.owner is not None and call.fan is not None)
        and not call.started
    ]
    waiting = len(states)
    stats = world.rt.stats()
    free = max(0, stats.concurrency - stats.running - about_to_start(world, besides=queue))
    line = stats.queues[queue]
    if line.concurrency is not None:
        free = min(free, max(0, line.concurrency - line.running))
    if accepted.asked_at_step != world.loop.steps:
        # One that waits for a time may have counted on slots that jobs for now have taken since.
        free = world.concurrency if accepted.state == "available" else 2 * world.concurrency
    if accepted.state == "available" and states.count("available") <= free:
        return
    if waiting > world.queue_size[queue] + free:
        world.violate("P03", f"{waiting} wait in {queue}: size {world.queue_size[queue]}, {free} slots free")


def about_to_start(world: World, *, besides: str) -> int:
    """How many jobs of other queues take a free slot for certain: none of those that may lack a thread."""
    found = 0
    for name, line in world.rt.stats().queues.items():
        if name != besides and not line.paused:
            plain = line.waiting - sum(call.threaded and call.state == "available" for call in world.calls)
            most = plain if line.concurrency is None else min(plain, line.concurrency - line.running)
            found += max(0, most)
    return found


# At rest ----------------------------------------------------------------------------------


def at_rest(world: World) -> None:
    """Nothing is ready: whatever could be done by now must have been done."""
    for call in world.calls:
        if call.running and not call.threaded:
            check_cancelled_in_time(call)
            check_declared_in_time(call)
        if call.state in ("scheduled", "retryable") and world.now > call.wakes_at + BLINK:
            world.violate("P06", f"its time came {world.now - call.wakes_at:.3f} s ago: {call}")
        if world.wait_limit is not None and call.waits_for_room:
            check_room_in_time(call, world.wait_limit)
    for fan in world.fans:
        check_fell_together(world, fan)
    check_books(world)
    if not world.stopping and not world.loop.threads:
        check_no_idle_slot(world)
        check_no_idle_room(world)


def check_books(world: World) -> None:
    """P03, P06: what is counted as waiting waits, and what is counted as running holds a slot.

    It looks inside: asked by its face the runtime would take as long for it as for everything else.
    """
    engine = world.rt._engine
    holding = sum(job._more is None or job._more.holds for job in {**engine.live, **engine.stuck})
    slots = sum(line.in_use for line in engine.lines.values())
    if not holding == slots == engine.in_use:
        world.violate("P06", f"{engine.in_use} slots are counted, {slots} in the queues, {holding} are held")
    for line in engine.lines.values():
        waiting = sum(job._state is JobState.AVAILABLE and job._context is not None for job in line.lanes)
        if line.waiting + line.nested != waiting:
            counted = f"{line.waiting} and {line.nested} jobs are counted as waiting in {line.name}"
            world.violate("P03", f"{counted}, {waiting} wait")
        if line.at_once > max(0, line.size - line.later - line.waiting):
            world.violate(
                "P03", f"{line.at_once} may come into {line.name}: {line.waiting} of {line.size} wait"
            )


def check_room_in_time(call: Call, limit: float) -> None:
    """P03: nobody waits for room longer than the limit says."""
    late = call.world.now - call.asked_at - limit
    if late > call.world.stalled + BLINK:
        call.world.violate("P03", f"it has waited for room {late:.3f} s longer than it may: {call}")


def check_cancelled_in_time(call: Call) -> None:
    asked = call.asked_while_running and call.began <= call.cancelled_at
    if asked and not call.knows_of_cancel:
        call.world.violate(
            "P12", f"cancelled at {call.cancelled_at:.3f} s, and its body does not know: {call}"
        )


def check_declared_in_time(call: Call) -> None:
    world = call.world
    if not world.observed or not call.started or call.timeout is None or call.way == "coroutine":
        return
    late = world.now - call.started[-1] - call.timeout
    if late > BLINK and not call.knows_of_cancel:
        world.violate("P10", f"its timeout was due {late:.3f} s ago: {call}")
    if (
        late > BLINK
        and not (call.declared or world.stopping)
        and call.cancelled_at == FOREVER
        and call.left_to_itself
    ):
        world.violate("P10", f"its timeout was not declared {late:.3f} s after it was due: {call}")


def check_fell_together(world: World, fan: Fan) -> None:
    """P13: after the first failure nothing of it waits, and what runs knows that it must stop."""
    if not fan.falls_together or not any(call.state == "discarded" for call in fan.calls):
        return
    for call in fan.calls:
        waits = call.state in ("available", "scheduled", "retryable")
        if waits or (call.running and not call.over and not call.knows_of_cancel):
            world.violate("P13", f"one of its fan-out has failed, and this goes on: {call}")


def check_no_idle_room(world: World) -> None:
    """P03: nobody waits for room while there is some."""
    waiting = [call for call in world.calls if call.waits_for_room]
    if not waiting:
        return
    stats = world.rt.stats()
    for name, line in stats.queues.items():
        here = [call for call in waiting if call.queue == name]
        if not here or any(call.way == "many" for call in here):
            continue
        free = stats.concurrency - stats.running
        if line.concurrency is not None:
            free = min(free, line.concurrency - line.running)
        free = 0 if line.paused else max(0, free)
        beyond = max(0, line.waiting - free) + line.scheduled + line.retryable
        if beyond < line.size:
            world.violate(
                "P03", f"{beyond} of {line.size} places of {name} are taken, and this waits: {here[0]}"
            )


def check_no_idle_slot(world: World) -> None:
    if sum(call.abandoned for call in world.calls) > max(1, world.concurrency // 10):
        return
    if world.may_hold() >= world.concurrency:
        return
    lately = world.now - world.stalled - NEWS
    a_thread_is_busy = any(lately <= other.free_at < FOREVER for other in world.calls)
    for call in world.calls:
        if call.state != "available" or world.paused.get(call.queue) or (call.threaded and a_thread_is_busy):
            continue
        limit = world.limits.get(call.queue)
        if limit is None or world.may_hold(call.queue) < limit:
            world.violate(
                "P06", f"{world.may_hold()} of {world.concurrency} slots are in use, and this waits: {call}"
            )


# At the end -------------------------------------------------------------------------------


def at_end(world: World, reports: list[Any]) -> None:
    """The runtime is closed, and everybody has had time to notice."""
    gc.collect(0)  # asyncio's own groups leave cycles behind
    for call in world.calls:
        check_ending(call)
    for task in world.clients:
        if not task.done():
            world.violate("P16", f"a client still waits: {task!r}")
        if task.cancelled() and task not in world.cancelled_clients:
            world.violate("P13", f"a client was cancelled, and nobody asked for it: {task!r}")
    for task in world.cancelled_clients:
        if task.done() and not task.cancelled():
            world.violate("P13", f"the cancellation of a client was lost: {task!r}")
    for call, futures in world.threadsafe:
        if not all(future.done() for future in futures):
            world.violate("P23", f"the future of submit_threadsafe was never done: {call}")
    for report, pending in reports:
        told = {*report.completed, *report.cancelled, *report.requeued, *report.stuck}
        for call in pending:
            if call.job.id not in told:
                world.violate("P15", f"the report of the stop does not mention it: {call}")
        if report.lost:
            world.violate("P15", f"the report says that jobs were lost: {report}")
    if world.began != world.ended:
        world.violate("P14", f"{world.began} attempts began, {world.ended} came to their end")
    if world.opened != world.closed:
        world.violate("P14", f"{world.opened} resources were opened, {world.closed} closed")


def check_ending(call: Call) -> None:
    world = call.world
    if call.job is None:
        return
    if not call.over or call.state not in FINAL:
        world.violate("P01", f"accepted, and never ended: {call}")
        return
    if world.observed and call.way != "coroutine" and call.settled != 1:
        world.violate("P01", f"settled {call.settled} times: {call}")
    if call.luggage is not None and call.luggage() is not None:
        world.violate("P18", f"its arguments are still held: {call}")
    explain(call)


def explain(call: Call) -> None:
    """P09: the state it ended in must follow from what its last attempt did, or from who stopped it."""
    world, job = call.world, call.job
    assert job is not None
    error = job.exception()
    match call.state:
        case "completed":
            if not call.has_returned or job.result() != call.number:
                world.violate("P09", f"completed, but its body did not return that: {call}")
            asked_before = call.cancelled_at < world.stopping_since
            if call.cancels_seen and call.cancelled_at <= call.cancel_seen_at and asked_before:
                world.violate("P09", f"completed with a late value, after it was cancelled: {call}")
        case "discarded":
            explain_discarded(call, error)
        case _:
            if not isinstance(error, JobCancelled) or not was_stopped(call):
                world.violate("P13", f"cancelled for no reason, {error!r}: {call}")
            if job.reason == "interrupted" and call.cancelled_at < world.stopping_since:
                world.violate("P09", f"interrupted, but it had been cancelled before: {call}")
            in_time = call.has_returned and call.returned_in_time and call.kind != "resourceful"
            if job.reason == "interrupted" and in_time and not call.threaded and call.cancelled_at == FOREVER:
                world.violate("P09", f"it returned in time, and its value was dropped: {call}")
    if job.reason == "dropped" and call.runs:
        world.violate("P03", f"a job that had run before was dropped: {call}")
    if call.kind == "swallow" and call.cancels_seen == 1 and isinstance(error, JobTimedOut) and error.stuck:
        world.violate("P14", f"given up after one cancellation: {call}")
    if isinstance(error, asyncio.CancelledError) or (error is not None and not isinstance(error, Exception)):
        world.violate("P16", f"awaiting it would raise {error!r}: {call}")


def explain_discarded(call: Call, error: BaseException | None) -> None:
    raised = call.raised
    kind = raised.kind or BaseException
    match error:
        case _ if id(error) == raised.id:
            fair = True
            check_all_attempts_used(call)
        case JobTimedOut():
            told = call.was_told or call.threaded or not call.runs
            in_clean_up = call.kind == "resourceful" and call.has_returned
            fair = error.stuck or (call.timeout is not None and (told or in_clean_up))
        case JobExited():
            fair = id(error.__cause__) == raised.id and not issubclass(kind, Exception)
        case JobDiscarded():
            fair = call.kind == "discard"
        case _:
            fair = issubclass(kind, Retry) and id(error) == raised.cause
            check_all_attempts_used(call)
    if not fair:
        call.world.violate("P09", f"discarded with {error!r}, but its body raised {kind}: {call}")


def check_all_attempts_used(call: Call) -> None:
    job = call.job
    assert job is not None
    if job.attempt < call.max_attempts:
        call.world.violate("P08", f"discarded after {job.attempt} of {call.max_attempts} attempts: {call}")


def was_stopped(call: Call) -> bool:
    world = call.world
    assert call.job is not None
    return (
        call.cancelled_at < FOREVER
        or call.stops_itself
        or not call.left_to_itself
        or call.expires_in < FOREVER
        or call.job.reason == "interrupted"
        or world.drops
        or call.withdrawn
    )
