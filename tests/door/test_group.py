"""`async with rt.group()`: asyncio.TaskGroup of 3.13, with jobs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import bgruntime
from bgruntime import Job, Runtime, task
from tests.door.turns import Gate, hold, turns, until, word

MISUSE = (RuntimeError, bgruntime.BgRuntimeError)


@task
async def double(n: int) -> int:
    await asyncio.sleep(0)
    return n * 2


@task
async def fail(text: str = "failed") -> None:
    raise LookupError(text)


def test_a_group_leaves_when_all_its_jobs_have_ended(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            async with rt.group() as group:
                first = await group.submit(double, 1)
                second = group.submit_nowait(double, n=2)
                assert isinstance(first, Job)
                assert isinstance(second, Job)
            assert (first.result(), second.result()) == (2, 4)

    run(main)


def test_an_empty_group_leaves_at_once(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt, rt.group():
            pass

    run(main)


def test_a_group_waits_for_the_retries_of_its_jobs(run: Any, clock: Any) -> None:
    @task(max_attempts=2, backoff=lambda state: 5)
    async def second_time() -> int:
        if bgruntime.current_job().attempt == 1:
            raise OSError("down")
        return 2

    async def main() -> None:
        async with Runtime() as rt:

            async def owner() -> int:
                async with rt.group() as group:
                    job = await group.submit(second_time)
                return job.result()

            running = asyncio.create_task(owner())
            await clock.advance(4)
            assert not running.done()
            await clock.advance(2)
            assert await running == 2

    run(main)


def test_the_first_final_failure_cancels_the_other_jobs_and_the_body(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        reached: list[str] = []
        async with Runtime() as rt:
            with pytest.raises(ExceptionGroup) as caught:
                async with rt.group() as group:
                    await group.submit(hold, gate, 1)
                    await until(lambda: gate.started)
                    await group.submit(fail, "boom")
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:
                        reached.append("cancelled")
                        raise
                    reached.append("too far")
            [error] = caught.value.exceptions
            assert isinstance(error, LookupError)
            assert error.args == ("boom",)
            assert gate.cancelled == [1]
            assert reached == ["cancelled"]
            this = asyncio.current_task()
            assert this is not None
            assert this.cancelling() == 0
            await asyncio.sleep(0)

    run(main)


def test_failures_of_several_jobs_are_all_in_the_exception_group(run: Any) -> None:
    async def main() -> None:
        gate = Gate()

        @task
        async def fail_when_cancelled() -> None:
            try:
                await gate.wait()
            except asyncio.CancelledError:
                raise OSError("while cleaning up") from None

        async with Runtime() as rt:
            with pytest.raises(ExceptionGroup) as caught:
                async with rt.group() as group:
                    await group.submit(fail, "one")
                    await group.submit(fail, "two")
            assert {error.args[0] for error in caught.value.exceptions} >= {"one"}

    run(main)


def test_the_exception_of_the_body_cancels_the_jobs_and_is_in_the_group(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            error = OSError("the body's")
            with pytest.raises(ExceptionGroup) as caught:
                async with rt.group() as group:
                    await group.submit(hold, gate, 1)
                    await until(lambda: gate.started)
                    raise error
            assert caught.value.exceptions == (error,)
            assert gate.cancelled == [1]

    run(main)


def test_the_exception_of_the_body_joins_that_of_a_job(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(ExceptionGroup) as caught:
                async with rt.group() as group:
                    await group.submit(fail, "the job's")
                    try:
                        await asyncio.Event().wait()
                    finally:
                        raise OSError("the body's")
            assert {type(error) for error in caught.value.exceptions} == {LookupError, OSError}

    run(main)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_the_interpreters_own_raised_in_the_body_leave_bare(run: Any, kind: type[BaseException]) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            error = kind()
            with pytest.raises(kind) as caught:
                async with rt.group() as group:
                    await group.submit(hold, gate, 1)
                    await until(lambda: gate.started)
                    raise error
            assert caught.value is error
            assert gate.cancelled == [1]
            assert gate.now == 0

    run(main)


def test_a_cancelled_job_is_no_failure(run: Any) -> None:
    async def main() -> None:
        gate = Gate()

        @task
        async def cancel_itself() -> None:
            raise bgruntime.Cancel("enough")

        async with Runtime() as rt:
            async with rt.group() as group:
                cancelled = await group.submit(hold, gate, 1)
                itself = await group.submit(cancel_itself)
                other = await group.submit(double, 2)
                await until(lambda: gate.started)
                cancelled.cancel()
            assert word(cancelled.state) == word(itself.state) == "cancelled"
            assert other.result() == 4

    run(main)


def test_a_timed_out_job_is_a_failure_of_the_group(run: Any, clock: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:

            async def owner() -> None:
                async with rt.group() as group:
                    await group.submit(hold.with_options(timeout=2), gate)

            running = asyncio.create_task(owner())
            await until(lambda: gate.started)
            await clock.advance(3)
            with pytest.raises(ExceptionGroup) as caught:
                await running
            assert [type(error) for error in caught.value.exceptions] == [bgruntime.JobTimedOut]

    run(main)


def test_a_system_exit_of_a_job_is_a_failure_like_any_other(run: Any) -> None:
    @task
    async def leave() -> None:
        raise SystemExit(3)

    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(ExceptionGroup) as caught:
                async with rt.group() as group:
                    await group.submit(leave)
            assert [type(error) for error in caught.value.exceptions] == [bgruntime.JobExited]

    run(main)


def test_cancelling_the_owner_cancels_the_jobs_and_stays_a_cancellation(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:

            async def owner() -> None:
                async with rt.group() as group:
                    await group.submit(hold, gate, 1)

            running = asyncio.create_task(owner())
            await until(lambda: gate.started)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert gate.cancelled == [1]
            assert running.cancelled()

    run(main)


def test_cancelling_the_owner_while_jobs_fail_raises_the_group_and_rearms_the_cancellation(
    run: Any,
) -> None:
    async def main() -> None:
        seen: list[str] = []
        async with Runtime() as rt:
            gate = Gate()
            clean_up = asyncio.Event()

            @task
            async def slow_to_leave() -> None:
                try:
                    await gate.wait()
                finally:
                    await clean_up.wait()

            async def owner() -> None:
                this = asyncio.current_task()
                assert this is not None
                try:
                    async with rt.group() as group:
                        await group.submit(slow_to_leave)
                        await until(lambda: gate.started)
                        await group.submit(fail, "boom")
                except* LookupError:
                    seen.append("group")
                assert this.cancelling() == 1
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    seen.append("cancelled")
                    raise

            running = asyncio.create_task(owner())
            await until(lambda: gate.cancelled)
            running.cancel()
            await turns()
            clean_up.set()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert seen == ["group", "cancelled"]

    run(main)


def test_a_timeout_around_a_group_is_a_timeout_and_leaves_no_count(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    async with rt.group() as group:
                        await group.submit(hold, gate, 1)
            assert gate.cancelled == [1]
            this = asyncio.current_task()
            assert this is not None
            assert this.cancelling() == 0

    run(main)


def test_entering_a_group_again_is_an_error_at_once(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            group = rt.group()
            async with group:
                with pytest.raises(MISUSE):
                    async with group:
                        pass
                job = await group.submit(double, 1)
            assert job.result() == 2
            with pytest.raises(MISUSE):
                async with group:
                    pass

    run(main)


def test_submitting_before_entry_is_an_error_at_once(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            group = rt.group()
            with pytest.raises(MISUSE):
                await group.submit(double, 1)
            with pytest.raises(MISUSE):
                group.submit_nowait(double, 1)
            await rt.drain()
            assert rt.jobs() == []

    run(main)


def test_submitting_after_the_end_is_an_error_at_once(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            async with rt.group() as group:
                pass
            with pytest.raises(MISUSE):
                await group.submit(double, 1)
            with pytest.raises(MISUSE):
                group.submit_nowait(double, 1)
            coroutine = double.__wrapped__(1)
            with pytest.raises(MISUSE):
                await group.submit(coroutine)
            assert coroutine.cr_frame is None

    run(main)


def test_submitting_while_the_group_fails_is_an_error_at_once(run: Any) -> None:
    async def main() -> None:
        refused: list[type[BaseException]] = []
        async with Runtime() as rt:
            with pytest.raises(ExceptionGroup):
                async with rt.group() as group:
                    await group.submit(fail)
                    try:
                        await asyncio.Event().wait()
                    finally:
                        with pytest.raises(MISUSE) as caught:
                            await group.submit(double, 1)
                        refused.append(caught.type)
        assert len(refused) == 1

    run(main)


def test_a_job_of_a_group_may_submit_to_it_while_the_owner_waits(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            jobs: list[Job[int]] = []

            async with rt.group() as group:

                async def more() -> None:
                    jobs.append(await group.submit(double, 5))

                await group.submit(more)
            assert [job.result() for job in jobs] == [10]

    run(main)


def test_a_group_inside_a_job_holds_no_slot_while_it_waits(run: Any) -> None:
    async def main() -> None:
        async with Runtime(concurrency=1, queue_size=1) as rt:

            async def parent() -> list[int]:
                async with rt.group() as group:
                    jobs = [await group.submit(double, n) for n in range(5)]
                return [job.result() for job in jobs]

            assert await (await rt.submit(parent)) == [0, 2, 4, 6, 8]

    run(main)


def test_groups_nest(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            with pytest.raises(ExceptionGroup) as caught:
                async with rt.group() as outer:
                    await outer.submit(hold, gate, "outer")
                    async with rt.group() as inner:
                        await inner.submit(hold, gate, "inner")
                        await until(lambda: len(gate.started) == 2)
                        await inner.submit(fail, "deep")
            [inner_group] = caught.value.exceptions
            assert isinstance(inner_group, ExceptionGroup)
            assert [str(error.args[0]) for error in inner_group.exceptions] == ["deep"]
            assert sorted(gate.cancelled) == ["inner", "outer"]

    run(main)


def test_a_failure_awaited_in_the_body_is_still_told_by_the_group(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(ExceptionGroup) as caught:
                async with rt.group() as group:
                    job = await group.submit(fail, "seen")
                    await job.wait()
            assert caught.value.subgroup(LookupError) is not None

    run(main)
