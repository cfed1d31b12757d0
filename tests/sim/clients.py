"""What the simulated clients do: submit in every form, wait, cancel, pause, resize, and stop."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

from bgruntime import (
    Cancel,
    JobCancelled,
    JobDiscarded,
    JobExited,
    JobTimedOut,
    QueueFull,
    RuntimeClosed,
    RuntimeStats,
    Task,
)
from tests.sim.bodies import (
    ASYNC_TASKS,
    BODIES,
    NESTING,
    THREADS,
    Boom,
    new_fan,
    packed,
    tasked,
    work,
    work_,
    work_in_thread,
)
from tests.sim.world import FOREVER, Call, Fan, World, submitted_by

Operation = Callable[[World], Awaitable[None]]
KINDS = (*BODIES, *BODIES, *NESTING, *THREADS)
REFUSALS = (QueueFull, RuntimeClosed)
ENDS = (Boom, JobCancelled, JobDiscarded, JobExited, JobTimedOut, TimeoutError, RuntimeError, Cancel)


async def client(world: World) -> None:
    """One user of the runtime, for as long as it is open."""
    try:
        for _ in range(world.chance.randint(2, 6)):
            await world.chance.choice(WITH_THREADS if world.likes_threads else OPERATIONS)(world)
            if world.chance.random() < 0.3:
                await asyncio.sleep(world.chance.choice([0, 0.1, 0.5, 1]))
    except RuntimeClosed:
        if not world.stopping:
            world.violate("P01", "the runtime refused work as closed while it was open")
    await asyncio.sleep(0)  # a cancellation that was put off arrives here


# Asking -----------------------------------------------------------------------------------


def new_call(world: World, way: str, kinds: tuple[str, ...] = KINDS) -> tuple[Call, Task[..., Any]]:
    call = world.call(world.chance.choice(kinds), way)
    submitted_by.set(-call.number)
    if call.threaded:
        return call, tasked(call, work_in_thread)
    return call, with_some_options(call, tasked(call, world.chance.choice(ASYNC_TASKS)))


def with_some_options(call: Call, chosen: Task[..., Any]) -> Task[..., Any]:
    chance = call.world.chance
    options: dict[str, Any] = {}
    if chance.random() < 0.2:
        options["priority"] = call.priority = chance.randrange(10)
    if chance.random() < 0.15:
        options["delay"] = call.delay = chance.choice([0.1, 1.0, 3.0])
        call.not_before, call.plain = call.world.now + call.delay, False
    if chance.random() < 0.1:
        options["expires_in"] = call.expires_in = chance.choice([0.05, 1.0])
        call.plain = False
    if chance.random() < 0.1:
        options["timeout"] = call.timeout = chance.choice([0.2, 1.0])
    if chance.random() < 0.1:
        options["tags"] = ("tagged",)
    return chosen.with_options(**options) if options else chosen


async def submit(world: World) -> None:
    call, chosen = new_call(world, "submit")
    try:
        call.job = await world.rt.submit(chosen, call, luggage=packed(call))
    except REFUSALS as exc:
        refused(call, exc)
    except asyncio.CancelledError:
        call.withdrawn = True
        raise
    else:
        world.witness.let_in(call)
        await use(call)


async def submit_nowait(world: World) -> None:
    call, chosen = new_call(world, "nowait")
    try:
        call.job = world.rt.submit_nowait(chosen, call, luggage=packed(call))
    except REFUSALS as exc:
        refused(call, exc)
    else:
        world.witness.let_in(call)
        await use(call)


async def submit_many(world: World) -> None:
    calls = [new_call(world, "many", tuple(BODIES))[0] for _ in range(world.chance.randint(1, 3))]
    for call in calls:
        tasked(call, work)
        call.not_before, call.delay, call.plain, call.priority, call.expires_in = 0.0, 0.0, True, 5, FOREVER
        call.asked_by = -calls[-1].number
    try:
        jobs = await world.rt.submit_many(work, [(call,) for call in calls])
    except REFUSALS as exc:
        for call in calls:
            refused(call, exc)
    except asyncio.CancelledError:
        for call in calls:
            call.withdrawn = True
        raise
    else:
        for call, job in zip(calls, jobs, strict=True):
            call.job = job
        await use(world.chance.choice(calls))


async def submit_coroutine(world: World) -> None:
    call, _ = new_call(world, "coroutine", tuple(name for name in BODIES if name not in ("retry", "snooze")))
    call.queue, call.max_attempts, call.timeout = "default", 1, 300.0
    call.not_before, call.delay, call.plain, call.priority, call.expires_in = 0.0, 0.0, False, 5, FOREVER
    try:
        call.job = world.rt.submit_nowait(work_(call))
    except REFUSALS as exc:
        refused(call, exc)
    else:
        await use(call)


async def submit_from_thread(world: World) -> None:
    call, chosen = new_call(world, "threadsafe", tuple(BODIES))
    futures: list[Any] = []

    def knock() -> None:
        try:
            futures.append(world.rt.submit_threadsafe(chosen, call, luggage=packed(call)))
        except RuntimeClosed as exc:
            refused(call, exc)

    world.threadsafe.append((call, futures))
    world.loop.spawn(knock)
    await asyncio.sleep(0.1)


async def submit_threads(world: World) -> None:
    """More plain functions at once than there are threads."""
    calls = []
    for _ in range(world.chance.randint(2, 5)):
        call, chosen = new_call(world, "nowait", tuple(THREADS))
        call.pace = max(call.pace, 0.5)
        try:
            call.job = world.rt.submit_nowait(chosen, call, luggage=packed(call))
        except REFUSALS as exc:
            refused(call, exc)
        else:
            calls.append(call)
    if not calls:
        return
    if world.chance.random() < 0.5:  # while it starts
        await asyncio.sleep(0)
        cancel(world.chance.choice(calls))
    await use(calls[-1])


def most_taken_by_others(stats: RuntimeStats, queue: str) -> int:
    """How many of the free slots jobs of other queues may be about to take."""
    return sum(
        line.waiting
        if line.concurrency is None
        else max(0, min(line.waiting, line.concurrency - line.running))  # more may run after a resize
        for name, line in stats.queues.items()
        if name != queue and not line.paused
    )


def refused(call: Call, exc: BaseException) -> None:
    """No job exists; and a full queue is no excuse while a slot is free."""
    call.refused = True
    world = call.world
    if isinstance(exc, RuntimeClosed):
        if not world.stopping:
            world.violate("P01", f"refused as closed while it was open: {call}")
        return
    if world.waits:
        return  # those who wait for room go first
    stats = world.rt.stats()
    line = stats.queues[call.queue]
    free = stats.concurrency - stats.running
    if line.concurrency is not None:
        free = min(free, line.concurrency - line.running)
    back = len(world.rt._engine.resuming)  # attempts that waited for other jobs
    free = max(0, free - back - most_taken_by_others(stats, call.queue))
    waiting = line.waiting + line.scheduled + line.retryable
    if (
        not line.paused
        and waiting - min(free, line.waiting) < line.size
        and call.plain
        and call.way != "many"
    ):
        world.violate("P03", f"QueueFull with {free} slots free and {line.waiting} waiting: {call}")


# Using the handle -------------------------------------------------------------------------


async def use(call: Call) -> None:
    """Await it, wait for it, cancel it, or drop it."""
    match call.world.chance.randrange(7):
        case 0 | 1 | 2:
            await result_of(call)
        case 3:
            assert call.job is not None
            await call.job.wait()
            if not call.job.done():
                call.world.violate("P16", f"wait returned before the end: {call}")
        case 4:
            await several_wait(call)
        case 5:
            await asyncio.sleep(call.world.chance.choice([0, 0, 0.1, 1]))
            cancel(call)
        case _:
            """The handle is dropped; the job goes on."""


async def several_wait(call: Call) -> None:
    """Several tasks await one job; one of them gives up, which is nobody else's affair."""
    world = call.world
    waiters = [world.loop.create_task(result_of(call), name=f"waiter {i} of {call.number}") for i in range(3)]
    world.clients += waiters
    await asyncio.sleep(world.chance.choice([0, 0, 0.1]))
    if waiters[0].cancel():
        world.cancelled_clients.append(waiters[0])
    await asyncio.wait(waiters)


