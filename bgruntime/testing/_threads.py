"""
Inline threads: work for a thread, done on the loop's own thread at chosen instants.

The function runs in one go at the instant it starts. What it then posts with
`call_soon_threadsafe` arrives at later instants, so that everything that can happen between
the start of a thread and the news of it does happen in some seed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

from bgruntime.testing._errors import SimUnsupported

if TYPE_CHECKING:
    from bgruntime.testing._loop import SimLoop

LIMIT = 100_000  # sleeps of one thread

_local = threading.local()


class InlineThread:
    """The clock of one thread while its function runs; it is never behind the loop's."""

    __slots__ = ("_latency", "_random", "_sleeps", "now")

    def __init__(self, now: float, random: Random, latency: tuple[float, float]) -> None:
        self.now = now
        self._random = random
        self._latency = latency
        self._sleeps = 0

    def sleep(self, seconds: float) -> None:
        """Let *seconds* pass for this thread; the loop catches up later."""
        self._sleeps += 1
        if self._sleeps > LIMIT:
            raise SimUnsupported(
                f"an inline thread slept {LIMIT:,} times: it waits for something that the loop"
                " must do, and the loop stands still while an inline thread runs"
            )
        self.now += max(seconds, 0.0)

    def next_instant(self) -> float:
        """When the next thing this thread posts arrives: strictly after the last one."""
        self.now += self._random.uniform(*self._latency)
        return self.now


def current_thread() -> InlineThread | None:
    """The inline thread that runs right now on this real thread, if any."""
    return getattr(_local, "thread", None)


def run_inside(thread: InlineThread, target: Callable[[], object]) -> None:
    """Run *target* as the given thread."""
    _local.thread = thread
    try:
        target()
    finally:
        _local.thread = None


class Parked(BaseException):
    """Ends a worker that would wait for its next piece of work."""


class InlineQueue:
    """
    The queue in front of a thread that loops over it.

    Each item put in has *worker* run inline, which gets that one item; asking for the next
    one parks it. One item is in work at a time, in order.
    """

    def __init__(self, loop: SimLoop, worker: Callable[[], object]) -> None:
        self._loop = loop
        self.worker = worker
        self._waiting: deque[Any] = deque()
        self._hand: list[Any] = []
        self._busy = False

    def put(self, item: Any) -> None:
        """Hand over one item; never waits."""
        self._waiting.append(item)
        if not self._busy:
            self._busy = True
            self._loop.spawn(self._work, then=self._next)

    put_nowait = put

    def get(self) -> Any:
        """The item in hand, once."""
        if not self._hand:
            raise Parked
        return self._hand.pop()

    def task_done(self) -> None:
        """Nothing to count here."""

    def _work(self) -> None:
        self._hand.append(self._waiting.popleft())
        with suppress(Parked):
            self.worker()

    def _next(self) -> None:
        if self._waiting:
            self._loop.spawn(self._work, then=self._next)
        else:
            self._busy = False
