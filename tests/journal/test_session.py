"""The file under one process: opened, given up, moved to a newer version, or refused with nothing changed."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
import weakref
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bgruntime import JournalUnavailable, Runtime
from bgruntime.extend import ports
from bgruntime.journal import Journal, _line, _schema, _writer
from bgruntime.journal._access import Access
from bgruntime.journal._faults import Locked, Refused
from bgruntime.journal._flocks import Flock
from bgruntime.journal._ledger import Ledger
from bgruntime.journal._line import Line, finish
from bgruntime.journal._schema import FIRST, NEWEST, migrate, set_up
from bgruntime.journal._session import Session
from bgruntime.journal._writer import Writer
from tests.promises.steps import turns

from .steps import durable, until
from .test_batch import no_writing_beyond
from .test_feed import nothing_is_written, writer_waits
from .test_files import opened


async def work(n: int = 0) -> int:
    return n


# Tables


def older(path: Path) -> sqlite3.Connection:
    """A file of the first version."""
    connection = opened(path)
    connection.execute("DROP TABLE trend")
    connection.execute("PRAGMA user_version=1")
    return connection


def versions(connection: sqlite3.Connection) -> tuple[int, int]:
    """The version that it says it is, and how many tables it has."""
    tables = connection.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name <> 'x'")
    return connection.execute("PRAGMA user_version").fetchone()[0], tables.fetchone()[0]


def test_an_older_file_that_cannot_be_brought_up_to_date_stays_as_it_is(path):
    with closing(older(path)) as connection:
        before = versions(connection)
        connection.execute("CREATE VIEW trend AS SELECT 1")  # somebody else's
        with pytest.raises(sqlite3.OperationalError, match="trend already exists"):
            migrate(connection)
        assert not connection.in_transaction
        connection.execute("DROP VIEW trend")
        assert versions(connection) == before
        migrate(connection)
        assert versions(connection) == (NEWEST, before[1] + 1)


def test_a_disk_that_fails_while_a_file_is_brought_up_to_date_leaves_the_older_one(path):
    with closing(older(path)) as connection:
        before = versions(connection)
        with no_writing_beyond(20_000), pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
            migrate(connection)
        assert not connection.in_transaction
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert versions(connection) == before
        set_up(connection, path)
        assert versions(connection) == (NEWEST, before[1] + 1)


def test_a_library_too_old_is_refused_by_both_versions(monkeypatch, path):
    monkeypatch.setattr(_schema.sqlite3, "sqlite_version_info", (3, 31, 1))
    monkeypatch.setattr(_schema.sqlite3, "sqlite_version", "3.31.1")
    connection = sqlite3.connect(path, isolation_level=None)
    with (
        closing(connection),
        pytest.raises(Refused, match=r"needs SQLite 3\.37\.0 or later; .* has 3\.31\.1"),
    ):
        set_up(connection, path)
    assert path.stat().st_size == 0


def test_where_there_can_be_no_log_there_is_no_journal(path):
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with closing(connection), pytest.raises(Refused, match="write-ahead log .journal_mode stays memory"):
        set_up(connection, path)
    assert "CREATE TABLE job" in FIRST


# Given up


def test_a_process_that_is_leaving_waits_for_no_lock_any_more(path):
    session = Session(path, ports.current().spawn)
    session.abort()
    lock = Flock(f"{path}.lock")
    assert lock.try_lock()
    began = time.monotonic()
    with pytest.raises(Locked):
        session.prepare(30)
    assert time.monotonic() - began < 5
    lock.close()
    session.prepare(5)  # who gets it at once may have it
    connection = sqlite3.connect(path, isolation_level=None)
    session.open(connection, 5)
    session.abort()
    with closing(Flock(f"{path}.lock")) as lock:
        assert lock.try_lock()
        with pytest.raises(Locked):
            session.beat(connection, 30)
    session.close(connection, 5)
    session.free()


def test_who_is_cancelled_while_it_waits_for_a_journal_to_open_leaves_nothing_open(run, path, monkeypatch):
    monkeypatch.setattr(_writer, "CLOSE_LIMIT", 0.1)

    async def main():
        with nothing_is_written(path):
            journal = Journal(path)
            opening = asyncio.ensure_future(journal.open(None))
            await until(lambda: journal._access.session._turnstile)  # it stands in the line
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            assert not journal._writer.takes
        async with journal:  # and may be opened again
            assert (await journal.stats()).processes == 1

    run(main)


def test_a_journal_that_is_closed_before_it_is_open_is_closed_when_it_is(run, path):
    async def main():
        journal = Journal(path)
        with nothing_is_written(path):
            opening = asyncio.ensure_future(journal.open(None))
            await until(lambda: journal._writer._task)
            opening.cancel()
            await turns()
            assert not opening.done()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert repr(journal) == "<Journal jobs.db: closed, 0 durable jobs here>"

    run(main)


def test_a_journal_may_be_closed_by_two_at_once_and_a_writer_that_never_wrote(run, path):
    async def main():
        journal = Journal(path)
        await journal.open(None)
        await asyncio.gather(journal.close(), journal.close())
        assert "closed" in repr(journal)
        writer = Writer(Access(path), Ledger())
        await writer.close()
        assert not writer.takes

    run(main)


# The connection


@pytest.mark.parametrize("turns", range(4))
def test_who_is_cancelled_while_a_connection_opens_is_cancelled_when_it_is_closed_again(run, path, turns):
    async def main():
        opening = asyncio.ensure_future(Line.open(str(path)))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    run(main)


def test_a_cancelled_wait_for_what_was_cancelled_itself_is_cancelled(run):
    async def main():
        working = asyncio.ensure_future(asyncio.sleep(60))
        waiting = asyncio.ensure_future(finish(working))
        await asyncio.sleep(0)
        waiting.cancel()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert working.cancelled()

    run(main)


def test_a_connection_that_nobody_closed_ends_with_the_main_thread(run, path, monkeypatch):
    """As the thread that watches for it does at the end of a program."""

    async def main():
        line = await Line.open(str(path))
        connection = line._connection
        over = threading.Thread(target=lambda: None)
        over.start()
        monkeypatch.setattr(_line, "_open", weakref.WeakSet([connection]))
        monkeypatch.setattr(_line.threading, "main_thread", lambda: over)
        await asyncio.to_thread(_line._stop_after_main)
        await asyncio.to_thread(connection._thread.join, 10)
        assert not connection._thread.is_alive()

    run(main)


def test_the_log_of_the_driver_shows_no_argument(run, path, caplog):
    caplog.set_level(logging.DEBUG, logger="aiosqlite")

    async def main():
        async with Journal(path) as journal:
            await journal._access.write(lambda connection, secret: None, "correct horse")

    run(main)
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "(…)" in told
    assert "correct horse" not in told


# The writer


def test_who_asks_while_the_file_falls_ill_is_refused_and_does_not_wait(run, path):
    async def main():
        async with Runtime(journal=path) as rt:
            await until(lambda: not rt.journal.waiting())
            writer, answers = rt.journal._writer, []
            with nothing_is_written(path):
                asking: list[Any] = [asyncio.ensure_future(writer.step(gone))]
                await writer_waits(rt.journal)
                asking += [asyncio.ensure_future(writer.step(lambda connection: 1)) for _ in range(2)]
                asking.append(asyncio.ensure_future(rt.submit(durable(work))))
                await until(lambda: rt.journal._ledger.accepts)
                path.with_name(path.name + "-wal").unlink()
                path.unlink()
                path.mkdir()
            answers = await asyncio.gather(*asking, return_exceptions=True)
            assert {type(answer) for answer in answers} == {JournalUnavailable}, answers
            path.rmdir()
            await until(lambda: writer.takes)
            assert await (await rt.submit(durable(work), 3)) == 3

    run(main)


def gone(connection: sqlite3.Connection) -> None:
    """Any step."""


def test_no_commit_is_made_for_what_nobody_waits_for_any_more(run, path):
    async def main():
        async with Journal(path) as journal:
            writer = journal._writer
            with nothing_is_written(path):
                held = asyncio.ensure_future(writer.step(gone))
                await writer_waits(journal)
                row = (1, "job-1", 0, "t", "{}", None, 0, None, 1, None)
                writer.accept([row]).cancel()
            await held
            commits = writer.commits
            await until(lambda: journal._ledger.idle)
            assert writer.commits == commits
            assert (await journal.stats()).jobs == {}

    run(main)


def test_a_journal_whose_log_was_taken_away_still_tells_its_size(run, path):
    async def main():
        async with Journal(path) as journal:
            assert (await journal.stats()).bytes > path.stat().st_size
            path.with_name(path.name + "-wal").unlink()
            assert (await journal.stats()).bytes == path.stat().st_size

    run(main)


def test_nothing_is_committed_for_submits_that_were_all_given_up(run, path):
    async def main():
        async with Runtime(journal=path) as rt:
            await until(lambda: not rt.journal.waiting())
            writer = rt.journal._writer
            with nothing_is_written(path):
                held = asyncio.ensure_future(writer.step(gone))
                await writer_waits(rt.journal)
                submits = [asyncio.ensure_future(rt.submit(durable(work), n)) for n in range(3)]
                await until(lambda: rt.journal._ledger.accepts)
                for submit in submits:
                    submit.cancel()
                await asyncio.gather(*submits, return_exceptions=True)
            await held
            await writer.flush()
            assert (await rt.journal.stats()).jobs == {}
            assert await (await rt.submit(durable(work), 3)) == 3

    run(main)
