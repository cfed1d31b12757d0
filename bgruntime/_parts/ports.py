"""Time, chance, names and threads: everything the runtime takes from outside comes through here.

A simulated loop or a test replaces them, and nothing else in the kernel reads a clock, a
random number or a thread.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from .workers import run_in_daemon

__all__ = ["Cancellable", "Ports", "current", "use"]


# A callback without a context of its own takes the one it is arranged in, which may be a job's, and
# keeps everything in it alive until it runs.
NEUTRAL: Final = Context()


class Cancellable(Protocol):
    """What `Ports.call_later` returns: a call that has not happened yet and can be called off."""

    def cancel(self) -> None: ...


def _call_later(loop: asyncio.AbstractEventLoop, delay: float, callback: Callable[[], object]) -> Cancellable:
    return loop.call_later(delay, callback, context=NEUTRAL.copy())


@dataclass(slots=True, frozen=True)
class Ports:
    """The outside world as the runtime sees it; each field can be replaced.

    `monotonic` and `time` give seconds (the second by the wall clock, since the epoch), `random`
    is the source of jitter, `token(n)` gives n random bytes, `call_later(loop, seconds, callback)`
    arranges one call on the loop, `spawn(target, name)` runs *target* once in a daemon thread and
    returns at once, and `task_class` is what an attempt runs in.
    """

    monotonic: Callable[[], float] = time.monotonic
    time: Callable[[], float] = time.time
    random: random.Random = field(default_factory=random.SystemRandom)
    token: Callable[[int], bytes] = secrets.token_bytes
    call_later: Callable[[asyncio.AbstractEventLoop, float, Callable[[], object]], Cancellable] = _call_later
    spawn: Callable[[Callable[[], None], str], None] = run_in_daemon
    task_class: type[asyncio.Task[Any]] = asyncio.Task


REAL = Ports()
_installed: ContextVar[Ports | None] = ContextVar("bgruntime_ports", default=None)


def current() -> Ports:
    """The ports in force here: those of `use`, else those the running loop offers, else the real ones.

    A loop offers its own as the attribute ``bgruntime_ports``. A runtime asks once, when entered.
    """
    installed = _installed.get()
    if installed is not None:
        return installed
    offered: Ports | None = getattr(asyncio._get_running_loop(), "bgruntime_ports", None)
    return REAL if offered is None else offered


@contextmanager
def use(ports: Ports) -> Iterator[Ports]:
    """Put *ports* in force for the runtimes that are entered inside the ``with``."""
    token = _installed.set(ports)
    try:
        yield ports
    finally:
        _installed.reset(token)
