"""Signals that end the process, heard on their way to whoever handled them before."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from types import FrameType
from typing import Any

from bgruntime.extend import ports

ENDING = (signal.SIGTERM, signal.SIGINT)
ECHO = 2.0  # seconds within which the parent of a worker passes on a signal the worker got as well


class Listener:
    """Hears each of `ENDING` first and passes it on to the handler that was there before.

    *on_first* runs at once, inside the signal handler, and may only set plain values; *on_loop* runs
    on the loop soon after, with False for the first signal and True for one that asks to hurry.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_first: Callable[[], object],
        on_loop: Callable[[bool], object],
    ) -> None:
        self._loop = loop
        self._context = copy_context()
        self._on_first = on_first
        self._on_loop = on_loop
        self._clock = ports.current().monotonic
        self._first_at: float | None = None
        self._handler = self._hear  # one object, so that it is known again
        self._before: dict[signal.Signals, Any] = {}

    def start(self) -> None:
        """Listen to each signal that somebody would act on."""
        for number in ENDING:
            before = signal.getsignal(number)
            if before is not None and before is not signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self._handler)

    def stop(self) -> None:
        """Put the handlers back, except where somebody else has put theirs on top."""
        for number, before in self._before.items():
            if signal.getsignal(number) is self._handler:
                signal.signal(number, before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        first, now = self._first_at is None, self._clock()
        if self._first_at is None:
            self._first_at = now
            self._on_first()
        if first or not self._is_echo(now - self._first_at):
            with suppress(RuntimeError):  # the loop is closed: nobody has to hear any more
                # Not in the context of what it interrupts: a job there would count as the caller.
                self._loop.call_soon_threadsafe(self._on_loop, not first, context=self._context.copy())
        self._pass_on(number, frame)

    def _is_echo(self, seconds: float) -> bool:
        # Supervisors signal the whole group, and then the parent of the workers signals them again.
        return multiprocessing.parent_process() is not None and seconds < ECHO

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        before = self._before[signal.Signals(number)]
        if callable(before):
            before(number, frame)
        else:  # the process would have ended here, and so it does
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


@contextmanager
def listening(on_first: Callable[[], object], on_loop: Callable[[bool], object]) -> Iterator[None]:
    """Listen meanwhile, where that is possible: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    listener = Listener(asyncio.get_running_loop(), on_first, on_loop)
    listener.start()
    try:
        yield
    finally:
        listener.stop()


__all__ = ["Listener", "listening"]