async def result_of(call: Call) -> None:
    assert call.job is not None
    this = asyncio.current_task()
    assert this is not None
    try:
        value = await call.job
    except asyncio.CancelledError:
        if not this.cancelling():
            call.world.violate("P16", f"awaiting a job raised CancelledError: {call}")
        raise
    except Exception as exc:
        if exc is not call.job.exception():
            call.world.violate(
                "P16", f"awaiting gave {exc!r}, exception() gives {call.job.exception()!r}: {call}"
            )
    else:
        if call.state != "completed" or value != call.number:
            call.world.violate("P16", f"awaiting gave {value!r}: {call}")


def cancel(call: Call) -> None:
    """Cancel the job, and note what that must mean."""
    assert call.job is not None
    state, seen = call.state, call.cancel_seen_at
    made_a_difference = call.job.cancel("the client said so")
    if state in ("available", "scheduled", "retryable"):
        if not made_a_difference:
            call.world.violate("P12", f"a waiting job could not be cancelled: {call}")
        call.cancelled_before_start = True
    if made_a_difference:
        call.cancelled_at = min(call.cancelled_at, call.world.now)
        call.asked_while_running = call.running and seen > call.world.now


async def cancel_any(world: World) -> None:
    known = [call for call in world.calls if call.job is not None and not call.over]
    if known:
        cancel(world.chance.choice(known))


