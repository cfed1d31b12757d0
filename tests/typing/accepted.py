"""What the checkers must accept, and the types they must see. Read by mypy and pyright, never run."""

from __future__ import annotations

import contextlib
import datetime
import functools
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from concurrent.futures import Future
from contextvars import ContextVar
from pathlib import Path
from typing import Any, assert_type

import tenacity

import bgruntime
from bgruntime import (
    Call,
    Fanout,
    Health,
    Job,
    JobContext,
    Queue,
    Resource,
    Runtime,
    RuntimeSettings,
    RuntimeStats,
    Shutdown,
    ShutdownReport,
    Task,
    current_job,
    task,
)

request_id: ContextVar[str] = ContextVar("request_id")


@task(timeout=30, max_attempts=3)
async def send_email(to: str, subject: str = "Welcome") -> str:
    return f"{to}: {subject}"


@task
def write_report(path: Path) -> int:
    return len(str(path))


@task
async def ping() -> None: ...


@task(
    name="mail.everything",
    queue="mail",
    timeout=None,
    max_attempts=5,
    backoff=tenacity.wait_exponential(max=10),
    retry_on=(OSError, ValueError),
    give_up_on=(FileNotFoundError,),
    priority=0,
    durable=True,
    redrive=3,
    expires_in=60,
    redact=("password",),
    context="fresh",
    carry=(request_id,),
)
async def everything(user: int, *, password: str) -> bytes:
    return b""


@task(backoff=lambda state: 2.0 * state.attempt)
def with_callable_backoff(n: int) -> int:
    return n


async def undecorated(n: int) -> float:
    return float(n)


def undecorated_plain(n: int, *, loud: bool = False) -> bool:
    return loud


def returns_awaitable(n: int) -> Awaitable[bytes]:
    raise RuntimeError(n)


def returns_coroutine(n: int) -> Coroutine[Any, Any, bytes]:
    raise RuntimeError(n)


# A signature with Any in it must not make everything about the task Any.
@task
async def import_rows(rows: list[dict[str, Any]]) -> int:
    return len(rows)


@task(timeout=3)
async def load(query: dict[str, Any]) -> dict[str, Any]:
    return query


@task
def convert(data: Any) -> str:
    return str(data)


async def undecorated_with_any(data: dict[str, Any], **more: Any) -> int:
    return len(data) + len(more)


class AsyncAdder:
    async def __call__(self, n: int) -> int:
        return n


class Service:
    async def fetch(self, url: str) -> bytes:
        return url.encode()

    def count(self, url: str) -> int:
        return len(url)


def calls() -> None:
    assert_type(write_report(Path("a")), int)
    assert_type(write_report.with_options(timeout=1)(Path("a")), int)
    assert_type(convert({}), str)
    assert_type(send_email.name, str)


async def awaited_call() -> None:
    assert_type(await send_email("a@x"), str)
    assert_type(await send_email.with_options(timeout=1)("a@x"), str)
    assert_type(await load({}), dict[str, Any])


async def submits(rt: Runtime) -> None:
    job = await rt.submit(send_email, "a@x", subject="Hello")
    assert_type(job, Job[str])
    assert_type(await job, str)
    assert_type(job.result(), str)
    assert_type(job.exception(), BaseException | None)
    assert_type(job.cancel("reason"), bool)
    assert_type(await rt.submit(write_report, Path("a")), Job[int])
    assert_type(await rt.submit(ping), Job[None])
    assert_type(await rt.submit(everything, 1, password="x"), Job[bytes])
    assert_type(await rt.submit(undecorated, 1), Job[float])
    assert_type(await rt.submit(undecorated_plain, 1, loud=True), Job[bool])
    assert_type(await rt.submit(returns_awaitable, 1), Job[object])
    assert_type(await rt.submit(returns_coroutine, 1), Job[bytes])
    assert_type(await rt.submit(AsyncAdder(), 1), Job[int])
    assert_type(await rt.submit(Service().fetch, "u"), Job[bytes])
    assert_type(await rt.submit(Service().count, "u"), Job[int])
    assert_type(await rt.submit(functools.partial(undecorated_plain, loud=True), 1), Job[bool])
    assert_type(await rt.submit(undecorated(1)), Job[float])
    assert_type(await rt.submit(len, "four"), Job[int])


