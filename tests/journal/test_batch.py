"""What one commit does when a row of it, a step in it or the file itself fails."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bgruntime.extend import ports
from bgruntime.journal._batch import Accept, Batch, Check, Ending, Step
from bgruntime.journal._faults import CommitUnknown
from bgruntime.journal._ledger import Entry
from bgruntime.journal._session import Session
from bgruntime.journal._states import Row

TOO_BIG = 1 << 70  # for any column


class File:
    """A journal's file, as the writing thread of a process sees it."""

    def __init__(self, path: Path) -> None:
        self.session = Session(path, ports.current().spawn)
        self.session.prepare(5)
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.owner = self.session.open(self.connection, 5).id

    def write(self, **parts: Any) -> Batch:
        return self.session.write(self.connection, Batch(self.owner, **parts), 5)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql).fetchall()

    def close(self) -> None:
        self.session.close(self.connection, 5)
        self.session.free()


@pytest.fixture
def file(path: Path) -> Iterator[File]:
    with closing(File(path)) as file:
        yield file


def accept(*keys: int, id: str | None = None, args: str = "{}") -> Accept:
    rows = [(key, id or f"job-{key}", int(id is not None), "t", args, None, 0, None, 1, None) for key in keys]
    return Accept(rows, 0.0, None)


def record(key: int, **changed: Any) -> dict[str, Any]:
    """A failure, in all that is written of it."""
    named = dict.fromkeys(("trace", "errors", "obstacle", "due_ms", "origin", "run", "owner"))
    texts = dict.fromkeys(("reason", "error", "message", "place"), "")
    numbers = {"attempt": 1, "crashes": 0, "durable": 0, "budget": 0, "created_ms": 1, "failed_ms": 1}
    own = {"key": key, "id": f"failure-{key}", "task": "t", "args": "{}", "options": None, "state": 5}
    return named | texts | numbers | own | {"final": 5, "again": False, "pause": 1000} | changed


def test_an_ending_that_cannot_be_written_is_counted_and_all_else_of_its_batch_is_written(file):
    file.write(accepts=[accept(1, 2, 3, 4)])
    good, bad = accept(5), accept(6, args="\ud800")
    check = Check(Entry("job-2", 2, 1, state=Row.RUNNING).update(file.owner), None)
    batch = file.write(
        accepts=[good, bad],
        updates=[Entry("job-1", 1, 1, attempt=7).update(file.owner)],
        checks=[check],
        fences=[(3, 1, file.owner)],
        endings=[
            Ending(record=record(10)),
            Ending(record=record(11, attempt=TOO_BIG)),
            Ending(fence=(4, 1, file.owner), record=record(4, args=None, run=1, owner=file.owner)),
        ],
    )
    assert good.error is None
    assert isinstance(bad.error, UnicodeError)
    assert [type(error) for error in batch.poisoned] == [OverflowError]
    assert check.written
    assert batch.late == 0
    assert file.ask("SELECT key, state, attempt FROM job ORDER BY key") == [(1, 0, 7), (2, 2, 0), (5, 0, 0)]
    assert file.ask("SELECT key, id FROM ended ORDER BY key") == [(4, "failure-4"), (10, "failure-10")]


def test_a_durable_job_whose_end_cannot_be_written_is_quarantined_with_its_arguments(file):
    file.write(accepts=[accept(1, args='{"n":7}'), accept(2)])
    theirs = Ending(fence=(2, 9, file.owner), record=record(2, args=None, run=9, owner=file.owner))
    own = record(1, args=None, run=1, owner=file.owner, attempt=TOO_BIG)
    theirs.record["attempt"] = TOO_BIG
    batch = file.write(endings=[Ending(fence=(1, 1, file.owner), record=own), theirs])
    assert [type(error) for error in batch.poisoned] == [OverflowError, OverflowError]
    assert file.ask("SELECT key FROM job") == [(2,)]  # which is somebody else's by now
    assert file.ask("SELECT key, args, state, reason FROM ended") == [(1, '{"n":7}', 6, "cannot be written")]
    [(message,)] = file.ask("SELECT message FROM ended")
    assert message.startswith("its end could not be written: OverflowError: ")


def test_a_write_that_came_too_late_is_counted_once_when_its_batch_is_written_row_by_row(file):
    late = Entry("job-1", 1, 1).update(file.owner)  # there is no such row, or no longer
    batch = file.write(updates=[late], fences=[(2, 1, file.owner)], endings=[Ending(record=record(3))])
    assert batch.late == 2
    batch = file.write(
        updates=[late],
        fences=[(2, 1, file.owner)],
        endings=[Ending(record=record(4)), Ending(record=record(5, attempt=TOO_BIG))],
    )
    assert batch.late == 2
    assert file.ask("SELECT key FROM ended") == [(3,), (4,)]


def test_a_redrive_that_failed_again_is_noted_where_what_stands_there_is_no_json(file):
    errors = '[{"attempt": 1}]'
    file.write(endings=[Ending(record=record(1, errors=errors)), Ending(record=record(2, errors=errors))])
    file.ask(f"UPDATE ended SET owner = {file.owner}")
    file.ask("UPDATE ended SET errors = '[{\"attempt\": NaN}]' WHERE key = 1")
    again = [Ending(record=record(9 + origin, origin=origin, errors=errors)) for origin in (1, 2)]
    assert file.write(endings=again).poisoned == []
    assert file.ask("SELECT attempt, json_array_length(errors) FROM ended ORDER BY key") == [(2, 1), (2, 2)]


