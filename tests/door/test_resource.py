"""Parameters whose default is a `Resource`."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import bgruntime
from bgruntime import Resource, Runtime, current_job, task
from tests.door.turns import until, word


class Said:
    """Factories that record when and where their context managers are entered and left."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.threads: list[str] = []
        self.made = 0

    def note(self, line: str) -> None:
        self.lines.append(line)
        self.threads.append(threading.current_thread().name)

    @contextlib.contextmanager
    def plain(self) -> Iterator[str]:
        self.made += 1
        self.note("open")
        try:
            yield f"resource {self.made}"
        finally:
            self.note("close")

    @contextlib.asynccontextmanager
    async def asynchronous(self) -> AsyncIterator[str]:
        self.made += 1
        await asyncio.sleep(0)
        self.note("open")
        try:
            yield f"resource {self.made}"
        finally:
            await asyncio.sleep(0)
            self.note("close")

    def class_based(self) -> Connection:
        return Connection(self)


class Connection:
    def __init__(self, said: Said) -> None:
        self.said = said

    def __enter__(self) -> str:
        self.said.made += 1
        self.said.note("open")
        return f"resource {self.said.made}"

    def __exit__(self, *error: object) -> None:
        self.said.note("close")


FACTORIES = ["plain", "asynchronous", "class_based"]


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("plain", [False, True])
def test_an_attempt_gets_what_the_factory_yields_and_it_is_closed_after(
    run: Any, factory: str, plain: bool
) -> None:
    said = Said()

    def work(n: int, db: str = Resource(getattr(said, factory))) -> tuple[int, str]:
        said.note("work")
        return n, db

    async def work_async(n: int, db: str = Resource(getattr(said, factory))) -> tuple[int, str]:
        said.note("work")
        return n, db

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work if plain else work_async, 7)
            assert await job == (7, "resource 1")
            await until(lambda: len(said.lines) == 3)
            assert said.lines == ["open", "work", "close"]

    run(main)


def test_a_plain_resource_of_a_plain_function_lives_in_its_thread(run: Any) -> None:
    said = Said()

    def work(db: str = Resource(said.plain)) -> None:
        said.note("work")

    async def main() -> None:
        async with Runtime() as rt:
            await (await rt.submit(work))
            await until(lambda: len(said.lines) == 3)
            assert len(set(said.threads)) == 1
            assert said.threads[0] != threading.current_thread().name

    run(main)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("plain", [False, True])
def test_it_is_closed_when_the_attempt_fails_and_made_anew_for_the_next(
    run: Any, clock: Any, factory: str, plain: bool
) -> None:
    said = Said()

    def once_more(db: str) -> str:
        said.note(db)
        if current_job().attempt == 1:
            raise OSError("down")
        return db

    @task(max_attempts=2, backoff=lambda state: 1)
    def work(db: str = Resource(getattr(said, factory))) -> str:
        return once_more(db)

    @task(max_attempts=2, backoff=lambda state: 1)
    async def work_async(db: str = Resource(getattr(said, factory))) -> str:
        return once_more(db)

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work if plain else work_async)
            await until(lambda: word(job.state) == "retryable")
            await clock.advance(2)
            assert await job == "resource 2"
            await until(lambda: len(said.lines) == 6)

    run(main)
    assert said.lines == ["open", "resource 1", "close", "open", "resource 2", "close"]


@pytest.mark.parametrize("ending", ["cancel", "timeout", "stop"])
def test_it_is_closed_when_the_attempt_is_stopped(run: Any, clock: Any, ending: str) -> None:
    said = Said()

    @task(timeout=30)
    async def work(db: str = Resource(said.asynchronous)) -> None:
        said.note("work")
        await asyncio.Event().wait()

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: "work" in said.lines)
            match ending:
                case "cancel":
                    job.cancel()
                case "timeout":
                    await clock.advance(31)
                case "stop":
                    await rt.stop(drain=0)
            await job.wait()
            await until(lambda: said.lines == ["open", "work", "close"])

    run(main)


def test_the_resource_of_a_thread_that_outlives_its_timeout_is_closed_when_it_ends(
    run: Any, clock: Any
) -> None:
    said = Said()
    let_go = threading.Event()

    @task(timeout=5)
    def work(db: str = Resource(said.plain)) -> None:
        said.note("work")
        let_go.wait(30)
        said.note("end")

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: "work" in said.lines)
            await clock.advance(6)
            with pytest.raises(bgruntime.JobTimedOut):
                await job
            await clock.advance(20)
            assert said.lines == ["open", "work"]
            let_go.set()
            await until(lambda: said.lines == ["open", "work", "end", "close"])

    run(main)


