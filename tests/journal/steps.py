"""Tasks and waiting, for tests of the journal."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bgruntime import Registry, task

PATIENCE = 10.0  # seconds until a fact that does not come true fails the test


async def until(fact: Callable[[], Any] | Callable[[], Awaitable[Any]]) -> Any:
    """What `fact` says once that is true."""
    deadline = time.monotonic() + PATIENCE
    while True:
        value = fact()
        if inspect.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"it never came true: {fact}"
        await asyncio.sleep(0.005)


def durable(function: Callable[..., Any], **options: Any) -> Any:
    """A durable task under a name that no other test uses."""
    name = options.pop("name", f"{function.__name__}-{uuid.uuid4().hex[:12]}")
    return task(function, name=name, durable=True, **options)


def ordinary(function: Callable[..., Any], **options: Any) -> Any:
    """A task under a name that no other test uses."""
    name = options.pop("name", f"{function.__name__}-{uuid.uuid4().hex[:12]}")
    return task(function, name=name, **options)


def directory_instead(path: Path) -> None:
    """A directory stands where the journal was, whose process may make a file there meanwhile."""
    while not path.is_dir():
        for file in path.parent.glob(path.name + "*"):
            if file.is_file():
                file.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir()


def is_writing(writer: Any, what: str) -> bool:
    """Whether the batch under way has something of *what*; there may be others, of the journal's own."""
    batch = writer._in_flight
    return batch is not None and bool(getattr(batch, what))


class Switch:
    """Something outside that is broken until somebody repairs it."""

    def __init__(self) -> None:
        self.works = False
        self.used: list[Any] = []

    def use(self, value: Any = None) -> Any:
        self.used.append(value)
        if not self.works:
            raise ConnectionError(f"no answer for {value!r}")
        return value


__all__ = ["Registry", "Switch", "directory_instead", "durable", "is_writing", "ordinary", "until"]
