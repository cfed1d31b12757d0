"""Waiting for room, first come first served: one that is called and does not come passes its turn on."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum
from typing import Generic, TypeVar

Wanted = TypeVar("Wanted")


class Turn(Enum):
    """What a waiter is told."""

    YOURS = "yours"
    TOO_LATE = "too late"
    CLOSED = "closed"


class Waiters(Generic[Wanted]):
    """A line of futures. Whoever is called owns what it wanted and must use it or give it back."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: deque[tuple[asyncio.Future[Turn], Wanted]] = deque()

    def __bool__(self) -> bool:
        return self.first_wants() is not None

    def __len__(self) -> int:
        return sum(not future.done() for future, _ in self._futures)

    def add(self, future: asyncio.Future[Turn], wanted: Wanted) -> None:
        """Stand at the end of the line."""
        self._futures.append((future, wanted))

    def first_wants(self) -> Wanted | None:
        """What the first in the line waits for; None if nobody waits."""
        while self._futures and self._futures[0][0].done():
            self._futures.popleft()
        return self._futures[0][1] if self._futures else None

    def call_first(self) -> None:
        """Call the first in the line, which `first_wants` has just told of."""
        self._futures.popleft()[0].set_result(Turn.YOURS)

    def leave(self, future: asyncio.Future[Turn]) -> None:
        """*future* waits no more; let go of it and of all that have given up when they are many."""
        if len(self._futures) > 2 * len(self):
            self._futures = deque(entry for entry in self._futures if not entry[0].done())

    def close(self) -> None:
        """Tell everybody that there will never be room."""
        while self._futures:
            future, _ = self._futures.popleft()
            if not future.done():
                future.set_result(Turn.CLOSED)
