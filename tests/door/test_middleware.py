"""Middleware: context managers around each attempt."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from bgruntime import JobContext, Runtime, current_job, task
from tests.door.turns import until, word

trace: ContextVar[str] = ContextVar("trace", default="none")


class Around:
    """Says when an attempt goes in and how it comes out."""

    def __init__(self, said: list[str], name: str) -> None:
        self.said = said
        self.name = name

    @contextlib.asynccontextmanager
    async def __call__(self, context: JobContext) -> AsyncIterator[None]:
        self.said.append(f"{self.name} in {context.attempt}")
        try:
            yield
        except BaseException as error:
            self.said.append(f"{self.name} out {type(error).__name__}")
            raise
        self.said.append(f"{self.name} out")


def test_middleware_encloses_the_attempt_the_first_outermost(run: Any) -> None:
    said: list[str] = []

    @task
    async def work() -> str:
        said.append("work")
        return "value"

    async def main() -> None:
        async with Runtime(middleware=[Around(said, "a"), Around(said, "b")]) as rt:
            assert await (await rt.submit(work)) == "value"

    run(main)
    assert said == ["a in 1", "b in 1", "work", "b out", "a out"]


def test_middleware_encloses_each_attempt_and_sees_its_error(run: Any, clock: Any) -> None:
    said: list[str] = []

    @task(max_attempts=2, backoff=lambda state: 1)
    async def work() -> None:
        if current_job().attempt == 1:
            raise OSError("down")

    async def main() -> None:
        async with Runtime(middleware=[Around(said, "a")]) as rt:
            job = await rt.submit(work)
            await clock.advance(2)
            await job

    run(main)
    assert said == ["a in 1", "a out OSError", "a in 2", "a out"]


def test_middleware_sees_the_cancellation_of_a_job(run: Any) -> None:
    said: list[str] = []

    async def main() -> None:
        started = asyncio.Event()

        @task
        async def work() -> None:
            started.set()
            await asyncio.Event().wait()

        async with Runtime(middleware=[Around(said, "a")]) as rt:
            job = await rt.submit(work)
            await started.wait()
            job.cancel()
            await job.wait()
            assert word(job.state) == "cancelled"

    run(main)
    assert said == ["a in 1", "a out CancelledError"]


def test_middleware_may_be_a_plain_context_manager(run: Any) -> None:
    said: list[str] = []

    @contextlib.contextmanager
    def around(context: JobContext) -> Iterator[None]:
        said.append(f"in {context.task}")
        yield
        said.append("out")

    @task(name="door.around")
    async def work() -> None:
        said.append("work")

    async def main() -> None:
        async with Runtime(middleware=[around]) as rt:
            await (await rt.submit(work))

    run(main)
    assert said == ["in door.around", "work", "out"]


def test_middleware_encloses_plain_functions_too(run: Any) -> None:
    said: list[str] = []

    @task
    def work() -> None:
        said.append("work")

    async def main() -> None:
        async with Runtime(middleware=[Around(said, "a")]) as rt:
            await (await rt.submit(work))

    run(main)
    assert said == ["a in 1", "work", "a out"]


@pytest.mark.parametrize("plain", [False, True])
def test_what_middleware_sets_in_the_context_reaches_the_job(run: Any, plain: bool) -> None:
    @contextlib.contextmanager
    def tracing(context: JobContext) -> Iterator[None]:
        token = trace.set(f"trace of {context.id}")
        yield
        trace.reset(token)

    async def work() -> str:
        return trace.get()

    async def main() -> None:
        async with Runtime(middleware=[tracing]) as rt:
            job = await rt.submit(trace.get if plain else work)
            assert await job == f"trace of {job.id}"
            assert trace.get() == "none"

    run(main)


@pytest.mark.parametrize("where", ["call", "enter", "exit"])
def test_middleware_that_fails_harms_no_job(run: Any, where: str) -> None:
    said: list[str] = []

    class Broken:
        def __call__(self, context: JobContext) -> Broken:
            if where == "call":
                raise LookupError("broken middleware")
            return self

        async def __aenter__(self) -> None:
            if where == "enter":
                raise LookupError("broken middleware")

        async def __aexit__(self, *error: object) -> None:
            if where == "exit":
                raise LookupError("broken middleware")

    @task
    async def work() -> str:
        return "value"

    async def main() -> None:
        async with Runtime(middleware=[Around(said, "a"), Broken(), Around(said, "c")]) as rt:
            assert await (await rt.submit(work)) == "value"

    run(main)
    assert said == ["a in 1", "c in 1", "c out", "a out"]


def test_middleware_cannot_swallow_the_error_of_a_job(run: Any) -> None:
    @contextlib.contextmanager
    def swallow(context: JobContext) -> Iterator[None]:
        with contextlib.suppress(LookupError):
            yield

    @task
    async def work() -> None:
        raise LookupError("still here")

    async def main() -> None:
        async with Runtime(middleware=[swallow]) as rt:
            with pytest.raises(LookupError, match="still here"):
                await (await rt.submit(work))

    run(main)


def test_what_cannot_be_called_is_no_middleware() -> None:
    with pytest.raises((TypeError, ValueError), match="middleware"):
        Runtime(middleware=["trace"])  # type: ignore[list-item]


def test_middleware_is_done_before_a_job_is_over(run: Any) -> None:
    said: list[str] = []

    @contextlib.asynccontextmanager
    async def slow(context: JobContext) -> AsyncIterator[None]:
        yield
        await asyncio.sleep(0)
        said.append("flushed")

    async def main() -> None:
        async with Runtime(middleware=[slow]) as rt:
            job = await rt.submit(lambda: None)
            await job
            await until(lambda: said == ["flushed"])

    run(main)
