"""A flag that is set once, for threads that block until it is and for tasks that await it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import suppress
from typing import Any


class Flag:
    """It may be set, asked and waited for in any thread, and awaited on any loop."""

    __slots__ = ("_event", "_futures")

    def __init__(self) -> None:
        self._event = threading.Event()
        self._futures: list[asyncio.Future[None]] = []

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._event.is_set()

    def set(self) -> None:
        """Set it, and wake whoever waits."""
        self._event.set()
        for future in list(self._futures):
            with suppress(RuntimeError):  # that loop is closed
                future.get_loop().call_soon_threadsafe(_resolve, future)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is set, at most *timeout* seconds; returns whether it is."""
        return self._event.wait(timeout)

    def __await__(self) -> Generator[Any, None, None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.append(future)
        try:
            if not self._event.is_set():  # asked last: from here on `set` sees the future
                yield from future
        finally:
            self._futures.remove(future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


__all__ = ["Flag"]
