"""Programs that a simulated loop must run as a real one does; each asserts its own result."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import aiosqlite
import anyio
import anyio.to_thread
import pytest

Program = Callable[[], Coroutine[Any, Any, Any]]


async def timeouts() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def wait_too_long() -> None:
        async with asyncio.timeout(3600):
            await asyncio.sleep(7200)

    with pytest.raises(TimeoutError):
        await wait_too_long()
    assert 3600 <= loop.time() - began < 3600.001


async def task_groups() -> None:
    done: list[int] = []

    async def work(i: int) -> None:
        await asyncio.sleep(i % 3)
        done.append(i)

    async def fail() -> None:
        await asyncio.sleep(1)
        raise LookupError

    async with asyncio.TaskGroup() as group:
        for i in range(20):
            group.create_task(work(i))
    assert sorted(done) == list(range(20))

    async def fail_together() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(fail())
            group.create_task(asyncio.sleep(100))

    with pytest.raises(ExceptionGroup) as failed:
        await fail_together()
    assert {type(exc) for exc in failed.value.exceptions} == {LookupError}


async def anyio_groups_and_scopes() -> None:
    done: list[int] = []

    async def work(i: int) -> None:
        await anyio.sleep(i / 10)
        done.append(i)

    async def service(*, task_status: anyio.abc.TaskStatus[int]) -> None:
        await anyio.sleep(1)
        task_status.started(7)
        await anyio.sleep(100)

    async with anyio.create_task_group() as group:
        for i in range(20):
            group.start_soon(work, i)
    assert sorted(done) == list(range(20))
    with anyio.move_on_after(5) as scope:
        await anyio.sleep(100)
    assert scope.cancelled_caught

    async def be_late() -> None:
        with anyio.fail_after(1):
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)
            await anyio.sleep(1)

    with pytest.raises(TimeoutError):
        await be_late()
    async with anyio.create_task_group() as group:
        assert await group.start(service) == 7
        group.cancel_scope.cancel()


async def anyio_streams() -> None:
    send, receive = anyio.create_memory_object_stream[int](3)
    got: list[int] = []

    async def produce(stream: Any) -> None:
        async with stream:
            for i in range(10):
                await stream.send(i)

    async def consume(stream: Any) -> None:
        async with stream:
            async for item in stream:
                got.append(item)

    async with anyio.create_task_group() as group, send, receive:
        for _ in range(3):
            group.start_soon(produce, send.clone())
            group.start_soon(consume, receive.clone())
    assert sorted(got) == sorted(3 * list(range(10)))


async def threads() -> None:
    assert await asyncio.to_thread(lambda: 5) == 5
    assert await anyio.to_thread.run_sync(lambda: 6) == 6
    got: list[int] = []

    async def one(i: int) -> None:
        got.append(await anyio.to_thread.run_sync(lambda: i))

    async with anyio.create_task_group() as group:
        for i in range(60):
            group.start_soon(one, i)
    assert sorted(got) == list(range(60))
    with anyio.move_on_after(0.00001) as scope:
        await anyio.to_thread.run_sync(lambda: 6, abandon_on_cancel=True)
    assert scope.cancelled_caught
    with pytest.raises(ValueError, match="invalid literal"):
        await asyncio.to_thread(int, "x")


async def sleeping_threads() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 60) for _ in range(3)))
    assert 60 <= loop.time() - began < 61


async def sqlite() -> None:
    async with aiosqlite.connect(":memory:") as db:
        await db.execute("create table t (a)")

        async def insert(i: int) -> None:
            await db.execute("insert into t values (?)", (i,))
            await db.commit()

        async with asyncio.TaskGroup() as group:
            for i in range(5):
                group.create_task(insert(i))
        async with db.execute("select count(*) from t") as cursor:
            assert await cursor.fetchone() == (5,)
        late = asyncio.create_task(insert(9))
        await asyncio.sleep(0)
        late.cancel()
        await asyncio.wait([late])
        with pytest.raises(sqlite3.OperationalError):
            await db.execute("select * from nowhere")


async def queues_and_locks() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(3)
    two, one, moved = asyncio.Semaphore(2), asyncio.Lock(), asyncio.Condition()
    count = 0

    async def produce() -> None:
        for i in range(10):
            await queue.put(i)

    async def consume() -> None:
        nonlocal count
        while True:
            await queue.get()
            async with two, one:
                count += 1
            async with moved:
                moved.notify_all()
            queue.task_done()

    consumers = [asyncio.create_task(consume()) for _ in range(4)]
    await asyncio.gather(*(produce() for _ in range(3)))
    await queue.join()
    async with moved:
        await moved.wait_for(lambda: count == 30)
    for consumer in consumers:
        consumer.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)


async def generators() -> None:
    closed: list[str] = []

    async def numbers(name: str) -> AsyncIterator[int]:
        try:
            for i in range(10):
                yield i
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(1)
            closed.append(name)

    async for i in numbers("dropped"):
        if i == 3:
            break
    await asyncio.sleep(5)
    assert closed == ["dropped"]
    done, late = await asyncio.wait([asyncio.create_task(asyncio.sleep(i)) for i in range(5)], timeout=2.5)
    assert (len(done), len(late)) == (3, 2)
    assert await asyncio.wait_for(asyncio.sleep(1, "x"), 5) == "x"


PROGRAMS: tuple[Program, ...] = (
    timeouts,
    task_groups,
    anyio_groups_and_scopes,
    anyio_streams,
    threads,
    sleeping_threads,
    sqlite,
    queues_and_locks,
    generators,
)
