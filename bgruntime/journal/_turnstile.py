"""One writer at a time among all processes of a journal, and everybody's turn comes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from ._faults import Locked
from ._flocks import UNSUPPORTED, Flock, Tickets, holder

STALLED = 0.25  # seconds after which whoever finds the lock free may have it, for the next one may be stopped
PROBE = 0.01  # seconds between two looks from then on
Spawn = Callable[[Callable[[], None], str], None]


class Turnstile:
    """The lock around every write transaction: `enter`, write, `leave`; in one thread.

    The lock is tried without blocking. Where it is taken, or somebody waits for it already, a daemon thread
    blocks in it and hands it over, so that the writing thread waits for a limited time only: blocked in the
    lock itself it would hold the interpreter's exit for as long as a stopped holder lives.

    The kernel gives a lock to whoever asks in the moment it is free, and the one it woke finds it taken
    again; so those who wait have numbers, and nobody overtakes them. Only when nothing moves, because one of
    them was stopped, is the lock for whoever finds it free.

    Where the file system has no such locks everybody may enter, and SQLite's own lock and busy timeout
    are all there is.
    """

    def __init__(self, path: str, spawn: Spawn) -> None:
        self.path = path
        self._spawn = spawn
        self._quick = Flock(path)
        self._tickets = Tickets(path)
        self._held: Flock | None = None
        self._waiter: Waiter | None = None
        self._aborted = False

    def enter(self, limit: float) -> None:
        """Holds the lock, if there are such; raises `Locked` after `limit` seconds, naming who does."""
        try:
            if self._tickets.first() is None and self._quick.try_lock():
                self._held = self._quick
                return
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return
            raise
        if self._waiter is None and not self._aborted:
            self._waiter = Waiter(self.path, self._quick, self._spawn)
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
        self._tickets.close()
        if self._waiter is not None:
            self._waiter.close()


def _name(pid: int | None) -> str:
    return f"pid {pid}" if pid else "another process"


class Waiter:
    """A daemon thread that waits for the lock on somebody's behalf; `quick` is the lock without waiting."""

    def __init__(self, path: str, quick: Flock, spawn: Spawn) -> None:
        self._quick = quick
        self._flock = Flock(path)
        self._tickets = Tickets(path)
        self._wanted: queue.SimpleQueue[tuple[bool, int | None]] = queue.SimpleQueue()
        self._state = threading.Condition()
        self._granted = False
        self._abandoned = False
        self._waiting = False
        self._aborted = False
        spawn(self._run, "bgruntime-journal-lock")

    def wait(self, limit: float) -> Flock | None:
        """The lock, held; None after `limit` seconds or when aborted."""
        held: Flock | None = None
        with self._state:
            self._abandoned = False
            pause = 0.0 if self._waiting else STALLED  # a wait that was given up has not come to its end yet
            if not self._waiting:
                self._wanted.put((True, self._tickets.draw()))
                self._waiting = True
            try:
                held = self._wait(limit, pause)
            finally:
                self._granted, self._abandoned = False, held is not self._flock
        return held

    def _wait(self, limit: float, pause: float) -> Flock | None:
        left = limit
        while not self._state.wait_for(lambda: self._granted or self._aborted, min(pause, left)):
            left -= min(pause, left)
            if self._quick.try_lock():
                return self._quick
            if left <= 0:
                return None
            pause = PROBE
        return self._flock if self._granted else None

    def abort(self) -> None:
        with self._state:
            self._aborted = True
            self._state.notify_all()

    def close(self) -> None:
        self.abort()
        self._wanted.put((False, None))

    def _run(self) -> None:
        try:
            while (wanted := self._wanted.get())[0]:
                if wanted[1] is not None:
                    self._tickets.wait(wanted[1])
                self._flock.lock()
                self._tickets.drop()
                self._hand_over()
        finally:
            self._flock.close()
            self._tickets.close()

    def _hand_over(self) -> None:
        with self._state:
            self._waiting = False
            if self._abandoned or self._aborted:
                self._flock.unlock()
            else:
                self._granted = True
                self._state.notify_all()
