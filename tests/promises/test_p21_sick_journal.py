"""P21: a journal that is locked, full, read-only, corrupt or gone stops no ordinary work, and says so."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bgruntime import AcceptUnknown, JournalUnavailable, Runtime
from tests.journal.programs import line_of, started
from tests.journal.steps import directory_instead, durable
from tests.journal.test_degraded import HOLD, a_journal, goes_on, impatient, refuses, takes_again

assert impatient  # a fixture


async def nothing(n: int = 0) -> int:
    return n


@contextlib.asynccontextmanager
async def locked(rt: Runtime, path: Path) -> AsyncIterator[str]:
    with started(HOLD, path) as holder:
        assert line_of(holder) == "held"
        yield f"pid {holder.pid}"


@contextlib.asynccontextmanager
async def full(rt: Runtime, path: Path) -> AsyncIterator[str]:
    limit = "PRAGMA max_page_count={}"
    await rt.journal._access.write(lambda c: c.execute(limit.format(1)).fetchone())
    with pytest.raises(JournalUnavailable, match="full"):
        await rt.submit(durable(nothing_with), "x" * 200_000)
    yield "full"
    await rt.journal._access.write(lambda c: c.execute(limit.format(1_000_000)).fetchone())


async def nothing_with(text: str) -> None: ...


@contextlib.asynccontextmanager
async def gone(rt: Runtime, path: Path) -> AsyncIterator[str]:
    """A directory stands where the file was."""
    directory_instead(path)
    with contextlib.suppress(JournalUnavailable, AcceptUnknown):
        await rt.submit(durable(nothing))
    yield "not a regular file"
    path.rmdir()


@pytest.mark.parametrize("trouble", [locked, full, gone])
def test_p21_trouble_that_comes_while_it_runs_stops_no_ordinary_work_and_mends(
    run, tmp_path, impatient, trouble: Any
):
    path = tmp_path / "jobs.db"

    async def main():
        async with Runtime(journal=path) as rt:
            await takes_again(rt)
            async with trouble(rt, path) as complaint:
                with pytest.raises(JournalUnavailable):
                    await rt.submit(durable(nothing_with), "x" * 200_000)
                await refuses(rt, complaint)
                await goes_on(rt)
            await takes_again(rt)
            assert [one.error for one in await rt.journal.failures()] == ["ConnectionError"]

    run(main)


def corrupt(path: Path, seed: int = 0) -> None:
    a_journal(path)
    content = bytearray(path.read_bytes())
    content[1000:9000] = random.Random(seed).randbytes(8000)
    path.write_bytes(content)


def too_big(path: Path) -> None:
    """One noise in a thousand is, for SQLite, not corrupt: a row of the schema of more than 2 GB."""
    corrupt(path, 1145)


def read_only(path: Path) -> None:
    """As far as SQLite can tell: the version that only newer libraries may write."""
    a_journal(path)
    content = bytearray(path.read_bytes())
    content[18] = 3
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [(corrupt, "is corrupt: "), (too_big, "is corrupt: .* too big"), (read_only, "read-?only")],
)
def test_p21_a_file_that_is_bad_from_the_start_keeps_its_bytes_and_stops_no_ordinary_work(
    run, tmp_path, make, complaint
):
    path = tmp_path / "jobs.db"
    make(path)
    before = path.read_bytes()

    async def main():
        async with Runtime(journal=path) as rt:
            await refuses(rt, complaint)
            await goes_on(rt)
        assert path.read_bytes() == before

    run(main)


def test_p21_a_locked_journal_is_one_that_somebody_else_writes_to_and_not_read_from(run, tmp_path):
    path = tmp_path / "jobs.db"

    async def main():
        async with Runtime(journal=path) as rt:
            reader = sqlite3.connect(path)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM job").fetchone()
            jobs = await asyncio.gather(*(rt.submit(durable(nothing), n) for n in range(20)))
            assert [await job for job in jobs] == list(range(20))
            reader.close()

    run(main)
