"""Code that swallows CancelledError defeats every timeout from within; ours come from outside."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from bgruntime import JobCancelled, JobTimedOut, Runtime, task
from tests.promises.steps import Gate, turns, until, word


def test_a_bare_except_in_a_loop_is_timed_out_and_cannot_hold_the_waiter(run, clock):
    async def main():
        tries, let_go = [], asyncio.Event()

        @task(timeout=10.0)
        async def poll():
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except BaseException:
                    tries.append(1)

        async with Runtime(cancel_grace=1, cancel_hard=1) as rt:
            job = await rt.submit(poll)
            await turns()
            await clock.advance(10.0)
            with pytest.raises(JobTimedOut):
                await job
            await clock.advance(2.0)
            assert len(tries) == 2, "cancelled once, and once more; no storm of cancellations"
            assert rt.stats().stuck == 1
            let_go.set()
            await until(lambda: rt.stats().stuck == 0)

    run(main)


def test_one_cancel_each_and_clean_up_is_not_cancelled_at_every_await(run, clock):
    async def main():
        steps = []

        @task(timeout=10.0)
        async def work():
            try:
                await asyncio.Event().wait()
            finally:
                for number in range(100):
                    await asyncio.sleep(0)
                    steps.append(number)

        async with Runtime() as rt:
            job = await rt.submit(work)
            await turns()
            await clock.advance(10.0)
            await job.wait()
            await rt.drain()
        assert steps == list(range(100))

    run(main)


def test_a_job_that_swallows_a_cancel_and_returns_is_cancelled_all_the_same(run):
    async def main():
        @task
        async def work():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return "finished anyway"

        async with Runtime() as rt:
            job = await rt.submit(work)
            await turns()
            job.cancel("user")
            with pytest.raises(JobCancelled):
                await job

    run(main)


def test_a_shielded_inner_task_does_not_hold_the_job(run, clock):
    async def main():
        inner, gate = [], Gate()

        @task(timeout=5.0)
        async def work():
            inner.append(asyncio.ensure_future(gate.hold("inner")))
            await asyncio.shield(inner[0])

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: gate.started)
            await clock.advance(5.0)
            with pytest.raises(JobTimedOut):
                await job
            await rt.drain()
            assert rt.stats().stuck == 0
            assert not inner[0].done(), "what a job shields is its own affair"
            gate.open()
            await inner[0]

    run(main)


def test_a_spinner_that_yields_is_timed_out_like_any_other(run, clock):
    async def main():
        turned = []

        @task(timeout=5.0)
        async def spin():
            while True:
                turned.append(1)
                await asyncio.sleep(0)

        async with Runtime() as rt:
            job = await rt.submit(spin)
            await until(lambda: len(turned) > 5)
            await clock.advance(5.0)
            with pytest.raises(JobTimedOut):
                await job
            await rt.drain()
            count = len(turned)
            await turns()
            assert len(turned) == count

    run(main)


def test_a_swallower_that_submits_on_and_on_after_its_cancel_holds_no_one_up(run):
    async def main():
        notes = Gate()
        async with Runtime(concurrency=2) as rt:

            @task
            async def work():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                for number in range(10):
                    await rt.submit(notes.note, number)
                return "late"

            job = await rt.submit(work)
            await turns()
            job.cancel()
            await job.wait()
            await rt.drain()
            assert word(job.state) == "cancelled"
        assert notes.ended == list(range(10))

    run(main)
