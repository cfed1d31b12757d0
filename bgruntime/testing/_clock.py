"""A clock that moves only when a test moves it."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self

from bgruntime.extend import ports

TURNS = 60  # of the loop, to let it settle: several times the longest chain of callbacks in the kernel
NANOSECOND = 1e-9


@dataclass(slots=True, order=True)
class Timer:
    """One pending callback; in the order of its due time, then of its making."""

    due: float
    seq: int
    callback: Callable[[], object] = field(compare=False)
    loop: asyncio.AbstractEventLoop = field(compare=False)
    context: contextvars.Context = field(compare=False)
    over: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        """The callback will not run, even when it is due already."""
        self.over = True

    def cancelled(self) -> bool:
        return self.over

    def when(self) -> float:
        """The reading of `monotonic` at which it is due, in seconds."""
        return self.due

    def fire(self) -> None:
        if not self.over:
            self.over = True
            self.callback()


class FakeClock:
    """Time for a runtime, in the hands of a test: `await clock.advance(5)`.

    Runtimes that are entered inside ``with FakeClock() as clock:`` (or `ports.use(clock.ports)`) take
    their time from it: retries, delays, timeouts, schedules. It does not drive `asyncio.sleep`, nor
    threads: for those wait for a fact, not for a time. Chance is seeded, so that a backoff is the same
    in every run.
    """

    def __init__(self, *, monotonic: float = 1000.0, wall: float = 1_700_000_000.0) -> None:
        self.now = monotonic
        self.elapsed_to_wall = wall - monotonic
        self._timers: list[Timer] = []
        self._numbers = itertools.count()
        self.ports: ports.Ports = replace(
            ports.current(),
            monotonic=self.monotonic,
            time=self.time,
            random=random.Random(0),
            call_later=self.call_later,
        )

    def __enter__(self) -> Self:
        self._in_use = ports.use(self.ports)
        self._in_use.__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._in_use.__exit__(*exc_info)

    def monotonic(self) -> float:
        """Seconds on the clock that never goes back."""
        return self.now

    def time(self) -> float:
        """Seconds since the epoch, on the clock that people may set."""
        return self.now + self.elapsed_to_wall

    def set_wall(self, seconds: float) -> None:
        """Sets the clock on the wall, as an administrator or NTP does; no time passes."""
        self.elapsed_to_wall = seconds - self.now

    def call_later(
        self, loop: asyncio.AbstractEventLoop, delay: float, callback: Callable[[], object]
    ) -> Timer:
        """Runs `callback` on `loop` once, when `delay` seconds have been advanced."""
        due = self.now + delay
        if delay > 0 and due <= self.now:  # too short to be told apart from now, but never early
            due = math.nextafter(self.now, math.inf)
        timer = Timer(max(due, self.now), next(self._numbers), callback, loop, contextvars.copy_context())
        heapq.heappush(self._timers, timer)
        return timer

    @property
    def pending(self) -> int:
        """How many callbacks wait for their time."""
        return sum(not timer.over for timer in self._timers)

    @property
    def next_due(self) -> float | None:
        """In how many seconds the next callback is due; None when there is none."""
        self._forget_what_is_over()
        return max(0.0, self._timers[0].due - self.now) if self._timers else None

    async def advance(self, seconds: float) -> None:
        """Lets `seconds` pass: whatever falls due runs, in order, at its own time.

        The loop settles before, after each due time, and at the end, so that what a callback
        started has gone as far as it can go, and timers it set within those seconds run too.
        """
        if not seconds >= 0:
            raise ValueError(f"time does not go back: advance({seconds!r})")
        target = self.now + seconds
        await self.settle()
        while (due := self._earliest(target)) is not None:
            self.now = max(self.now, due)
            self._release(due)
            await self.settle()
        self.now = max(self.now, target)
        await self.settle()

    async def settle(self, turns: int = TURNS) -> None:
        """Lets the loop turn until what can run without time passing has run."""
        for _ in range(turns):
            await asyncio.sleep(0)

    def _earliest(self, target: float) -> float | None:
        """The earliest due time up to `target`, give or take what adding floats costs."""
        self._forget_what_is_over()
        if self._timers and self._timers[0].due <= target + NANOSECOND:
            return self._timers[0].due
        return None

    def _release(self, due: float) -> None:
        """Hands what is due to its loop, which runs it in its next turn, as it would a real timer."""
        while self._timers and self._timers[0].due <= due:
            timer = heapq.heappop(self._timers)
            if not timer.loop.is_closed():
                timer.loop.call_soon(timer.fire, context=timer.context)

    def _forget_what_is_over(self) -> None:
        while self._timers and (self._timers[0].over or self._timers[0].loop.is_closed()):
            heapq.heappop(self._timers)
