"""P13: a group behaves exactly as `asyncio.TaskGroup` in 3.13 does, and owns its jobs."""

from __future__ import annotations

import asyncio

import pytest

from bgruntime import JobCancelled, Runtime, RuntimeClosed, task

from .steps import Gate, turns, until, word


@task
async def fail(text="failed"):
    raise ValueError(text)


def test_p13_group_leaves_when_all_its_jobs_ended(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:

            async def owner():
                async with rt.group() as group:
                    job = await group.submit(gate.hold, 1)
                    other = group.submit_nowait(gate.hold, 2)
                return job.result(), other.result()

            owning = asyncio.ensure_future(owner())
            await until(lambda: len(gate.started) == 2)
            await turns()
            assert not owning.done()
            gate.open()
            assert await owning == (1, 2)

    run(main)


def test_p13_group_waits_for_jobs_that_its_jobs_submit(run):
    async def main():
        ran = []
        async with Runtime(concurrency=1) as rt:
            async with rt.group() as group:

                @task
                async def grow(depth):
                    ran.append(depth)
                    if depth:
                        await group.submit(grow, depth - 1)

                await group.submit(grow, 5)
            assert ran == [5, 4, 3, 2, 1, 0]

    run(main)


def test_p13_group_first_failure_cancels_the_other_jobs_and_the_body_then_raises_a_group(run):
    async def main():
        gate, body = Gate(), []
        async with Runtime() as rt:
            with pytest.raises(ExceptionGroup) as raised:
                async with rt.group() as group:
                    await group.submit(gate.hold, "sibling")
                    await until(lambda: gate.started)
                    await group.submit(fail)
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:
                        body.append("cancelled")
                        raise
            assert [str(error) for error in raised.value.exceptions] == ["failed"]
            assert body == ["cancelled"]
            assert gate.cancelled == ["sibling"]
            assert asyncio.current_task().cancelling() == 0
            await asyncio.sleep(0)  # the cancellation was the group's own, and is over

    run(main)


def test_p13_group_a_body_that_does_not_suspend_still_gets_the_exceptiongroup(run):
    async def main():
        async with Runtime() as rt:
            with pytest.raises(ExceptionGroup):
                async with rt.group() as group:
                    group.submit_nowait(fail)
            assert asyncio.current_task().cancelling() == 0
            await asyncio.sleep(0)

    run(main)


def test_p13_group_several_failures_are_all_in_the_exceptiongroup(run):
    async def main():
        both = asyncio.Event()

        @task
        async def together(text):
            await both.wait()
            raise ValueError(text)

        async with Runtime() as rt:
            with pytest.raises(ExceptionGroup) as raised:
                async with rt.group() as group:
                    await group.submit(together, "one")
                    await group.submit(together, "two")
                    await turns()
                    both.set()
            assert sorted(str(error) for error in raised.value.exceptions) == ["one", "two"]

    run(main)


def test_p13_group_a_job_that_fails_while_it_is_cancelled_is_no_failure_of_its_own(run):
    """A job the group cancelled ends cancelled, whatever its clean-up raises."""

    async def main():
        @task
        async def untidy():
            try:
                await asyncio.Event().wait()
            finally:
                raise KeyError("clean-up")

        async with Runtime() as rt:
            with pytest.raises(ExceptionGroup) as raised:
                async with rt.group() as group:
                    await group.submit(untidy)
                    await turns()
                    await group.submit(fail, "first")
            assert isinstance(raised.value.exceptions[0], ValueError)

    run(main)


def test_p13_group_the_bodys_own_exception_joins_the_exceptiongroup(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            with pytest.raises(ExceptionGroup) as raised:
                async with rt.group() as group:
                    await group.submit(gate.hold)
                    await until(lambda: gate.started)
                    raise LookupError("body")
            assert [type(error) for error in raised.value.exceptions] == [LookupError]
            assert gate.running == 0
            assert len(gate.cancelled) == 1

            with pytest.raises(ExceptionGroup) as raised:
                async with rt.group() as group:
                    await group.submit(fail, "job")
                    try:
                        await asyncio.Event().wait()
                    finally:
                        raise LookupError("body")
            assert {type(error) for error in raised.value.exceptions} == {LookupError, ValueError}

    run(main)


@pytest.mark.parametrize("problem", [KeyboardInterrupt, SystemExit])
def test_p13_group_keyboardinterrupt_and_systemexit_of_the_body_leave_bare(run, problem):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            try:
                async with rt.group() as group:
                    await group.submit(gate.hold)
                    await until(lambda: gate.started)
                    raise problem
            except problem:
                seen = "bare"
            assert seen == "bare"
            assert gate.running == 0

    run(main)


def test_p13_group_a_cancelled_job_is_no_failure(run):
    async def main():
        gate, other = Gate(), Gate()
        async with Runtime() as rt:
            async with rt.group() as group:
                job = await group.submit(gate.hold)
                sibling = await group.submit(other.hold, "sibling")
                await until(lambda: gate.started and other.started)
                job.cancel()
                await job.wait()
                await turns()
                assert word(sibling.state) == "running"
                other.open()
            assert sibling.result() == "sibling"
            with pytest.raises(JobCancelled):
                job.result()

    run(main)


def test_p13_group_only_a_final_failure_counts(run, clock):
    async def main():
        calls = []

        @task(max_attempts=2, backoff=lambda _: 5.0)
        async def flaky():
            calls.append(1)
            if len(calls) == 1:
                raise ValueError
            return "second"

        async with Runtime() as rt:
            async with rt.group() as group:
                job = await group.submit(flaky)
                await until(lambda: word(job.state) == "retryable")
                await clock.advance(5.0)
            assert job.result() == "second"

    run(main)


def test_p13_group_cancelling_its_owner_cancels_the_jobs_waits_and_is_not_lost(run):
    async def main():
        cleaned, alone = [], Gate()

        @task
        async def work():
            try:
                await asyncio.Event().wait()
            finally:
                await turns(3)
                cleaned.append(1)

        async with Runtime() as rt:
            mine = await rt.submit(alone.hold)

            async def owner(in_body):
                async with rt.group() as group:
                    await group.submit(work)
                    await group.submit(work)
                    if in_body:
                        await asyncio.Event().wait()

            for in_body in (True, False):
                cleaned.clear()
                owning = asyncio.ensure_future(owner(in_body))
                await until(lambda: rt.stats().running == 3)
                await turns()
                owning.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await owning
                assert cleaned == [1, 1]
                assert owning.cancelling() == 1
            assert word(mine.state) == "running"
            alone.open()

    run(main)


def test_p13_group_a_cancellation_that_meets_a_failure_raises_the_group_and_is_re_armed(run):
    async def main():
        seen, let_go = [], asyncio.Event()

        @task
        async def slow_to_stop():
            try:
                await asyncio.Event().wait()
            finally:
                await let_go.wait()

        async with Runtime() as rt:

            async def owner():
                try:
                    async with rt.group() as group:
                        await group.submit(slow_to_stop)
                        await turns()
                        await group.submit(fail)
                        await asyncio.Event().wait()
                except ExceptionGroup as failures:
                    seen.append([type(error) for error in failures.exceptions])
                    seen.append(asyncio.current_task().cancelling())
                    try:
                        await asyncio.sleep(0)
                    except asyncio.CancelledError:
                        seen.append("re-armed")
                        raise

            owning = asyncio.ensure_future(owner())
            # The failure has happened, the group waits for the sibling's clean-up.
            await turns(20)
            assert not owning.done()
            owning.cancel()
            await turns()
            let_go.set()
            with pytest.raises(asyncio.CancelledError):
                await owning
        assert seen == [[ValueError], 1, "re-armed"]

    run(main)


def test_p13_group_a_native_taskgroup_of_this_shape_agrees(run):
    """The failure in a job and in a native child give the same exception, count and aftermath."""

    async def main():
        async def raises():
            raise ValueError("same")

        async def outcome(enter):
            problem = None
            try:
                async with enter() as group:
                    if isinstance(group, asyncio.TaskGroup):
                        group.create_task(raises())
                    else:
                        await group.submit(fail, "same")
                    await asyncio.Event().wait()
            except BaseException as error:
                problem = error
            await asyncio.sleep(0)
            return (
                type(problem),
                [repr(error) for error in problem.exceptions],
                asyncio.current_task().cancelling(),
            )

        async with Runtime() as rt:
            assert await outcome(rt.group) == await outcome(asyncio.TaskGroup)

    run(main)


def test_p13_group_inside_a_timeout_scope_lets_it_time_out(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    async with rt.group() as group:
                        await group.submit(gate.hold)
            assert gate.running == 0
            assert asyncio.current_task().cancelling() == 0

    run(main)


def test_p13_group_nested_in_a_taskgroup_keeps_the_outer_one_whole(run):
    async def main():
        async with Runtime() as rt:
            with pytest.raises(ExceptionGroup) as raised:
                async with asyncio.TaskGroup() as outer:

                    async def child():
                        async with rt.group() as group:
                            await group.submit(fail, "deep")
                            await asyncio.Event().wait()

                    outer.create_task(child())
            assert raised.group_contains(ValueError, match="deep", depth=2)

    run(main)


def test_p13_group_misuse_is_an_error_at_once(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            group = rt.group()
            with pytest.raises(RuntimeError):
                await group.submit(gate.note)
            with pytest.raises(RuntimeError):
                group.submit_nowait(gate.note)
            async with group:
                with pytest.raises(RuntimeError):
                    await group.__aenter__()
            with pytest.raises(RuntimeError):
                await group.submit(gate.note)
            with pytest.raises(RuntimeError):
                await group.__aenter__()
        assert gate.started == []

    run(main)


def test_p13_group_submitting_while_it_fails_is_an_error_at_once(run):
    async def main():
        gate, let_go, refused = Gate(), asyncio.Event(), []

        async with Runtime() as rt:

            @task
            async def lingering(group):
                try:
                    await asyncio.Event().wait()
                finally:
                    with pytest.raises(RuntimeError):
                        await group.submit(gate.note)
                    refused.append(1)

            with pytest.raises(ExceptionGroup):
                async with rt.group() as group:
                    await group.submit(lingering, group)
                    await turns()
                    await group.submit(fail)
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:
                        with pytest.raises(RuntimeError):
                            await group.submit(gate.note)
                        refused.append(2)
                        raise
            let_go.set()
        assert sorted(refused) == [1, 2]
        assert gate.started == []

    run(main)


def test_p13_group_on_a_closed_runtime_is_runtimeclosed(run):
    async def main():
        gate = Gate()
        rt = Runtime()
        async with rt:
            pass
        with pytest.raises((RuntimeClosed, BaseExceptionGroup)) as raised:
            async with rt.group() as group:
                await group.submit(gate.note)
        if isinstance(raised.value, BaseExceptionGroup):
            assert raised.group_contains(RuntimeClosed)
        assert gate.started == []

    run(main)


def test_p13_group_a_coroutine_object_refused_by_a_group_is_closed(run):
    async def main():
        ran = []

        async def work():
            ran.append(1)

        async with Runtime() as rt:
            with pytest.raises(RuntimeError):
                await rt.group().submit(work())
        assert ran == []

    run(main)
