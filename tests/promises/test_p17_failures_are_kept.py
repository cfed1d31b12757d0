"""P17: with a journal, every final failure is in it within 100 ms of idle, or counted as dropped and told."""

from __future__ import annotations

import asyncio
import sqlite3
import time

import pytest

from bgruntime import Discard, Retry, Runtime
from bgruntime.extend import JournalDegraded
from bgruntime.journal import _ledger
from tests.journal.steps import durable, ordinary, until

WITHIN = 0.1  # seconds
PAGE = 20  # failures of each kind


async def raises() -> None:
    raise ValueError("no")


async def hangs() -> None:
    await asyncio.Event().wait()


async def leaves() -> None:
    raise SystemExit(1)


async def discards() -> None:
    raise Discard("no use")


async def retries() -> None:
    raise Retry(after=0.01)


def thread() -> None:
    raise OSError("no disk")


KINDS = {
    "raised": (raises, {}),
    "timed out": (hangs, {"timeout": 0.02}),
    "exited": (leaves, {}),
    "discarded": (discards, {}),
    "used up": (retries, {"max_attempts": 2}),
    "in a thread": (thread, {}),
}


def ids_in(path) -> set[str]:
    """What another process finds in the file."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return {id for (id,) in connection.execute("SELECT id FROM ended WHERE state = 5")}
    finally:
        connection.close()


@pytest.mark.timing
@pytest.mark.parametrize("made", [ordinary, durable], ids=["ordinary", "durable"])
def test_p17_every_final_failure_is_in_the_file_soon_after_idle(run, tmp_path, made):
    path = tmp_path / "jobs.db"

    async def storm() -> float:
        async with Runtime(journal=path) as rt:
            tasks = [made(function, **options) for function, options in KINDS.values()]
            jobs = [await rt.submit(task) for task in tasks for _ in range(PAGE)]
            await rt.drain()
            idle = time.monotonic()
            ids = {job.id for job in jobs}
            assert len(ids) == len(KINDS) * PAGE
            await until(lambda: ids <= ids_in(path))
            return time.monotonic() - idle

    async def main():
        took = [await storm() for _ in range(3)]
        assert min(took) <= WITHIN  # a busy machine may be late, the journal is not

    run(main)


def test_p17_a_failure_in_the_last_instant_before_the_stop_is_kept(run, tmp_path):
    path = tmp_path / "jobs.db"

    async def main():
        async with Runtime(journal=path) as rt:
            job = await rt.submit(ordinary(raises))
        assert ids_in(path) == {job.id}

    run(main)


def test_p17_what_could_not_be_kept_is_counted_and_told(run, tmp_path, monkeypatch):
    monkeypatch.setattr(_ledger, "RECORDS", 10)
    path = tmp_path / "jobs.db"
    path.mkdir()  # no file can be there until it goes

    async def main():
        heard = []

        class Ear:
            listens_to = (JournalDegraded,)

            def on_event(self, event):
                heard.append(event)

        async with Runtime(journal=path, observers=[Ear()]) as rt:
            jobs = [await rt.submit(ordinary(raises)) for _ in range(25)]
            await rt.drain()
            assert len(heard) == 1
            assert any("15 failure records were dropped" in reason for reason in rt.health().reasons)
            path.rmdir()
            await until(lambda: not any("regular" in reason for reason in rt.health().reasons))
            assert (await rt.journal.stats()).dropped == 15
            assert ids_in(path) == {job.id for job in jobs[15:]}

    run(main)
