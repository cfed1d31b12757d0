"""One heap of due times and one timer of the loop: never early, in order, a bounded number a turn."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

from .ports import NEUTRAL, Cancellable, Ports

PER_TURN = 256


class Timer:
    """One call that is due at a time of the monotonic clock; `cancel` calls it off."""

    __slots__ = ("action", "item")

    def __init__(self, action: Callable[[Any], object], item: Any) -> None:
        self.action: Callable[[Any], object] | None = action
        self.item = item


class Timers:
    """Calls back at or after each due time, equal ones in the order in which they were set.

    Loops differ: some fire a fraction of a millisecond early, some run equal times out of order.
    So the clock is asked again after waking, and the order is kept here.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ports: Ports) -> None:
        self._loop = loop
        self._ports = ports
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = count()
        self._armed: Cancellable | None = None
        self._armed_for = float("inf")
        self._dead = 0

    def at(self, due: float, action: Callable[[Any], object], item: Any) -> Timer:
        """Call ``action(item)`` at *due* or as soon after it as the loop turns."""
        timer = Timer(action, item)
        heapq.heappush(self._heap, (due, next(self._sequence), timer))
        if due < self._armed_for:
            self._arm(due)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Call off *timer*, at once and for good."""
        if timer.action is None:
            return
        timer.action = timer.item = None
        self._dead += 1
        if self._dead > 64 and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._dead = 0

    def close(self) -> None:
        """Call nothing any more."""
        if self._armed is not None:
            self._armed.cancel()
        self._heap.clear()
        self._dead = 0
        self._armed, self._armed_for = None, float("inf")

    def _arm(self, due: float) -> None:
        if self._armed is not None:
            self._armed.cancel()
        self._armed_for = due
        delay = max(0.0, due - self._ports.monotonic())
        self._armed = self._ports.call_later(self._loop, delay, self._fire)

    def _fire(self) -> None:
        # A callback may set timers: until this turn is over none of them arms the loop's timer.
        self._armed, self._armed_for = None, float("-inf")
        now = self._ports.monotonic()
        try:
            for _ in range(PER_TURN):
                if not self._heap or self._heap[0][0] > now:
                    break
                self._call(heapq.heappop(self._heap)[2])
        finally:
            self._armed_for = float("inf")
            if self._heap and self._heap[0][0] <= now:
                self._armed_for = now
                self._armed = self._loop.call_soon(
                    self._fire, context=NEUTRAL.copy()
                )  # the rest, in the next turn
            elif self._heap:
                self._arm(self._heap[0][0])

    def _call(self, timer: Timer) -> None:
        action, item = timer.action, timer.item
        if action is None:
            self._dead -= 1
            return
        timer.action = timer.item = None
        action(item)
