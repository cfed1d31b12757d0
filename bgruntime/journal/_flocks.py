"""Locks that the kernel frees when their holder dies: `flock` on a file of its own."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
import weakref

UNSUPPORTED = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}


class Flock:
    """An exclusive lock on the file at `path`, which is made (0600) when missing; free until taken.

    A child made by fork loses it at once: it would else keep the lock of a dead parent taken.
    """

    __slots__ = ("__weakref__", "_fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)
        _opened.add(self)

    def try_lock(self) -> bool:
        """True when the lock is ours now; False when somebody holds it. Never waits."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def lock(self) -> None:
        """Waits as long as it takes, in the order of arrival; only for threads that may be abandoned."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def unlock(self) -> None:
        """Frees the lock, held or not."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def in_place(self) -> bool:
        """Is the file still at its path? Whoever comes later would lock another one if not."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self.path))
        except OSError:
            return False

    def close(self) -> None:
        """Frees the lock and the descriptor; harmless a second time."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Tickets:
    """The order in which others wait for the lock on the file at `path`.

    Each holds a number, which is a lock on that byte of the file, and waits for the number before its own to
    be dropped: by its holder, or by the kernel when that dies. They only say whose turn it is, and keep
    nobody out. Where there are no such locks (other systems than Linux) nobody is ever before anybody.
    """

    __slots__ = ("__weakref__", "_fd")

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        _opened.add(self)

    def first(self) -> int | None:
        """The lowest number that somebody else holds; None when nobody waits."""
        told = _number(self._fd, TEST, fcntl.F_WRLCK, 0, 0)
        return None if told is None or told[0] == fcntl.F_UNLCK else told[2]

    def draw(self) -> int | None:
        """Holds the number behind all others from now on; returns the one before it, if there is any."""
        first = self.first()
        start = 0 if first is None else first + 1
        for number in range(start, start + MOST_WAITING):
            try:
                drawn = _number(self._fd, TAKE, fcntl.F_WRLCK, number, 1)
            except (BlockingIOError, PermissionError):
                continue
            above = _number(self._fd, TEST, fcntl.F_WRLCK, number + 1, 0)
            if above is not None and above[0] != fcntl.F_UNLCK:  # those before us have moved up meanwhile
                self.drop()
                continue
            return number - 1 if number and drawn is not None else None
        return None

    def wait(self, number: int) -> None:
        """Waits until nobody holds the number; only for threads that may be abandoned."""
        _number(self._fd, WAIT, fcntl.F_WRLCK, number, 1)

    def drop(self) -> None:
        """The next one's turn has come."""
        _number(self._fd, TAKE, fcntl.F_UNLCK, 0, 0)

    def close(self) -> None:
        """Drops and closes; harmless a second time."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


MOST_WAITING = 1_024
TAKE, WAIT, TEST = (getattr(fcntl, f"F_OFD_{name}", None) for name in ("SETLK", "SETLKW", "GETLK"))
RANGE = struct.Struct("hhqqi0q")  # struct flock: type, whence, start, length (0: to the end), pid


def _number(fd: int, command: int | None, kind: int, start: int, length: int) -> tuple[int, ...] | None:
    """Lock, unlock or test numbers; None where that cannot be done."""
    if command is None:
        return None
    try:
        return RANGE.unpack(fcntl.fcntl(fd, command, RANGE.pack(kind, os.SEEK_SET, start, length, 0)))
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return None
        raise


_opened: weakref.WeakSet[Flock | Tickets] = weakref.WeakSet()


def _close_in_child() -> None:
    for lock in list(_opened):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)


def is_free(path: str) -> bool:
    """Does nobody hold the lock at `path`? A file that is gone is held by nobody."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def holder(path: str) -> int | None:
    """The pid of the process that holds the lock at `path`, where the kernel tells (Linux)."""
    try:
        inode = os.stat(path).st_ino
        with open("/proc/locks") as table:
            lines = table.read()
    except OSError:
        return None
    held = re.search(rf"^\d+: FLOCK +\S+ +WRITE +(\d+) +\S+:{inode} ", lines, re.MULTILINE)
    return int(held[1]) or None if held else None
