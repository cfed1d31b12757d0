"""In without waiting, out in batches: what stands between an observer and slow I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Takes items at once and hands them on in batches, in order, from a task of its own.

    It holds at most *size* items; what comes beyond that is dropped and counted in `dropped`. A batch
    whose delivery raises is counted in `failed` and not tried again. Leaving the ``async with``
    delivers what is there, for at most *close* seconds.
    """

    def __init__(
        self,
        deliver: Callable[[Sequence[T]], Awaitable[object]],
        *,
        size: int = 10_000,
        batch: int = 100,
        close: float = 2.0,
    ) -> None:
        if size < 1 or batch < 1:
            raise ValueError(f"size and batch must be at least 1, got {size} and {batch}")
        self._deliver = deliver
        self._size = size
        self._batch = batch
        self._close = close
        self._items: deque[T] = deque()
        self._wake: asyncio.Event | None = None
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0
        self.failed = 0

    def put(self, item: T) -> bool:
        """Take *item*; False if there was no room for it."""
        if len(self._items) >= self._size:
            self.dropped += 1
            return False
        self._items.append(item)
        if self._wake is not None:
            self._wake.set()
        return True

    def __len__(self) -> int:
        return len(self._items)

    async def __aenter__(self) -> Self:
        self._wake = asyncio.Event()
        self._closing = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name="bgruntime mailbox")
        if self._items:
            self._wake.set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        assert self._wake is not None
        self._closing = True
        self._wake.set()
        try:
            await asyncio.wait([self._task], timeout=self._close)
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])  # which raises only what is meant for us
            self.dropped += len(self._items)
            self._items.clear()

    async def _run(self) -> None:
        assert self._wake is not None
        while self._items or not self._closing:
            await self._wake.wait()
            while self._items:
                batch = [self._items.popleft() for _ in range(min(self._batch, len(self._items)))]
                await self._hand_on(batch)
            if not self._closing:
                self._wake.clear()

    async def _hand_on(self, batch: Sequence[T]) -> None:
        try:
            await self._deliver(batch)
        except (Exception, SystemExit, KeyboardInterrupt):  # the latter two would end the application's loop
            self.failed += len(batch)