async def submits_what_has_any_in_its_signature(rt: Runtime) -> None:
    assert_type(await rt.submit(import_rows, [{}]), Job[int])
    assert_type(await rt.submit(load, {}), Job[dict[str, Any]])
    assert_type(await rt.submit(convert, {}), Job[str])
    assert_type(await rt.submit(undecorated_with_any, {}), Job[int])
    assert_type(rt.submit_nowait(import_rows, [{}]), Job[int])
    assert_type(rt.map(import_rows, [[{}]]), Fanout[int])
    assert_type(rt.map(import_rows, [[{}]], on_error="return"), Fanout[int | BaseException])
    async with rt.group() as group:
        assert_type(await group.submit(load, {}), Job[dict[str, Any]])
        assert_type(group.submit_nowait(convert, {}), Job[str])
    assert_type(import_rows.bind([{}]), Call[int])


async def submits_otherwise(rt: Runtime) -> None:
    assert_type(rt.submit_nowait(send_email, "a@x"), Job[str])
    assert_type(rt.submit_nowait(undecorated, 1), Job[float])
    assert_type(rt.submit_nowait(undecorated_plain, 1), Job[bool])
    assert_type(rt.submit_nowait(undecorated(1)), Job[float])
    assert_type(rt.submit_threadsafe(send_email, "a@x"), Future[str])
    assert_type(rt.submit_threadsafe(undecorated, 1), Future[float])
    assert_type(rt.submit_threadsafe(undecorated(1)), Future[float])
    assert_type(rt.submit_threadsafe(load, {}), Future[dict[str, Any]])
    assert_type(rt.submit_threadsafe(undecorated_plain, 1), Future[bool])
    assert_type(await rt.submit_many(send_email, [("a@x",), ("b@x", "Hello")]), list[Job[str]])
    assert_type(await rt.submit_many(undecorated, [(1,), (2,)]), list[Job[float]])
    assert_type(await rt.submit_many(write_report, [(Path("a"),)]), list[Job[int]])
    assert_type(await rt.submit_many(load, [({},)]), list[Job[dict[str, Any]]])
    assert_type(await rt.submit_many(returns_awaitable, [(1,)]), list[Job[object]])


async def numbers() -> AsyncIterator[int]:
    yield 1


async def fans_out(rt: Runtime) -> None:
    fanout = rt.map(send_email, ["a@x", "b@x"], limit=20)
    assert_type(fanout, Fanout[str])
    assert_type(await fanout, list[str])
    async for receipt in rt.map(send_email, ["a@x"], ordered=False):
        assert_type(receipt, str)
    async with rt.map(undecorated, numbers(), limit=2) as opened:
        async for value in opened:
            assert_type(value, float)
    await fanout.aclose()
    assert_type(rt.map(write_report, [Path("a")]), Fanout[int])
    assert_type(rt.map(undecorated_plain, range(3)), Fanout[bool])
    assert_type(rt.map(send_email, ["a@x"], ["Hello"]), Fanout[str])
    assert_type(rt.map(send_email, ["a@x"], on_error="raise"), Fanout[str])
    assert_type(await rt.map(send_email, ["a@x"], on_error="return"), list[str | BaseException])
    assert_type(rt.starmap(send_email, [("a@x", "Hello")], limit=2), Fanout[str])
    assert_type(await rt.starmap(undecorated, [(1,)]), list[float])
    assert_type(await rt.starmap(write_report, [(Path("a"),)]), list[int])
    assert_type(await rt.starmap(undecorated, [(1,)], on_error="return"), list[float | BaseException])
    assert_type(rt.map(returns_awaitable, [1]), Fanout[object])


async def gathers(rt: Runtime, careful: bool) -> None:
    receipt, size = await rt.gather(send_email.bind("a@x"), write_report.bind(Path("a")), limit=2)
    assert_type(receipt, str)
    assert_type(size, int)
    many = [send_email.bind(to) for to in ("a@x", "b@x")]
    assert_type(await rt.gather(*many), list[str])
    assert_type(await rt.gather(*many, return_exceptions=True), list[str | BaseException])
    assert_type(await rt.gather(*many, return_exceptions=careful), list[str | BaseException])
    loads = [load.bind({}), load.bind({})]
    assert_type(await rt.gather(*loads), list[dict[str, Any]])
    assert_type(await rt.gather(send_email.bind("a"), *many), list[str])
    (one,) = await rt.gather(undecorated(1))
    assert_type(one, float)
    first, second = await rt.gather(send_email.bind("a"), ping.bind(), return_exceptions=True)
    assert_type(first, str | BaseException)
    assert_type(second, BaseException | None)
    a, b, c, d, e, f = await rt.gather(
        send_email.bind("a"),
        undecorated(1),
        write_report.bind(Path("a")),
        load.bind({}),
        ping.bind(),
        convert.bind(1),
    )
    assert_type((a, b, c, d, e, f), tuple[str, float, int, dict[str, Any], None, str])


