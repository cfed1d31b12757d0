"""Copies: a backup while everything goes on, and the journal as JSON lines."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import stat
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bgruntime import JournalUnavailable, Runtime
from bgruntime.journal import Journal, _upkeep

from .steps import Switch, durable, ordinary, until
from .test_degraded import no_room


async def failing(n: int) -> None:
    raise ValueError(f"number {n}")


async def with_failures(rt: Runtime, count: int) -> list:
    jobs = await rt.submit_many(ordinary(failing), [(n,) for n in range(count)])
    for job in jobs:
        await job.wait()
    return jobs


# Backup


def test_a_backup_has_all_that_was_over_and_all_that_was_accepted_and_belongs_to_nobody(run, path, tmp_path):
    async def main():
        gate, ran = asyncio.Event(), []

        async def wait(n: int) -> None:
            ran.append(n)
            await gate.wait()

        task = durable(wait)
        copy = tmp_path / "copy.db"
        async with Runtime(journal=path, concurrency=2) as rt:
            failed = await with_failures(rt, 10)
            jobs = await rt.submit_many(task, [(n,) for n in range(4)])
            await until(lambda: len(ran) == 2)
            assert await rt.journal.backup(copy) == copy
            gate.set()
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert not copy.with_name("copy.db.partial").exists()
        connection = sqlite3.connect(copy)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*), count(owner) FROM job").fetchone() == (4, 0)
        connection.close()
        ran.clear()
        async with Runtime(journal=copy) as rt:
            await rt.drain()
            assert sorted(ran) == [0, 1, 2, 3]
            assert {one.id for one in await rt.journal.failures()} == {job.id for job in failed}
        assert jobs

    run(main)


def test_a_backup_goes_to_the_disk_in_pieces_and_never_starts_anew(run, path, tmp_path, monkeypatch):
    async def main():
        async with Runtime(journal=path) as rt:
            await with_failures(rt, 500)
            copy, sizes = tmp_path / "copy.db", []
            monkeypatch.setattr(_upkeep, "COPIED", 4)
            on_disk = os.fsync

            def sync(fd):
                on_disk(fd)
                sizes.append(os.fstat(fd).st_size)
                with closing(sqlite3.connect(path)) as other, other:
                    assert len(sizes) < 1000
                    other.execute("UPDATE meta SET value = value + 1 WHERE name = 'probe'")

            monkeypatch.setattr(os, "fsync", sync)
            await rt.journal.backup(copy)
            assert len(sizes) > 10
            assert len(sizes) <= copy.stat().st_size // (4 * 4096) + 3
            steps = [after - before for before, after in pairwise(sizes)]
            assert max(steps) <= 20 * 4096  # a few pages wait in a cache
            with closing(sqlite3.connect(copy)) as copied:
                assert copied.execute("SELECT count(*) FROM ended").fetchone() == (500,)

    run(main)


def test_a_copy_is_checked_with_rests_as_it_was_made_with_rests(run, path, tmp_path, monkeypatch):
    async def main():
        async with Runtime(journal=path) as rt:
            await with_failures(rt, 200)
            done, on_disk = [], os.fsync
            monkeypatch.setattr(_upkeep, "COPIED", 4)
            monkeypatch.setattr(_upkeep, "CHECKED", 100)
            monkeypatch.setattr(os, "fsync", lambda fd: on_disk(fd) or done.append("piece"))
            monkeypatch.setattr(_upkeep.Pace, "rest", lambda _: done.append("rest"))
            await rt.journal.backup(tmp_path / "copy.db")
            pieces = done.count("piece") - 1  # at the end all of it is synced once more
            assert done[: 2 * pieces] == ["piece", "rest"] * pieces
            assert done[2 * pieces :].count("rest") > 10

    run(main)


@pytest.mark.slow
def test_a_backup_blocks_no_accept_and_is_consistent_in_the_middle_of_them(run, path, tmp_path):
    async def main():
        gate = asyncio.Event()

        async def wait(n: int) -> None:
            await gate.wait()

        task, waits = durable(wait), []
        async with Runtime(journal=path, concurrency=1) as rt:
            await with_failures(rt, 2000)
            taking = asyncio.ensure_future(rt.journal.backup(tmp_path / "copy.db"))
            number = 0
            while not taking.done() or number < 50:
                began = time.monotonic()
                await rt.submit(task, number)
                waits.append(time.monotonic() - began)
                number += 1
            await taking
            gate.set()
            await rt.drain()
        connection = sqlite3.connect(tmp_path / "copy.db")
        numbers = [
            json.loads(args)["n"] for (args,) in connection.execute("SELECT args FROM job ORDER BY key")
        ]
        assert numbers == list(range(len(numbers)))
        assert connection.execute("SELECT count(*) FROM ended").fetchone() == (2000,)
        connection.close()
        assert max(waits) < 1

    run(main)


def test_a_backup_that_fails_leaves_what_was_there(run, path, tmp_path, monkeypatch):
    async def main():
        copy = tmp_path / "copy.db"
        async with Runtime(journal=path) as rt:
            await with_failures(rt, 3)
            await rt.journal.backup(copy)
            before = copy.read_bytes()
            with pytest.raises(ValueError, match="the journal itself"):
                await rt.journal.backup(path)
            with pytest.raises(OSError, match="missing"):
                await rt.journal.backup(tmp_path / "missing" / "copy.db")
            monkeypatch.setattr(_upkeep, "NOBODYS", ("no SQL",))
            with pytest.raises(sqlite3.OperationalError):
                await rt.journal.backup(copy)
            assert copy.read_bytes() == before
            assert sorted(file.name for file in tmp_path.glob("copy.db*")) == ["copy.db"]

    run(main)


# JSON lines


def test_an_export_is_json_lines_and_an_import_of_it_is_the_same_journal(run, path, tmp_path):
    async def main():
        lines, again = tmp_path / "all.jsonl", tmp_path / "again.jsonl"

        async def later() -> None: ...

        async with Runtime(journal=path) as rt:
            jobs = await with_failures(rt, 1100)
            waiting = await rt.submit(durable(later).with_options(delay=1000))
            assert await rt.journal.export(lines) == 1101
            told = [json.loads(line) for line in lines.read_text().splitlines()]
            assert told[0]["format"] == "bgruntime-journal-1"
            assert {one["id"] for one in told[1:]} == {job.id for job in (*jobs, waiting)}
            kept = await rt.journal.get(jobs[3].id)
        assert stat.S_IMODE(lines.stat().st_mode) == 0o600
        async with Journal(tmp_path / "other.db") as other:
            assert await other.import_(lines) == 1100
            assert await other.import_(lines) == 0
            assert await other.get(jobs[3].id) == kept
            assert await other.get(waiting.id) is None
            assert [one.count for one in await other.groups()] == [1100]
            assert await other.import_(lines, jobs=True) == 1
            assert (await other.get(waiting.id)).state == "scheduled"
            await other.export(again)
        assert again.read_text() == lines.read_text()

    run(main)


def test_imported_failures_are_redriven_and_imported_jobs_run(run, path, tmp_path):
    async def main():
        switch, ran = Switch(), []

        async def call(n: int) -> None:
            switch.use(n)

        async def note(n: int) -> None:
            ran.append(n)

        called, noted = ordinary(call), durable(note)
        async with Runtime(journal=path) as rt:
            await (await rt.submit(called, 1)).wait()
            rt.pause()
            await rt.submit(noted, 2)
            await rt.journal.export(tmp_path / "all.jsonl")
            await rt.stop(drain=0)
        switch.works = True
        async with Runtime(journal=tmp_path / "other.db") as rt:
            await rt.journal.import_(tmp_path / "all.jsonl", jobs=True)
            [again] = await rt.journal.redrive()
            await again
            await until(lambda: ran == [2])
            await rt.drain()

            async def none_open() -> bool:
                return not await rt.journal.failures()

            await until(none_open)

    run(main)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hello\n", "line 1"),
        ("[1]\n", "line 1: not an export"),
        ('{"format": "bgruntime-journal-1", "schema": 99}\n', "schema version 99"),
        ('{"format": "bgruntime-journal-1", "schema": 1}\n{"kind": "ended"}\n', "line 2: .*missing"),
        ('{"format": "bgruntime-journal-1", "schema": 1}\n{"kind": "song"}\n', "line 2"),
        ('{"format": "bgruntime-journal-1", "schema": 1}\n[]\n', "line 2"),
        ("", "not an export"),
    ],
)
def test_a_file_that_is_no_export_is_refused_with_the_line(run, path, tmp_path, text, complaint):
    (tmp_path / "odd.jsonl").write_text(text)

    async def main():
        async with Journal(path) as journal:
            with pytest.raises(ValueError, match=complaint):
                await journal.import_(tmp_path / "odd.jsonl")
            assert await journal.count() == 0

    run(main)


async def with_one_line(path: Path, **changed: Any) -> Path:
    """An export of one failure, of which something was changed."""
    lines = path.with_name("all.jsonl")
    async with Runtime(journal=path) as rt:
        await with_failures(rt, 1)
        await rt.journal.export(lines)
    header, line = lines.read_text().splitlines()
    lines.write_text(f"{header}\n{json.dumps({**json.loads(line), **changed})}\n")
    return lines


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("options", "{"),
        ("options", "[]"),
        ("errors", "{}"),
        ("errors", "[1]"),
        ("errors", 5),
        ("errors", '[{"at": NaN}]'),
    ],
)
def test_a_line_whose_texts_are_not_the_json_of_a_journal_is_refused(run, path, tmp_path, name, text):
    async def main():
        lines = await with_one_line(path, **{name: text})
        async with Journal(tmp_path / "other.db") as other:
            with pytest.raises(ValueError, match="line 2"):
                await other.import_(lines)
            assert await other.count() == 0

    run(main)


def test_a_line_with_values_of_the_wrong_kind_is_refused_with_all_of_its_page(run, path, tmp_path):
    async def main():
        lines = tmp_path / "all.jsonl"
        async with Runtime(journal=path) as rt:
            await with_failures(rt, 3)
            await rt.journal.export(lines)
        header, *rest = lines.read_text().splitlines()
        bad = {**json.loads(rest[1]), "created_ms": "yesterday"}
        lines.write_text("\n".join([header, rest[0], json.dumps(bad), rest[2]]) + "\n")
        async with Journal(tmp_path / "other.db") as other:
            with pytest.raises(ValueError, match="created_ms"):
                await other.import_(lines)
            assert await other.count() == 0

    run(main)


@pytest.mark.parametrize("jobs", [False, True])
def test_what_was_still_to_be_redriven_is_redriven_after_an_import_of_jobs_only(run, path, tmp_path, jobs):
    async def main():
        lines = tmp_path / "all.jsonl"

        async def fail() -> None:
            raise ValueError

        async with Runtime(journal=path) as rt:
            job = await rt.submit(ordinary(fail, redrive=3))
            await job.wait()
            await rt.journal.export(lines)
        async with Journal(tmp_path / "other.db") as other:
            await other.import_(lines, jobs=jobs)
            kept = await other.get(job.id)
            assert (kept.state, kept.redrives_left) == (("retryable", 3) if jobs else ("discarded", 0))
            assert kept.redrivable

    run(main)


@pytest.mark.parametrize(
    ("name", "value"), [("state", 99), ("state", 2), ("state", "done"), ("key", 1 << 70)]
)
def test_a_line_with_a_value_that_no_journal_has_is_refused(run, path, tmp_path, name, value):
    async def main():
        lines = await with_one_line(path, **{name: value})
        async with Journal(tmp_path / "other.db") as other:
            with pytest.raises(ValueError, match="line 2: state is one of|job '.*': "):
                await other.import_(lines)
            assert (await other.stats()).failures == {}

    run(main)


def test_an_import_that_the_disk_has_no_room_for_blames_the_disk_and_not_the_line(run, path, tmp_path):
    async def main():
        lines = await with_one_line(path, message="x" * 400_000)
        async with Journal(tmp_path / "other.db") as other:
            await no_room(other._access)
            with pytest.raises(JournalUnavailable, match="disk full"):
                await other.import_(lines)

    run(main)


def test_a_failure_without_a_traceback_is_taken_in_like_any_other(run, path, tmp_path):
    async def main():
        async def late() -> None:
            await asyncio.Event().wait()

        async with Runtime(journal=path) as rt:
            job = await rt.submit(ordinary(late, timeout=0.01))
            await job.wait()
            await rt.journal.export(tmp_path / "lines")
            there = await rt.journal.get(job.id)
        lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
        for line in lines[1:]:
            line["trace"] = line["body"] = None
        (tmp_path / "lines").write_text("".join(json.dumps(line) + "\n" for line in lines))
        async with Journal(tmp_path / "other.db") as journal:
            assert await journal.import_(tmp_path / "lines") == 1
            found = await journal.get(job.id)
            assert (found.error, found.message, found.args) == (there.error, there.message, there.args)
            assert found.traceback.count("Traceback") == 0

    run(main)
