"""Exceptions that keep nobody's locals alive."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, CO_ITERABLE_COROUTINE
from types import TracebackType

_RESUMABLE = CO_COROUTINE | CO_GENERATOR | CO_ASYNC_GENERATOR | CO_ITERABLE_COROUTINE
_CLEAR_IS_SAFE = sys.version_info >= (3, 13)
MOST_LINKED = 32


def without_own_frames(error: BaseException, package: str) -> TracebackType | None:
    """The traceback of *error* from the first frame that is not of *package* on, set on it and returned."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(package):
        trace = trace.tb_next
    error.__traceback__ = trace
    return trace


def clear_frames(error: BaseException) -> None:
    """Drop the local variables of the finished frames in the tracebacks of *error* and those linked to it.

    Before Python 3.13 ``frame.clear()`` closes a coroutine that is merely suspended, and a
    traceback may well hold one: a driver's reader that caught an error, handed it on and lives.
    There only the outermost frame, which is the job's own, and plain functions are cleared. If
    *error* was never raised it is its cause that came from there.
    """
    from_job = error.__cause__ if error.__traceback__ is None else error
    for linked in _linked(error):
        trace = linked.__traceback__
        outermost = linked is from_job
        while trace is not None:
            frame = trace.tb_frame
            if outermost or _CLEAR_IS_SAFE or not frame.f_code.co_flags & _RESUMABLE:
                try:  # noqa: SIM105
                    frame.clear()
                except RuntimeError:  # it is still running, or suspended
                    pass
            outermost = False
            trace = trace.tb_next


def _linked(error: BaseException) -> Iterator[BaseException]:
    """*error*, its causes and contexts and the members of groups, each once, at most MOST_LINKED."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting and len(seen) < MOST_LINKED:
        linked = waiting.pop()
        if linked is None or id(linked) in seen:
            continue
        seen.add(id(linked))
        yield linked
        waiting += (linked.__cause__, linked.__context__)
        if isinstance(linked, BaseExceptionGroup):
            waiting += linked.exceptions  # pyright: ignore[reportUnknownMemberType]
