"""Stacks: where every task stands, down to the innermost await."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import PurePath
from types import FrameType
from typing import Any


def stack_of(awaitable: Any) -> Iterator[FrameType]:
    """The frames of a suspended coroutine, outermost first."""
    while awaitable is not None:
        for prefix, inner in (("cr", "await"), ("gi", "yieldfrom"), ("ag", "await")):
            frame: FrameType | None = getattr(awaitable, f"{prefix}_frame", None)
            if frame is not None:
                yield frame
                awaitable = getattr(awaitable, f"{prefix}_{inner}")
                break
        else:
            return


def told(task: asyncio.Task[Any]) -> str:
    """One line for the task, and one for each frame it is suspended in."""
    lines = [f"  {task.get_name()}: {_what(task)}"]
    for frame in stack_of(task.get_coro()):
        place = f"{PurePath(frame.f_code.co_filename).name}:{frame.f_lineno}"
        lines.append(f"      {place} in {frame.f_code.co_qualname}")
    return "\n".join(lines)


def _what(task: asyncio.Task[Any]) -> str:
    asked = f", asked to cancel {task.cancelling()}×" if task.cancelling() else ""
    name = getattr(task.get_coro(), "__qualname__", "a coroutine")
    return f"{name}{asked}"
