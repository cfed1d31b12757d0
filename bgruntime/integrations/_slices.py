"""Long work on the loop, in short slices."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar

from bgruntime.extend import ports

SLICE = 0.001  # seconds

T = TypeVar("T")


async def in_slices(pieces: Iterable[T]) -> list[T]:
    """All *pieces*. The loop has a turn whenever they have taken a millisecond to make."""
    now = ports.current().monotonic
    made: list[T] = []
    until = now() + SLICE
    for piece in pieces:
        made.append(piece)
        if now() >= until:
            await asyncio.sleep(0)
            until = now() + SLICE
    return made


__all__ = ["in_slices"]
