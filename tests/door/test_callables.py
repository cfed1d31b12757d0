"""What may be submitted besides a decorated function, and what is refused."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import sys
import threading
import warnings
from collections.abc import Awaitable, Coroutine
from typing import Any

import pytest

import bgruntime
from bgruntime import QueueFull, Runtime, RuntimeClosed, task
from tests.door.turns import Gate, from_thread, hold, until, word

REFUSED = (ValueError, TypeError, bgruntime.BgRuntimeError)


async def add(a: int, b: int = 10) -> int:
    await asyncio.sleep(0)
    return a + b


def where(prefix: str = "") -> str:
    return prefix + threading.current_thread().name


def returns_a_coroutine(a: int) -> Coroutine[Any, Any, int]:
    return add(a)


def returns_a_future(a: int) -> Awaitable[int]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(a)
    return future


class Adder:
    def __init__(self, a: int) -> None:
        self.a = a

    async def __call__(self, b: int) -> int:
        await asyncio.sleep(0)
        return self.a + b


class Where:
    def __call__(self) -> str:
        return threading.current_thread().name


def submitted(run: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
    """The result of one job of `function`."""

    async def main() -> Any:
        async with Runtime() as rt:
            return await (await rt.submit(function, *args, **kwargs))

    return run(main)


def test_a_coroutine_function_never_decorated_is_submitted_as_it_is(run: Any) -> None:
    assert submitted(run, add, 1, b=2) == 3


def test_a_plain_function_never_decorated_runs_in_a_thread(run: Any) -> None:
    assert submitted(run, where, prefix="in ") != f"in {threading.current_thread().name}"


def test_a_lambda_is_submitted(run: Any) -> None:
    assert submitted(run, lambda a: a + 1, 1) == 2


def test_a_builtin_is_submitted(run: Any) -> None:
    assert submitted(run, len, "four") == 4


def test_a_partial_of_a_coroutine_function_is_awaited(run: Any) -> None:
    assert submitted(run, functools.partial(add, 1), 2) == 3
    assert submitted(run, functools.partial(functools.partial(add, 1), b=5)) == 6


def test_a_partial_of_a_plain_function_runs_in_a_thread(run: Any) -> None:
    assert submitted(run, functools.partial(where, "in ")) != where("in ")


def test_a_partial_of_a_task_runs_the_task(run: Any) -> None:
    wrapped = task(add, name="door.partial-of-task")
    assert submitted(run, functools.partial(wrapped, 1), 2) == 3


def test_an_object_with_an_async_call_is_awaited(run: Any) -> None:
    assert submitted(run, Adder(1), 2) == 3


def test_a_partial_of_an_object_with_an_async_call_is_awaited(run: Any) -> None:
    assert submitted(run, functools.partial(Adder(1), 2)) == 3


def test_an_object_with_a_plain_call_runs_in_a_thread(run: Any) -> None:
    assert submitted(run, Where()) != threading.current_thread().name


def test_a_bound_method_is_submitted_for_what_it_is(run: Any) -> None:
    class Service:
        async def answer(self, a: int) -> int:
            return a

        def thread(self) -> str:
            return threading.current_thread().name

    assert submitted(run, Service().answer, 4) == 4
    assert submitted(run, Service().thread) != threading.current_thread().name


def test_a_plain_function_annotated_to_return_a_coroutine_is_awaited(run: Any) -> None:
    assert submitted(run, returns_a_coroutine, 1) == 11


def test_a_lambda_that_returns_a_coroutine_is_awaited(run: Any) -> None:
    assert submitted(run, lambda: add(1, 2)) == 3


def test_a_plain_function_annotated_to_return_an_awaitable_is_awaited(run: Any) -> None:
    assert submitted(run, returns_a_future, 5) == 5


def test_a_decorated_function_of_a_decorator_that_hides_async_is_awaited(run: Any) -> None:
    def traced(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    assert submitted(run, traced(add), 1, 2) == 3


def test_the_job_of_an_undecorated_function_has_the_defaults_and_its_name(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(add, 1)
            assert job.task == f"{__name__}:add"
            assert await job == 11
            assert job.attempt == 1

    run(main)


def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


@pytest.mark.parametrize("function", [generator, async_generator])
def test_a_generator_function_is_refused_at_submit(run: Any, function: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises((TypeError, ValueError), match="generator"):
                await rt.submit(function)
            with pytest.raises((TypeError, ValueError), match="generator"):
                rt.submit_nowait(function)

    run(main)


def test_a_coroutine_object_is_accepted(run: Any) -> None:
    assert submitted(run, add(1, 2)) == 3


def test_a_coroutine_object_is_accepted_by_every_way_in(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            assert await rt.submit_nowait(add(1, 2)) == 3
            assert await asyncio.wrap_future(rt.submit_threadsafe(add(2, 2))) == 4
            assert await rt.gather(add(3, 2), add(4, 2)) == [5, 6]
            async with rt.group() as group:
                job = await group.submit(add(5, 2))
            assert job.result() == 7

    run(main)


def closed(coroutine: Coroutine[Any, Any, Any]) -> bool:
    return inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def test_a_coroutine_object_is_accepted_only_once(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            coroutine = gate.wait("once")
            job = await rt.submit(coroutine)
            with pytest.raises(REFUSED):
                await rt.submit(coroutine)
            await until(lambda: gate.started)
            with pytest.raises(REFUSED):
                await rt.submit(coroutine)
            gate.open()
            assert await job == "once"
            with pytest.raises(REFUSED):
                await rt.submit(coroutine)
        assert gate.started == ["once"]

    run(main)


def test_a_coroutine_object_with_arguments_is_refused_and_closed(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            first, second = add(1), add(1)
            with pytest.raises(REFUSED, match="argument"):
                await rt.submit(first, 2)
            with pytest.raises(REFUSED, match="argument"):
                rt.submit_nowait(second, b=2)
            assert closed(first)
            assert closed(second)

    run(main)


def test_a_coroutine_object_cannot_be_a_task(run: Any) -> None:
    coroutine = add(1)
    with pytest.raises(REFUSED, match="coroutine"):
        task(coroutine, max_attempts=3)  # type: ignore[call-overload]
    coroutine.close()


def test_a_coroutine_object_of_a_refused_submit_is_closed(run: Any) -> None:
    async def main() -> None:
        rt = Runtime(concurrency=1, queue_size=1, overflow="reject")
        early = add(1)
        with pytest.raises(RuntimeClosed):
            await rt.submit(early)
        gate = Gate()
        async with rt:
            await rt.submit(hold, gate)
            await rt.submit(hold, gate)
            full, nowait = add(1), add(1)
            with pytest.raises(QueueFull):
                await rt.submit(full)
            with pytest.raises(QueueFull):
                rt.submit_nowait(nowait)
            gate.open()
        late, threadsafe = add(1), add(1)
        with pytest.raises(RuntimeClosed):
            await rt.submit(late)
        with pytest.raises(RuntimeClosed):
            await from_thread(lambda: rt.submit_threadsafe(threadsafe))
        assert all(map(closed, (early, full, nowait, late, threadsafe)))

    run(main)


def test_a_coroutine_object_whose_job_is_cancelled_before_it_starts_is_closed(
    run: Any,
) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            await rt.submit(hold, gate)
            coroutine = add(1)
            job = await rt.submit(coroutine)
            assert job.cancel()
            with pytest.raises(bgruntime.JobCancelled):
                await job
            assert closed(coroutine)
            gate.open()

    run(main)


def test_a_coroutine_object_that_waits_at_the_stop_is_closed(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        coroutine = add(1)
        async with Runtime(concurrency=1) as rt:
            await rt.submit(hold, gate)
            job = await rt.submit(coroutine)
            await rt.stop(drain=0, cancel=1)
        assert word(job.reason) == "interrupted"
        assert closed(coroutine)

    run(main)


def test_a_cancelled_wait_for_room_closes_its_coroutine_object(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            await rt.submit(hold, gate)
            await rt.submit(hold, gate)
            coroutine = add(1)
            waiter = asyncio.create_task(rt.submit(coroutine))
            await asyncio.sleep(0)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            assert closed(coroutine)
            gate.open()

    run(main)


def test_a_refused_gather_closes_every_coroutine_object(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            first, last = add(1), add(2)
            with pytest.raises((TypeError, ValueError)):
                await rt.gather(first, 3, last)  # type: ignore[call-overload]
            with pytest.raises(ValueError, match="limit"):
                await rt.gather(third := add(3), limit=0)
            assert all(map(closed, (first, last, third)))

    run(main)


def test_gather_closes_the_coroutine_objects_that_a_failure_kept_from_running(
    run: Any,
) -> None:
    async def main() -> None:
        async def fail() -> None:
            raise LookupError("first")

        async with Runtime() as rt:
            never = add(1)
            with pytest.raises(LookupError, match="first"):
                await rt.gather(fail(), never, limit=1)
            assert closed(never)

    run(main)


def test_a_submit_never_awaited_does_not_run_its_coroutine_object(run: Any) -> None:
    ran: list[int] = []

    async def note() -> None:
        ran.append(1)

    async def main() -> None:
        async with Runtime() as rt:
            coroutine = note()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                rt.submit(coroutine)
                gc.collect()
            coroutine.close()

    run(main)
    assert ran == []


def test_an_object_with_an_async_call_becomes_an_async_task(run: Any) -> None:
    class Adder:
        def __init__(self, a: int) -> None:
            self.a = a

        async def __call__(self, b: int) -> int:
            await asyncio.sleep(0)
            return self.a + b

    async def main() -> None:
        add = task(name="adder")(Adder(1))
        async with Runtime(threads=1) as rt:
            assert await (await rt.submit(add, 2)) == 3
            assert await rt.map(add, [1, 2]) == [2, 3]
            assert rt.stats().threads_in_use == 0
        assert await add(5) == 6
        if sys.version_info >= (3, 12):
            assert inspect.iscoroutinefunction(add)

    run(main)
