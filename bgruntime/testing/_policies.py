"""
Policies: which of the ready callbacks runs next.

A policy is a function from the ready callbacks, oldest first, and a source of chance to the
index of the one to run. Plain callbacks keep the order that `call_soon` promises; what may
change places are steps of tasks, because which of two tasks was woken first depends on
timers, threads and sockets that a program does not rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Any, TypeGuard

Policy = Callable[[Sequence[asyncio.Handle], Random], int]


def task_of(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    """The task whose step *handle* is, or None for a plain callback."""
    owner = getattr(callback_of(handle), "__self__", None)
    return owner if _is_task(owner) else None


def _is_task(owner: Any) -> TypeGuard[asyncio.Task[Any]]:
    return isinstance(owner, asyncio.Task)


def callback_of(handle: Any) -> Any:
    """What a handle calls; asyncio shows it to nobody."""
    return handle._callback


def fifo(ready: Sequence[asyncio.Handle], random: Random) -> int:
    """The oldest, as on the stock loop."""
    return 0


def soft(ready: Sequence[asyncio.Handle], random: Random) -> int:
    """Any of the task steps at the head of the line: no step overtakes a plain callback.

    Every order this gives is one that the stock loop could have given, so what fails here
    can fail in production.
    """
    width = 0
    for handle in ready:
        if task_of(handle) is None:
            break
        width += 1
    return random.randrange(width) if width > 1 else 0


def tasks(ready: Sequence[asyncio.Handle], random: Random) -> int:
    """Any task step, or the oldest plain callback.

    Steps overtake callbacks here, which `asyncio` itself does not expect everywhere: a
    failure is advice, not a verdict.
    """
    steps = [i for i, handle in enumerate(ready) if task_of(handle) is not None]
    plain = next((i for i, handle in enumerate(ready) if task_of(handle) is None), None)
    choices = steps if plain is None else [*steps, plain]
    return choices[random.randrange(len(choices))]


POLICIES: Mapping[str, Policy] = MappingProxyType({"soft": soft, "fifo": fifo, "tasks": tasks})


def policy_named(name: str | Policy) -> Policy:
    """The policy called *name*; a policy is given back as it is."""
    if callable(name):
        return name
    try:
        return POLICIES[name]
    except KeyError:
        known = ", ".join(sorted(POLICIES))
        raise ValueError(f"unknown policy {name!r}: one of {known}, or a function") from None
