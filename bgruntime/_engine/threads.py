"""Threads: a plain function runs in a daemon thread, and its slot returns only when it has really ended."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from .._model.jobs import Definition, Job, Need, ThreadUse
from .._parts.ports import Ports
from .attempt import running_job

if TYPE_CHECKING:
    from .supervise import Supervisor


def in_thread(engine: Supervisor, definition: Definition) -> Callable[..., Awaitable[Any]]:
    """What an attempt of a plain function awaits."""
    function = definition.function
    needs = tuple(need for need in definition.resources if need.in_thread)

    async def call(*args: Any, **kwargs: Any) -> Any:
        job = running_job.get()
        assert job is not None
        missing = tuple(need for need in needs if not need.is_given(args, kwargs))
        result = await run_in_thread(engine, job, partial(_with_needs, missing, function, args, kwargs))
        return await result if inspect.isawaitable(result) else result

    return call


async def run_in_thread(engine: Supervisor, job: Job[Any], function: Callable[[], Any]) -> Any:
    """Run *function* in a thread and return what it returns, or raise what it raises.

    The engine never cancels this wait. If somebody else does, the thread goes on and keeps its slot.
    """
    loop = engine.loop
    more = job._more
    assert more is not None
    future = loop.create_future()
    answer = [future]  # taken out too
    # Taken out when it runs: the frames in a traceback lead back to `work`, which must hold no arguments.
    call: list[Callable[[], Any]] = [partial(copy_context().run, function)]

    def report(value: Any, error: BaseException | None) -> None:
        more.thread = ThreadUse.NONE
        engine.thread_returned()
        if job in engine.stuck:
            engine.unstick(job)
        waiting = answer.pop()
        if not waiting.done():
            waiting.set_result((value, error))

    def work() -> None:
        try:
            if more.stop is not None:  # before the thread came to it: no line of it runs
                call.clear()
                raise asyncio.CancelledError
            value, error = call.pop()(), None
        except BaseException as raised:
            value, error = None, raised
        with suppress(RuntimeError):  # the loop was closed: nobody waits for this thread any more
            loop.call_soon_threadsafe(report, value, error)
        del value, error

    engine.ports.spawn(work, job._entry.name)  # where that raises the slot is still only reserved
    more.thread = ThreadUse.RUNNING  # in time: `report` comes through the loop
    value, error = await future
    try:
        if error is not None:
            raise error
        return value
    finally:
        del error, future  # else the traceback and this frame would keep each other alive


async def to_the_end(ports: Ports, function: Callable[[], object], name: str) -> None:
    """Run *function*, which must not raise, in a thread and return when it has ended.

    A cancellation meanwhile is raised after that, so that clean-up is not left half done; the second
    one of an attempt that has to stop is raised at once, and the thread goes on alone.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def work() -> None:
        function()
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(ended.set_result, None)

    try:
        ports.spawn(work, name)
    except RuntimeError:  # no thread is to be had: then here
        function()
        return
    interrupted: asyncio.CancelledError | None = None
    while not ended.done():
        try:
            await asyncio.wait([ended])
        except asyncio.CancelledError as error:
            job = running_job.get()
            if job is not None and job._stop is not None and job._stop.stage >= 2:
                raise
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _with_needs(
    needs: tuple[Need, ...], function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """In the thread: open what the function needs, run it, close it."""
    if not needs:
        try:
            return function(*args, **kwargs)
        finally:
            del args, kwargs  # as above
    with ExitStack() as stack:
        for need in needs:
            manager = need.factory()
            if not hasattr(manager, "__enter__"):
                raise TypeError(
                    f"{need.name}: a plain function needs a plain context manager, "
                    f"got {type(manager).__name__}"
                )
            kwargs[need.name] = stack.enter_context(manager)
        try:
            return function(*args, **kwargs)
        finally:
            del args, kwargs
