"""How late the event loop is, and who holds it when it is late."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from bgruntime import Job, RuntimeStats
from bgruntime.extend import Block, Check, LoopBlocked, LoopStats, ObserverHost, Sketch, Spread, ports

from ._stacks import Line, is_idle, lines_of, place_of, written

EVERY = 0.02  # seconds between two beats
LIMIT = 0.1  # seconds of lag from which on somebody held the loop
LOOKS = 0.05  # seconds between two looks of the watchdog
MINUTE = 60.0
MINUTES = 5
WARNS = 30.0  # seconds for which health shows that the loop was held

Look = tuple[Any, Job[Any] | None, list[Line]]  # the task that was running, its job, and where it stood


class LoopWatch:
    """Measures how late the event loop comes to what is due, and names who held it.

    A beat every 20 ms measures the lag. When one is more than 100 ms late, a watchdog thread looks
    where the loop's thread stands and which job's task is running; as soon as the loop is free again
    that is a `LoopBlocked` event with the job, the file and the line, a number in `Runtime.stats`,
    and for 30 s a warning in `Runtime.health`. A bare `Runtime` has one. Under ports of its own,
    a simulated loop or a test's clock, there is no lag to measure and it does nothing.

    Args:
        limit: seconds of lag that are too many.
        on: False to measure nothing.

    Raises:
        ValueError: *limit* is not more than 0.
    """

    listens_to = (type(None),)  # to nothing

    def __init__(self, *, limit: float = LIMIT, on: bool = True) -> None:
        if not limit > 0:
            raise ValueError(f"limit is in seconds and must be more than 0, got {limit!r}")
        self._limit = limit
        self._on = on
        self._host: ObserverHost | None = None
        self._forget()

    def _forget(self) -> None:
        self._lag = Sketch()
        self._minute = Sketch()
        self._number = 0
        self._closed: deque[tuple[int, bytes]] = deque(maxlen=MINUTES)
        self._pending: list[float] = []
        self._blocks = 0
        self._last: Block | None = None
        self._last_at = float("-inf")
        self._due = 0.0
        self._looks: list[Look] = []
        self._timer: Any = None
        self._closing = threading.Event()

    # -- its life ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._forget()
        self._ports = ports.current()
        self.measures = self._on and self._ports is ports.REAL
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._timer is not None:
            self._timer.cancel()

    def attach(self, host: ObserverHost, /) -> None:
        """Begin to measure the loop of the runtime behind *host*."""
        self._host = host
        if not self.measures:
            return
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._set_timer()
        self._ports.spawn(self._guard, "bgruntime-watchdog")

    def on_event(self, event: Any, /) -> None:
        """Hear nothing: it only tells."""

    # -- on the loop ---------------------------------------------------------------------------

    def _set_timer(self) -> None:
        self._due = self._ports.monotonic() + EVERY
        self._timer = self._ports.call_later(self._loop, EVERY, self._beat)

    def _beat(self) -> None:
        now = self._ports.monotonic()
        lag = max(0.0, now - self._due)
        try:
            if lag > self._limit:
                self._tell(now, lag)
            self._looks = []
            self._pending.append(lag)
            if len(self._pending) >= 500:
                self._count(now)
        finally:
            self._set_timer()

    def _count(self, now: float) -> None:
        self._turn(now)
        self._minute.extend(self._pending)
        self._pending.clear()

    def _turn(self, now: float) -> None:
        number = int(now // MINUTE)
        if number != self._number:
            self._lag.merge(self._minute)
            self._closed.append((self._number, self._minute.to_bytes()))
            self._minute = Sketch()
            self._number = number

    def _tell(self, now: float, lag: float) -> None:
        job, lines = self._who()
        if not lines:
            return  # nobody held it: the process itself got no time
        place = place_of(lines)
        self._blocks += 1
        self._last_at = now
        self._last = Block(
            duration=lag,
            at=self._ports.time(),
            job_id=None if job is None else job.id,
            task=None if job is None else job.task,
            place=place,
        )
        if self._host is not None:
            self._host.emit(LoopBlocked(now, lag, job, place, written(lines)))

    def _who(self) -> tuple[Job[Any] | None, list[Line]]:
        """Whose task was running at most of the looks, and where it stood then."""
        looks = [look for look in self._looks if look[0] is not None or not is_idle(look[2])]
        if not looks:
            return None, []
        # A burst of short callbacks holds the loop as one long one does: then the most frequent is named.
        [(most, _)] = Counter(id(task) for task, _, _ in looks).most_common(1)
        _, job, lines = next(look for look in looks if id(look[0]) == most)
        return job, lines

    # -- in the watchdog's thread ----------------------------------------------------------------

    def _guard(self) -> None:
        closing = self._closing
        while not closing.wait(LOOKS):
            due = self._due
            if self._ports.monotonic() - due > self._limit / 2:
                look = self._look()
                if self._due == due and len(self._looks) < 100:
                    self._looks.append(look)

    def _look(self) -> Look:
        try:
            task = asyncio.current_task(self._loop)
        except RuntimeError:
            task = None
        job = None if task is None or self._host is None else self._host.job_of(task)
        return task, job, lines_of(self._thread)

    # -- what it shows -------------------------------------------------------------------------

    def complete(self, stats: RuntimeStats, /) -> RuntimeStats:
        """*stats* with the lag of the loop and the last time that it was held."""
        if not self.measures:
            return stats
        now = self._ports.monotonic()
        self._count(now)
        recent = Sketch()
        for number, data in self._closed:
            if number >= self._number - MINUTES:
                recent.merge(Sketch.from_bytes(data))
        recent.merge(self._minute)
        whole = Sketch()
        whole.merge(self._lag)
        whole.merge(self._minute)
        loop = LoopStats(Spread.of(whole), Spread.of(recent), self._blocks, self._last)
        return replace(stats, loop=loop)

    def checks(self) -> Sequence[Check]:
        """A warning for 30 seconds after the loop was held."""
        last = self._last
        if last is None or self._ports.monotonic() - self._last_at > WARNS:
            return [Check("loop", "pass")]
        who = f"job {last.job_id} ({last.task})" if last.job_id else "something"
        where = f" at {last.place}" if last.place else ""
        return [Check("loop", "warn", f"{who} held the loop for {last.duration:.1f} s{where}")]


__all__ = ["LoopWatch"]
