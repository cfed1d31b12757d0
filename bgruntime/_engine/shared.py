"""Resources of the runtime: opened when first needed, shared by its jobs, closed when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from contextvars import Context
from typing import TYPE_CHECKING, Any

from .._model.jobs import Need

if TYPE_CHECKING:
    from .supervise import Supervisor


class SharedResources:
    """One value per factory. Each is entered and left by a task of its own, as anyio's scopes require."""

    def __init__(self, engine: Supervisor) -> None:
        self._engine = engine
        self._kept: dict[Callable[[], Any], _Kept] = {}

    async def get(self, need: Need) -> Any:
        """The value that *need*'s factory yielded, the same for every job of the runtime.

        What opening it raised is raised here, and the next one who asks tries again.
        """
        kept = self._kept.get(need.factory)
        if kept is None or kept.failed:
            kept = self._kept[need.factory] = _Kept(self._engine, need)
        return await kept.value()

    async def close(self) -> None:
        """Close them all, the one opened last first. What one raises is reported and stops no other."""
        try:
            while self._kept:
                _, kept = self._kept.popitem()
                await kept.close()
        finally:  # one that hangs was cut short: the others close at once, and nobody waits for them
            for kept in self._kept.values():
                kept.ask_to_close()
            self._kept.clear()


class _Kept:
    def __init__(self, engine: Supervisor, need: Need) -> None:
        loop = engine.loop
        self._engine = engine
        self._need = need
        self._opened: asyncio.Future[Any] = loop.create_future()
        self._opened.add_done_callback(_seen)
        self._closing = asyncio.Event()
        self._task = engine.make_task(self._live(), f"bgruntime resource {need.name}", Context())

    @property
    def failed(self) -> bool:
        return self._opened.done() and self._opened.exception() is not None

    async def value(self) -> Any:
        if not self._opened.done():
            await asyncio.wait([self._opened])
        return self._opened.result()

    def ask_to_close(self) -> None:
        self._closing.set()
        if not self._opened.done():
            self._task.cancel()

    async def close(self) -> None:
        self.ask_to_close()
        try:
            await asyncio.wait([self._task])
        except asyncio.CancelledError:
            self._task.cancel()  # it hangs while closing, and its time is up
            raise

    async def _live(self) -> None:
        from .surround import enter

        try:
            async with AsyncExitStack() as stack:
                value = await enter(stack, self._need.name, self._need.factory())
                self._opened.set_result(value)
                await self._closing.wait()
        except BaseException as error:
            if not self._opened.done():
                self._opened.set_exception(_settable(error))
            else:
                self._engine.complain(f"resource {self._need.name} failed on closing", error)


def _settable(error: BaseException) -> BaseException:
    """Futures refuse StopIteration and swallow nothing else."""
    if isinstance(error, StopIteration | asyncio.CancelledError):
        wrapped = RuntimeError(f"opening the resource raised {type(error).__name__}")
        wrapped.__cause__ = error
        return wrapped
    return error


def _seen(future: asyncio.Future[Any]) -> None:
    future.exception()