async def interrupt_an_end(world: World) -> None:
    """Cancel somebody just while a fan-out of his is ending after a failure."""
    for _ in range(20):
        ending = [
            fan.calls[0].asker
            for fan in world.fans
            if fan.falls_together
            and fan.calls[0].owner is None
            and any(call.running and call.knows_of_cancel for call in fan.calls)
        ]
        for asker in ending:
            if asker is not None and asker.cancel():
                world.cancelled_clients.append(asker)
                return
        await asyncio.sleep(0.1)


# Many at once -----------------------------------------------------------------------------


async def fan_out(
    world: World, way: str, use_it: Callable[[Fan], Awaitable[Any]], *, falls_together: bool = True
) -> None:
    limit = world.chance.choice([None, 1, 2])
    size = world.chance.randint(1, 6)
    fan = new_fan(world, None, way, size, limit, falls_together=falls_together)
    for call in fan.calls:
        call.asked_by = -fan.calls[0].number
    submitted_by.set(-fan.calls[0].number)
    try:
        await use_it(fan)
    except* (*ENDS, *REFUSALS):
        pass
    finally:
        check_nothing_is_left(world, fan)


def check_nothing_is_left(world: World, fan: Fan) -> None:
    """P13: a fan-out owns its jobs: however it was left, none of them goes on."""
    for call in fan.calls:
        goes_on = call.running and not call.knows_of_cancel
        if goes_on or (call.job is not None and not call.over):
            world.violate("P13", f"its fan-out was left, and it goes on: {call}")


async def map_them(world: World) -> None:
    ordered = world.chance.random() < 0.5
    on_error: Any = world.chance.choice(["raise", "return"])

    async def use_it(fan: Fan) -> None:
        pulls: Any = world.chance.choice([pulled, pulled_slowly])
        collect = world.chance.random() < 0.5
        items = fan.calls if collect else pulls(fan)
        results = world.rt.map(work, items, limit=fan.limit, ordered=ordered, on_error=on_error)
        if collect:
            check_results(fan, await results, ordered=ordered)
        else:
            await some_of(results, world, fan)

    await fan_out(world, "map", use_it, falls_together=on_error == "raise")


async def some_of(results: Any, world: World, fan: Fan) -> None:
    async with results:
        async for _ in results:
            fan.yielded += 1
            if world.chance.random() < 0.3:
                break
            await asyncio.sleep(world.chance.choice([0, 0.1, 5]))


