"""
Adapters: what libraries must be told so that their threads run inline.

The libraries' own code runs unmodified. Where it would start a thread that loops over a
queue, it gets an inline one; where it keeps its objects in sets by address, they get numbers.
While no `SimLoop` runs nothing is replaced; while one runs, other threads and loops of the
process see what they always saw.
"""

from __future__ import annotations

import importlib
import threading
import time
from asyncio import events
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache, partial
from types import ModuleType
from typing import Any

from bgruntime.testing._errors import SimUnsupported
from bgruntime.testing._threads import InlineQueue, current_thread

Patch = tuple[Any, str, Any]

_depth = 0
_real: list[Patch] = []


@contextmanager
def installed() -> Generator[None]:
    """Everything replaced inside, everything as before outside; may be nested."""
    global _depth
    if _depth == 0:
        for target, name, value in _patches():
            _real.append((target, name, getattr(target, name)))
            setattr(target, name, value)
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0:
            while _real:
                setattr(*_real.pop())


@cache
def _patches() -> tuple[Patch, ...]:
    return (*_blocking(), *_anyio(), *_aiosqlite())


def _loop() -> Any:
    """The running loop, if it is a simulated one."""
    running = events._get_running_loop()
    return running if hasattr(running, "trace_hash") else None


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


# Blocking calls -------------------------------------------------------------------------


def _blocking() -> tuple[Patch, ...]:
    real_sleep = time.sleep
    real_wait = threading.Condition.wait

    def sleep(seconds: float, /) -> None:
        if (thread := current_thread()) is not None:
            thread.sleep(seconds)
        elif (loop := _loop()) is not None:
            loop.stall(seconds)
        else:
            real_sleep(seconds)

    def wait(self: threading.Condition, timeout: float | None = None) -> bool:
        thread = current_thread()
        if thread is None:
            return real_wait(self, timeout)
        if timeout is None:
            raise SimUnsupported(
                "an inline thread cannot wait without a limit: the loop stands still while it"
                " runs, so nobody could wake it"
            )
        thread.sleep(timeout)
        return False

    return ((time, "sleep", sleep), (threading.Condition, "wait", wait))


# anyio ----------------------------------------------------------------------------------


def _anyio() -> tuple[Patch, ...]:
    backend: Any = _module("anyio._backends._asyncio")
    if backend is None:
        return ()
    return (
        (backend, "WorkerThread", _inline_worker(backend.WorkerThread)),
        (backend, "CancelScope", _numbered(backend.CancelScope)),
    )


def _inline_worker(real: Any) -> Any:
    def start(self: Any) -> None:
        if _loop() is None:
            real.start(self)
        else:
            self.queue = InlineQueue(self.loop, self.run)

    return type("InlineWorkerThread", (real,), {"start": start})


def _numbered(real: Any) -> Any:
    def init(self: Any, *args: Any, **options: Any) -> None:
        loop = _loop()
        self._number = id(self) if loop is None else loop.next_number()
        real.__init__(self, *args, **options)

    def number(self: Any) -> int:
        return int(self._number)

    body = {"__slots__": ("_number",), "__init__": init, "__hash__": number}
    return type("NumberedCancelScope", (real,), body)


# aiosqlite ------------------------------------------------------------------------------


def _aiosqlite() -> tuple[Patch, ...]:
    core: Any = _module("aiosqlite.core")
    if core is None or not hasattr(core, "_connection_worker_thread"):
        return ()
    return (
        (core, "SimpleQueue", partial(_made, core.SimpleQueue, _inline_queue)),
        (core, "Thread", partial(_made, core.Thread, _InlineConnectionThread)),
    )


def _made(real: Callable[..., Any], inline: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """One of the inline kind on a simulated loop, else a real one."""
    return (real if _loop() is None else inline)(*args, **options)


def _inline_queue() -> InlineQueue:
    return InlineQueue(_loop(), lambda: None)


class _InlineConnectionThread:
    """Tells the queue it is given which function works it off."""

    def __init__(self, target: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._target = target
        self._args = args

    def start(self) -> None:
        (queue,) = self._args
        queue.worker = partial(self._target, queue)

    def is_alive(self) -> bool:
        return False

    def join(self, timeout: float | None = None) -> None:
        """It has no end to wait for."""
