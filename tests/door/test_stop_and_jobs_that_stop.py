"""A stop meets jobs that end already, and jobs that asked for it themselves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bgruntime import Job, JobCancelled, JobInterrupted, Runtime, Shutdown, task
from bgruntime.extend import JobSettled
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


class Ear:
    """Hears of every end."""

    listens_to = (JobSettled,)

    def __init__(self, ended: list[str]) -> None:
        self.ended = ended

    def on_event(self, event: JobSettled) -> None:
        self.ended.append(event.job.id)


@pytest.mark.parametrize("asker", ["a job", "the program"])
@pytest.mark.parametrize("steps", range(1, 13))
def test_a_loop_that_is_torn_down_around_a_stop_leaves_no_job_without_its_end(
    run: Any, monkeypatch: Any, steps: int, asker: str
) -> None:
    """A program that ends while it stops: whatever is still there is cancelled, the stop itself included."""
    monkeypatch.setattr("bgruntime._engine.stop.SLICE_SECONDS", 0.0)  # the loop turns after each job
    jobs: list[Job[None]] = []
    ended: list[str] = []

    @task
    async def cleans_up(asked: asyncio.Event | None = None) -> None:
        for _ in range(3):  # one cancellation is of the stop, one of the end of the loop
            try:
                if asked is not None:
                    await asked.wait()
                    await Runtime.stop(runtimes[0], drain=0)
                await turns(30)
            except asyncio.CancelledError:
                pass
        raise asyncio.CancelledError

    runtimes: list[Runtime] = []

    async def program() -> None:
        rt = Runtime(concurrency=1, observers=[Ear(ended)])
        await rt.__aenter__()
        runtimes.append(rt)
        asked = asyncio.Event()
        jobs.append(await rt.submit(cleans_up, asked if asker == "a job" else None))
        await turns(3)
        jobs.extend([await rt.submit(cleans_up) for _ in range(4)])
        jobs.append(await rt.submit(cleans_up.with_options(delay=3600)))
        if asker == "a job":
            asked.set()
        else:
            asyncio.ensure_future(rt.stop(drain=0))
        await turns(steps)

    with asyncio.Runner(loop_factory=run.new_loop) as runner:
        runner.run(program())
    assert sorted(ended) == sorted(job.id for job in jobs)
    assert {str(job.state) for job in jobs} == {"cancelled"}
    assert [job.reason for job in jobs[1:]] == ["interrupted"] * 5
    assert jobs[0].reason in ("interrupted", "self")  # whichever cancellation came first


def test_a_fan_out_that_ends_between_two_slices_of_a_stop_has_each_of_its_jobs_end_once(
    run: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("bgruntime._engine.stop.SLICE_SECONDS", 0.0)  # the loop turns after each job
    ended: list[str] = []

    @task
    async def waits(n: int) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with Runtime(concurrency=1, observers=[Ear(ended)]) as rt:
            mapping = asyncio.ensure_future(rt.map(waits, range(20), limit=20))
            while len(jobs := rt.jobs(task=waits.name)) < 20:
                await asyncio.sleep(0)
            report = await rt.stop(drain=0, cancel=1)
            with pytest.raises(JobInterrupted):
                await mapping
        assert sorted(ended) == sorted(job.id for job in jobs)
        assert report.lost == ()
        assert sorted(report.completed + report.cancelled) == sorted(job.id for job in jobs)

    run(main)