def pulled(fan: Fan) -> Iterator[Call]:
    """The input of a map that is walked over: it may pull so far ahead and no further."""
    for call in fan.calls:
        fan.pulled += 1
        # The one that is being handed over has not reached the consumer yet.
        ahead = fan.pulled - fan.yielded - 1
        if fan.limit is not None and ahead > 2 * fan.limit:
            call.world.violate("P18", f"a map with limit {fan.limit} pulls {ahead} ahead")
        yield call


async def pulled_slowly(fan: Fan) -> AsyncIterator[Call]:
    for call in pulled(fan):
        await asyncio.sleep(fan.calls[0].world.chance.choice([0, 0.1]))
        yield call


async def gather_them(world: World) -> None:
    return_exceptions = world.chance.random() < 0.5

    async def use_it(fan: Fan) -> None:
        calls = [work.bind(call) for call in fan.calls]
        results = await world.rt.gather(*calls, limit=fan.limit, return_exceptions=return_exceptions)
        check_results(fan, results, ordered=True)

    await fan_out(world, "gather", use_it, falls_together=not return_exceptions)


def check_results(fan: Fan, results: list[Any], *, ordered: bool) -> None:
    """A value stands at its own place, and no job is forgotten."""
    world = fan.calls[0].world
    if len(results) != len(fan.calls):
        world.violate("P16", f"{len(results)} results of {len(fan.calls)} jobs")
    if ordered:
        for call, result in zip(fan.calls, results, strict=True):
            if result != call.number and not isinstance(result, BaseException):
                world.violate("P16", f"{result!r} stands at the place of {call}")


async def group_them(world: World) -> None:
    async def use_it(fan: Fan) -> None:
        fan.limit = None
        async with world.rt.group() as group:
            for call in fan.calls:
                call.job = await group.submit(work, call, luggage=packed(call))
                await asyncio.sleep(world.chance.choice([0, 0, 0.1]))

    await fan_out(world, "group", use_it)


# Steering ---------------------------------------------------------------------------------


async def pause(world: World) -> None:
    queue = world.chance.choice([None, "default", "side"])
    names = set(world.queue_size) if queue is None else {queue}
    world.rt.pause(queue)
    for name in names:
        world.paused[name] = world.paused.get(name, 0) + 1
        world.paused_since.setdefault(name, world.now)
    try:
        await asyncio.sleep(world.chance.choice([0, 0.5, 2]))
    finally:
        for name in names:
            world.paused[name] -= 1
            if not world.paused[name]:
                del world.paused_since[name]
                with suppress(RuntimeClosed):
                    world.rt.resume(name)


async def resize(world: World) -> None:
    world.limits["side"] = world.chance.randint(1, 3)
    world.rt.resize("side", world.limits["side"])
    # They have their slots, and their Tasks, if they are not eager, take the first step later.
    begun = {call.in_attempt for call in world.calls if call.running}
    started = {job for job in world.rt._engine.live if job._entry.queue.name == "side"}
    world.begin_late = weakref.WeakSet(started - begun)


async def drain(world: World) -> None:
    try:
        await world.rt.drain(world.chance.choice([0, 0.5, 5]))
    except TimeoutError:
        return
    check_idle(world)


def check_idle(world: World) -> None:
    """A drain has just come to its end: nothing may be left but what it need not wait for."""
    for call in world.calls:
        left = call.state in ("available", "running", "retryable") and not world.paused.get(call.queue)
        if left and not call.abandoned:
            world.violate("P15", f"a drain was over before this: {call}")


async def rest(world: World) -> None:
    await asyncio.sleep(world.chance.choice([0, 0.5, 1, 3]))


OPERATIONS: tuple[Operation, ...] = (
    *(5 * [submit]),
    *(3 * [submit_nowait]),
    submit_many,
    submit_coroutine,
    submit_from_thread,
    cancel_any,
    cancel_any,
    interrupt_an_end,
    map_them,
    map_them,
    gather_them,
    group_them,
    group_them,
    pause,
    resize,
    drain,
    rest,
)
WITH_THREADS: tuple[Operation, ...] = (*OPERATIONS, *(12 * [submit_threads]))
