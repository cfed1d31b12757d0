"""Runs a coroutine function on a new event loop, and fails when anything is said or left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 2.0  # seconds for threads that were told to end
ROUNDS = 8  # of cancelling what a failed test left behind, before it is given up
STANDARD_LIBRARY = Path(threading.__file__).parent
RUNTIME = Path(__file__).parent.parent / "bgruntime"


class Disturbance(AssertionError):
    """A test passed on the face of it, but something was said to the loop or left behind."""


@dataclass(frozen=True, slots=True)
class QuietRun:
    """`run(main)`: the value of `await main()` on a new event loop of this kind, or what it raised.

    Fails with `Disturbance` when the loop's exception handler was called, a task or a thread is
    left over, a warning could not be raised where it arose, or a coroutine or an exception was lost.
    """

    loop_name: str
    new_loop: Callable[[], asyncio.AbstractEventLoop]

    def __call__(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        heard: list[str] = []
        threads = set(threading.enumerate())
        try:
            with listening(heard):
                value = run_on(self.new_loop(), main, heard)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            heard += [f"left over: {describe(thread)}" for thread in left_over(threads)]
            if not heard:
                raise
            if isinstance(error, AssertionError):  # the test has failed already: that comes first
                error.add_note("\n".join(heard))
                raise
            raise Disturbance("\n".join(heard)) from error
        heard += [f"left over: {describe(thread)}" for thread in left_over(threads)]
        if heard:
            raise Disturbance("\n".join(heard))
        return value


def run_on(
    loop: asyncio.AbstractEventLoop, main: Callable[[], Coroutine[Any, Any, T]], heard: list[str]
) -> T:
    """Run `main` on `loop` and close it; what it says and what is left over is `heard`."""
    loop.set_exception_handler(lambda _, context: heard.append(f"the loop complained: {complaint(context)}"))
    runner = asyncio.Runner(loop_factory=lambda: loop)
    try:
        with interruptible(loop):
            return runner.run(main())
    finally:
        tasks = asyncio.all_tasks(loop)
        heard += [f"left over: {task!r}" for task in tasks]
        tasks = cancelled(loop, tasks)
        heard += [f"cannot be cancelled: {task!r}" for task in tasks]
        if tasks:
            loop.close()  # the runner would wait for them without end
        else:
            runner.close()


@contextlib.contextmanager
def interruptible(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Ctrl-C ends the test there and then, a second one whatever it does.

    What asyncio makes of it, a cancelled `main`, would leave its runtime and wait for jobs that swallow their
    cancellation, by a clock that nobody moves any more.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or not _is_main_thread():
        yield
        return
    pressed: list[int] = []

    def interrupt(number: int, _: object) -> None:
        if pressed or not loop.is_running():
            raise KeyboardInterrupt
        pressed.append(number)
        loop.call_soon_threadsafe(loop.stop)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except RuntimeError:
        if not pressed:
            raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def cancelled(loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Cancel `tasks` a few times over and return those that are still not done."""
    for _ in range(ROUNDS):
        if not tasks:
            break
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks, timeout=0.02))
        tasks = asyncio.all_tasks(loop)
    return tasks


@contextlib.contextmanager
def listening(heard: list[str]) -> Iterator[None]:
    """Hear what would otherwise go to standard error: from destructors and from threads."""
    unraisable, thread = sys.unraisablehook, threading.excepthook
    sys.unraisablehook = lambda said: heard.append(
        f"unraisable: {said.err_msg or 'exception ignored'} in {said.object!r}: {said.exc_value!r}"
    )
    threading.excepthook = lambda said: heard.append(
        f"a thread died: {said.thread.name if said.thread else '?'}: {said.exc_value!r}"
    )
    try:
        yield
    finally:
        gc.collect()  # now, so that what was lost is heard here and not in a later test
        sys.unraisablehook, threading.excepthook = unraisable, thread


def complaint(context: dict[str, Any]) -> str:
    """Say what the loop's exception handler was told, the traceback included."""
    error = context.get("exception")
    lines = [context["message"], *(traceback.format_exception(error) if error else ())]
    return "\n".join(line.rstrip() for line in lines)


def left_over(before: set[threading.Thread]) -> list[threading.Thread]:
    """Return the threads that were not there before and do not end by themselves in good time."""
    deadline = time.monotonic() + PATIENCE
    for thread in set(threading.enumerate()) - before:
        while thread.is_alive() and not pooled_and_idle(thread) and time.monotonic() < deadline:
            thread.join(0.005)
    return [thread for thread in set(threading.enumerate()) - before if not pooled_and_idle(thread)]


def pooled_and_idle(thread: threading.Thread) -> bool:
    """Is it a daemon thread of the runtime that waits for work, and runs nobody's function?"""
    if not (thread.daemon and thread.name.startswith("bgruntime-")):
        return False
    frames = traceback.extract_stack(sys._current_frames().get(thread.ident or 0))
    return all(Path(frame.filename).is_relative_to(RUNTIME) or in_standard_library(frame) for frame in frames)


def in_standard_library(frame: traceback.FrameSummary) -> bool:
    path = Path(frame.filename)
    return path.is_relative_to(STANDARD_LIBRARY) and "site-packages" not in path.parts


def describe(thread: threading.Thread) -> str:
    frames = traceback.extract_stack(sys._current_frames().get(thread.ident or 0))
    return f"{thread!r}\n{''.join(traceback.format_list(frames[-3:])).rstrip()}"
