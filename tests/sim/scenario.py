"""
One scenario per seed: a runtime, some clients, some faults, and one way to end.

``python -m tests.sim.scenario 20000 2`` runs seeds 0 … 19999 on two processes.
"""

from __future__ import annotations

import asyncio
import time
import warnings
import weakref
from dataclasses import replace
from typing import Any

import structlog

from bgruntime import Queue, QueueFull, Runtime, RuntimeClosed, Shutdown, task
from bgruntime.testing import SimLoop, SimTask, Simulation, run_seed
from tests.sim.clients import client
from tests.sim.crowd import crowd
from tests.sim.oracles import Witness, at_end, at_rest
from tests.sim.world import GRACE, HARD, Luggage, World

PATIENCE = 600.0  # virtual seconds in which every client must get through
LIMITS = (5.0, 1.0, 1.0)  # drain, cancel and close, in seconds, of a stop with limits
STEPS = 30_000
CROWD_EVERY = 25


class Ended(Exception):
    """Leaves the runtime's block by an exception."""


faults: list[str] = []  # what the runtime said of parts outside of it


def overhear(logger: object, method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Takes the place of the log: nothing is written, and faults are kept."""
    if line["event"] == "runtime.fault":
        faults.append(f"{line['about']} ({line['error_type']})")
    raise structlog.DropEvent


async def scenario() -> None:
    """The main program of one seed."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    faults.clear()
    structlog.configure(processors=[overhear])
    world = World(loop)
    build(world)
    watch(world)
    reports: list[Any] = []
    owner = loop.create_task(own(world, reports), name="owner")
    await asyncio.wait([owner])
    settle_owner(world, owner)
    loop.on_step = None
    await asyncio.wait(world.clients, timeout=5 * (GRACE + HARD))
    world.over = True
    await asyncio.sleep(200)
    loop.on_rest = None
    at_end(world, reports)
    for fault in faults:
        world.violate("P20", f"the runtime complains: {fault}")
    fail_on_violation(world)


def build(world: World) -> None:
    chance = world.chance
    world.concurrency, world.threads = chance.randint(1, 3), chance.randint(1, 2)
    if world.likes_threads:
        world.concurrency = 3
    world.limits = {"side": chance.randint(1, 2)}
    size = chance.randint(1, 4)
    world.queue_size = {"default": size, "side": chance.randint(1, 3)}
    overflow: Any = chance.choice(["wait", "wait", "wait", "reject", "drop_oldest"])
    world.drops, world.waits = overflow == "drop_oldest", overflow == "wait"
    world.observed = chance.random() < 0.6
    world.wait_limit = chance.choice([None, None, 1.0])
    world.witness = Witness(world)
    world.rt = Runtime(
        concurrency=world.concurrency,
        queue_size=size,
        overflow=overflow,
        wait_limit=world.wait_limit,
        queues=[Queue("side", concurrency=world.limits["side"], size=world.queue_size["side"])],
        threads=world.threads,
        observers=[world.witness] if world.observed else [],
        cancel_grace=GRACE,
        cancel_hard=HARD,
        shutdown=Shutdown(drain=None, cancel=2, close=1),
    )
    world.loop.early = chance.choice([0.0, 0.0004])
    start_attempts_in(world, chance.choice(["tasks", "plain tasks", "a factory"]))


def start_attempts_in(world: World, what: str) -> None:
    """The kernel has a path of its own for asyncio's tasks, and one for loops with a task factory."""
    loop = world.loop
    if what == "plain tasks":
        loop._ports = replace(loop.bgruntime_ports, task_class=asyncio.Task)
    elif what == "a factory":
        loop.set_task_factory(lambda loop, coro, **options: SimTask(coro, loop=loop, **options))


# The owner --------------------------------------------------------------------------------


async def own(world: World, reports: list[Any]) -> None:
    """Open the runtime, let clients use it, and end in one of the ways there are."""
    ending = world.chance.choice([leave, leave, stop, stop_twice, fail, be_cancelled, stop_from_job])
    try:
        async with world.rt:
            for i in range(world.chance.randint(2, 5)):
                task = world.loop.create_task(client(world), name=f"client {i}")
                world.clients.append(task)
            try:
                await ending(world, reports)
            finally:
                world.begin_to_stop()
                world.quiet = True
    except Ended:
        pass
    world.closed_to_all = True


async def leave(world: World, reports: list[Any]) -> None:
    """All clients get through, nothing is left, all slots are there: then leave."""
    while waiting := [task for task in world.clients if not task.done()]:
        if world.now > PATIENCE:
            break
        await asyncio.wait(waiting, timeout=PATIENCE)
    if not all(task.done() for task in world.clients):
        world.violate("P04", "a client does not get through")
        return
    world.over = True
    world.loop.on_step = watched(world)  # no more faults
    await world.rt.drain()
    await asyncio.sleep(60)
    await probe(world)


async def stop(world: World, reports: list[Any]) -> None:
    await asyncio.sleep(world.chance.choice([0, 0.5, 2, 5]))
    await timed_stop(world, reports)


async def stop_twice(world: World, reports: list[Any]) -> None:
    await asyncio.sleep(world.chance.choice([0, 0.5, 2, 5]))
    first = world.loop.create_task(timed_stop(world, reports))
    await asyncio.sleep(world.chance.choice([0, 0.5, 1]))
    await timed_stop(world, reports, again=True)
    await asyncio.wait([first])


async def timed_stop(world: World, reports: list[Any], *, again: bool = False) -> None:
    world.begin_to_stop()
    drain, cancel, close = LIMITS
    allowed = cancel if again else drain + cancel  # the second call skips the drain
    if any(call.threaded for call in world.calls):
        allowed += close
    began, stalled = world.now, world.stalled
    pending = [call for call in world.calls if call.job is not None and not call.over]
    world.quiet = True
    reports.append((await world.rt.stop(drain=drain, cancel=cancel, close=close), pending))
    took = world.now - began - (world.stalled - stalled)
    if took > allowed + 0.1:
        world.violate("P15", f"the stop took {took:.3f} s of {allowed} s")


async def fail(world: World, reports: list[Any]) -> None:
    await asyncio.sleep(world.chance.choice([0, 0.5, 2, 5]))
    world.begin_to_stop()
    raise Ended


async def be_cancelled(world: World, reports: list[Any]) -> None:
    this = asyncio.current_task()
    assert this is not None
    world.cancelled_clients.append(this)

    def cancel() -> None:
        world.begin_to_stop()
        this.cancel()

    world.loop.call_later(world.chance.choice([0.5, 2, 5]), cancel)
    await asyncio.sleep(1000)


async def stop_from_job(world: World, reports: list[Any]) -> None:
    async def stopper() -> None:
        await timed_stop(world, reports)

    await asyncio.sleep(world.chance.choice([0, 0.5, 2]))
    try:
        job = await world.rt.submit(stopper)
    except Exception:  # the queue is full: so be it
        return
    world.begin_to_stop()
    await job.wait()


async def probe(world: World) -> None:
    """At rest every slot must be free: as many jobs as there are slots run at once, of each kind."""
    world.rt.resume()
    running = 0

    async def hold(luggage: Luggage) -> None:
        nonlocal running
        running += 1
        await asyncio.sleep(1)

    luggage = [Luggage() for _ in range(world.concurrency)]
    seen = [weakref.ref(one) for one in luggage]
    jobs = [world.rt.submit_nowait(hold, luggage.pop()) for _ in range(world.concurrency)]
    await asyncio.sleep(0.5)
    if running != world.concurrency:
        world.violate("P06", f"a slot was lost: {running} of {world.concurrency} can be used")
    await asyncio.wait([asyncio.ensure_future(job.wait()) for job in jobs])
    if held := sum(one() is not None for one in seen):
        world.violate("P18", f"the arguments of {held} plain jobs are still held")
    stats = world.rt.stats()
    if (stats.running, stats.waiting, stats.scheduled, stats.retryable) != (0, 0, 0, 0):
        world.violate("P01", f"nothing is left, but the books say {stats}")
    probe_room(world)
    await probe_threads(world)


def probe_room(world: World) -> None:
    """At rest a paused queue takes as many jobs as its size, and not one more."""
    world.rt.pause()
    for name, size in world.queue_size.items():
        jobs = [world.rt.submit_nowait(IDLE.with_options(queue=name)) for _ in range(size)]
        try:
            jobs.append(world.rt.submit_nowait(IDLE.with_options(queue=name)))
        except QueueFull:
            pass
        else:
            if not world.drops:
                world.violate("P03", f"{name} takes more than its {size} places")
    world.rt.resume()


async def probe_threads(world: World) -> None:
    """At rest every thread must be free."""
    held = []

    def hold() -> None:
        held.append(world.loop.bgruntime_ports.monotonic())
        time.sleep(1)

    await world.rt.drain()
    jobs = [world.rt.submit_nowait(hold) for _ in range(min(world.threads, world.concurrency))]
    await asyncio.sleep(0.5)
    if len(held) != len(jobs):
        world.violate("P06", f"a thread was lost: {len(held)} of {len(jobs)} can be used")
    await asyncio.wait([asyncio.ensure_future(job.wait()) for job in jobs])


@task(name="sim.idle")
async def IDLE() -> None:
    """A job that only takes a place."""


def settle_owner(world: World, owner: asyncio.Task[Any]) -> None:
    """What came out of the owner's block."""
    if owner.cancelled():
        return
    error = owner.exception()
    if error is not None and not isinstance(error, RuntimeClosed):
        raise error


# Faults and checks at every step ----------------------------------------------------------


def watch(world: World) -> None:
    check = watched(world)
    rates = {"cancel": world.chance.choice([0, 0.004, 0.02]), "stall": world.chance.choice([0, 0, 0.003])}

    def step(loop: SimLoop) -> None:
        check(loop)
        inject(world, rates)

    world.loop.on_step = step
    world.loop.on_rest = lambda loop: at_rest(world)


def watched(world: World) -> Any:
    def check(loop: SimLoop) -> None:
        if world.violations:
            fail_on_violation(world)

    return check


def inject(world: World, rates: dict[str, float]) -> None:
    chance = world.chance
    if world.clients and chance.random() < rates["cancel"]:
        task = chance.choice(world.clients)
        if task.cancel():
            world.cancelled_clients.append(task)
    if chance.random() < rates["stall"]:
        seconds = chance.choice([0.01, 0.3, 3])
        world.stalled += seconds
        world.loop.stall(seconds)
    if chance.random() < rates["stall"]:
        world.loop.step_wall_clock(chance.choice([-3600, -1, 1, 3600]))


def fail_on_violation(world: World) -> None:
    if world.violations:
        raise AssertionError("\n".join(world.violations))


def run(seed: int, **options: Any) -> Simulation:
    """One seed: mostly of the scenario, now and then of the crowd."""
    main = crowd if seed % CROWD_EVERY == CROWD_EVERY - 1 else scenario
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        done = run_seed(main, seed, max_steps=STEPS, **options)
    if heard and done.failure is None:
        return replace(done, failure=AssertionError(f"P20: Python warns: {heard[0].message}"))
    return done