async def groups(rt: Runtime) -> None:
    async with rt.group() as group:
        assert_type(await group.submit(send_email, "b@x"), Job[str])
        assert_type(group.submit_nowait(write_report, Path("a")), Job[int])
        assert_type(await group.submit(undecorated, 1), Job[float])
        assert_type(await group.submit(undecorated_plain, 1), Job[bool])
        assert_type(await group.submit(undecorated(1)), Job[float])


async def binds(rt: Runtime) -> None:
    assert_type(send_email.bind("a@x", subject="Hello"), Call[str])
    assert_type(write_report.bind(Path("a")), Call[int])
    later = send_email.with_options(
        delay=5, timeout=1.5, priority=0, expires_in=60, id="one", tags=("a", "b")
    )
    assert_type(await rt.submit(later, "a@x"), Job[str])
    at_noon = write_report.with_options(run_at=datetime.datetime.now(datetime.UTC))
    assert_type(await rt.submit(at_noon, Path("a")), Job[int])


async def takes_a_task(rt: Runtime, any_task: Task[[str], int]) -> None:
    assert_type(await rt.submit(any_task, "a"), Job[int])


async def steers(rt: Runtime) -> None:
    assert_type(await rt.stop(drain=20, cancel=5, close=2), ShutdownReport)
    assert_type((await rt.stop()).lost, tuple[str, ...])
    assert_type(rt.stats(), RuntimeStats)
    assert_type(rt.health(), Health)
    await rt.drain(timeout=5)
    rt.pause()
    rt.resume("mail")
    rt.resize("mail", 3)
    found: Job[Any] | None = rt.job("id")
    jobs: list[Job[Any]] = rt.jobs(state="running", task="mail.everything")
    assert found is None or found in jobs


def makes() -> None:
    Runtime()
    Runtime(
        concurrency=10,
        queue_size=20,
        overflow="drop_oldest",
        wait_limit=2.5,
        queues=[Queue("mail", concurrency=3, size=10, overflow="reject")],
        threads=4,
        redrive=1,
        observers=(),
        middleware=(),
        shutdown=Shutdown(drain=20, cancel=5, close=2),
        cancel_grace=1,
        cancel_hard=0.5,
        settings=RuntimeSettings(),
    )


@contextlib.contextmanager
def connection() -> Iterator[bytes]:
    yield b""


@contextlib.asynccontextmanager
async def pool() -> AsyncIterator[list[int]]:
    yield []


@task
async def uses(
    n: int,
    one: bytes = Resource(connection),
    many: list[int] = Resource(pool, scope="runtime"),
    workdir: Path = Resource(bgruntime.tempdir),
) -> int:
    context = current_job()
    assert_type(context, JobContext)
    assert_type(context.id, str)
    assert_type(context.attempt, int)
    assert_type(context.task, str)
    assert_type(context.remaining(), float | None)
    assert_type(context.stopping.is_set(), bool)
    assert_type(context.stopping.wait(1.0), bool)
    assert_type(await context.enter(pool()), list[int])
    assert_type(await context.tempdir(), Path)
    context.progress(0.5, note="half")
    return n


async def submits_without_the_resources(rt: Runtime) -> None:
    assert_type(await rt.submit(uses, 1), Job[int])


async def main() -> int:
    async with Runtime() as rt:
        assert_type(rt, Runtime)
        return await (await rt.submit(uses, 1))


def runs() -> None:
    assert_type(bgruntime.run(main), int)


async def steering() -> None:
    match len(""):
        case 0:
            raise bgruntime.Retry(after=5)
        case 1:
            raise bgruntime.Snooze(5)
        case 2:
            raise bgruntime.Cancel("enough")
        case _:
            raise bgruntime.Discard("poison")


def errors(error: Exception) -> None:
    if isinstance(error, bgruntime.JobTimedOut):
        assert_type(error.stuck, bool)
    if isinstance(error, bgruntime.JobInterrupted):
        assert_type(error.requeued, bool)
        assert_type(error.reason, str)
