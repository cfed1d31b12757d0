"""The submit family: what it accepts, what it refuses, and that a refusal has no effect."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import bgruntime
from bgruntime import ForkedRuntime, Job, QueueFull, Runtime, RuntimeClosed, WrongLoop, task
from tests.door.turns import Gate, from_thread, hold, turns, until, word


@task
async def double(n: int) -> int:
    return n * 2


@task
def thread_name() -> str:
    return threading.current_thread().name


async def refusals(rt: Runtime, error: type[BaseException]) -> None:
    """Every way in refuses with `error`."""
    with pytest.raises(error):
        await rt.submit(double, 1)
    with pytest.raises(error):
        rt.submit_nowait(double, 1)
    with pytest.raises(error):
        await rt.submit_many(double, [(1,), (2,)])
    with pytest.raises(error):
        await rt.map(double, [1, 2])
    with pytest.raises(error):
        await rt.gather(double.bind(1))
    with contextlib.suppress(error):
        async with rt.group() as group:
            with pytest.raises(error):
                await group.submit(double, 1)
            with pytest.raises(error):
                group.submit_nowait(double, 1)
    with pytest.raises(error):
        await from_thread(lambda: rt.submit_threadsafe(double, 1))


def test_submit_gives_a_job_and_the_job_gives_the_value(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(double, 21)
            assert isinstance(job, Job)
            assert await job == 42

    run(main)


def test_arguments_named_like_those_of_submit_go_to_the_task(run: Any) -> None:
    @task
    async def echo(task: str, self: int, fn: float, limit: int) -> tuple[Any, ...]:
        return task, self, fn, limit

    async def main() -> None:
        async with Runtime() as rt:
            values = {"task": "a", "self": 1, "fn": 2.0, "limit": 3}
            assert await (await rt.submit(echo, **values)) == ("a", 1, 2.0, 3)
            assert await rt.submit_nowait(echo, **values) == ("a", 1, 2.0, 3)
            future = rt.submit_threadsafe(echo, **values)
            assert await asyncio.wrap_future(future) == ("a", 1, 2.0, 3)

    run(main)


def test_no_line_of_a_job_runs_before_submit_has_returned(run: Any) -> None:
    async def main() -> None:
        ran: list[str] = []

        @task
        async def note() -> None:
            ran.append("job")

        async with Runtime() as rt:
            job = rt.submit_nowait(note)
            assert ran == []
            await job
            job = await rt.submit(note)
            ran.append("returned")
            await job
        assert ran == ["job", "returned", "job"]

    run(main)


def test_submit_nowait_never_waits(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            jobs = [rt.submit_nowait(hold, gate, n) for n in range(2)]
            with pytest.raises(QueueFull, match="1"):
                rt.submit_nowait(hold, gate, 2)
            gate.open()
            assert [await job for job in jobs] == [0, 1]
        assert gate.started == [0, 1]

    run(main)


def test_queue_full_is_never_raised_while_a_slot_is_free(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=5, queue_size=1, overflow="reject") as rt:
            for n in range(6):
                await rt.submit(hold, gate, n)
            with pytest.raises(QueueFull):
                await rt.submit(hold, gate, 6)
            gate.open()
        assert sorted(gate.finished) == [0, 1, 2, 3, 4, 5]

    run(main)


def test_submit_waits_for_room_first_come_first_served(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            await rt.submit(hold, gate, 0)
            await rt.submit(hold, gate, 1)
            late = [asyncio.create_task(rt.submit(hold, gate, n)) for n in (2, 3, 4)]
            await turns()
            assert not any(waiter.done() for waiter in late)
            with pytest.raises(QueueFull):
                rt.submit_nowait(hold, gate, 5)
            gate.open()
            assert [await (await waiter) for waiter in late] == [2, 3, 4]
        assert gate.started == [0, 1, 2, 3, 4]

    run(main)


def test_a_wait_for_room_ends_in_queue_full_at_its_limit(run: Any, clock: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1, wait_limit=3) as rt:
            await rt.submit(hold, gate, 0)
            await rt.submit(hold, gate, 1)
            waiter = asyncio.create_task(rt.submit(hold, gate, 2))
            await turns()
            await clock.advance(2.9)
            await turns()
            assert not waiter.done()
            await clock.advance(0.2)
            with pytest.raises(QueueFull, match="3"):
                await waiter
            gate.open()
        assert gate.started == [0, 1]

    run(main)


def test_a_cancelled_wait_for_room_submits_nothing(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            await rt.submit(hold, gate, 0)
            await rt.submit(hold, gate, 1)
            waiter = asyncio.create_task(rt.submit(hold, gate, 2))
            behind = asyncio.create_task(rt.submit(hold, gate, 3))
            await turns()
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            gate.open()
            assert await (await behind) == 3
        assert gate.started == [0, 1, 3]

    run(main)


def test_drop_oldest_makes_room_and_tells_the_dropped_one(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=2, overflow="drop_oldest") as rt:
            await rt.submit(hold, gate, 0)
            await until(lambda: gate.started)
            dropped = await rt.submit(hold, gate, 1)
            await rt.submit(hold, gate, 2)
            await rt.submit(hold, gate, 3)
            with pytest.raises(bgruntime.JobCancelled) as caught:
                await dropped
            assert word(caught.value.reason) == "dropped"
            gate.open()
        assert gate.started == [0, 2, 3]

    run(main)


def test_submit_from_inside_a_job_is_refused_at_once_when_the_queue_is_full(run: Any) -> None:
    async def main() -> None:
        gate = Gate()

        @task
        async def parent(rt: Runtime) -> str:
            with pytest.raises(QueueFull):
                await rt.submit(hold, gate, 9)
            return "went on"

        async with Runtime(concurrency=1, queue_size=1) as rt:
            job = await rt.submit(parent, rt)
            await rt.submit(hold, gate, 1)
            gate.open()
            assert await job == "went on"

    run(main)


def test_submit_many_accepts_all_in_order(run: Any) -> None:
    async def main() -> None:
        async with Runtime(concurrency=3) as rt:
            jobs = await rt.submit_many(double, [(n,) for n in range(10)])
            assert isinstance(jobs, list)
            assert [await job for job in jobs] == [n * 2 for n in range(10)]
            assert await rt.submit_many(double, []) == []

    run(main)


def test_submit_many_takes_any_iterable_of_tuples(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            jobs = await rt.submit_many(double, ((n,) for n in range(3)))
            assert [await job for job in jobs] == [0, 2, 4]

    run(main)


def test_submit_many_that_can_never_fit_is_queue_full_with_no_effect(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=2, queue_size=3) as rt:
            with pytest.raises(QueueFull, match="6"):
                await rt.submit_many(hold, [(gate, n) for n in range(6)])
            gate.open()
            jobs = await rt.submit_many(hold, [(gate, n) for n in range(5)])
            assert [await job for job in jobs] == [0, 1, 2, 3, 4]
        assert gate.started == [0, 1, 2, 3, 4]

    run(main)


def test_submit_many_without_room_now_is_all_or_nothing(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=3, overflow="reject") as rt:
            await rt.submit(hold, gate, "first")
            await rt.submit(hold, gate, "second")
            with pytest.raises(QueueFull):
                await rt.submit_many(hold, [(gate, n) for n in range(3)])
            gate.open()
        assert gate.started == ["first", "second"]

    run(main)


def test_submit_many_waits_until_all_fit_at_once(run: Any) -> None:
    async def main() -> None:
        gate, other = Gate(), Gate()
        async with Runtime(concurrency=1, queue_size=3) as rt:
            await rt.submit(hold, gate, "first")
            await rt.submit(hold, other, "second")
            waiter = asyncio.create_task(rt.submit_many(hold, [(other, n) for n in range(3)]))
            await turns()
            assert not waiter.done()
            gate.open()
            other.open()
            assert [await job for job in await waiter] == [0, 1, 2]

    run(main)


def test_submit_before_entering_is_runtime_closed(run: Any) -> None:
    async def main() -> None:
        rt = Runtime()
        with pytest.raises(RuntimeClosed):
            await rt.submit(double, 1)
        with pytest.raises(RuntimeClosed):
            rt.submit_nowait(double, 1)
        with pytest.raises(RuntimeClosed):
            await rt.submit_many(double, [(1,)])
        with pytest.raises(RuntimeClosed):
            await rt.gather(double.bind(1))
        with pytest.raises(RuntimeClosed):
            await rt.map(double, [1])

    run(main)


def test_submit_after_the_stop_is_runtime_closed(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            assert await (await rt.submit(double, 1)) == 2
        await refusals(rt, RuntimeClosed)

    run(main)


def test_submit_while_the_runtime_stops_is_runtime_closed(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            await rt.submit(hold, gate, 0)
            await until(lambda: gate.started)
            stopping = asyncio.create_task(rt.stop(drain=30))
            await turns()
            await refusals(rt, RuntimeClosed)
            gate.open()
            await stopping
        assert gate.finished == [0]

    run(main)


def test_a_waiter_for_room_learns_that_the_runtime_stops(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            await rt.submit(hold, gate, 0)
            await rt.submit(hold, gate, 1)
            waiter = asyncio.create_task(rt.submit(hold, gate, 2))
            await turns()
            stopping = asyncio.create_task(rt.stop(drain=30))
            with pytest.raises(RuntimeClosed):
                await waiter
            gate.open()
            await stopping
        assert gate.started == [0, 1]

    run(main)


def in_a_thread(function: Callable[[], Any]) -> Any:
    """What `function` returned or raised in a thread of its own."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(30)


