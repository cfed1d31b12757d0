"""What the writing thread does with the file: open it, commit to it, notice that it is gone, close it."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from . import _files
from ._batch import Batch, fill, prepare
from ._faults import CommitUnknown, Corrupt, Fault, Gone, Locked, Refused, fault_of
from ._files import Identity, identity
from ._owners import Owner, is_signed_in, register, sign_off
from ._schema import NEWEST, probe, set_up
from ._turnstile import Spawn, Turnstile

NEWEST_KEY = "SELECT max(coalesce((SELECT max(key) FROM job), 0), coalesce((SELECT max(key) FROM ended), 0))"
RESCUED = """key, id, given, task, args, options, state, owner, run, attempt, crashes, started,
due_ms, created_ms, errors, origin"""


class Session:
    """The file at `path` as one process uses it. All but `abort` runs in the connection's thread."""

    def __init__(self, path: Path, spawn: Spawn, *, power_safe: bool = True) -> None:
        self.path = str(path)
        self._spawn = spawn
        self._power_safe = power_safe
        self._synchronous = ""
        self._turnstile: Turnstile | None = None
        self._identity: Identity | None = None
        self._aborted = False
        self.owner: Owner | None = None
        self.newest_key = 0

    def prepare(self, limit: float) -> None:
        """Leaves a file that may be opened at the path; raises `Refused`, with nothing made, for another."""
        path = Path(self.path)
        try:
            _files.check(path, NEWEST)
        except Refused:
            if not os.path.exists(f"{self.path}.lock"):
                raise  # nobody is just making it, and no lock is put beside a file that is not ours
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_lock()
        with self._turn(limit):
            _files.prepare(path, NEWEST)

    def open(self, connection: sqlite3.Connection, limit: float) -> Owner:
        """Brings the file up to date, proves that it can be written, and signs this process in."""
        self._take_lock()
        owner = self._sign_in()
        with self._turn(limit):
            try:
                set_up(connection, Path(self.path))
                register(connection, owner)
                self.newest_key = connection.execute(NEWEST_KEY).fetchone()[0]
            except sqlite3.DataError as error:  # "too big", and nothing of ours is
                raise Corrupt(str(error)) from error
            self._identity = identity(self.path)
            self._synchronous = "FULL"  # as set_up leaves it
        return owner

    def _take_lock(self) -> None:
        if self._turnstile is None or not self._turnstile.in_place():
            if self._turnstile is not None:
                self._turnstile.close()
            self._turnstile = Turnstile(f"{self.path}.lock", self._spawn)
            if self._aborted:
                self._turnstile.abort()

    def _sign_in(self) -> Owner:
        if self.owner is None or not self.owner.in_place:
            if self.owner is not None:
                self.owner.close()
            self.owner = Owner(Path(f"{self.path}.owners"))
        return self.owner

    def write(self, connection: sqlite3.Connection, batch: Batch, limit: float) -> Batch:
        """Commits the batch, or raises with nothing written; `CommitUnknown` and `Gone` say less.

        It is on disk when this returns: after a power cut too where the batch is durable, unless the
        journal was opened for less.
        """
        prepare(batch)
        with self._turn(limit):
            self._sync(connection, full=batch.durable and self._power_safe)
            try:
                self._check_signed_in(connection)
                fill(connection, batch)
                _commit(connection)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        batch.committed = True
        self._check_identity()
        return batch

    def beat(self, connection: sqlite3.Connection, limit: float) -> None:
        """Writes something, to know whether it can be done."""
        with self._turn(limit):
            self._sync(connection, full=True)
            probe(connection)
        self._check_identity()

    def present(self, connection: sqlite3.Connection, keys: list[int]) -> bool:
        """Are the jobs with all these keys in the file?"""
        select = "SELECT count(*) FROM job WHERE key IN (SELECT value FROM json_each(?))"
        found = connection.execute(select, (json.dumps(keys),)).fetchone()[0]
        return bool(found == len(keys))

    def rescue(self, connection: sqlite3.Connection) -> list[tuple[object, ...]]:
        """Our rows, out of a file that is no longer at its path."""
        assert self.owner is not None
        return connection.execute(f"SELECT {RESCUED} FROM job WHERE owner = ?", (self.owner.id,)).fetchall()

    def take_in(self, connection: sqlite3.Connection, rows: list[tuple[object, ...]], limit: float) -> None:
        """Writes rescued rows into this file, as ours."""
        assert self.owner is not None
        owned = [(*row[:7], self.owner.id, *row[8:]) for row in rows]
        marks = ",".join("?" * len(RESCUED.split(",")))
        with self._turn(limit):
            self._sync(connection, full=True)
            connection.execute("BEGIN IMMEDIATE")
            try:
                insert = f"INSERT INTO job({RESCUED}) VALUES({marks}) ON CONFLICT DO NOTHING"
                connection.executemany(insert, owned)
                _commit(connection)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        self._check_identity()

    def close(self, connection: sqlite3.Connection, limit: float) -> None:
        """Signs off and closes; the last one to leave empties the log, and nobody may write meanwhile."""
        assert self.owner is not None
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(Locked, OSError, sqlite3.Error):
                stack.enter_context(self._turn(limit))
                sign_off(connection, self.owner)
            connection.close()

    def abort(self) -> None:
        """Ends a wait for the lock that is going on, and later ones at once; from any thread."""
        self._aborted = True
        if self._turnstile is not None:
            self._turnstile.abort()

    def stay(self) -> None:
        """Sees to it that the others find our lock."""
        assert self.owner is not None
        self.owner.stay()

    def free(self) -> None:
        """Gives the locks back: from here on this process counts as gone."""
        if self.owner is not None:
            self.owner.close()
        if self._turnstile is not None:
            self._turnstile.close()
        self.owner = self._turnstile = None

    @contextlib.contextmanager
    def _turn(self, limit: float) -> Iterator[None]:
        assert self._turnstile is not None
        self._turnstile.enter(limit)
        try:
            yield
        finally:
            self._turnstile.leave()

    def _sync(self, connection: sqlite3.Connection, *, full: bool) -> None:
        wanted = "FULL" if full else "NORMAL"
        if wanted != self._synchronous:
            connection.execute(f"PRAGMA synchronous={wanted}")
            self._synchronous = wanted

    def _check_signed_in(self, connection: sqlite3.Connection) -> None:
        """Whom the others took for dead has no rows any more: what it wrote then would be nobody's."""
        if self.owner is not None and not is_signed_in(connection, self.owner):
            raise Gone("another process took this one for dead; signing in again")

    def _check_identity(self) -> None:
        try:
            same = identity(self.path) == self._identity
        except OSError as error:
            missing = os.path.basename(error.filename or self.path)
            raise Gone(f"{missing} is no longer there: {error.strerror}") from error
        if not same:
            raise Gone(f"{os.path.basename(self.path)} is no longer the file that was opened")


def _commit(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if fault_of(error) in (Fault.IO, Fault.CORRUPT):
            raise CommitUnknown(f"the disk failed during a commit: {error}") from error
        raise
