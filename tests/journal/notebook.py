"""A journal in memory that does what a test tells it to: the other half of what the runtime may be told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any


@dataclass(frozen=True, slots=True)
class Page:
    """What a job's function is called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Notebook:
    """Takes every job at once; `on_accept`, `on_begin` and `on_settled` change that."""

    def __init__(self) -> None:
        self.host: Any = None
        self.withdrawn: list[Any] = []
        self.ends: list[tuple[str, str | None]] = []
        self.on_accept: Callable[[], Awaitable[None]] = _at_once
        self.on_begin: Callable[[], Awaitable[bool | None] | None] = _nothing
        self.on_settled: Callable[[], Awaitable[None] | None] = _nothing
        self._ids = count(1)

    async def open(self, host: Any) -> None:
        self.host = host

    def new_id(self) -> str:
        return f"page-{next(self._ids)}"

    def encode(self, definition: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Page:
        return Page(args, kwargs)

    async def accept(self, jobs: Sequence[Any], payloads: Sequence[Any]) -> None:
        await self.on_accept()

    def withdraw(self, jobs: Sequence[Any]) -> None:
        self.withdrawn += [job.id for job in jobs]

    def begin(self, job: Any) -> Awaitable[bool | None] | None:
        return self.on_begin()

    def retrying(self, job: Any, ended: Any, due: float) -> None: ...

    def settled(self, job: Any, ended: Any) -> Awaitable[None] | None:
        self.ends.append((str(job.state), ended.reason))
        return self.on_settled()

    def quiet(self) -> None: ...

    def waiting(self) -> bool:
        return False

    def problems(self) -> Sequence[str]:
        return ()

    async def close(self) -> None: ...


async def _at_once() -> None:
    await asyncio.sleep(0)


def _nothing() -> None:
    return None