def test_several_resources_are_closed_in_reverse_order(run: Any) -> None:
    lines: list[str] = []

    def named(name: str) -> Any:
        @contextlib.contextmanager
        def factory() -> Iterator[str]:
            lines.append(f"open {name}")
            yield name
            lines.append(f"close {name}")

        return factory

    @task
    async def work(a: str = Resource(named("a")), *, b: str = Resource(named("b"))) -> str:
        return a + b

    async def main() -> None:
        async with Runtime() as rt:
            assert await (await rt.submit(work)) == "ab"

    run(main)
    assert lines == ["open a", "open b", "close b", "close a"]


def test_a_value_given_by_the_submitter_is_used_instead(run: Any) -> None:
    said = Said()

    @task
    async def work(n: int, db: str = Resource(said.plain)) -> str:
        return db

    async def main() -> None:
        async with Runtime() as rt:
            assert await (await rt.submit(work, 1, db="by name")) == "by name"
            assert await (await rt.submit(work, 1, "by place")) == "by place"

    run(main)
    assert said.lines == []


def test_a_resource_that_cannot_be_opened_is_a_failure_of_the_attempt(run: Any, clock: Any) -> None:
    tries: list[int] = []

    @contextlib.contextmanager
    def flaky() -> Iterator[str]:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("refused")
        yield "connected"

    @task(max_attempts=2, backoff=lambda state: 1)
    async def work(db: str = Resource(flaky)) -> str:
        return db

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            await clock.advance(2)
            assert await job == "connected"
            with pytest.raises(ConnectionError, match="never"):
                await (await rt.submit(never))

    @contextlib.asynccontextmanager
    async def refuses() -> AsyncIterator[str]:
        raise ConnectionError("never")
        yield ""

    @task
    async def never(db: str = Resource(refuses)) -> None: ...

    run(main)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("plain", [False, True])
def test_a_resource_of_the_runtime_is_made_once_and_closed_when_it_stops(
    run: Any, factory: str, plain: bool
) -> None:
    said = Said()
    shared = Resource(getattr(said, factory), scope="runtime")

    @task
    def work(pool: str = shared) -> str:
        return pool

    @task
    async def work_async(pool: str = shared) -> str:
        await asyncio.sleep(0)
        return pool

    async def main() -> None:
        rt = Runtime(concurrency=5)
        async with rt:
            used = work if plain else work_async
            jobs = await rt.submit_many(used, [() for _ in range(10)])
            assert {await job for job in jobs} == {"resource 1"}
            assert said.lines == ["open"]
        assert said.lines == ["open", "close"]
        async with rt:
            assert await (await rt.submit(used)) == "resource 2"
        assert said.lines == ["open", "close"] * 2

    run(main)


def test_a_resource_of_the_runtime_outlives_every_job_of_the_stop(run: Any) -> None:
    said = Said()

    @task
    async def work(pool: str = Resource(said.asynchronous, scope="runtime")) -> None:
        said.note("work")
        try:
            await asyncio.Event().wait()
        finally:
            said.note("tidied")

    async def main() -> None:
        async with Runtime() as rt:
            await rt.submit(work)
            await until(lambda: "work" in said.lines)
            await rt.stop(drain=0)
        assert said.lines == ["open", "work", "tidied", "close"]

    run(main)


def test_a_resource_never_used_is_never_made(run: Any) -> None:
    said = Said()

    @task
    async def work(pool: str = Resource(said.plain, scope="runtime")) -> None: ...

    async def main() -> None:
        async with Runtime():
            pass

    run(main)
    assert said.lines == []


def test_a_scope_that_does_not_exist_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="(?s)scope.*request") as caught:
        Resource(contextlib.nullcontext, scope="request")  # type: ignore[call-overload]
    assert "attempt" in str(caught.value)
    assert "runtime" in str(caught.value)


def test_a_factory_that_cannot_be_called_is_refused() -> None:
    with pytest.raises((TypeError, ValueError)):
        Resource("a pool")  # type: ignore[call-overload]


def test_a_factory_that_makes_no_context_manager_is_a_clear_error(run: Any) -> None:
    @task
    async def work(db: Any = Resource(dict)) -> None: ...

    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(TypeError, match="context manager"):
                await (await rt.submit(work))

    run(main)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_a_temporary_directory_is_a_resource_in_both_kinds_of_function(
    run: Any, plain: bool, fails: bool
) -> None:
    made: list[Path] = []

    def use(folder: Path) -> None:
        assert isinstance(folder, Path)
        (folder / "file").write_text("content")
        made.append(folder)
        if fails:
            raise LookupError("failed")

    @task
    def work(workdir: Path = Resource(bgruntime.tempdir)) -> None:
        use(workdir)

    @task
    async def work_async(workdir: Path = Resource(bgruntime.tempdir)) -> None:
        use(workdir)

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work if plain else work_async)
            await job.wait()
            await until(lambda: made and not made[0].exists())

    run(main)
