"""A stop meets jobs that end already, and jobs that asked for it themselves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bgruntime import JobCancelled, JobInterrupted, Runtime, Shutdown, task
from tests.door.turns import Gate, hold, turns, until


def test_a_job_cancelled_before_the_stop_keeps_its_reason_and_cleans_up(run: Any) -> None:
    async def main() -> None:
        gate, tidy = Gate(), asyncio.Event()

        async def work() -> None:
            try:
                await gate.wait()
            finally:
                await tidy.wait()

        async with Runtime() as rt:
            job, other = await rt.submit(work), await rt.submit(hold, gate)
            await until(lambda: len(gate.started) == 2)
            job.cancel("no longer wanted")
            await turns()
            stop = asyncio.ensure_future(rt.stop(drain=0))
            await until(other.done)
            tidy.set()
            report = await stop
            with pytest.raises(JobCancelled, match="no longer wanted"):
                await job
            with pytest.raises(JobInterrupted):
                await other
            assert report.cancelled == (other.id,)

    run(main)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_job_that_asked_for_the_stop_and_will_not_end_is_given_up_when_the_runtime_is_left(
    run: Any, clock: Any, cancelled: bool
) -> None:
    async def main() -> None:
        gate, stopped = Gate(), asyncio.Event()

        @task(timeout=None)
        async def work() -> None:
            await rt.stop()
            stopped.set()
            while not gate.opened.is_set():
                try:
                    await gate.wait()
                except asyncio.CancelledError:
                    continue

        async def live() -> Any:
            async with rt:
                job = await rt.submit(work)
                await stopped.wait()
                await turns()
                if cancelled:
                    job.cancel("enough")
            return job

        rt = Runtime(shutdown=Shutdown(cancel=3), cancel_grace=60)
        living = asyncio.ensure_future(live())
        await stopped.wait()
        await clock.advance(2)
        assert not living.done()
        await clock.advance(2)
        job = await living
        with pytest.raises(JobCancelled, match="enough" if cancelled else "interrupted"):
            await job
        assert rt.stats().stuck == 1
        gate.open()
        await until(lambda: gate.now == 0)

    run(main)
