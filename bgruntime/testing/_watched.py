"""A runtime that looks, when it is left, whether anything stays behind."""

from __future__ import annotations

import asyncio
import sys
import threading
from queue import Queue
from types import CodeType, FrameType, TracebackType
from typing import Any, Self

from bgruntime import Runtime

PATIENCE = 1.0  # seconds for tasks that are about to end
PATIENCE_WITH_THREADS = 2.5  # the same for threads: a busy machine lets them wait
POLL = 0.01  # seconds between two looks at a thread of a pool
INTERRUPTED = ("cancelled", "requeued", "stuck", "lost")  # fields of a stop's report
POOLS = ("bgruntime-", "asyncio_", "AnyIO worker thread")  # their threads outlive a test
# Where a thread of a pool stands that has nothing to do: module and function.
IDLE = {
    ("bgruntime._parts.workers", "_run"),
    ("concurrent.futures.thread", "_worker"),
}
JOURNAL_EXIT = ("bgruntime.journal._line", "_stop_after_main")  # it waits for the end of the program
ANYIO = ("anyio._backends._asyncio", "run")  # there it waits inside `Queue.get`


class LeftBehind(AssertionError):
    """A test has left jobs, tasks or threads behind."""


class WatchedRuntime(Runtime):
    """A `Runtime` for one test. It behaves as any other, and knows what the test has left behind.

    Left behind are: a runtime that is still open, jobs that leaving it had to interrupt or could not end,
    asyncio tasks that were started while it was open and still run, and threads likewise; a thread of a
    pool only if it is busy. Jobs that end while it is left are not, and of a test that calls `stop` itself
    only those that this could not end. After an exception out of the ``async with`` only threads are
    looked for.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._is_open = False
        self._left: list[str] = []
        self._threads_before = {thread for thread in threading.enumerate() if not _is_idle(thread)}
        self._tasks_before: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._tasks_before = asyncio.all_tasks()
        await super().__aenter__()
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped_before = self.stats().phase != "running"
        await super().__aexit__(kind, error, trace)
        self._is_open = False
        if error is None:
            # Whoever calls `stop` has looked after those that it interrupts.
            await self._look_at_jobs(("stuck", "lost") if stopped_before else INTERRUPTED)
            await self._look_at_tasks()

    @property
    def is_open(self) -> bool:
        """Was it entered and not left?"""
        return self._is_open

    def check(self) -> None:
        """Raise LeftBehind, once, if anything stays behind; waits a little for threads that are ending."""
        left, self._left = self._left, []
        if self._is_open:
            left.append(f"{self!r} was entered and not left")
        left += self._threads()
        if left:
            raise LeftBehind("the test has left behind:" + "".join(f"\n  {one}" for one in left))

    async def _look_at_jobs(self, names: tuple[str, ...]) -> None:
        report = await self.stop()
        for name in names:
            for id in getattr(report, name):
                self._left.append(f"a job ({name} by the stop): {self.job(id)!r}")

    async def _look_at_tasks(self) -> None:
        started = asyncio.all_tasks() - self._tasks_before - {asyncio.current_task()}
        if started:
            _, left = await asyncio.wait(started, timeout=PATIENCE)
            self._left += [f"a task: {task!r}" for task in left]

    def _threads(self) -> list[str]:
        looks = round(
            PATIENCE_WITH_THREADS / POLL
        )  # and no deadline: a process that was stopped lets none end
        left = set(threading.enumerate()) - self._threads_before
        while (left := {thread for thread in left if thread.is_alive() and not _is_idle(thread)}) and looks:
            next(iter(left)).join(POLL)
            looks -= 1
        self._threads_before |= left  # each is told once
        return [f"a thread: {thread!r}" for thread in left]


_queue: Any = Queue
_GET: CodeType = _queue.get.__code__


def _is_idle(thread: threading.Thread) -> bool:
    """Whether it is a thread of a pool and waits there for something to do."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None or not thread.name.startswith(POOLS):
        return False
    below = _below_threading(frame)
    if below is not None and below.f_code is _GET:
        waits_in, below = below.f_locals.get("self"), below.f_back
        return _place(below) == ANYIO and waits_in is getattr(thread, "queue", None)
    return _place(frame) in IDLE or _place(below) == JOURNAL_EXIT


def _below_threading(frame: FrameType) -> FrameType | None:
    """The frame that has called into `threading`."""
    below: FrameType | None = frame
    while below is not None and below.f_globals.get("__name__") == "threading":
        below = below.f_back
    return below


def _place(frame: FrameType | None) -> tuple[str, str]:
    return ("", "") if frame is None else (frame.f_globals.get("__name__", ""), frame.f_code.co_name)
