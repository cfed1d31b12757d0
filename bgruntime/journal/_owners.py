"""Who works on the journal, and who of them is dead."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import sqlite3
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from bgruntime.extend import ports

from ._flocks import UNSUPPORTED, Flock, is_free
from ._keys import SLOTS

LEASE_MS = 30_000  # without a sign of life, where locks do not work

SLOTS_TAKEN = "SELECT slot FROM owner"
SIGN_IN = """
INSERT INTO owner(lock, slot, pid, host, boot, beat_ms, started_ms, names) VALUES(?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(lock) DO UPDATE SET names = excluded.names RETURNING id, slot"""
OTHERS = "SELECT id, lock, pid, host, boot, beat_ms FROM owner WHERE id <> ?"
AGAIN = "SELECT id, lock, pid, host, boot, beat_ms FROM owner WHERE id = ?"
BEAT = "UPDATE owner SET beat_ms = ? WHERE id = ?"
NAMES = "UPDATE owner SET names = ? WHERE id = ?"


class Owner:
    """This process, as the others know it: a lock that is held from before its first row to its end.

    Where the file system has no such locks, a lease in time since boot stands in for it.
    """

    def __init__(self, directory: Path) -> None:
        self.lock = ports.current().token(16).hex()
        self.directory = directory
        self.id = 0
        self.slot = 0
        self.signed_off = False
        self.names: tuple[str, ...] = ()
        directory.mkdir(mode=0o700, exist_ok=True)
        self._flock = Flock(str(directory / self.lock))
        self.leased = not _works(self._flock)

    @property
    def in_place(self) -> bool:
        """Do the others still see our lock?"""
        return self._flock.in_place()

    def stay(self) -> None:
        """Makes our lock's file anew where somebody removed it: we would be taken for dead."""
        path = self.directory / self.lock
        if self.leased or path.exists():
            return
        with contextlib.suppress(OSError):
            self.directory.mkdir(mode=0o700, exist_ok=True)
            anew = Flock(f"{path}.new")  # locked before anybody sees it
            try:
                anew.try_lock()
                os.rename(anew.path, path)
            except OSError:
                anew.close()
                raise
            anew.path = str(path)
            self._flock.close()
            self._flock = anew

    def close(self) -> None:
        """From here on this process counts as gone."""
        self._flock.close()
        if self.signed_off or not self.id:  # else its file tells of its death
            (self.directory / self.lock).unlink(missing_ok=True)


def _works(flock: Flock) -> bool:
    try:
        return flock.try_lock()
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return False
        flock.close()
        raise


def _is_free(lock: Path) -> bool | None:
    """Does nobody hold the lock? None where locks do not work."""
    try:
        return is_free(str(lock))
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return None
        raise


def register(connection: sqlite3.Connection, owner: Owner) -> None:
    """Enters `owner` into the file, with a slot that nobody else has; the same one again if it is there."""
    taken = {slot for (slot,) in connection.execute(SLOTS_TAKEN)}
    slot = next((slot for slot in range(SLOTS) if slot not in taken), 0)
    started = int(ports.current().time() * 1000)
    beat = boot_ms() if owner.leased else None
    row = (
        owner.lock,
        slot,
        os.getpid(),
        socket.gethostname(),
        boot_id(),
        beat,
        started,
        json.dumps(owner.names),
    )
    owner.id, owner.slot = connection.execute(SIGN_IN, row).fetchone()


def is_signed_in(connection: sqlite3.Connection, owner: Owner) -> bool:
    """Is `owner` still in the file?"""
    return connection.execute("SELECT 1 FROM owner WHERE id = ?", (owner.id,)).fetchone() is not None


def sign_off(connection: sqlite3.Connection, owner: Owner) -> None:
    """Takes `owner` out of the file. What it still had goes back to everybody, uncounted."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(RELEASE_ALL, (owner.id,))
    connection.execute("UPDATE ended SET owner = NULL WHERE owner = ?", (owner.id,))
    connection.execute("DELETE FROM owner WHERE id = ?", (owner.id,))
    connection.execute("COMMIT")
    owner.signed_off = True


RELEASE_ALL = """
UPDATE job SET owner = NULL, due_ms = coalesce(due_ms, created_ms),
               state = CASE state WHEN 2 THEN 0 ELSE state END
WHERE owner = ?"""


@dataclass(frozen=True, slots=True)
class Other:
    """Another process in the file."""

    id: int
    lock: str
    pid: int
    host: str
    boot: str
    beat_ms: int | None

    def is_dead(self, directory: Path) -> bool:
        """Is its lock free, or its lease over? A process that is merely stopped is alive.

        So is one whose lock's file was removed, for as long as it runs on this machine.
        """
        if self.beat_ms is None:
            lock = directory / self.lock
            if not lock.exists() and self._runs_here():
                return False
            free = _is_free(lock)
            if free is not None:
                return free
            # It had a lock in another place that this file was in: a start of the machine ended it.
            return self.boot != boot_id() and self.host == socket.gethostname()
        if self.boot != boot_id():  # of another machine's clock nothing is known
            return self.host == socket.gethostname()
        return boot_ms() - self.beat_ms > LEASE_MS

    def _runs_here(self) -> bool:
        if self.host != socket.gethostname() or self.boot != boot_id():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # another user's
        return True


def others(connection: sqlite3.Connection, owner_id: int) -> list[Other]:
    """All processes in the file but this one, the dead included."""
    return [Other(*row) for row in connection.execute(OTHERS, (owner_id,))]


def again(connection: sqlite3.Connection, other: Other) -> Other | None:
    """The same process as it is in the file by now; None when it is there no more."""
    row = connection.execute(AGAIN, (other.id,)).fetchone()
    return None if row is None else Other(*row)


def is_first(connection: sqlite3.Connection, owner_id: int, directory: Path) -> bool:
    """Has this process been here for longest, of all that live? Not where one of them has a lock.

    Whose own lease is over is not the first: the others have one already.
    """
    alive = [one for one in others(connection, 0) if not one.is_dead(directory)]
    return all(one.beat_ms is not None for one in alive) and owner_id == min(
        (one.id for one in alive), default=0
    )


def name_tasks(connection: sqlite3.Connection, owner_id: int, names: Collection[str]) -> None:
    """Tells everybody which durable tasks this process knows."""
    connection.execute(NAMES, (json.dumps(sorted(names)), owner_id))


def renew(connection: sqlite3.Connection, owner_id: int) -> None:
    """A sign of life, where locks do not work."""
    connection.execute(BEAT, (boot_ms(), owner_id))


def boot_ms() -> int:
    """Milliseconds since this machine started, sleep included: no clock that anybody sets."""
    return int(time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) * 1000)


@functools.cache
def boot_id() -> str:
    """Which start of this machine this is; empty where that is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
