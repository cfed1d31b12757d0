"""Waiting for room, first come first served: one that is called and does not come passes its turn on."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum


class Turn(Enum):
    """What a waiter is told."""

    YOURS = "yours"
    TOO_LATE = "too late"
    CLOSED = "closed"


class Waiters:
    """A line of futures. Whoever is called owns what was promised and must use it or give it back."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: deque[tuple[asyncio.Future[Turn], int]] = deque()

    def __bool__(self) -> bool:
        return self.first_wants() is not None

    def __len__(self) -> int:
        return sum(not future.done() for future, _ in self._futures)

    def add(self, future: asyncio.Future[Turn], amount: int = 1) -> None:
        """Stand at the end of the line, for *amount* places at once."""
        self._futures.append((future, amount))

    def first_wants(self) -> int | None:
        """How much the first in the line waits for; None if nobody waits."""
        while self._futures and self._futures[0][0].done():
            self._futures.popleft()
        return self._futures[0][1] if self._futures else None

    def call_first(self) -> int:
        """Call the first in the line and return how much it was promised."""
        wanted = self.first_wants()
        assert wanted is not None, "nobody waits"
        self._futures.popleft()[0].set_result(Turn.YOURS)
        return wanted

    def close(self) -> None:
        """Tell everybody that there will never be room."""
        while self._futures:
            future, _ = self._futures.popleft()
            if not future.done():
                future.set_result(Turn.CLOSED)
