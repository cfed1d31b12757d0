"""P18: memory does not grow with the number of jobs that have passed through."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref

import pytest

from bgruntime import Discard, Runtime, Snooze, current_job, task

from .steps import Gate, complaints, python, turns, until

FLAT = """
import asyncio, gc, resource, sys
from bgruntime import Runtime, task

@task
async def work(number):
    if number % 10 == 0:
        raise ValueError(number)
    return number

async def pass_through(rt, count):
    for start in range(0, count, 5_000):
        jobs = [rt.submit_nowait(work, number) for number in range(start, start + 5_000)]
        for job in jobs[::100]:
            job.cancel()
        await rt.drain()
        jobs.clear()

def measure():
    gc.collect()
    return sys.getallocatedblocks(), resident()

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

async def main():
    async with Runtime(concurrency=100) as rt:
        await pass_through(rt, 200_000)
        seen = [measure()]
        for _ in range(2):
            await pass_through(rt, 400_000)
            seen.append(measure())
        # What stays of each job stays in both halves; what the allocator does once is in one of them.
        grown = [[b - a for a, b in zip(*pair)] for pair in zip(seen, seen[1:])]
        print(*map(min, zip(*grown)), rt.stats().submitted)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.skipif(
    "not __import__('os').path.exists('/proc/self/statm')", reason="reads the memory from /proc"
)
def test_p18_a_million_jobs_leave_memory_flat():
    done = python(FLAT, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    assert complaints(done) == []
    blocks, size, submitted = map(int, done.stdout.split())
    assert submitted == 1_000_000
    assert blocks < 4_000, f"{blocks} blocks more after 400,000 jobs"
    assert size < 2_000_000, f"{size / 400_000:.2f} bytes stay of each job"


def growth(run, pass_through):
    """How many memory blocks stay of each of many calls of `pass_through(rt, number)`.

    What is kept for the statistics is bounded, but goes up and down meanwhile: a third of a block a call.
    """
    import sys

    async def main():
        async with Runtime(concurrency=10) as rt:

            async def many(count):
                for number in range(count):
                    await pass_through(rt, number)
                await rt.drain()
                await turns()
                gc.collect()
                return sys.getallocatedblocks()

            await many(1_300)  # the ring of the last finished jobs is full after this
            seen = [await many(500)] + [await many(3_000) for _ in range(3)]
            # What stays of each call stays in every portion; what the statistics grow by once does not.
            return min(after - before for before, after in itertools.pairwise(seen)) / 3_000

    return run(main)


@task
async def returns(number):
    return [number]


@task
async def suspends(number):
    await asyncio.sleep(0)


@task
async def fails(number):
    raise ValueError(number)


@task
async def exits(number):
    raise SystemExit(number)


@task
async def discards(number):
    raise Discard(str(number))


@task
async def snoozes(number):
    if current_job().attempt == 1 and number not in snoozes_seen:
        snoozes_seen.add(number)
        raise Snooze(0.0)
    snoozes_seen.discard(number)


snoozes_seen: set[int] = set()


@task(max_attempts=2, backoff=lambda _: 0.0)
async def retries(number):
    raise ValueError(number)


@task
def threaded(number):
    return number


@task
async def hangs(number):
    await asyncio.Event().wait()


async def submit_and_wait(rt, which, number):
    await (await rt.submit(which, number)).wait()


KINDS = [returns, suspends, fails, exits, discards, snoozes, retries]


@pytest.mark.slow
@pytest.mark.parametrize("which", KINDS, ids=lambda which: which.name.rpartition(":")[2])
def test_p18_nothing_stays_of_a_job_that_ended(run, which):
    async def pass_through(rt, number):
        await submit_and_wait(rt, which, number)

    assert growth(run, pass_through) < 0.6


def test_p18_nothing_stays_of_a_cancelled_job(run):
    async def pass_through(rt, number):
        job = await rt.submit(hangs, number)
        await turns(number % 4)
        job.cancel()
        await job.wait()

    assert growth(run, pass_through) < 0.6


def test_p18_nothing_stays_of_a_cancelled_delayed_job(run):
    async def pass_through(rt, number):
        job = await rt.submit(returns.with_options(delay=1e6), number)
        job.cancel()
        await job.wait()

    assert growth(run, pass_through) < 0.6


def test_p18_nothing_stays_of_fanouts_and_groups(run):
    async def pass_through(rt, number):
        if number % 3 == 0:
            await rt.map(suspends, range(2))
            await rt.gather(returns.bind(1), suspends.bind(2))
            async with rt.group() as group:
                await group.submit(returns, 1)

    assert growth(run, pass_through) < 0.6


def test_p18_nothing_stays_of_cancelled_waiters(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.hold)
            await until(lambda: gate.started)

            class Thing:
                pass

            async def wait(thing):
                await job

            alive = []
            for _ in range(200):
                thing = Thing()
                alive.append(weakref.ref(thing))
                waiter = asyncio.ensure_future(wait(thing))
                del thing
                await turns(2)
                waiter.cancel()
                await asyncio.wait([waiter])
                del waiter
            await turns()
            gc.collect()
            assert sum(reference() is not None for reference in alive) == 0
            gate.open()

    run(main)


def test_p18_the_ring_of_finished_jobs_is_bounded(run):
    async def main():
        async with Runtime() as rt:
            await rt.map(returns, range(1_500))
            for number in range(1_500):
                rt.submit_nowait(returns, number)
            await rt.drain()
            assert len(list(rt.jobs())) <= 1_000

    run(main)


def test_p18_results_go_without_the_cycle_collector(run):
    async def main():
        class Thing:
            pass

        @task
        async def work(thing):
            await asyncio.sleep(0)
            return Thing()

        async with Runtime() as rt:
            gc.collect()
            gc.disable()
            try:
                alive = []
                for _ in range(50):
                    thing = Thing()
                    job = await rt.submit(work, thing)
                    result = await job
                    alive += [weakref.ref(thing), weakref.ref(result)]
                    del thing, job, result
                await turns()
                assert sum(reference() is not None for reference in alive) == 0, (
                    "kept alive by a reference cycle"
                )
            finally:
                gc.enable()

    run(main)