def test_a_batch_that_is_written_again_into_a_file_that_had_it_already_changes_nothing(file):
    file.write(accepts=[accept(1, 2)], endings=[Ending(record=record(3)), Ending(record=record(4))])
    file.ask(f"UPDATE ended SET owner = {file.owner}, redrives = 1 WHERE key = 3")
    file.ask("UPDATE ended SET owner = 0 WHERE key = 4")
    fence = (2, 1, file.owner)
    parts = {
        "accepts": [accept(9)],
        "fences": [(1, 1, file.owner)],
        "endings": [
            Ending(record=record(10, origin=3, errors='[{"attempt": 1}]', failed_ms=7)),
            Ending(record=record(2, origin=4, run=1, owner=file.owner, failed_ms=7), fence=fence),
            Ending(record=record(11)),
        ],
    }
    tables = "job", "ended"
    file.write(**parts)
    once = [file.ask(f"SELECT * FROM {table} ORDER BY key") for table in tables]
    assert [row[0] for row in once[1]] == [3, 4, 11]
    file.write(**parts)
    assert [file.ask(f"SELECT * FROM {table} ORDER BY key") for table in tables] == once


# The file's own trouble is nobody's in the batch


@contextmanager
def full(file: File) -> Iterator[None]:
    """No page more fits on the disk."""
    [(pages,)] = file.ask("PRAGMA page_count")
    file.ask(f"PRAGMA max_page_count={pages}")
    try:
        yield
    finally:
        file.ask("PRAGMA max_page_count=1000000")


def test_a_disk_that_is_full_while_rows_are_written_one_by_one_takes_none_of_them(file):
    file.write(accepts=[accept(1, id="given")])
    again, big = accept(2, id="given"), accept(3, args="x" * 200_000)
    with full(file), pytest.raises(sqlite3.OperationalError, match="full"):
        file.write(accepts=[again, big])
    assert not file.connection.in_transaction
    assert file.ask("SELECT key FROM job") == [(1,)]
    assert file.write(accepts=[big]).accepts[0].error is None
    assert file.ask("SELECT key FROM job") == [(1,), (3,)]


def test_a_step_that_the_disk_has_no_room_for_takes_its_batch_with_it(file):
    def grow(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO meta VALUES('big', hex(zeroblob(200000)))")

    step = Step(grow, (), False, None)
    with full(file), pytest.raises(sqlite3.OperationalError, match="full"):
        file.write(accepts=[accept(1)], step=step)
    assert not file.connection.in_transaction
    assert file.ask("SELECT 1 FROM job") == []
    assert step.error is None
    file.write(accepts=[accept(1)], step=step)
    assert file.ask("SELECT (SELECT count(*) FROM job), (SELECT count(*) FROM meta)") == [(1, 2)]


def test_a_step_that_fails_by_itself_is_taken_back_and_its_batch_is_written(file):
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM job")
        raise LookupError("no")

    batch = file.write(accepts=[accept(1)], step=Step(fail, (), False, None))
    assert batch.step is not None
    assert isinstance(batch.step.error, LookupError)
    assert file.ask("SELECT key FROM job") == [(1,)]


@contextmanager
def no_writing_beyond(place: int) -> Iterator[None]:
    """The disk fails there, in all files of this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (place, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fails_while_rows_are_written_one_by_one_takes_none_of_them(file):
    """SQLite takes the transaction back by itself then, and there is no savepoint to go back to."""
    file.write(accepts=[accept(1, id="given")])
    again, big = accept(2, id="given"), accept(3, args="x" * 5_000_000)
    with no_writing_beyond(100_000), pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        file.write(accepts=[again, big])
    assert not file.connection.in_transaction
    assert file.ask("SELECT key FROM job") == [(1,)]
    assert file.write(accepts=[big]).accepts[0].error is None
    assert file.ask("SELECT key FROM job") == [(1,), (3,)]


# The commit itself


def refuse_commits(action: int, what: str | None, *_: object) -> int:
    refused = (action, what) == (sqlite3.SQLITE_TRANSACTION, "COMMIT")
    return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK


@pytest.mark.parametrize("what", ["new jobs", "rows out of another file"])
def test_a_commit_that_sqlite_refuses_leaves_nothing_behind_and_the_next_one_is_made(file, what):
    file.write(accepts=[accept(1)])
    rows = file.session.rescue(file.connection)
    file.ask("DELETE FROM job")

    def write() -> None:
        if what == "new jobs":
            file.write(accepts=[accept(1)])
        else:
            file.session.take_in(file.connection, rows, 5)

    file.connection.set_authorizer(refuse_commits)
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        write()
    file.connection.set_authorizer(None)
    assert not file.connection.in_transaction
    assert file.ask("SELECT 1 FROM job") == []
    write()
    assert file.ask("SELECT key FROM job") == [(1,)]


def test_a_commit_during_which_the_disk_fails_is_unknown_and_not_refused(file):
    with no_writing_beyond(100_000), pytest.raises(CommitUnknown, match="the disk failed during a commit"):
        file.write(accepts=[accept(1, args="x" * 500_000)])
    assert not file.connection.in_transaction


def test_rows_out_of_another_file_come_in_as_ours_all_or_none(file):
    file.write(accepts=[accept(1), accept(2, args="x" * 200_000)])
    rows = file.session.rescue(file.connection)
    file.ask("DELETE FROM job")
    file.ask("VACUUM")
    file.ask("UPDATE owner SET id = 77")
    file.session.owner.id = 77
    with full(file), pytest.raises(sqlite3.OperationalError, match="full"):
        file.session.take_in(file.connection, rows, 5)
    assert not file.connection.in_transaction
    assert file.ask("SELECT 1 FROM job") == []
    file.session.take_in(file.connection, rows, 5)
    assert file.ask("SELECT key, owner FROM job") == [(1, 77), (2, 77)]
