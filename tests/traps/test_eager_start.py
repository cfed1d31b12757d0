"""From 3.12 on a Task may run, and end, inside its constructor; the books must balance all the same."""

from __future__ import annotations

import asyncio
import sys

import pytest

from bgruntime import JobCancelled, JobTimedOut, Runtime, current_job, task
from bgruntime.extend import AttemptEnded, AttemptStarted, JobSettled
from tests.promises.steps import Gate, turns, until, word

eager = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")


@pytest.fixture
def eager_run(run):
    """`run` where an eager task factory can be used at all."""
    if run.loop_name != "stock":
        pytest.skip("uvloop does not take an eager task factory")
    return run


def use_eager_factory():
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)


def test_a_job_that_never_suspends_completes_with_its_value_and_frees_its_slot(run):
    async def main():
        order = []

        @task
        async def at_once(number):
            order.append(number)
            return number

        async with Runtime(concurrency=1) as rt:
            jobs = [await rt.submit(at_once, number) for number in range(20)]
            assert [await job for job in jobs] == list(range(20))
            assert rt.stats().running == 0
        assert order == list(range(20))

    run(main)


def test_a_job_that_ends_at_once_in_every_way_settles_once(run):
    async def main():
        class Recorder:
            listens_to = (AttemptStarted, AttemptEnded, JobSettled)

            def __init__(self):
                self.heard = []

            def on_event(self, event):
                kind = next(kind for kind in self.listens_to if isinstance(event, kind))
                self.heard.append((kind.__name__, event.job.id))

        recorder = Recorder()

        @task
        async def at_once(how):
            match how:
                case "raise":
                    raise ValueError
                case "exit":
                    raise SystemExit
                case "self":
                    raise asyncio.CancelledError
            return how

        async with Runtime(concurrency=1, observers=[recorder]) as rt:
            jobs = [await rt.submit(at_once, how) for how in ("return", "raise", "exit", "self")]
            for job in jobs:
                await job.wait()
            states = [word(job.state) for job in jobs]
        assert states == ["completed", "discarded", "discarded", "cancelled"]
        for job in jobs:
            assert [kind for kind, id in recorder.heard if id == job.id] == [
                "AttemptStarted",
                "AttemptEnded",
                "JobSettled",
            ]

    run(main)


def test_a_job_that_cancels_itself_and_ends_at_once_is_cancelled(run):
    async def main():
        async with Runtime() as rt:

            @task
            async def work():
                rt.job(current_job().id).cancel("myself")
                return "value"

            job = await rt.submit(work)
            with pytest.raises(JobCancelled):
                await job

    run(main)


def test_a_job_that_stops_its_runtime_at_once_leaves_no_one_hanging(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1) as rt:

            @task
            async def work():
                await rt.stop(drain=0, cancel=1, close=1)
                return "stopped it"

            job = await rt.submit(work)
            waiting = await rt.submit(gate.note)
            await job.wait()
            await waiting.wait()
            assert word(waiting.state) == "cancelled"

    run(main)


def test_a_job_that_submits_and_awaits_at_once_at_limit_one_finishes(run):
    async def main():
        async with Runtime(concurrency=1) as rt:

            @task
            async def child(number):
                return number

            @task
            async def parent():
                return [await (await rt.submit(child, number)) for number in range(5)]

            assert await (await rt.submit(parent)) == list(range(5))

    run(main)


def test_a_thousand_jobs_that_end_at_once_do_not_recurse(run):
    async def main():
        @task
        async def at_once(number):
            return number

        async with Runtime(concurrency=3) as rt:
            jobs = await rt.submit_many(at_once, [(number,) for number in range(3_000)])
            assert [await job for job in jobs] == list(range(3_000))

            @task
            async def chain(number):
                if number:
                    rt.submit_nowait(chain, number - 1)

            rt.submit_nowait(chain, 3_000)
            await rt.drain()

    run(main)


def test_the_loop_goes_round_while_a_flood_of_jobs_ends_at_once(run):
    async def main():
        ticks = []

        @task
        async def at_once():
            pass

        async def tick():
            while True:
                ticks.append(1)
                await asyncio.sleep(0)

        async with Runtime(concurrency=10, queue_size=20_000) as rt:
            ticking = asyncio.ensure_future(tick())
            for _ in range(10_000):
                rt.submit_nowait(at_once)
            await rt.drain()
            ticking.cancel()
            await asyncio.wait([ticking])
        assert len(ticks) > 10, "a flood of starts held the loop in one turn"

    run(main)


@eager
def test_everything_works_under_an_eager_task_factory(eager_run, clock):
    async def main():
        use_eager_factory()
        gate, notes = Gate(), Gate()

        @task(timeout=5.0)
        async def hangs():
            await asyncio.Event().wait()

        @task
        async def node(depth):
            return 1 if depth == 0 else sum(await rt.map(node, [depth - 1] * 2))

        async with Runtime(concurrency=1, queue_size=100) as rt:
            assert await (await rt.submit(notes.note, 1)) == 1
            assert await rt.map(notes.note, range(5)) == list(range(5))
            assert await (await rt.submit(node, 3)) == 8
            async with rt.group() as group:
                job = await group.submit(notes.note, "group")
            assert job.result() == "group"
            timed = await rt.submit(hangs)
            await until(lambda: word(timed.state) == "running")
            await clock.advance(5.0)
            with pytest.raises(JobTimedOut):
                await timed
            await rt.drain()
            held = await rt.submit(gate.hold, "held")
            queued = await rt.submit(notes.note, "queued")
            queued.cancel()
            gate.open()
            assert await held == "held"
            assert word(queued.state) == "cancelled"
            assert rt.stats().running == 0

    eager_run(main)


@eager
@pytest.mark.parametrize("turn", range(5))
def test_cancelling_at_any_turn_under_an_eager_task_factory_leaks_no_slot(eager_run, turn):
    async def main():
        use_eager_factory()

        @task
        async def work():
            await turns(2)

        async with Runtime(concurrency=1) as rt:
            for _ in range(10):
                job = await rt.submit(work)
                await turns(turn)
                job.cancel()
                await job.wait()
            gate = Gate()
            assert await (await rt.submit(gate.note, "slot")) == "slot"

    eager_run(main)


@eager
def test_waiters_under_an_eager_task_factory_see_their_cancellations(eager_run):
    async def main():
        use_eager_factory()
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.hold, "value")

            async def wait():
                await job

            waiting = asyncio.ensure_future(wait())
            await turns()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

            async def owner():
                await rt.map(gate.hold, range(3))

            owning = asyncio.ensure_future(owner())
            await until(lambda: len(gate.started) == 4)
            owning.cancel()
            with pytest.raises(asyncio.CancelledError):
                await owning
            assert gate.running == 1
            gate.open()
            assert await job == "value"

    eager_run(main)
