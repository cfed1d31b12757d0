"""P15: only the shutdown interrupts; what a user says as a reason is only what a user says."""

from __future__ import annotations

import asyncio

import pytest

from bgruntime import Cancel, JobCancelled, JobInterrupted, Runtime, task

from .steps import Gate, until


@task
async def cancels(reason):
    raise Cancel(reason)


@pytest.mark.parametrize("reason", ["interrupted", "expired", "dropped"])
def test_p15_a_user_s_reason_is_no_interruption_even_when_it_reads_the_same(run, reason, tmp_path):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, journal=tmp_path / "jobs.db") as rt:
            running = await rt.submit(gate.hold, "running")
            await until(lambda: gate.started)
            waiting = await rt.submit(gate.hold, "waiting")
            assert waiting.cancel(reason)
            assert running.cancel(reason)
            by_itself = await rt.submit(cancels, reason)
            for job in (running, waiting, by_itself):
                with pytest.raises(JobCancelled) as raised:
                    await job
                assert not isinstance(raised.value, JobInterrupted)
                assert (raised.value.reason, job.reason) == (reason, reason)
            assert await rt.journal.failures(reason=reason, state="cancelled") == []

    run(main)


def test_p15_the_report_of_a_stop_takes_no_user_s_cancel_for_an_interruption(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            asked = await rt.submit(gate.hold, "asked")
            await until(lambda: gate.started)
            left = await rt.submit(gate.hold, "left")
            stopping = asyncio.ensure_future(rt.stop(drain=None, cancel=1, close=1))
            await until(lambda: rt.stats().phase != "running")
            asked.cancel("interrupted")
            await until(lambda: "left" in gate.started)
            await rt.stop()
            report = await stopping
            assert report.completed == (asked.id,)
            assert report.cancelled == (left.id,)
            with pytest.raises(JobInterrupted):
                await left

    run(main)
