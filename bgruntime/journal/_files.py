"""The journal's files: who may open them, what is refused, and whether they are still the same."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from ._faults import Refused

APPLICATION_ID = 0x62677274  # "bgrt", at offset 68 of the file's header
HEADER = b"SQLite format 3\x00"
SIDES = ("-wal", "-shm")


def prepare(path: Path, newest: int) -> None:
    """Leaves a journal, or an empty file of ours, at `path`; raises `Refused` without changing a byte.

    Directories that are missing are made for this user only (0700), and so is the file (0600).
    A symbolic link, a foreign or damaged file, and a journal of a version above `newest` are refused.
    Only for whoever holds the journal's lock: a file that somebody is making looks like a foreign one.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        found = path.lstat()
    except FileNotFoundError:
        _set_aside(path)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        return
    check(path, newest)
    if found.st_size == 0:
        _set_aside(path)


def check(path: Path, newest: int) -> None:
    """Raises `Refused` for a file that is there, is not empty and is no journal up to version `newest`."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    _check_kind(path, found)
    if found.st_size:
        _check_header(path, newest)


def _check_kind(path: Path, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise Refused(f"{path} is a symbolic link; name the file itself")
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{path} is not a regular file")


def _check_header(path: Path, newest: int) -> None:
    with open(path, "rb", opener=_without_following) as file:
        header = file.read(100)
    if header[:16] != HEADER or len(header) < 100:
        raise Refused(f"{path} is not an SQLite database")
    found = int.from_bytes(header[68:72], "big")
    if found != APPLICATION_ID:
        raise Refused(
            f"{path} belongs to another application (application_id {found:#x}, not {APPLICATION_ID:#x})"
        )
    refuse_newer(path, int.from_bytes(header[60:64], "big"), newest)


def refuse_newer(path: Path, version: int, newest: int) -> None:
    """Raise `Refused` when the file has a schema this version of the library does not know."""
    if version > newest:
        raise Refused(
            f"{path} has schema version {version}; this bgruntime knows versions up to {newest}: update it"
        )


def _without_following(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _set_aside(path: Path) -> None:
    """Keep what belongs to a database that is no longer here from being read into a new one."""
    for side in SIDES:
        left = path.with_name(path.name + side)
        if left.is_file():
            left.rename(_free_name(path.with_name(f"{path.name}.lost{side}")))


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.{number}") for number in range(1, 10_000))
    return path if not path.exists() else next(name for name in names if not name.exists())


class Identity(NamedTuple):
    """Device and inode of the file, its -wal, its -shm and its lock, as they were when opened."""

    file: tuple[int, int]
    wal: tuple[int, int]
    shm: tuple[int, int]
    lock: tuple[int, int]


def identity(path: str) -> Identity:
    """What stands at these paths now. A missing file raises `FileNotFoundError`."""
    return Identity(_inode(path), _inode(path + "-wal"), _inode(path + "-shm"), _inode(path + ".lock"))


def _inode(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
