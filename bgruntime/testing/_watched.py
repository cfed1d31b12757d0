"""A runtime that looks, when it is left, whether anything stays behind."""

from __future__ import annotations

import asyncio
import threading
import time
from types import TracebackType
from typing import Any, Self

from bgruntime import Runtime

PATIENCE = 1.0  # seconds for tasks and threads that are about to end
IDLE = ("bgruntime-", "asyncio_", "AnyIO worker thread")  # threads of pools, which outlive a test


class LeftBehind(AssertionError):
    """A test has left jobs, tasks or threads behind."""


class WatchedRuntime(Runtime):
    """A `Runtime` for one test. It behaves as any other, and knows what the test has left behind.

    Left behind are: a runtime that is still open, jobs that leaving it had to interrupt or could not end,
    asyncio tasks that were started while it was open and still run, and threads likewise. Jobs that end
    while it is left are not, nor those of a test that calls `stop` itself. After an exception out of the
    ``async with`` only threads are looked for.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._is_open = False
        self._left: list[str] = []
        self._threads_before = set(threading.enumerate())
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
            if not stopped_before:  # else somebody has looked after them
                await self._look_at_jobs()
            await self._look_at_tasks()

    @property
    def is_open(self) -> bool:
        """Was it entered and not left?"""
        return self._is_open

    def check(self) -> None:
        """Raise LeftBehind, once, if anything stays behind; waits a second for threads that are ending."""
        left, self._left = self._left, []
        if self._is_open:
            left.append(f"{self!r} was entered and not left")
        left += self._threads()
        if left:
            raise LeftBehind("the test has left behind:" + "".join(f"\n  {one}" for one in left))

    async def _look_at_jobs(self) -> None:
        report = await self.stop()
        for name in ("cancelled", "requeued", "stuck", "lost"):
            for id in getattr(report, name):
                self._left.append(f"a job ({name} by the stop): {self.job(id)!r}")

    async def _look_at_tasks(self) -> None:
        started = asyncio.all_tasks() - self._tasks_before - {asyncio.current_task()}
        if started:
            _, left = await asyncio.wait(started, timeout=PATIENCE)
            self._left += [f"a task: {task!r}" for task in left]

    def _threads(self) -> list[str]:
        deadline = time.perf_counter() + PATIENCE  # noqa: TID251 -- of the real threads of a test
        started = set(threading.enumerate()) - self._threads_before
        self._threads_before |= started  # each is told once
        for thread in started:
            if not thread.name.startswith(IDLE):
                thread.join(max(0.0, deadline - time.perf_counter()))  # noqa: TID251
        return [
            f"a thread: {thread!r}"
            for thread in started
            if thread.is_alive() and not thread.name.startswith(IDLE)
        ]
