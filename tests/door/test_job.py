"""The handle of a job."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

import bgruntime
from bgruntime import Job, JobCancelled, Runtime, task
from tests.door.turns import Gate, hold, turns, until, word


@task
async def double(n: int) -> int:
    return n * 2


@task
async def fail(text: str) -> None:
    raise LookupError(text)


def test_awaiting_a_job_twice_gives_the_value_twice(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(double, 2)
            assert (await job, await job) == (4, 4)

    run(main)


def test_any_number_of_waiters_get_the_value(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold, gate, "value")

            async def waiter() -> Any:
                return await job

            waiters = [asyncio.create_task(waiter()) for _ in range(50)]
            await turns()
            gate.open()
            assert [await each for each in waiters] == ["value"] * 50

    run(main)


def test_any_number_of_waiters_get_the_exception(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(fail, "gone")
            for _ in range(3):
                with pytest.raises(LookupError, match="gone"):
                    await job

    run(main)


def test_a_cancelled_waiter_cancels_no_job(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold, gate, "value")

            async def waiter() -> Any:
                return await job

            waiting = asyncio.create_task(waiter())
            await turns()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            gate.open()
            assert await job == "value"

    run(main)


def test_a_timeout_around_await_job_is_the_waiters_own(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold, gate, "value")
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0.01):
                    await job
            assert not isinstance(caught.value, bgruntime.JobTimedOut)
            gate.open()
            assert await job == "value"

    run(main)


def test_a_job_can_be_awaited_by_gather_and_wait(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            jobs = [await rt.submit(double, n) for n in range(3)]
            assert await asyncio.gather(*jobs) == [0, 2, 4]

    run(main)


def test_wait_waits_for_the_end_and_raises_nothing(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(fail, "gone")
            await job.wait()
            assert word(job.state) == "discarded"
            await job.wait()

    run(main)


def test_result_and_exception_before_the_end_are_invalid_state(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold, gate, 3)
            for look in (job.result, job.exception):
                with pytest.raises(asyncio.InvalidStateError):
                    look()
            await until(lambda: gate.started)
            for look in (job.result, job.exception):
                with pytest.raises(asyncio.InvalidStateError):
                    look()
            gate.open()
            await job.wait()
            assert job.result() == 3
            assert job.exception() is None

    run(main)


def test_result_raises_and_exception_returns_what_awaiting_raises(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(fail, "gone")
            await job.wait()
            with pytest.raises(LookupError, match="gone") as caught:
                job.result()
            assert job.exception() is caught.value

    run(main)


def test_a_job_waited_for_after_the_runtime_stopped_still_tells(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(double, 4)
        assert await job == 8
        assert job.result() == 8

    run(main)


def test_a_queued_job_that_is_cancelled_never_starts(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            await rt.submit(hold, gate, 0)
            queued = await rt.submit(hold, gate, 1)
            assert queued.cancel("superseded") is True
            assert word(queued.state) == "cancelled"
            with pytest.raises(JobCancelled) as caught:
                await queued
            assert caught.value.reason == "superseded"
            assert word(queued.reason) == "superseded"
            gate.open()
        assert gate.started == [0]

    run(main)


def test_a_running_job_that_is_cancelled_gets_cancelled_error(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold, gate, 0)
            await until(lambda: gate.started)
            assert job.cancel() is True
            with pytest.raises(JobCancelled):
                await job
            assert gate.cancelled == [0]
            assert word(job.state) == "cancelled"

    run(main)


def test_a_job_submitted_just_now_and_cancelled_never_starts(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = rt.submit_nowait(hold, gate, 0)
            assert job.cancel() is True
            with pytest.raises(JobCancelled):
                await job
            await turns()
        assert gate.started == []

    run(main)


def test_cancelling_a_job_that_has_ended_changes_nothing(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(double, 4)
            assert await job == 8
            assert job.cancel() is False
            assert job.result() == 8
            assert word(job.state) == "completed"

    run(main)


def test_a_value_returned_after_a_cancel_is_dropped(run: Any) -> None:
    async def main() -> None:
        started = asyncio.Event()

        @task
        async def stubborn() -> str:
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "late"
            return "never"

        async with Runtime() as rt:
            job = await rt.submit(stubborn)
            await started.wait()
            job.cancel("enough")
            with pytest.raises(JobCancelled) as caught:
                await job
            assert caught.value.reason == "enough"

    run(main)


def test_a_retryable_job_can_be_cancelled(run: Any, clock: Any) -> None:
    async def main() -> None:
        runs: list[int] = []

        @task(max_attempts=3, backoff=lambda state: 60)
        async def flaky() -> None:
            runs.append(1)
            raise OSError("down")

        async with Runtime() as rt:
            job = await rt.submit(flaky)
            await until(lambda: word(job.state) == "retryable")
            assert job.cancel() is True
            with pytest.raises(JobCancelled):
                await job
            await clock.advance(120)
            await turns()
        assert runs == [1]

    run(main)


def test_a_scheduled_job_can_be_cancelled(run: Any, clock: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(double.with_options(delay=60), 1)
            assert word(job.state) == "scheduled"
            assert job.cancel("not now") is True
            with pytest.raises(JobCancelled):
                await job
            await clock.advance(120)
            await turns()
            assert word(job.state) == "cancelled"

    run(main)


def test_the_states_of_a_job_are_plain_words(run: Any, clock: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            first = await rt.submit(hold, gate, 0)
            await until(lambda: gate.started)
            queued = await rt.submit(hold, gate, 1)
            later = await rt.submit(double.with_options(delay=5), 1)
            assert str(first.state) == "running"
            assert str(queued.state) == "available"
            assert str(later.state) == "scheduled"
            assert f"{first.state}" == "running"
            gate.open()
            await first
            assert str(first.state) == "completed"
            await clock.advance(5)
            await later
            assert str(later.state) == "completed"

    run(main)


def test_an_id_is_made_when_first_asked_for_and_stays(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            jobs = [await rt.submit(double, n) for n in range(200)]
            ids = [job.id for job in jobs]
            assert all(isinstance(id, str) and len(id) >= 11 for id in ids)
            assert len(set(ids)) == 200
            for job in jobs:
                await job
            assert [job.id for job in jobs] == ids

    run(main)


def test_an_id_given_is_the_id(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(double.with_options(id="order-17"), 1)
            assert job.id == "order-17"
            assert rt.job("order-17") is job
            await job

    run(main)


def test_an_id_of_a_job_that_has_not_ended_is_refused_a_second_time(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            once = hold.with_options(id="order-18")
            job = await rt.submit(once, gate, 1)
            with pytest.raises((ValueError, bgruntime.BgRuntimeError), match="order-18"):
                await rt.submit(once, gate, 2)
            gate.open()
            assert await job == 1
        assert gate.started == [1]

    run(main)


def test_the_attempt_counts_from_one_and_is_nought_before_the_start(run: Any, clock: Any) -> None:
    async def main() -> None:
        @task(max_attempts=3, backoff=lambda state: 1)
        async def flaky() -> int:
            attempt = bgruntime.current_job().attempt
            if attempt < 3:
                raise OSError("down")
            return attempt

        async with Runtime() as rt:
            job = rt.submit_nowait(flaky)
            assert job.attempt == 0
            for attempt in (1, 2):
                await until(lambda: word(job.state) == "retryable")
                assert job.attempt == attempt
                await clock.advance(1)
            assert await job == 3
            assert job.attempt == 3

    run(main)


def test_the_tags_given_are_the_tags(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(double.with_options(tags=("mail", "eu")), 1)
            assert list(job.tags) == ["mail", "eu"]
            assert list((await rt.submit(double, 1)).tags) == []

    run(main)


def test_the_reason_is_none_for_a_job_that_just_completes(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(double, 1)
            assert job.reason is None
            await job
            assert job.reason is None

    run(main)


def test_the_repr_has_the_task_and_the_state_and_no_arguments(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold, gate, "s3cret")
            await until(lambda: gate.started)
            assert hold.name in repr(job)
            assert "running" in repr(job)
            gate.open()
            await job
            assert "completed" in repr(job)
            assert "s3cret" not in repr(job)

    run(main)


def test_a_job_is_a_job_of_its_type(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            assert isinstance(await rt.submit(double, 1), Job)

    run(main)


def test_a_handle_that_is_dropped_leaks_nothing_and_hides_nothing(run: Any) -> None:
    ended: list[str] = []

    class Heavy: ...

    @task
    async def quiet_failure(heavy: Heavy) -> None:
        ended.append("ran")
        raise LookupError("nobody looks")

    async def main() -> None:
        async with Runtime() as rt:
            heavy = Heavy()
            seen = weakref.ref(heavy)
            await rt.submit(quiet_failure, heavy)
            del heavy
            await rt.drain()
            gc.collect()
            assert seen() is None
            [job] = rt.jobs()
            assert word(job.state) == "discarded"

    run(main)
    assert ended == ["ran"]


def test_a_finished_job_lets_go_of_its_arguments(run: Any) -> None:
    class Heavy: ...

    @task
    async def weigh(heavy: Heavy) -> str:
        return "light"

    async def main() -> None:
        async with Runtime() as rt:
            heavy = Heavy()
            seen = weakref.ref(heavy)
            job = await rt.submit(weigh, heavy)
            del heavy
            assert await job == "light"
            await turns()
            gc.collect()
            assert seen() is None

    run(main)


def test_rt_job_finds_live_and_finished_jobs_by_id(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            live = await rt.submit(hold, gate, 0)
            done = await rt.submit(double, 2)
            await done
            assert rt.job(live.id) is live
            found = rt.job(done.id)
            assert found is not None
            assert (found.id, word(found.state), found.task) == (
                done.id,
                "completed",
                double.name,
            )
            gate.open()

    run(main)


def test_rt_job_of_an_id_nobody_knows_is_none(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            assert rt.job("nobody") is None

    run(main)


def test_rt_jobs_looks_by_state_and_by_task(run: Any, clock: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=2) as rt:
            running = [await rt.submit(hold, gate, n) for n in range(2)]
            queued = await rt.submit(hold, gate, 2)
            later = await rt.submit(double.with_options(delay=60), 1)
            await until(lambda: len(gate.started) == 2)

            def ids(**which: Any) -> set[str]:
                return {job.id for job in rt.jobs(**which)}

            assert ids() == {job.id for job in (*running, queued, later)}
            assert ids(state="running") == {job.id for job in running}
            assert ids(state="available") == {queued.id}
            assert ids(state="scheduled") == {later.id}
            assert ids(task=hold.name) == {job.id for job in (*running, queued)}
            assert ids(task=hold) == ids(task=hold.name)
            assert ids(state="available", task=double.name) == set()
            gate.open()
            for job in (*running, queued):
                await job
            assert ids(state="completed") == {job.id for job in (*running, queued)}
            later.cancel()

    run(main)


def test_rt_jobs_of_a_state_that_does_not_exist_is_refused(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(ValueError, match="runing"):
                rt.jobs(state="runing")

    run(main)


def test_the_ring_of_finished_jobs_is_bounded_and_keeps_the_last(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            jobs = [await rt.submit(double, n) for n in range(1500)]
            for job in jobs:
                await job
            first, last = jobs[0].id, jobs[-1].id
            jobs.clear()
            del job
            gc.collect()
            assert len(rt.jobs(state="completed")) == 1000
            assert rt.job(last) is not None
            assert rt.job(first) is None

    run(main)
