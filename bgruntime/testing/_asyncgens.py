"""The asynchronous generators a loop must close, in the order they were begun."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Iterator
from typing import Any

Asyncgen = AsyncGenerator[Any, Any]


class AsyncgenRow:
    """A weak set that is walked in the order of insertion, not of addresses."""

    __slots__ = ("_by_id",)

    def __init__(self) -> None:
        self._by_id: dict[int, weakref.ref[Asyncgen]] = {}

    def add(self, agen: Asyncgen) -> None:
        self._by_id[id(agen)] = weakref.ref(agen)

    def discard(self, agen: Asyncgen) -> None:
        self._by_id.pop(id(agen), None)

    def clear(self) -> None:
        self._by_id.clear()

    def __iter__(self) -> Iterator[Asyncgen]:
        alive = [reference() for reference in self._by_id.values()]
        return (agen for agen in alive if agen is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)
