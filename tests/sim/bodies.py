"""What the simulated jobs do: behave, fail, misbehave, and use their own runtime."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import Token
from typing import Any

import anyio

from bgruntime import Cancel, Discard, QueueFull, Retry, RuntimeClosed, Snooze, Task, current_job, task
from tests.sim.world import BLINK, FOREVER, GRACE, UNKNOWN, Call, Fan, Luggage, World, submitted_by

Body = Callable[[Call], Awaitable[Any]]

BODIES: dict[str, Body] = {}
THREADS: dict[str, Callable[[Call], Any]] = {}


EARLY = 0.001  # seconds: the news of a thread's end, a timer here, may come too soon
OBSTINACY = 40.0  # seconds: how long a body goes on that ignores every cancellation


class Boom(Exception):
    """What a failing body raises."""


class Crash(BaseException):
    """What a body raises that must not reach the loop."""


def body(function: Body) -> Body:
    BODIES[function.__name__] = function
    return function


def thread(function: Callable[[Call], Any]) -> Callable[[Call], Any]:
    THREADS["thread_" + function.__name__] = function
    return function


# Well-behaved -----------------------------------------------------------------------------


@body
async def value(call: Call) -> int:
    await asyncio.sleep(call.pace)
    return call.number


@body
async def at_once(call: Call) -> int:
    return call.number


@body
async def turns(call: Call) -> int:
    for _ in range(5):
        await asyncio.sleep(0)
    return call.number


@body
async def resourceful(call: Call) -> int:
    @asynccontextmanager
    async def resource() -> AsyncIterator[None]:
        call.world.opened += 1
        try:
            yield
        finally:
            try:
                await asyncio.sleep(0)
            finally:
                call.world.closed += 1

    await current_job().enter(resource())
    await asyncio.sleep(call.pace)
    return call.number


@body
async def children(call: Call) -> int:
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(asyncio.sleep(call.pace))
    return call.number


@body
async def scoped(call: Call) -> int:
    with anyio.move_on_after(0.3):
        await anyio.sleep(call.pace)
    return call.number


# Failing, and steering their fate ---------------------------------------------------------


@body
async def fail(call: Call) -> None:
    await asyncio.sleep(call.pace)
    raise Boom(call.number)


@body
async def flaky(call: Call) -> int:
    await asyncio.sleep(call.pace)
    if current_job().attempt < call.max_attempts:
        raise Boom(call.number)
    return call.number


@body
async def own_timeout(call: Call) -> None:
    async with asyncio.timeout(0.1):
        await asyncio.sleep(10)


@body
async def retry(call: Call) -> None:
    await asyncio.sleep(call.pace)
    call.not_before = call.world.now + 0.7
    raise Retry(after=0.7) from Boom(call.number)


@body
async def snooze(call: Call) -> int:
    if call.runs < 3:
        call.not_before = call.world.now + 0.7
        raise Snooze(0.7)
    return call.number


@body
async def give_up(call: Call) -> None:
    call.stops_itself = True
    await asyncio.sleep(call.pace)
    raise Cancel("enough")


@body
async def discard(call: Call) -> None:
    await asyncio.sleep(call.pace)
    raise Discard("hopeless")


# Misbehaving ------------------------------------------------------------------------------


@body
async def slow(call: Call) -> int:
    await asyncio.sleep(30)
    return call.number


@body
async def tidy(call: Call) -> int:
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        call.saw_cancel()
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            world = call.world
            if not world.stopping and world.now < call.cancel_seen_at + GRACE - world.stalled - BLINK:
                world.violate("P14", f"its clean-up was cut short: {call}")
            raise
        raise
    return call.number


@body
async def stubborn(call: Call) -> int:
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        call.saw_cancel()
        await asyncio.sleep(0.3)
    return call.number


@body
async def fail_late(call: Call) -> int:
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        call.saw_cancel()
        await asyncio.sleep(0.3)
        raise Boom(call.number) from None
    return call.number


@body
async def swallow(call: Call) -> int:
    world = call.world
    end = world.now + OBSTINACY
    while world.now < end and not world.over:
        try:
            await asyncio.sleep(end - world.now)
        except asyncio.CancelledError:
            call.saw_cancel()
    return call.number


@body
async def cancel_itself(call: Call) -> None:
    call.stops_itself = True
    await asyncio.sleep(call.pace)
    raise asyncio.CancelledError


@body
async def cancel_own_task(call: Call) -> None:
    call.stops_itself = True
    await asyncio.sleep(call.pace)
    this = asyncio.current_task()
    assert this is not None
    this.cancel()
    await asyncio.sleep(5)


@body
async def leave(call: Call) -> None:
    await asyncio.sleep(call.pace)
    raise SystemExit(3)


@body
async def crash(call: Call) -> None:
    await asyncio.sleep(call.pace)
    raise Crash(call.number)


@body
async def crash_in_group(call: Call) -> None:
    await asyncio.sleep(call.pace)
    raise BaseExceptionGroup("two", [Crash(call.number), Boom(call.number)])


@body
async def shielded(call: Call) -> int:
    await asyncio.shield(asyncio.sleep(5))
    return call.number


@body
async def anyio_shielded(call: Call) -> int:
    with anyio.CancelScope(shield=True):
        await anyio.sleep(5)
    return call.number


@body
async def stop_iteration(call: Call) -> None:
    raise StopIteration(call.number)


# With their own runtime -------------------------------------------------------------------


@body
async def submit_and_wait(call: Call) -> int:
    child, chosen = new_call(call, "submit")
    asked_at = call.world.loop.steps
    try:
        child.job = await call.world.rt.submit(chosen, child, luggage=packed(child))
    except (QueueFull, RuntimeClosed):
        child.refused = True
        return call.number
    except asyncio.CancelledError:
        child.withdrawn = True
        raise
    finally:
        if call.world.loop.steps != asked_at:
            call.world.violate("P04", f"a job waits for room, which it may have to make itself: {call}")
    with call.waiting():
        await child.job.wait()
    return call.number


@body
async def submit_and_go(call: Call) -> int:
    child, chosen = new_call(call, "nowait")
    try:
        child.job = call.world.rt.submit_nowait(chosen, child, luggage=packed(child))
    except (QueueFull, RuntimeClosed):
        child.refused = True
    await asyncio.sleep(call.pace)
    return call.number


@body
async def wait_in_child(call: Call) -> int:
    async def wait() -> None:
        with call.waiting():
            await asyncio.gather(*(child.job.wait() for child in others if child.job is not None))

    others = [other for other in call.world.calls if other.kind in SIMPLE and other.job is not None][-2:]
    async with asyncio.TaskGroup() as group:
        group.create_task(wait())
    return call.number


@body
async def wait_a_little(call: Call) -> int:
    """It loses patience with its child, and goes on; with a slot."""
    child, chosen = new_call(call, "nowait")
    try:
        child.job = call.world.rt.submit_nowait(chosen, child, luggage=packed(child))
    except (QueueFull, RuntimeClosed):
        child.refused = True
        return call.number
    with suppress(TimeoutError):
        async with asyncio.timeout(0.3) as patience:
            call.waits += 1
            try:
                await child.job.wait()
            finally:
                call.waits -= 1
    if not (call.knows_of_cancel or (patience.expired() and call.cancel_seen_at < FOREVER)):
        call.world.check_limits(call)
    await asyncio.sleep(call.pace)
    return call.number


def refused_inside(call: Call) -> None:
    """P04: the jobs of a fan-out inside a job need no room, or it might wait for itself."""
    call.world.violate("P04", f"there is no room for its own fan-out: {call}")


@body
async def map_inside(call: Call) -> int:
    fan = new_fan(call.world, call, "map", 3, limit=2)
    try:
        with call.waiting():
            await call.world.rt.map(work, fan.calls, limit=2)
    except (Boom, RuntimeClosed):
        pass
    except QueueFull:
        refused_inside(call)
    return call.number


@body
async def gather_inside(call: Call) -> int:
    fan = new_fan(call.world, call, "gather", 3, limit=None)
    try:
        with call.waiting():
            await call.world.rt.gather(*(work.bind(child) for child in fan.calls))
    except (Boom, RuntimeClosed):
        pass
    except QueueFull:
        refused_inside(call)
    return call.number


@body
async def group_inside(call: Call) -> int:
    fan = new_fan(call.world, call, "group", 3, limit=None)
    try:
        with call.waiting():
            async with call.world.rt.group() as group:
                for child in fan.calls:
                    child.job = await group.submit(work, child, luggage=packed(child))
    except* (Boom, RuntimeClosed):
        pass
    except* QueueFull:
        refused_inside(call)
    return call.number


# In threads: time.sleep takes virtual time of the thread ----------------------------------


@thread
def value_(call: Call) -> int:
    time.sleep(call.pace)
    return call.number


@thread
def fail_(call: Call) -> None:
    time.sleep(call.pace)
    raise Boom(call.number)


@thread
def slow_(call: Call) -> int:
    time.sleep(30)
    return call.number


@thread
def leave_(call: Call) -> None:
    raise SystemExit(3)


# The tasks --------------------------------------------------------------------------------


BACKOFF = 1.0  # seconds


def backoff(state: Any) -> float:
    return BACKOFF


async def work_(call: Call, luggage: Luggage | None = None) -> Any:
    with call.attempt():
        running_as(call)
        try:
            call.returned = await BODIES[call.kind](call)
        except Exception:
            if call.kind not in ("retry", "snooze") and call.cancel_seen_at == FOREVER:
                call.not_before = call.world.now + BACKOFF
            raise
        call.has_returned = True
        call.returned_in_time = not call.over and call.world.now < call.due - call.world.stalled
        return call.returned


def work_in_thread_(call: Call, luggage: Luggage | None = None) -> Any:
    call.free_at = UNKNOWN
    with call.attempt():
        try:
            call.returned = THREADS[call.kind](call)
        finally:
            call.free_at = call.world.loop.bgruntime_ports.monotonic() - EARLY
        call.has_returned = True
        return call.returned


work: Task[..., Any] = task(name="sim.work", timeout=4, backoff=backoff)(work_)
work_twice: Task[..., Any] = task(name="sim.work_twice", timeout=4, max_attempts=2, backoff=backoff)(work_)
work_thrice: Task[..., Any] = task(name="sim.work_thrice", timeout=2, max_attempts=3, backoff=backoff)(work_)
work_aside: Task[..., Any] = task(name="sim.work_aside", timeout=4, queue="side", backoff=backoff)(work_)
work_in_thread: Task[..., Any] = task(name="sim.in_thread", timeout=4, backoff=backoff)(work_in_thread_)
ASYNC_TASKS = (work, work, work_twice, work_thrice, work_aside)
OPTIONS = {
    work: ("default", 1, 4.0),
    work_twice: ("default", 2, 4.0),
    work_thrice: ("default", 3, 2.0),
    work_aside: ("side", 1, 4.0),
    work_in_thread: ("default", 1, 4.0),
}


def tasked(call: Call, chosen: Task[..., Any]) -> Task[..., Any]:
    """Note on the call what the task promises it."""
    call.queue, call.max_attempts, call.timeout = OPTIONS[chosen]
    return chosen


def packed(call: Call) -> Luggage:
    """A piece of luggage, of which the call knows when it is gone."""
    luggage = Luggage()
    if call.kind in NESTING:
        return luggage  # an exception it meets in a wait leads back to its frame
    call.luggage = weakref.ref(luggage)
    return luggage


def new_call(owner: Call, way: str) -> tuple[Call, Task[..., Any]]:
    """A child of a job's own, mostly of a simple kind so that families stay small."""
    world = owner.world
    kinds = SIMPLE if owner.owner is not None or world.chance.random() < 0.8 else NESTING
    child = world.call(world.chance.choice(kinds), way, owner)
    return child, tasked(child, world.chance.choice(ASYNC_TASKS))


def new_fan(
    world: World,
    owner: Call | None,
    way: str,
    size: int,
    limit: int | None,
    *,
    falls_together: bool = True,
) -> Fan:
    """The calls of one map, gather or group; they are their owner's to cancel."""
    fan = Fan(limit, falls_together=falls_together)
    world.fans.append(fan)
    for _ in range(size):
        call = world.call(world.chance.choice(SIMPLE), way, owner)
        tasked(call, work)
        call.fan, call.left_to_itself = fan, False
        fan.calls.append(call)
    return fan


def running_as(call: Call) -> Token[int]:
    """What this job submits is submitted in its name."""
    return submitted_by.set(call.number)


NESTING = (
    "submit_and_wait",
    "submit_and_go",
    "wait_a_little",
    "wait_in_child",
    "map_inside",
    "gather_inside",
    "group_inside",
)
assert set(NESTING) <= set(BODIES)
SIMPLE = tuple(name for name in BODIES if name not in NESTING)
