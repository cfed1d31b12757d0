"""What can be wrong with a file, in words: the one place that reads SQLite's error codes."""

from __future__ import annotations

import sqlite3
from enum import StrEnum

from bgruntime import JournalUnavailable


class Fault(StrEnum):
    """The kind of trouble a journal is in."""

    LOCKED = "locked"
    FULL = "disk full"
    IO = "input/output error"
    READ_ONLY = "read-only"
    CORRUPT = "corrupt"
    PATH = "cannot be opened"
    GONE = "replaced or removed"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"
    OTHER = "failed"


class Refused(Exception):
    """This file will not be written to: its message says why. Its bytes are as they were."""


class Locked(Exception):
    """Another process held the journal's lock for longer than the limit."""


class Gone(Exception):
    """The file, its -wal or its -shm is not the one that was opened: what was written may be lost."""


class Corrupt(Exception):
    """What stands in the file cannot be: SQLite says so in another way than by its code for that."""


class CommitUnknown(Exception):
    """The disk failed while a commit was being made: it may or may not be there."""


FAULTS = {
    sqlite3.SQLITE_BUSY: Fault.LOCKED,
    sqlite3.SQLITE_LOCKED: Fault.LOCKED,
    sqlite3.SQLITE_FULL: Fault.FULL,
    sqlite3.SQLITE_IOERR: Fault.IO,
    sqlite3.SQLITE_READONLY: Fault.READ_ONLY,
    sqlite3.SQLITE_PERM: Fault.READ_ONLY,
    sqlite3.SQLITE_CORRUPT: Fault.CORRUPT,
    sqlite3.SQLITE_NOTADB: Fault.CORRUPT,
    sqlite3.SQLITE_CANTOPEN: Fault.PATH,
    sqlite3.SQLITE_INTERRUPT: Fault.INTERRUPTED,
}
OWN = {
    Refused: Fault.REFUSED,
    Locked: Fault.LOCKED,
    Gone: Fault.GONE,
    Corrupt: Fault.CORRUPT,
    CommitUnknown: Fault.IO,
}


def fault_of(error: BaseException) -> Fault:
    """The kind of trouble that `error` tells of."""
    for kind, fault in OWN.items():
        if isinstance(error, kind):
            return fault
    if isinstance(error, sqlite3.Error):
        return FAULTS.get(code_of(error) & 0xFF, Fault.OTHER)
    return Fault.PATH if isinstance(error, OSError) else Fault.OTHER


def code_of(error: sqlite3.Error) -> int:
    """SQLite's extended error code; 1, the general error, where the driver itself complains."""
    return getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR


def is_poison(error: BaseException) -> bool:
    """Is it one row's fault, so that the others of its batch can be written without it?"""
    if isinstance(error, (OverflowError, UnicodeError, sqlite3.DataError, sqlite3.InterfaceError)):
        return True
    return isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError))


def describe(path: str, error: BaseException) -> str:
    """One line for people: the file, the kind of trouble, and what was said."""
    fault = fault_of(error)
    if isinstance(error, Refused) and str(error).startswith(f"{path} "):
        return f"journal {error}"
    if fault in (Fault.REFUSED, Fault.LOCKED) and not isinstance(error, sqlite3.Error):
        return f"journal {path}: {error}"
    if fault in (Fault.OTHER, Fault.INTERRUPTED):
        return f"journal {path}: {error}"
    return f"journal {path} {'' if fault is Fault.PATH else 'is '}{fault}: {error}"


def unavailable(path: str, error: BaseException) -> JournalUnavailable:
    """The error a durable submit raises: nothing was written, for certain."""
    return _refusal(f"{describe(path, error)}; nothing was written", error)


def in_doubt(path: str, error: BaseException) -> JournalUnavailable:
    """The error of a change of which nobody can say whether it was written."""
    return _refusal(f"{describe(path, error)}; it is not known whether this was written: look", error)


def _refusal(message: str, error: BaseException) -> JournalUnavailable:
    refusal = JournalUnavailable(message)
    refusal.__cause__ = error
    return refusal
