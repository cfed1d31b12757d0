"""Which context variables a job sees, and that nothing leaks back."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from bgruntime import Runtime, current_job, task
from tests.door.turns import Gate, hold, until, word

request_id: ContextVar[str] = ContextVar("request_id", default="unset")
tenant: ContextVar[str] = ContextVar("tenant", default="unset")


async def look() -> tuple[str, str]:
    return request_id.get(), tenant.get()


def look_plain() -> tuple[str, str]:
    return request_id.get(), tenant.get()


FUNCTIONS = pytest.mark.parametrize("function", [look, look_plain])


@FUNCTIONS
def test_a_job_runs_in_a_copy_of_the_submitters_context(run: Any, function: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            request_id.set("r1")
            job = await rt.submit(function)
            request_id.set("r2")
            assert await job == ("r1", "unset")

    run(main)


@FUNCTIONS
def test_a_job_that_waited_still_runs_in_its_submitters_context(run: Any, function: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            request_id.set("of the holder")
            await rt.submit(hold, gate)
            await until(lambda: gate.started)
            request_id.set("of the waiter")
            job = await rt.submit(function)
            request_id.set("of nobody")
            gate.open()
            assert await job == ("of the waiter", "unset")

    run(main)


@FUNCTIONS
def test_a_fresh_context_carries_only_what_it_is_told_to(run: Any, function: Any) -> None:
    fresh = task(function, name=f"door.fresh-{function.__name__}", context="fresh")
    carrying = task(function, name=f"door.carrying-{function.__name__}", context="fresh", carry=(request_id,))

    async def main() -> None:
        async with Runtime() as rt:
            request_id.set("r1")
            tenant.set("t1")
            assert await (await rt.submit(fresh)) == ("unset", "unset")
            assert await (await rt.submit(carrying)) == ("r1", "unset")

    run(main)


def test_what_a_job_sets_does_not_leak_back(run: Any) -> None:
    async def change() -> None:
        request_id.set("changed")

    async def main() -> None:
        async with Runtime() as rt:
            request_id.set("mine")
            await (await rt.submit(change))
            await (await rt.submit(lambda: request_id.set("changed")))
            assert request_id.get() == "mine"
            assert await (await rt.submit(look)) == ("mine", "unset")

    run(main)


def test_each_attempt_has_a_fresh_copy(run: Any, clock: Any) -> None:
    seen: list[str] = []

    @task(max_attempts=3, backoff=lambda state: 1)
    async def work() -> None:
        seen.append(request_id.get())
        request_id.set("left by an attempt")
        if current_job().attempt < 3:
            raise OSError("down")

    async def main() -> None:
        async with Runtime() as rt:
            request_id.set("submitter")
            job = await rt.submit(work)
            await clock.advance(3)
            await job

    run(main)
    assert seen == ["submitter"] * 3


def test_each_job_of_a_batch_has_a_copy_of_its_own(run: Any) -> None:
    async def count() -> str:
        request_id.set(request_id.get() + "x")
        await asyncio.sleep(0)
        return request_id.get()

    async def main() -> None:
        async with Runtime() as rt:
            request_id.set("")
            jobs = await rt.submit_many(task(count, name="door.count"), [()] * 5)
            assert [await job for job in jobs] == ["x"] * 5
            assert await rt.gather(count(), count()) == ["x", "x"]

    run(main)


def test_submit_threadsafe_takes_the_context_of_the_thread(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:

            def caller() -> Any:
                request_id.set("thread")
                return rt.submit_threadsafe(look).result(10)

            request_id.set("loop")
            got = await asyncio.get_running_loop().run_in_executor(None, caller)
            assert got == ("thread", "unset")
            assert word(request_id.get()) == "loop"

    run(main)
