"""P09: one outcome per job; a late finisher changes nothing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from bgruntime import JobCancelled, JobInterrupted, JobTimedOut, Runtime, task

from .steps import Gate, turns, until, word


class Stubborn:
    """A job that swallows its first cancellations and ends when it is let."""

    def __init__(self, swallow=1, ending="late value"):
        self.started, self.cancels, self.ended = 0, 0, 0
        self.swallow, self.ending = swallow, ending
        self.let_go = asyncio.Event()

    async def run(self):
        self.started += 1
        while not self.let_go.is_set():
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                self.cancels += 1
                if self.cancels > self.swallow:
                    raise
        self.ended += 1
        if isinstance(self.ending, BaseException):
            raise self.ending
        return self.ending


@pytest.mark.parametrize(
    "ending", ["late value", ValueError("late failure"), SystemExit("late exit")], ids=repr
)
def test_p09_what_comes_after_a_timeout_is_dropped(run, clock, ending):
    async def main():
        body = Stubborn(ending=ending)
        async with Runtime(cancel_grace=5, cancel_hard=5) as rt:
            job = await rt.submit(task(timeout=1.0)(body.run))
            await until(lambda: body.started)
            await clock.advance(1.0)
            with pytest.raises(JobTimedOut) as first:
                await job
            body.let_go.set()
            await until(lambda: body.ended)
            await rt.drain()
            assert job.exception() is first.value or isinstance(job.exception(), JobTimedOut)
            assert word(job.state) == "discarded"
            assert word(job.reason) == "timed_out"
            with pytest.raises(JobTimedOut):
                job.result()

    run(main)


@pytest.mark.parametrize("ending", ["late value", ValueError("late failure")], ids=repr)
def test_p09_what_comes_after_a_users_cancel_is_dropped(run, ending):
    async def main():
        body = Stubborn(ending=ending)
        async with Runtime() as rt:
            job = await rt.submit(body.run)
            await until(lambda: body.started)
            assert job.cancel("no longer wanted") is True
            await until(lambda: body.cancels)
            body.let_go.set()
            with pytest.raises(JobCancelled) as raised:
                await job
            assert not isinstance(raised.value, JobInterrupted)
            assert "no longer wanted" in str(raised.value.reason)
            assert word(job.state) == "cancelled"

    run(main)


def test_p09_after_a_shutdowns_cancel_a_value_within_the_grace_counts(run):
    async def main():
        body = Stubborn(ending="saved")
        async with Runtime() as rt:
            job = await rt.submit(body.run)
            await until(lambda: body.started)
            stopping = asyncio.ensure_future(rt.stop(drain=0, cancel=5, close=1))
            await until(lambda: body.cancels)
            body.let_go.set()
            report = await stopping
            assert await job == "saved"
            assert word(job.state) == "completed"
            assert job.id in report.completed
            assert job.id not in report.cancelled

    run(main)


def test_p09_the_first_reason_wins_a_cancel_before_a_timeout(run, clock):
    async def main():
        body = Stubborn(swallow=100)
        async with Runtime(cancel_grace=60, cancel_hard=60) as rt:
            job = await rt.submit(task(timeout=1.0)(body.run))
            await until(lambda: body.started)
            job.cancel("first")
            await turns()
            await clock.advance(2.0)
            await turns()
            body.let_go.set()
            with pytest.raises(JobCancelled) as raised:
                await job
            assert "first" in str(raised.value.reason)
            assert word(job.state) == "cancelled"

    run(main)


def test_p09_the_first_reason_wins_a_timeout_before_a_cancel(run, clock):
    async def main():
        body = Stubborn(swallow=100)
        async with Runtime(cancel_grace=60, cancel_hard=60) as rt:
            job = await rt.submit(task(timeout=1.0)(body.run))
            await until(lambda: body.started)
            await clock.advance(1.0)
            await turns()
            assert job.cancel("second") is False, "the job has ended already"
            with pytest.raises(JobTimedOut):
                await job
            body.let_go.set()

    run(main)


def test_p09_cancelling_twice_keeps_the_first_reason(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.hold)
            await until(lambda: gate.started)
            job.cancel("first")
            job.cancel("second")
            with pytest.raises(JobCancelled) as raised:
                await job
            assert "first" in str(raised.value.reason)

    run(main)


def test_p09_a_cancel_after_the_end_is_false_and_changes_nothing(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.note, 7)
            assert await job == 7
            assert job.cancel() is False
            assert (word(job.state), job.result()) == ("completed", 7)

    run(main)


def test_p09_a_value_returned_in_the_turn_of_a_cancel_is_one_outcome_or_the_other(run):
    async def main():
        for turn in range(6):
            done = asyncio.Event()

            @task
            async def work(event=done):
                await event.wait()
                return "value"

            async with Runtime() as rt:
                job = await rt.submit(work)
                await turns()
                done.set()
                await turns(turn)
                accepted = job.cancel("late")
                await job.wait()
                assert (word(job.state) == "cancelled") == accepted

    run(main)


def test_p09_the_late_end_of_a_thread_changes_nothing(run, clock):
    async def main():
        begun, hold, ended = threading.Event(), threading.Event(), []

        @task(timeout=1.0)
        def work():
            begun.set()
            hold.wait(10)
            ended.append(1)
            return "late"

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(begun.is_set)
            await clock.advance(1.0)
            with pytest.raises(JobTimedOut):
                await job
            hold.set()
            await until(lambda: rt.stats().stuck == 0, "the thread's end")
            assert ended == [1]
            assert word(job.state) == "discarded"
            with pytest.raises(JobTimedOut):
                job.result()

    run(main)


def test_p09_a_stuck_job_that_ends_after_all_changes_nothing(run, clock):
    async def main():
        body = Stubborn(swallow=1000)
        async with Runtime(concurrency=2, cancel_grace=1, cancel_hard=1) as rt:
            job = await rt.submit(task(timeout=1.0, max_attempts=3)(body.run))
            await until(lambda: body.started)
            for _ in range(4):
                await clock.advance(1.0)
                await turns()
            with pytest.raises(JobTimedOut) as raised:
                await job
            assert raised.value.stuck is True
            assert word(job.reason) == "stuck"
            body.let_go.set()
            await until(lambda: body.ended)
            await turns()
            assert word(job.state) == "discarded"
            assert word(job.reason) == "stuck"
            await clock.advance(10_000.0)
            await turns()
        assert body.started == 1, "a stuck job is not retried"

    run(main)
