"""A resource of the runtime that cannot be opened or will not close harms those who use it, and no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from bgruntime import JobInterrupted, Resource, Runtime, Shutdown, task
from tests.door.turns import Gate, faults_of, turns, until


def test_all_who_wait_get_the_error_of_the_opening_and_the_next_one_tries_again(run: Any) -> None:
    gate = Gate()
    tries: list[int] = []

    @contextlib.asynccontextmanager
    async def flaky() -> AsyncIterator[str]:
        tries.append(1)
        if len(tries) == 1:
            await gate.opened.wait()
            raise ConnectionError("refused")
        yield "connected"

    @task
    async def work(pool: str = Resource(flaky, scope="runtime")) -> str:
        return pool

    async def main() -> None:
        async with Runtime() as rt:
            jobs = await rt.submit_many(work, [(), ()])
            await until(lambda: tries)
            await turns()
            gate.open()
            for job in jobs:
                with pytest.raises(ConnectionError, match="refused"):
                    await job
            assert len(tries) == 1
            assert await (await rt.submit(work)) == "connected"
            assert faults_of(rt) == {}

    run(main)


@pytest.mark.parametrize("kind", [StopIteration, asyncio.CancelledError])
def test_what_no_future_takes_or_would_pass_for_a_cancellation_comes_as_the_cause(
    run: Any, kind: Any
) -> None:
    def refuses() -> Any:
        raise kind("from the factory")

    @task
    async def work(pool: Any = Resource(refuses, scope="runtime")) -> None: ...

    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(RuntimeError, match=f"opening the resource raised {kind.__name__}") as caught:
                await (await rt.submit(work))
        assert isinstance(caught.value.__cause__, kind)

    run(main)


def test_one_that_fails_on_closing_is_told_and_the_others_are_closed(run: Any) -> None:
    closed: list[str] = []

    @contextlib.contextmanager
    def well() -> Iterator[str]:
        yield "well"
        closed.append("well")

    @contextlib.contextmanager
    def breaks() -> Iterator[str]:
        yield "breaks"
        closed.append("breaks")
        raise OSError("cannot flush")

    @task
    async def work(
        first: str = Resource(well, scope="runtime"), last: str = Resource(breaks, scope="runtime")
    ) -> tuple[str, str]:
        return first, last

    async def main() -> None:
        async with Runtime() as rt:
            assert await (await rt.submit(work)) == ("well", "breaks")
        assert closed == ["breaks", "well"]
        assert faults_of(rt) == {"resource last failed on closing": 1}

    run(main)


def test_one_that_hangs_on_closing_is_cut_short_and_the_others_close_all_the_same(sim: Any) -> None:
    closed: list[str] = []

    @contextlib.asynccontextmanager
    async def well() -> AsyncIterator[str]:
        yield "well"
        closed.append("well")

    @contextlib.asynccontextmanager
    async def hangs() -> AsyncIterator[str]:
        yield "hangs"
        try:
            await asyncio.Event().wait()
        finally:
            closed.append("cut short")

    @task
    async def work(
        first: str = Resource(well, scope="runtime"), last: str = Resource(hangs, scope="runtime")
    ) -> None: ...

    async def main() -> None:
        closed.clear()
        loop = asyncio.get_running_loop()
        async with Runtime(shutdown=Shutdown(close=3)) as rt:
            await (await rt.submit(work))
            began = loop.time()
        assert loop.time() - began == pytest.approx(3, abs=0.1)
        await turns()
        assert sorted(closed) == ["cut short", "well"]
        assert "resources did not close within 3 s" in faults_of(rt)

    sim(main, seeds=20)


def test_one_that_never_opens_is_given_up_when_the_runtime_stops(sim: Any) -> None:
    given_up: list[int] = []

    @contextlib.asynccontextmanager
    async def never() -> AsyncIterator[None]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            given_up.append(1)
            raise
        yield

    @task
    async def work(pool: Any = Resource(never, scope="runtime")) -> None: ...

    async def main() -> None:
        given_up.clear()
        async with Runtime(shutdown=Shutdown(drain=5)) as rt:
            job = await rt.submit(work)
        with pytest.raises(JobInterrupted):
            await job
        assert given_up == [1]
        assert faults_of(rt) == {}

    sim(main, seeds=20)
