"""What may be opened as a journal, and what is left exactly as it was."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from bgruntime.journal._faults import Refused
from bgruntime.journal._files import identity, prepare
from bgruntime.journal._schema import NEWEST, set_up


def opened(path: Path) -> sqlite3.Connection:
    prepare(path, NEWEST)
    connection = sqlite3.connect(path, isolation_level=None)
    set_up(connection, path)
    return connection


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_and_the_directory_made_for_them_are_for_their_user_only(tmp_path):
    path = tmp_path / "made" / "jobs.db"
    connection = opened(path)
    assert mode(path.parent) == 0o700
    assert {mode(path.with_name(path.name + side)) for side in ("", "-wal", "-shm")} == {0o600}
    connection.close()


def test_a_symbolic_link_is_refused_and_its_target_is_not_made(tmp_path):
    (tmp_path / "link.db").symlink_to(tmp_path / "target.db")
    with pytest.raises(Refused, match="symbolic link"):
        prepare(tmp_path / "link.db", NEWEST)
    assert not (tmp_path / "target.db").exists()


def test_a_directory_in_the_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(Refused, match="not a regular file"):
        prepare(tmp_path, NEWEST)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"hello world\n" * 1000, "not an SQLite database"),
        (b"SQLite format 3\x00", "not an SQLite database"),
    ],
)
def test_what_is_no_database_is_refused_and_keeps_its_bytes(tmp_path, content, complaint):
    path = tmp_path / "jobs.db"
    path.write_bytes(content)
    with pytest.raises(Refused, match=complaint):
        prepare(path, NEWEST)
    assert path.read_bytes() == content
    assert [found.name for found in tmp_path.iterdir()] == ["jobs.db"]


def test_the_database_of_another_application_is_refused_and_keeps_its_bytes(tmp_path):
    path = tmp_path / "jobs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE job(a, b)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(Refused, match="another application"):
        prepare(path, NEWEST)
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused_by_both_its_numbers_and_keeps_its_bytes(tmp_path):
    path = tmp_path / "jobs.db"
    connection = opened(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(Refused, match=f"version 99.*up to {NEWEST}"):
        prepare(path, NEWEST)
    assert path.read_bytes() == before


def test_a_newer_schema_that_is_still_in_the_log_is_refused_too(tmp_path):
    path = tmp_path / "jobs.db"
    newer = opened(path)
    newer.execute("PRAGMA user_version=99")
    second = sqlite3.connect(path, isolation_level=None)
    prepare(path, NEWEST)  # the file's own header does not show it yet
    with pytest.raises(Refused, match="version 99"):
        set_up(second, path)
    second.close()
    newer.close()


def test_the_log_of_a_file_that_is_gone_is_kept_apart_and_not_read_into_the_new_one(tmp_path):
    path = tmp_path / "jobs.db"
    connection = opened(path)
    connection.execute("INSERT INTO meta VALUES('from', 'the old file')")
    path.unlink()
    fresh = opened(path)
    assert fresh.execute("SELECT count(*) FROM meta WHERE name = 'from'").fetchone() == (0,)
    assert (tmp_path / "jobs.db.lost-wal").stat().st_size > 0
    fresh.close()
    connection.close()


def test_an_older_file_is_brought_up_to_date_and_a_new_one_is_the_same(tmp_path):
    connection = opened(tmp_path / "jobs.db")
    again = opened(tmp_path / "jobs.db")
    assert again.execute("PRAGMA user_version").fetchone() == (NEWEST,)
    assert again.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert again.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert again.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    again.close()
    connection.close()


def test_accepting_and_ending_a_job_writes_to_no_index(tmp_path):
    connection = opened(tmp_path / "jobs.db")
    indexes = {"job_free", "job_given"}
    pages = {
        name: connection.execute(f"SELECT rootpage FROM sqlite_schema WHERE name = '{name}'").fetchone()[0]
        for name in indexes
    }
    assert len(set(pages.values())) == 2

    def images() -> dict[str, bytes]:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        content = (tmp_path / "jobs.db").read_bytes()
        return {name: content[4096 * (page - 1) : 4096 * page] for name, page in pages.items()}

    before = images()
    connection.execute(
        "INSERT INTO job(key, id, given, task, args, state, owner, run, attempt, crashes, created_ms) "
        "VALUES(1, 'a', 0, 't', '{}', 0, 7, 1, 0, 0, 0)"
    )
    assert images() == before
    connection.execute("UPDATE job SET owner = NULL, due_ms = 0")
    assert images() != before  # the pages looked at are the right ones
    connection.close()


def test_a_file_is_known_by_its_inode_and_those_of_its_companions(tmp_path):
    path = tmp_path / "jobs.db"
    connection = opened(path)
    Path(f"{path}.lock").touch()
    first = identity(str(path))
    assert identity(str(path)) == first
    os.replace(path, tmp_path / "moved.db")
    path.touch()
    assert identity(str(path)) != first
    Path(f"{path}-shm").unlink()
    with pytest.raises(FileNotFoundError):
        identity(str(path))
    connection.close()
