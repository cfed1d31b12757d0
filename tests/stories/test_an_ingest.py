"""A folder of documents is parsed in threads and written into a database, some of them beyond reading."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest

import bgruntime
from bgruntime import JobTimedOut, Resource, Runtime, task
from tests.promises.steps import until

WORDS = ["apple", "pear", "plum"]


@pytest.fixture
def folder(tmp_path):
    """Thirty documents: one is missing its file, one is not text."""
    for number in range(30):
        (tmp_path / f"{number:02}.txt").write_text(f"{WORDS[number % 3]} number {number}\n" * 10)
    (tmp_path / "07.txt").write_bytes(b"\xff\xfe\x00 not text")
    (tmp_path / "11.txt").unlink()
    return tmp_path


def test_what_can_be_read_is_in_the_index_and_what_cannot_is_known_by_its_reason(run, folder):
    async def main():
        database = sqlite3.connect(":memory:")
        opened = []

        @contextlib.contextmanager
        def connection():
            opened.append(database)
            database.execute("create table document (name text, words text)")
            yield database

        @task
        def parse(path: Path, workdir: Path = Resource(bgruntime.tempdir)) -> str:
            copy = workdir / path.name
            copy.write_bytes(path.read_bytes())
            return copy.read_text(encoding="utf-8")

        @task
        async def index(name: str, text: str, db: sqlite3.Connection = Resource(connection, scope="runtime")):
            db.execute("insert into document values (?, ?)", (name, text))

        @task
        async def ingest(path: Path) -> str:
            (text,) = await rt.gather(parse.bind(path))
            await rt.gather(index.bind(path.name, text))
            return path.name

        paths = [folder / f"{number:02}.txt" for number in range(30)]
        async with Runtime(concurrency=4, threads=3) as rt:
            results = await rt.map(ingest, paths, on_error="return")
            failures = {path.name: type(result) for path, result in zip(paths, results, strict=True)
                        if isinstance(result, Exception)}  # fmt: skip
        assert failures == {"07.txt": UnicodeDecodeError, "11.txt": FileNotFoundError}
        assert opened == [database], "one connection for the whole runtime"
        rows = database.execute("select count(*) from document where words like '%plum%'").fetchone()
        assert rows == (sum(number % 3 == 2 and number not in (7, 11) for number in range(30)),)
        assert database.execute("select count(*) from document").fetchone() == (28,)
        database.close()

    run(main)


def test_a_document_that_takes_for_ever_times_out_and_the_others_go_on(run, clock, folder):
    async def main():
        let_go, begun = threading.Event(), []

        @task(timeout=5.0)
        def parse(path: Path) -> int:
            if path.name == "03.txt":
                begun.append(path.name)
                let_go.wait(20)
            return len(path.read_text())

        paths = [folder / f"{number:02}.txt" for number in range(6)]
        async with Runtime(threads=2) as rt:
            jobs = await rt.submit_many(parse, [(path,) for path in paths])
            others = [job for number, job in enumerate(jobs) if number != 3]
            await asyncio.gather(*(job.wait() for job in others))
            await until(lambda: begun == ["03.txt"], "the start of the slow one, whose thread may come last")
            await clock.advance(5.0)
            with pytest.raises(JobTimedOut):
                await jobs[3]
            assert min([await job for job in others]) > 0
            assert rt.stats().stuck == 1
            let_go.set()
            await until(lambda: rt.stats().stuck == 0, "the thread's end")

    run(main)
