"""BackgroundJobs: what `BackgroundTasks` does, as jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ParamSpec

import anyio.from_thread
from starlette.background import BackgroundTask, BackgroundTasks

from bgruntime import Job, Runtime, RuntimeClosed
from bgruntime.extend import Reservation

P = ParamSpec("P")


class BackgroundJobs(BackgroundTasks):
    """Tasks to start after the response was sent, in place of Starlette's `BackgroundTasks`.

    Each is a job: bounded, timed out, isolated from the others, and none holds the connection. Room
    is reserved by `add_task`: a full queue is `QueueFull` before the answer, never a loss after it.
    """

    def __init__(self, runtime: Runtime, tasks: Sequence[BackgroundTask] | None = None) -> None:
        super().__init__()  # `tasks` are those that were added
        self.jobs: list[Job[Any]] = []  # those that were started or submitted
        self._runtime = runtime
        self._reserved: list[Reservation[Any]] = []
        for task in tasks or ():
            self.add_task(task.func, *task.args, **task.kwargs)

    def add_task(self, func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Start *func*, a task or a function, when the response was sent. Also from a sync endpoint.

        Raises:
            QueueFull: there is no room now.
            TypeError: *func* is a durable task: await `submit` instead.
            RuntimeClosed, PayloadError: as `Runtime.submit`.
        """
        reserve = partial(self._runtime.reserve, func, *args, **kwargs)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            reserved = anyio.from_thread.run_sync(reserve)
        else:
            reserved = reserve()
        self._reserved.append(reserved)
        self.tasks.append(BackgroundTask(func, *args, **kwargs))

    async def submit(self, task: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Job[Any]:
        """Submit a job now, as `Runtime.submit`; a durable one is on disk when this returns."""
        job: Job[Any] = await self._runtime.submit(task, *args, **kwargs)
        self.jobs.append(job)
        return job

    async def __call__(self) -> None:
        """Start what was added. Starlette calls it when the response was sent.

        Raises:
            RuntimeClosed: the runtime's drain is over; what was left is not started.
        """
        reserved, self._reserved = self._reserved, []
        closed: RuntimeClosed | None = None
        for one in reserved:
            try:
                self.jobs.append(one.submit())
            except RuntimeClosed as error:
                closed = error
        if closed is not None:
            raise closed

    def release(self) -> None:
        """Give up what was added and not started: there will be no response."""
        reserved, self._reserved = self._reserved, []
        for one in reserved:
            one.release()


__all__ = ["BackgroundJobs"]