async def aside(function: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function)


def test_a_foreign_thread_gets_wrong_loop_from_submit(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:

            def nowait() -> None:
                with pytest.raises(WrongLoop, match="submit_threadsafe"):
                    rt.submit_nowait(double, 1)

            def waiting() -> None:
                with pytest.raises(WrongLoop):
                    asyncio.run(rt.submit(double, 1))  # type: ignore[arg-type]

            await aside(nowait)
            await aside(waiting)

    run(main)


def test_another_loop_gets_wrong_loop(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:

            async def elsewhere() -> None:
                for refused in (
                    lambda: rt.submit(double, 1),
                    lambda: rt.submit_many(double, [(1,)]),
                    lambda: rt.gather(double.bind(1)),
                    lambda: rt.drain(),
                ):
                    with pytest.raises(WrongLoop):
                        await refused()

            await aside(lambda: asyncio.run(elsewhere()))
            assert await (await rt.submit(double, 4)) == 8

    run(main)


def test_submit_threadsafe_gives_a_future_of_the_result(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:

            def caller() -> int:
                future = rt.submit_threadsafe(double, 21)
                assert isinstance(future, concurrent.futures.Future)
                return future.result(10)

            assert await aside(caller) == 42

    run(main)


def test_submit_threadsafe_gives_the_exception_of_the_job(run: Any) -> None:
    @task
    async def fail() -> None:
        raise LookupError("gone")

    async def main() -> None:
        async with Runtime() as rt:

            def caller() -> None:
                with pytest.raises(LookupError, match="gone"):
                    rt.submit_threadsafe(fail).result(10)

            await aside(caller)

    run(main)


def test_submit_threadsafe_gives_queue_full_when_the_policy_rejects(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1, overflow="reject") as rt:
            await rt.submit(hold, gate, 0)
            await rt.submit(hold, gate, 1)

            def caller() -> None:
                with pytest.raises(QueueFull):
                    rt.submit_threadsafe(hold, gate, 2).result(10)

            await aside(caller)
            gate.open()

    run(main)


def test_submit_threadsafe_of_a_runtime_never_entered_is_runtime_closed() -> None:
    with pytest.raises(RuntimeClosed):
        Runtime().submit_threadsafe(double, 1).result(5)


def test_submit_threadsafe_after_the_loop_is_gone_is_runtime_closed(run: Any) -> None:
    async def main() -> Runtime:
        async with Runtime() as rt:
            return rt

    rt = run(main)
    with pytest.raises(RuntimeClosed):
        rt.submit_threadsafe(double, 1).result(5)


def test_threads_that_submit_while_the_runtime_stops_all_get_an_answer(run: Any) -> None:
    answers: list[str] = []

    async def main() -> None:
        rt = Runtime(concurrency=4, queue_size=50)
        running = threading.Event()

        def caller() -> None:
            while True:
                try:
                    assert rt.submit_threadsafe(double, 3).result(20) == 6
                except (RuntimeClosed, bgruntime.JobInterrupted) as error:
                    answers.append(type(error).__name__)
                    return
                running.set()

        async with rt:
            threads = [threading.Thread(target=caller) for _ in range(4)]
            for thread in threads:
                thread.start()
            await aside(lambda: running.wait(20))
            await rt.stop(drain=5)
        for thread in threads:
            await aside(lambda thread=thread: thread.join(20))  # type: ignore[misc]
            assert not thread.is_alive()

    run(main)
    assert len(answers) == 4


def fork(child: Callable[[], None]) -> int:
    """The exit status of a forked process that runs `child` and nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return -9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_is_refused_and_the_parent_goes_on(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold, gate, "kept")
            await until(lambda: gate.started)

            def child() -> None:
                with pytest.raises(ForkedRuntime):
                    rt.submit_nowait(double, 1)
                with pytest.raises(ForkedRuntime):
                    rt.submit(double, 1).send(None)  # type: ignore[attr-defined]
                with pytest.raises(ForkedRuntime):
                    rt.submit_threadsafe(double, 1).result(5)

            assert fork(child) == 0
            gate.open()
            assert await job == "kept"
            assert await (await rt.submit(double, 2)) == 4

    run(main)


def test_a_durable_task_without_a_journal_is_refused_at_submit(run: Any) -> None:
    called: list[int] = []

    @task(durable=True, name="door.durable")
    async def keep(n: int) -> None:
        called.append(n)

    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(bgruntime.JournalUnavailable, match="journal"):
                await rt.submit(keep, 1)
            with pytest.raises(bgruntime.JournalUnavailable):
                await rt.submit_many(keep, [(1,), (2,)])

    run(main)
    assert called == []


def test_submit_nowait_refuses_a_durable_task_and_says_what_to_use(run: Any) -> None:
    @task(durable=True, name="door.durable-nowait")
    async def keep(n: int) -> None: ...

    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(
                (ValueError, TypeError, bgruntime.BgRuntimeError), match="(?s)durable.*submit"
            ):
                rt.submit_nowait(keep, 1)

    run(main)


def test_a_submit_that_is_never_awaited_leaves_no_job(run: Any) -> None:
    called: list[int] = []

    @task
    async def note() -> None:
        called.append(1)

    async def main() -> None:
        async with Runtime() as rt:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                rt.submit(note)
            await rt.drain()

    run(main)
    assert called == []


def test_what_cannot_be_called_is_refused_at_submit(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            for thing in (3, "double", None):
                with pytest.raises((TypeError, ValueError)):
                    await rt.submit(thing)  # type: ignore[call-overload]
                with pytest.raises((TypeError, ValueError)):
                    rt.submit_nowait(thing)  # type: ignore[call-overload]

    run(main)


def test_a_plain_task_runs_in_a_thread_of_the_runtime(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            name = await (await rt.submit(thread_name))
            assert name != threading.current_thread().name

    run(main)
