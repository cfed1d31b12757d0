"""What the feed takes in and what it gives back, while other writes are on their way."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from bgruntime import Runtime
from bgruntime.journal import Journal, _feed, _ledger
from bgruntime.journal._flocks import Flock

from .steps import durable, until


@contextlib.contextmanager
def nothing_is_written(path) -> Iterator[None]:
    """As if another process held the journal's lock."""
    lock = Flock(f"{path}.lock")
    until = time.monotonic() + 10
    try:
        while not lock.try_lock():  # the runtime's own writer has it for a moment
            assert time.monotonic() < until
            time.sleep(0.001)
        yield
    finally:
        lock.close()


async def writer_waits(journal: Journal) -> None:
    """Until the writer waits for its turn, while `nothing_is_written`."""
    await journal._access.read(lambda connection: None)  # behind a batch that had its turn before
    await until(lambda: journal._writer._in_flight)


async def scanned(rt: Runtime) -> asyncio.Task[None]:
    """A look at the file by a feed in doubt about its rows, up to its first write."""
    feed = rt.journal._feed
    feed.unsure = True
    look = asyncio.create_task(feed._scan())
    await until(lambda: rt.journal._ledger.steps)
    return look


def test_what_is_accepted_while_doubtful_rows_are_about_to_be_given_back_stays_here(run, path, rows):
    async def main():
        gate, ran = asyncio.Event(), []

        async def work(n: int) -> None:
            ran.append(n)
            await gate.wait()

        task = durable(work)
        async with Runtime(journal=path) as rt:
            await until(lambda: not rt.journal.waiting())
            with nothing_is_written(path):
                first = asyncio.create_task(rt.submit(task, 1))
                await writer_waits(rt.journal)
                look = await scanned(rt)
                second = asyncio.create_task(rt.submit(task, 2))
                await until(lambda: rt.journal._ledger.accepts)
            await asyncio.gather(first, second, look)
            assert rows("SELECT count(*), count(owner) FROM job") == [(2, 2)]
            gate.set()
            await rt.drain()
        assert ran == [1, 2]

    run(main)


def test_claimed_rows_are_not_given_back_before_they_are_known_here(run, path, rows, monkeypatch):
    async def main():
        gate, claimed, ran = asyncio.Event(), asyncio.Event(), []

        async def work(n: int) -> None:
            ran.append(n)

        task = durable(work)
        async with Runtime(journal=path) as rt:
            rt.pause()
            await rt.submit(task, 1)
            await rt.stop(drain=0)
        adoptable = _feed.Feed._adoptable

        async def slow(self, rows):
            claimed.set()
            await gate.wait()
            return await adoptable(self, rows)

        monkeypatch.setattr(_feed.Feed, "_adoptable", slow)
        async with Runtime(journal=path) as rt:
            await claimed.wait()
            feed = rt.journal._feed
            feed.unsure = True
            await feed._scan()
            assert rows("SELECT count(*), count(owner) FROM job") == [(1, 1)]
            gate.set()
            await until(lambda: not rows("SELECT 1 FROM job"))
            await feed._scan()
            assert not feed.unsure
        assert ran == [1]

    run(main)


def test_rows_of_jobs_that_are_over_are_not_given_back_before_they_are_deleted(run, path, rows, monkeypatch):
    monkeypatch.setattr(_ledger, "ENDINGS", 1)

    async def main():
        gate, ran = asyncio.Event(), []

        async def work(n: int) -> None:
            await gate.wait()
            ran.append(n)

        async with Runtime(journal=path) as rt:
            await until(lambda: not rt.journal.waiting())
            jobs = await rt.submit_many(durable(work), [(n,) for n in range(5)])
            with nothing_is_written(path):
                gate.set()
                await asyncio.gather(*jobs)
                await writer_waits(rt.journal)
                look = await scanned(rt)
            await look
            await until(lambda: not rows("SELECT 1 FROM job"))
            assert rt.journal._ledger.late == 0
        assert sorted(ran) == list(range(5))

    run(main)


DAMAGES = {"options": "{", "errors": "{", "state": 77}


@pytest.mark.parametrize("column", DAMAGES)
def test_a_row_that_cannot_be_read_is_quarantined_and_holds_up_no_other(run, path, column):
    async def main():
        ran = []

        async def work(n: int) -> None:
            ran.append(n)

        task = durable(work)
        async with Runtime(journal=path) as rt:
            rt.pause()
            damaged, *_ = await rt.submit_many(task, [(n,) for n in range(5)])
            await rt.stop(drain=0)
        connection = sqlite3.connect(path)
        with connection:
            connection.execute(f"UPDATE job SET {column} = ? WHERE id = ?", (DAMAGES[column], damaged.id))
        connection.close()
        async with Runtime(journal=path) as rt:
            await rt.drain()
            assert ran == [1, 2, 3, 4]
            [kept] = await rt.journal.failures()
            assert (kept.id, kept.state, kept.args) == (damaged.id, "quarantined", {"n": 0})
            assert "cannot be read" in kept.message

    run(main)


def test_what_goes_wrong_while_jobs_are_taken_in_is_told(run, path, monkeypatch):
    async def main():
        told = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().set_exception_handler(lambda _, said: told.set_result(said))

        async def broken(*_):
            raise ValueError("no")

        async with Runtime(journal=path) as rt:
            await until(lambda: not rt.journal.waiting())
            feed = rt.journal._feed
            monkeypatch.setattr(feed._host, "reserve", broken)
            task = asyncio.create_task(feed._take([SimpleNamespace(name="work")]))
            task.add_done_callback(feed._when_taken("some"))
            said = await told
            assert said["message"] == "taking durable jobs of queue 'some' failed"

    run(main)
