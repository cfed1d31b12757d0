"""Group: structured concurrency over jobs, with the manners of `asyncio.TaskGroup` in Python 3.13."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from ._engine.supervise import Wait
from ._model.jobs import Job
from ._model.states import JobState
from ._task import close_refused

if TYPE_CHECKING:
    from ._runtime import Runtime

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A", bound=Awaitable[Any])


class Group:
    """Jobs that end before the ``async with`` does.

    The first final failure cancels the other jobs and the body, waits for them, and raises an
    `ExceptionGroup`, which the body's own exception joins. A cancelled job is no failure. If the
    owner is cancelled from outside while jobs fail, the group is raised and the cancellation
    re-armed: the next await raises it. Entered once.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._owner: asyncio.Task[Any] | None = None
        self._jobs: dict[Job[Any], None] = {}
        self._errors: list[BaseException] = []
        self._state = "new"
        self._in_body = False
        self._cancelled_body = False
        self._emptied: Wait | None = None

    async def __aenter__(self) -> Group:
        if self._state != "new":
            raise RuntimeError(f"this group is {self._state}: a group is entered once")
        self._owner = asyncio.current_task()
        if self._owner is None:
            raise RuntimeError("a group is entered in a task")
        self._runtime._running().check_here()
        self._state = "open"
        self._in_body = True
        return self

    @overload
    async def submit(
        self, task: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[R]: ...
    @overload
    async def submit(self, task: Coroutine[Any, Any, R], /) -> Job[R]: ...
    @overload
    async def submit(self, task: Callable[P, A], /, *args: P.args, **kwargs: P.kwargs) -> Job[object]: ...
    @overload
    async def submit(self, task: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    async def submit(self, task: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Accept one job that belongs to this group; like `Runtime.submit`.

        Raises:
            RuntimeError: the group was not entered, is over, or is failing.
        """
        self._check_open(task)
        job = await self._runtime._submit(task, args, kwargs, self, owned=True)
        self._adopt(job)
        return job

    @overload
    def submit_nowait(
        self, task: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[R]: ...
    @overload
    def submit_nowait(self, task: Coroutine[Any, Any, R], /) -> Job[R]: ...
    @overload
    def submit_nowait(self, task: Callable[P, A], /, *args: P.args, **kwargs: P.kwargs) -> Job[object]: ...
    @overload
    def submit_nowait(self, task: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    def submit_nowait(self, task: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Accept one job that belongs to this group now, or raise; like `Runtime.submit_nowait`."""
        self._check_open(task)
        job = self._runtime._submit_nowait(task, args, kwargs, self)
        self._adopt(job)
        return job

    def job_ended(self, job: Job[Any]) -> None:
        """One of ours is over."""
        self._jobs.pop(job, None)
        if job._state in (JobState.DISCARDED, JobState.QUARANTINED) and self._state != "over":
            self._errors.append(job._value)
            if self._state == "open":
                # In the next step, as a TaskGroup does: jobs that fail in this one are heard too.
                self._state = "failing"
                self._runtime._running(even_closed=True).loop.call_soon(self._fail)
        if not self._jobs and self._emptied is not None:
            self._emptied.signal()

    def _fail(self) -> None:
        """Cancel the other jobs and the body."""
        if self._state == "over":
            return
        self._abort()
        if self._in_body and not self._cancelled_body:
            assert self._owner is not None
            self._cancelled_body = True
            self._owner.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._leave(error)
        finally:
            self._state = "over"
            del error, trace  # no cycle between this frame and what it raises

    async def _leave(self, error: BaseException | None) -> None:
        owner = self._owner
        assert owner is not None
        self._in_body = False
        outer: BaseException | None = error if isinstance(error, asyncio.CancelledError) else None
        if self._cancelled_body:
            outer = await self._take_back_cancel(owner, outer)
        if error is not None:
            self._abort()
        outer = await self._wait(outer)
        if isinstance(error, SystemExit | KeyboardInterrupt):
            raise error
        if outer is not None and not self._errors:
            raise outer
        if error is not None and not isinstance(error, asyncio.CancelledError):
            self._errors.append(error)
        if self._errors:
            if owner.cancelling():
                # Somebody cancelled the owner too. It learns of it at its next await, and the
                # count of its cancellations stays what it was.
                owner.uncancel()
                owner.cancel()
            errors, self._errors = self._errors, []
            raise BaseExceptionGroup("unhandled errors in a group of jobs", errors)

    async def _take_back_cancel(
        self, owner: asyncio.Task[Any], outer: BaseException | None
    ) -> BaseException | None:
        """Undo our own cancellation of the body; what is left of *outer* was somebody else's."""
        if owner.uncancel() == 0:
            if outer is None:
                # The body ended without meeting our cancellation. Before Python 3.13 `uncancel`
                # leaves it pending, and the owner's next await would get it.
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError as pending:
                    return pending if owner.cancelling() else None
            return None
        return outer

    async def _wait(self, outer: BaseException | None) -> BaseException | None:
        """Wait until every job has ended; a cancellation meanwhile ends them too and is kept."""
        engine = self._runtime._running(even_closed=True)
        while self._jobs:
            self._emptied = Wait(engine, engine.inside())
            try:
                await self._emptied.until_signalled()
            except asyncio.CancelledError as error:
                outer = error
                self._abort()
        return outer

    def _abort(self) -> None:
        self._state = "failing" if self._state == "open" else self._state
        engine = self._runtime._running(even_closed=True)
        for job in list(self._jobs):
            engine.cancel(job, "the group it belongs to ended")

    def _adopt(self, job: Job[Any]) -> None:
        if not job.done():
            self._jobs[job] = None
            if self._state != "open":
                job.cancel("the group it belongs to ended")

    def _check_open(self, task: Any) -> None:
        if self._state != "open":
            close_refused(task)
            hint = {"new": "enter it first", "failing": "a job of it has failed"}.get(
                self._state, "it has ended"
            )
            raise RuntimeError(f"this group takes no jobs: {hint}")

    def __repr__(self) -> str:
        return f"<Group {self._state}: {len(self._jobs)} jobs, {len(self._errors)} failed>"
