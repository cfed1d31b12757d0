"""The tables, how an older file gets them, and how a connection is set up."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ._faults import Refused
from ._files import APPLICATION_ID, refuse_newer

OLDEST_SQLITE = (3, 37, 0)  # the first with STRICT tables

FIRST = """
CREATE TABLE meta(
  name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES('probe', '0');

CREATE TABLE owner(                 -- the processes, one row each; alive while its lock is held
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  lock TEXT NOT NULL UNIQUE, slot INTEGER NOT NULL, pid INTEGER NOT NULL, host TEXT NOT NULL,
  boot TEXT NOT NULL, beat_ms INTEGER,          -- since boot; only where locks do not work
  started_ms INTEGER NOT NULL, names TEXT NOT NULL DEFAULT '[]') STRICT;

CREATE TABLE job(                   -- durable jobs that are not over; no index that accept or end touches
  key INTEGER PRIMARY KEY,
  id TEXT NOT NULL, given INTEGER NOT NULL,
  task TEXT NOT NULL, args TEXT NOT NULL, options TEXT,
  state INTEGER NOT NULL,           -- 0 available, 1 scheduled, 2 running, 3 retryable
  owner INTEGER, run INTEGER NOT NULL, attempt INTEGER NOT NULL, crashes INTEGER NOT NULL,
  started INTEGER NOT NULL DEFAULT 0, due_ms INTEGER, created_ms INTEGER NOT NULL,
  errors TEXT, origin INTEGER) STRICT;
CREATE INDEX job_free ON job(task, due_ms) WHERE owner IS NULL;
CREATE UNIQUE INDEX job_given ON job(id) WHERE given = 1;

CREATE TABLE trace(                 -- a traceback, once
  hash BLOB PRIMARY KEY, body TEXT NOT NULL, seen_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE cause(                 -- what failures are grouped by
  id INTEGER PRIMARY KEY, task TEXT NOT NULL, error TEXT NOT NULL, place TEXT NOT NULL,
  UNIQUE(task, error, place)) STRICT;

CREATE TABLE ended(                 -- jobs that are over: failures and how they fare,
                                    -- others while they are kept
  key INTEGER PRIMARY KEY,
  id TEXT NOT NULL, task TEXT NOT NULL, args TEXT NOT NULL, options TEXT,
  state INTEGER NOT NULL,           -- 3 retryable, 4 completed, 5 discarded, 6 quarantined,
                                    -- 7 cancelled, 8 given up
  reason TEXT NOT NULL, error TEXT NOT NULL, message TEXT NOT NULL, cause INTEGER NOT NULL, trace BLOB,
  attempt INTEGER NOT NULL, crashes INTEGER NOT NULL, errors TEXT,
  durable INTEGER NOT NULL, obstacle TEXT,      -- why it cannot be redriven, if so
  owner INTEGER, redrives INTEGER NOT NULL, budget INTEGER NOT NULL, due_ms INTEGER,
  created_ms INTEGER NOT NULL, failed_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL) STRICT;
CREATE INDEX ended_id ON ended(id);
CREATE INDEX ended_state ON ended(state, failed_ms);
CREATE INDEX ended_task ON ended(task, state, failed_ms);
CREATE INDEX ended_cause ON ended(cause, state, failed_ms);
CREATE INDEX ended_due ON ended(due_ms) WHERE due_ms IS NOT NULL;
CREATE INDEX ended_owner ON ended(owner) WHERE owner IS NOT NULL;
"""
SECOND = """
CREATE TABLE trend(                 -- what became of jobs, by hour since the epoch and task
  hour INTEGER NOT NULL, task TEXT NOT NULL, counts TEXT NOT NULL,
  run_time BLOB NOT NULL, queue_wait BLOB NOT NULL, PRIMARY KEY(hour, task)) STRICT, WITHOUT ROWID;
"""
MIGRATIONS = (FIRST, SECOND)
NEWEST = len(MIGRATIONS)

LOG_BYTES = 4_000_000
BUSY_MS = 250  # only for strangers that do not know our lock: the turnstile does the waiting
SETUP = f"""
PRAGMA busy_timeout={BUSY_MS};
PRAGMA synchronous=FULL;
PRAGMA fullfsync=1;
PRAGMA wal_autocheckpoint=1000;
PRAGMA journal_size_limit=67108864;
PRAGMA mmap_size=0;
PRAGMA temp_store=MEMORY;
PRAGMA cell_size_check=ON;
PRAGMA trusted_schema=OFF;
PRAGMA secure_delete=OFF;
"""


def set_up(connection: sqlite3.Connection, path: Path) -> None:
    """Leaves a connection on which everything may be written; under the turnstile only.

    Checks the versions, writes for real before it believes that it can, and brings an older file
    up to date in one transaction. Raises `Refused` with nothing changed.
    """
    _check_library()
    refuse_newer(path, _number(connection, "user_version"), NEWEST)
    _run(connection, SETUP)
    if not _number(connection, "user_version"):
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise Refused(f"{path} cannot be used with a write-ahead log (journal_mode stays {mode})")
    migrate(connection)
    probe(connection)
    _grow_log(connection)


def read_only(connection: sqlite3.Connection) -> None:
    """Makes a connection that cannot write by mistake."""
    _run(connection, f"PRAGMA busy_timeout={BUSY_MS};\nPRAGMA query_only=ON;\nPRAGMA temp_store=MEMORY;")


def migrate(connection: sqlite3.Connection) -> None:
    """Brings the tables to the newest version, all steps or none."""
    version = _number(connection, "user_version")
    if version == NEWEST:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in MIGRATIONS[version:]:
            _run(connection, script)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={NEWEST}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute(
        "PRAGMA wal_checkpoint(FULL)"
    ).fetchall()  # a new file outlives a power cut from here on


def probe(connection: sqlite3.Connection) -> None:
    """Writes one row: opening a file that cannot be written raises nothing."""
    connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'probe'")


def _grow_log(connection: sqlite3.Connection) -> None:
    """Let the log reach its size now, by a transaction that is taken back.

    Overwriting a log is 1.5 to 2 times as fast as growing one, because a commit then changes no
    file size; and the disk that is full later still has room for this much.
    """
    connection.execute("PRAGMA cache_size=10")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE filler(x BLOB)")
    connection.execute(f"INSERT INTO filler VALUES(zeroblob({LOG_BYTES}))")
    connection.execute("ROLLBACK")
    connection.execute("PRAGMA cache_size=-2000")


def _check_library() -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise Refused(f"the journal needs SQLite {oldest} or later; this Python has {sqlite3.sqlite_version}")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _run(connection: sqlite3.Connection, script: str) -> None:
    """Execute statement by statement: `executescript` would commit first."""
    statement = ""
    for line in script.splitlines():
        statement += line.partition("--")[0] + "\n"
        if sqlite3.complete_statement(statement):
            connection.execute(statement).fetchall()
            statement = ""
