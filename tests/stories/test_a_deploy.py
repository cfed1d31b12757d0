"""A web application takes requests, each leaves work behind, and a deploy comes in the middle."""

from __future__ import annotations

import asyncio
import random

import pytest

from bgruntime import JobInterrupted, QueueFull, Runtime, RuntimeClosed, Snooze, current_job, task
from tests.promises.steps import until


class App:
    """Requests submit work of every kind; the ledger knows what was accepted and what was refused."""

    def __init__(self, rt, seed):
        self.rt, self.rng = rt, random.Random(seed)
        self.accepted, self.refused, self.effects = [], 0, []

    async def request(self, number):
        work = self.rng.choice([quick, slow, flaky, naps, threaded, hangs])
        try:
            self.accepted.append(await self.rt.submit(work, number, self.effects))
        except (RuntimeClosed, QueueFull):
            self.refused += 1


@task
async def quick(number, effects):
    effects.append(number)


@task
async def slow(number, effects):
    for _ in range(number % 7):
        await asyncio.sleep(0)
    effects.append(number)


@task(max_attempts=2, backoff=lambda _: 0.5)
async def flaky(number, effects):
    if current_job().attempt == 1:
        raise ConnectionError(number)
    effects.append(number)


@task
async def naps(number, effects):
    if number not in napped:
        napped.add(number)
        raise Snooze(0.5)
    effects.append(number)


napped: set[int] = set()


@task
def threaded(number, effects):
    effects.append(number)


@task(timeout=None)
async def hangs(number, effects):
    await asyncio.Event().wait()


async def passes(rt, clock, seconds):
    """Time passes when no thread is at work, for those live in real time."""
    await until(lambda: rt.stats().threads_in_use == 0, "the end of the threads")
    await clock.advance(seconds)


@pytest.mark.parametrize("seed", range(3))
def test_every_accepted_job_is_accounted_for_and_nothing_is_lost(run, clock, seed):
    napped.clear()

    async def main():
        async with Runtime(concurrency=4, queue_size=10, wait_limit=2.0, threads=2) as rt:
            app = App(rt, seed)
            requests = [asyncio.ensure_future(app.request(number)) for number in range(60)]
            for _ in range(6):
                await passes(rt, clock, 0.1)
            stopping = asyncio.ensure_future(rt.stop(drain=3, cancel=2, close=1))
            late = [asyncio.ensure_future(app.request(number)) for number in range(60, 70)]
            while not stopping.done():
                await passes(rt, clock, 0.1)
            report = await stopping
            await asyncio.gather(*requests, *late)
        assert report.lost == report.requeued == report.stuck == ()
        assert len(app.accepted) + app.refused == 70
        assert app.refused >= 10, "nothing is taken once the stop has begun"
        completed = [job for job in app.accepted if str(job.state) == "completed"]
        interrupted = [job for job in app.accepted if str(job.state) == "cancelled"]
        assert len(completed) + len(interrupted) == len(app.accepted)
        assert len(app.effects) == len(set(app.effects)) == len(completed)
        for job in interrupted:
            assert isinstance(job.exception(), JobInterrupted)
            assert job.id in report.cancelled
        assert {job.id for job in interrupted} == set(report.cancelled)
        assert set(report.completed) <= {job.id for job in completed}

    run(main)


def test_a_second_deploy_finds_a_runtime_as_good_as_new(run):
    async def main():
        rt = Runtime(concurrency=2)
        for _ in range(3):
            async with rt:
                effects = []
                await rt.submit(quick, 1, effects)
                await rt.submit(hangs, 2, effects)
                await asyncio.sleep(0)
                await rt.stop(drain=0, cancel=1, close=1)
            assert rt.stats().running == 0

    run(main)
