"""P20, cell by cell: each part outside the kernel, at each of its hooks, misbehaves in each way."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

import pytest
import structlog

from bgruntime import JobCancelled, JobTimedOut, Runtime, task
from bgruntime.testing import simulate

SEEDS = 4
TIMEOUT = 20.0  # seconds of a job; longer than anything here is slow


class Odd(BaseException):
    """Neither an Exception nor anything asyncio knows."""


class Fault:
    """Misbehaves when it is called, in the way its name says."""

    def __init__(self, name):
        self.name, self.calls = name, 0

    def __call__(self, rt=None):
        self.calls += 1
        match self.name:
            case "raises":
                raise ValueError("of the part")
            case "raises BaseException":
                raise Odd("of the part")
            case "exits":
                raise SystemExit(9)
            case "raises CancelledError":
                raise asyncio.CancelledError
            case "is slow":
                time.sleep(0.5)  # on a simulated loop: nothing runs for so long
            case "flaps" if self.calls % 2:
                raise ValueError("now and then")
            case "heals" if self.calls <= 3:
                raise ValueError("at first")
            case "calls back" if self.calls <= 3 and rt is not None:
                rt.stats()
                rt.submit_nowait(value, self.calls)

    async def wait(self, rt=None):
        if self.name == "hangs":
            self.calls += 1
            await asyncio.Event().wait()
        self(rt)


FAULTS = ["raises", "raises BaseException", "exits", "raises CancelledError", "is slow", "flaps", "heals"]
LOUD = {"raises", "raises BaseException", "exits", "raises CancelledError", "flaps", "heals"}


@task(timeout=TIMEOUT)
async def value(number):
    await asyncio.sleep(number % 3)
    return number


@task(timeout=TIMEOUT)
def in_thread(number):
    return number


@task(timeout=TIMEOUT, max_attempts=2, backoff=lambda _: 1.0)
async def flaky(seen):
    seen.append(1)
    if len(seen) == 1:
        raise ConnectionError
    return "at last"


@task(timeout=TIMEOUT)
async def fail():
    raise LookupError("its own")


@task(timeout=1.0)
async def hang():
    await asyncio.Event().wait()


async def jobs_end_as_they_should(rt):
    """Each job ends as it would without the part, and all slots come back."""
    values = [await rt.submit(value, number) for number in range(6)]
    plain, again = await rt.submit(in_thread, 7), await rt.submit(flaky, [])
    failing, hanging = await rt.submit(fail), await rt.submit(hang)
    cancelled = await rt.submit(value.with_options(delay=1000), 8)
    cancelled.cancel()
    assert [await job for job in values] == [0, 1, 2, 3, 4, 5]
    assert (await plain, await again) == (7, "at last")
    for job, error in [(failing, LookupError), (hanging, JobTimedOut), (cancelled, JobCancelled)]:
        await job.wait()
        assert type(job.exception()) is error
    await rt.drain()
    assert rt.stats().running == 0
    assert rt.stats().threads_in_use == 0


def counted(rt, about):
    return sum(times for fault, times in rt.stats().faults.items() if about in fault)


@pytest.fixture
def told():
    """What the runtime says of faults, in its log."""
    said = []

    def overhear(logger, method, line):
        if line["event"] == "runtime.fault":
            said.append(line["about"])
        raise structlog.DropEvent

    structlog.configure(processors=[overhear])
    return said


def in_every_seed(main):
    simulate(main, SEEDS)


# ── observers ──


class Part:
    """An observer of which one hook misbehaves."""

    def __init__(self, hook, fault):
        self.hook, self.fault, self.rt = hook, fault, None

    def attach(self, host):
        self.rt = host.runtime

    def on_event(self, event):
        if self.hook == "on_event":
            self.fault(self.rt)

    def on_batch(self, records):
        if self.hook == "on_batch":
            self.fault(self.rt)

    def complete(self, stats):
        if self.hook == "complete":
            self.fault()
        return stats

    def checks(self):
        if self.hook == "checks":
            self.fault()
        return []


@pytest.mark.parametrize("name", [*FAULTS, "calls back"])
@pytest.mark.parametrize("hook", ["on_event", "on_batch"])
def test_p20_an_observer(told, hook, name):
    async def main():
        told.clear()
        part = Part(hook, Fault(name))
        async with Runtime(concurrency=2, observers=[part]) as rt:
            await jobs_end_as_they_should(rt)
            rt.stats()
            assert part.fault.calls
            if name in LOUD:
                assert counted(rt, "Part")
                assert any("Part" in about for about in told)

    in_every_seed(main)


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("hook", ["complete", "checks"])
def test_p20_what_an_observer_adds_to_statistics_and_health(told, hook, name):
    async def main():
        told.clear()
        part = Part(hook, Fault(name))
        async with Runtime(concurrency=2, observers=[part]) as rt:
            await jobs_end_as_they_should(rt)
            for _ in range(5):
                rt.health()
                assert rt.stats().submitted == 11
            assert part.fault.calls
            if name in LOUD:
                assert counted(rt, "Part")
                assert any("Part" in about for about in told)

    in_every_seed(main)


# ── middleware ──


def middleware(hook, fault, *, asynchronous):
    def around(context):
        if hook == "call":
            fault()
        return wrapped_async() if asynchronous else wrapped()

    @contextlib.contextmanager
    def wrapped():
        if hook == "enter":
            fault()
        try:
            yield
        finally:
            if hook == "exit":
                fault()

    @contextlib.asynccontextmanager
    async def wrapped_async():
        if hook == "enter":
            await fault.wait()
        try:
            yield
        finally:
            if hook == "exit":
                await fault.wait()

    return around


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("hook", ["call", "enter", "exit"])
def test_p20_a_middleware(told, hook, asynchronous, name):
    async def main():
        told.clear()
        fault = Fault(name)
        around = middleware(hook, fault, asynchronous=asynchronous)
        async with Runtime(concurrency=2, middleware=[around]) as rt:
            await jobs_end_as_they_should(rt)
            assert fault.calls
            if name in LOUD:
                assert counted(rt, "middleware")
                assert any("middleware" in about for about in told)

    in_every_seed(main)


@pytest.mark.parametrize("hook", ["enter", "exit"])
def test_p20_a_middleware_that_hangs_costs_a_job_its_timeout_and_no_more(told, hook):
    """It runs inside the attempt, whose limit is the limit of all that happens in it."""

    async def main():
        loop = asyncio.get_running_loop()
        around = middleware(hook, Fault("hangs"), asynchronous=True)
        async with Runtime(concurrency=2, middleware=[around]) as rt:
            jobs = [await rt.submit(value, number) for number in range(4)]
            for job in jobs:
                await job.wait()
            assert loop.time() <= 2 * TIMEOUT + 5
            await rt.drain()
            assert rt.stats().running == 0

    in_every_seed(main)


# ── the log ──


@pytest.mark.parametrize("name", FAULTS)
def test_p20_a_log_sink(name):
    async def main():
        fault = Fault(name)

        def sink(logger, method, line):
            fault()
            raise structlog.DropEvent

        structlog.configure(processors=[sink])
        async with Runtime(concurrency=2) as rt:
            await jobs_end_as_they_should(rt)
            assert fault.calls
            if name in LOUD:
                assert sum(rt.stats().faults.values())

    in_every_seed(main)


# ── threads ──


@pytest.mark.parametrize("name", ["raises", "flaps", "heals"])
def test_p20_threads_that_cannot_be_started(name):
    """Only the plain functions that get none fail, each as its own task says; their slots come back."""

    @task(max_attempts=5, backoff=lambda _: 1.0)
    def patient():
        return "run"

    async def main():
        loop = asyncio.get_running_loop()
        fault, spawn = Fault(name), loop.bgruntime_ports.spawn

        def start(target, of):
            try:
                fault()
            except ValueError:
                raise RuntimeError("can't start new thread") from None
            spawn(target, of)

        loop._ports = replace(loop.bgruntime_ports, spawn=start)
        async with Runtime(concurrency=2, threads=1) as rt:
            plain = [await rt.submit(patient) for _ in range(3)]
            values = [await rt.submit(value, number) for number in range(6)]
            assert [await job for job in values] == [0, 1, 2, 3, 4, 5]
            for job in plain:
                await job.wait()
                if name == "raises":
                    assert isinstance(job.exception(), RuntimeError)
                else:
                    assert job.result() == "run"
            assert rt.stats().threads_in_use == rt.stats().running == 0

    in_every_seed(main)


@pytest.mark.parametrize("latency", [(0.0001, 0.05), (1.0, 5.0)], ids=["quick", "slow"])
def test_p20_threads_that_are_slow_to_start_and_to_answer(latency):
    async def main():
        async with Runtime(concurrency=2) as rt:
            await jobs_end_as_they_should(rt)

    simulate(main, SEEDS, latency=latency)


# ── the clocks ──


@pytest.mark.parametrize("step", [-86_400.0, -1.0, 1.0, 86_400.0])
def test_p20_a_wall_clock_that_is_set(step):
    async def main():
        loop = asyncio.get_running_loop()
        for after in (0.5, 1.5, 2.5):
            loop.call_later(after, loop.step_wall_clock, step)
        async with Runtime(concurrency=2) as rt:
            began = loop.time()
            await jobs_end_as_they_should(rt)
            assert loop.time() - began < TIMEOUT

    in_every_seed(main)


@pytest.mark.parametrize("early", [0.0, 0.0005, 0.01])
def test_p20_timers_that_fire_early(early):
    async def main():
        async with Runtime(concurrency=2) as rt:
            await jobs_end_as_they_should(rt)

    simulate(main, SEEDS, early=early)


@pytest.mark.parametrize("stall", [0.3, 3.0])
def test_p20_a_loop_that_is_held(stall):
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(0.2, loop.stall, stall)
        async with Runtime(concurrency=2) as rt:
            await jobs_end_as_they_should(rt)

    in_every_seed(main)
