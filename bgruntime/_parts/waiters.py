"""Waiting for room, first come first served: one that is called and does not come passes its turn on."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum
from typing import Generic, TypeVar

Wanted = TypeVar("Wanted")
SWEEP_FROM = 64


class Turn(Enum):
    """What a waiter is told."""

    YOURS = "yours"
    TOO_LATE = "too late"
    CLOSED = "closed"


class Waiters(Generic[Wanted]):
    """A line of futures. Whoever is called owns what it wanted and must use it or give it back.

    It is true while somebody waits, or was called and has not gone on yet: whoever comes meanwhile
    has to stand behind.
    """

    __slots__ = ("_called", "_futures", "_given_up")

    def __init__(self) -> None:
        self._futures: deque[tuple[asyncio.Future[Turn], Wanted]] = deque()
        self._called = self._given_up = 0

    def __bool__(self) -> bool:
        return self._called > 0 or (bool(self._futures) and self.first_wants() is not None)

    def add(self, future: asyncio.Future[Turn], wanted: Wanted) -> None:
        """Stand at the end of the line."""
        self._futures.append((future, wanted))

    def first_wants(self) -> Wanted | None:
        """What the first in the line waits for; None if nobody waits."""
        while self._futures and self._futures[0][0].done():
            self._futures.popleft()
            self._given_up -= 1
        return self._futures[0][1] if self._futures else None

    def call_first(self) -> None:
        """Call the first in the line, which `first_wants` has just told of."""
        self._called += 1
        self._futures.popleft()[0].set_result(Turn.YOURS)

    def leave(self, future: asyncio.Future[Turn]) -> None:
        """The owner of *future* goes on, called or not, and waits no more."""
        if not future.done() or future.cancelled() or future.result() is Turn.TOO_LATE:
            self._given_up += 1
            if self._given_up > SWEEP_FROM and self._given_up * 2 > len(self._futures):
                self._futures = deque(entry for entry in self._futures if not entry[0].done())
                self._given_up = 0
        elif future.result() is Turn.YOURS:
            self._called -= 1

    def close(self) -> None:
        """Tell everybody that there will never be room."""
        while self._futures:
            future, _ = self._futures.popleft()
            if not future.done():
                future.set_result(Turn.CLOSED)
