"""One writer at a time among all processes of a journal, and everybody's turn comes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from ._faults import Locked
from ._flocks import UNSUPPORTED, Flock, holder

Spawn = Callable[[Callable[[], None], str], None]


class Turnstile:
    """The lock around every write transaction: `enter`, write, `leave`; in one thread.

    The lock is tried without blocking. Where it is taken, a daemon thread blocks in it and hands it
    over, so that the writing thread waits for a limited time only: blocked in the lock itself it would
    hold the interpreter's exit for as long as a stopped holder lives.

    Where the file system has no such locks everybody may enter, and SQLite's own lock and busy timeout
    are all there is.
    """

    def __init__(self, path: str, spawn: Spawn) -> None:
        self.path = path
        self._spawn = spawn
        self._quick = Flock(path)
        self._held: Flock | None = None
        self._waiter: Waiter | None = None
        self._aborted = False

    def enter(self, limit: float) -> None:
        """Holds the lock, if there are such; raises `Locked` after `limit` seconds, naming who does."""
        try:
            if self._quick.try_lock():
                self._held = self._quick
                return
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return
            raise
        if self._waiter is None and not self._aborted:
            self._waiter = Waiter(self.path, self._spawn)
        self._held = self._waiter.wait(limit) if self._waiter is not None else None
        if self._held is None:
            raise Locked(f"locked by {_name(holder(self.path))} for more than {limit:.1f} s")

    def leave(self) -> None:
        """Lets the next one in."""
        if self._held is not None:
            self._held.unlock()
            self._held = None

    def abort(self) -> None:
        """Ends a wait that is going on, and every later one at once; from any thread."""
        self._aborted = True
        if self._waiter is not None:
            self._waiter.abort()

    def in_place(self) -> bool:
        """Is the lock's file still the one that the other processes use?"""
        return self._quick.in_place()

    def close(self) -> None:
        """Gives everything back; a thread that still waits ends when its wait does."""
        self._quick.close()
        if self._waiter is not None:
            self._waiter.close()


def _name(pid: int | None) -> str:
    return f"pid {pid}" if pid else "another process"


class Waiter:
    """A daemon thread that waits for the lock on somebody's behalf."""

    def __init__(self, path: str, spawn: Spawn) -> None:
        self._flock = Flock(path)
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._state = threading.Condition()
        self._granted = False
        self._abandoned = False
        self._waiting = False
        self._aborted = False
        spawn(self._run, "bgruntime-journal-lock")

    def wait(self, limit: float) -> Flock | None:
        """The lock, held; None after `limit` seconds or when aborted."""
        with self._state:
            self._abandoned = False
            if not self._waiting:
                self._waiting = True
                self._wanted.put(True)
            self._state.wait_for(lambda: self._granted or self._aborted, limit)
            granted, self._granted = self._granted, False
            self._abandoned = not granted
        return self._flock if granted else None

    def abort(self) -> None:
        with self._state:
            self._aborted = True
            self._state.notify_all()

    def close(self) -> None:
        self.abort()
        self._wanted.put(False)

    def _run(self) -> None:
        try:
            while self._wanted.get():
                self._flock.lock()
                self._hand_over()
        finally:
            self._flock.close()

    def _hand_over(self) -> None:
        with self._state:
            self._waiting = False
            if self._abandoned or self._aborted:
                self._flock.unlock()
            else:
                self._granted = True
                self._state.notify_all()
