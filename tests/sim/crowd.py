"""Many jobs at once: what is due together, who goes first, and what stays behind."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bgruntime import Job, Queue, Runtime, task
from bgruntime.testing import SimLoop

CROWD = 300
TIMERS_PER_TURN, STARTS_PER_TURN, AGED_EVERY = 256, 64, 8
LEFT = 150  # objects of the runtime that may be left of a crowd of cancelled jobs


class Starts:
    """Who was started when, and the checks at every step."""

    def __init__(self, loop: SimLoop, rt: Runtime) -> None:
        self.loop, self.rt = loop, rt
        self.order: list[tuple[str, int, int]] = []  # queue, priority, number
        self.seen = self.scheduled = 0
        self.slept = 0.0  # how long the last one that sleeps has slept

    def step(self, loop: SimLoop) -> None:
        """P25: one callback does a bounded amount of work."""
        begun, self.seen = len(self.order) - self.seen, len(self.order)
        assert begun <= STARTS_PER_TURN, f"P25: {begun} starts in one step"
        if not self.scheduled or loop.time() < 1:
            return
        left = self.rt.stats().scheduled
        due, self.scheduled = self.scheduled - left, left
        assert due <= TIMERS_PER_TURN, f"P25: {due} timers in one step"


starts: Starts


@task(name="sim.one_of_many")
async def one_of_many(queue: str, priority: int, number: int) -> None:
    starts.order.append((queue, priority, number))


@task(name="sim.one_that_acts")
async def one_that_acts(act: Callable[[], object]) -> None:
    act()


@task(name="sim.one_that_sleeps", timeout=0.5)
async def one_that_sleeps() -> None:
    began = asyncio.get_running_loop().time()
    try:
        await asyncio.sleep(100)
    finally:
        starts.slept = asyncio.get_running_loop().time() - began


@task(name="sim.one_that_holds_the_loop")
async def one_that_holds_the_loop(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    loop.stall(seconds)
    await asyncio.sleep(0)


async def crowd() -> None:
    """The main program of a seed with a crowd."""
    global starts
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    async with Runtime(concurrency=1, queue_size=2 * CROWD, queues=[Queue("side")]) as rt:
        starts = Starts(loop, rt)
        loop.on_step = starts.step
        await due_together(rt, loop)
        await in_two_lines(rt, loop)
        await called_off(rt)
        loop.on_step = None
    await changed_from_within(loop)


async def due_together(rt: Runtime, loop: SimLoop) -> None:
    """Jobs that are due at the same time all start, never early, in the order of acceptance."""
    later = one_of_many.with_options(delay=1.0 + loop.time())
    jobs = [rt.submit_nowait(later, "default", 5, i) for i in range(CROWD)]
    starts.scheduled = CROWD
    await wait_for(jobs)
    numbers = [number for _, _, number in starts.order]
    assert numbers == list(range(CROWD)), f"P05: started in the order {numbers}"


async def in_two_lines(rt: Runtime, loop: SimLoop) -> None:
    """Queues take turns, priorities rule, and every eighth start takes whoever has waited longest."""
    rt.pause()
    starts.order.clear()
    starts.seen = 0
    chance, jobs = loop.random, []
    for i in range(40):
        priority = chance.randrange(10)
        chosen = one_of_many.with_options(priority=priority)
        jobs.append(rt.submit_nowait(chosen, "default", priority, i))
        if i % 4 == 0:
            jobs.append(rt.submit_nowait(one_of_many.with_options(queue="side"), "side", 5, i))
        await asyncio.sleep(0.001)
    rt.resume()
    await wait_for(jobs)
    check_turns([queue for queue, _, _ in starts.order])
    check_priorities([(priority, number) for queue, priority, number in starts.order if queue == "default"])


def check_turns(queues: list[str]) -> None:
    last = len(queues) - 1 - queues[::-1].index("side")
    runs = "".join("s" if queue == "side" else "d" for queue in queues[: last + 1])
    assert "ddd" not in runs, f"P05: a queue waits for its turn: {runs}"


def check_priorities(started: list[tuple[int, int]]) -> None:
    """P05: each start takes the first of the best priority, or, every eighth, the oldest."""
    waiting = sorted(started, key=lambda job: job[1])
    aged: list[int] = []
    for i, job in enumerate(started):
        if job != min(waiting):
            assert job == waiting[0], f"P05: {job} started before {min(waiting)}, and was not the oldest"
            aged.append(i)
        elif job == waiting[0]:
            aged.append(i)
        waiting.remove(job)
    gaps = [after - before for before, after in zip([-1, *aged], [*aged, len(started)], strict=True)]
    assert max(gaps) <= AGED_EVERY, f"P05: the oldest had to wait for {max(gaps)} others"


async def called_off(rt: Runtime) -> None:
    """P18: nothing stays of jobs that were cancelled long before their time."""
    later = one_of_many.with_options(delay=100_000.0)
    seen: list[weakref.ref[Job[Any]]] = []
    for i in range(CROWD):
        job = rt.submit_nowait(later, "default", 5, i)
        assert job.cancel()
        seen.append(weakref.ref(job))
    del job
    await asyncio.sleep(1)
    gc.collect()
    held = sum(ref() is not None for ref in seen)
    assert not held, f"P18: {held} cancelled jobs are held by somebody"
    await called_off_in_line(rt)
    left = sum(type(one).__module__ == "bgruntime._parts.timers" for one in gc.get_objects())
    assert left <= LEFT, f"P18: {left} timers are left of {CROWD} cancelled jobs"


async def called_off_in_line(rt: Runtime) -> None:
    """P18: the same of jobs that were cancelled while they stood in line; and the books balance."""
    rt.pause()
    for i in range(CROWD):
        assert rt.submit_nowait(one_of_many, "default", 5, i).cancel()
        waiting = rt.stats().waiting
        assert not waiting, f"P18: all were cancelled, and {waiting} wait"
    rt.resume()
    await rt.drain()


async def changed_from_within(loop: SimLoop) -> None:
    """P05, P06: what a job does in its first step counts for the very next start."""
    # The kernel has a fast path for plain tasks.
    loop._ports = replace(loop.bgruntime_ports, task_class=asyncio.Task)
    async with Runtime(concurrency=1, queue_size=20) as rt:
        await pauses_its_queue(rt)
        await asks_for_something_urgent(rt)
        await is_timed_out(rt, loop)
    async with Runtime(queue_size=CROWD) as rt:
        await is_awaited_one_by_one(rt, loop)
        await starts_after_one_that_holds_the_loop(rt)


async def pauses_its_queue(rt: Runtime) -> None:
    starts.order.clear()
    jobs = [rt.submit_nowait(one_that_acts, rt.pause)]
    jobs += [rt.submit_nowait(one_of_many, "default", 5, i) for i in range(3)]
    await jobs[0].wait()
    await asyncio.sleep(0.001)
    assert not starts.order, f"P06: {len(starts.order)} started although the job before them paused the queue"
    rt.resume()
    await wait_for(jobs)


async def asks_for_something_urgent(rt: Runtime) -> None:
    starts.order.clear()
    urgent: list[Job[Any]] = []

    def ask() -> None:
        urgent.append(rt.submit_nowait(one_of_many.with_options(priority=0), "default", 0, 3))

    jobs = [rt.submit_nowait(one_that_acts, ask)]
    jobs += [rt.submit_nowait(one_of_many, "default", 5, i) for i in range(3)]
    await wait_for(jobs)
    await wait_for(urgent)
    assert starts.order[0] == ("default", 0, 3), f"P05: started in the order {starts.order}"


async def is_timed_out(rt: Runtime, loop: SimLoop) -> None:
    """P10: the plainest of all jobs has its timeout, too."""
    job = rt.submit_nowait(one_that_sleeps)
    began = loop.time()
    await job.wait()
    assert 0.5 <= loop.time() - began < 1, f"P10: its timeout of 0.5 s came after {loop.time() - began:.3f} s"


async def is_awaited_one_by_one(rt: Runtime, loop: SimLoop) -> None:
    """P25: whoever awaits one job after another has no more of them started in one step than anybody."""
    await rt.submit_nowait(one_of_many, "default", 5, CROWD)  # its pump has some of its budget left
    starts.order.clear()
    starts.seen = 0
    loop.on_step = starts.step
    await wait_for([rt.submit_nowait(one_of_many, "default", 5, i) for i in range(CROWD)])
    await asyncio.sleep(0)  # the end of a step is when it is looked at
    loop.on_step = None
    assert sorted(number for _, _, number in starts.order) == list(range(CROWD)), "P01: not all of them ran"


async def starts_after_one_that_holds_the_loop(rt: Runtime) -> None:
    """P11: a timeout begins with the job, however long the loop was held by what started before it."""
    await wait_for([rt.submit_nowait(one_that_holds_the_loop, 0.4), rt.submit_nowait(one_that_sleeps)])
    assert 0.5 <= starts.slept < 1, f"P11: its timeout of 0.5 s came after {starts.slept:.3f} s"


async def wait_for(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        await job.wait()
