"""Surround: what stands around a task's function in an attempt: its resources and the middleware."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from .._model.jobs import Definition, Job, Need
from .attempt import running_job
from .threads import in_thread

if TYPE_CHECKING:
    from .supervise import Supervisor

Call = Callable[..., Awaitable[Any]]


def call_for(engine: Supervisor, definition: Definition) -> Call:
    """What an attempt of *definition* awaits; the bare function where nothing stands around it."""
    call: Call = in_thread(engine, definition) if definition.threaded else definition.function
    needs = tuple(need for need in definition.resources if not need.in_thread)
    if needs:
        call = _with_resources(engine, needs, call)
    if definition.options.durable:
        call = _with_start_mark(engine, call)
    if engine.middleware:
        call = _with_middleware(engine, call)
    return call


def exits_of(job: Job[Any]) -> AsyncExitStack:
    """What the running attempt of *job* closes when it ends, last first."""
    more = job._get_more()
    if more.exits is None:
        more.exits = AsyncExitStack()
    exits: AsyncExitStack = more.exits
    return exits


async def enter(stack: AsyncExitStack, name: str, manager: Any) -> Any:
    """Enter *manager*, async or plain, for as long as *stack* lives."""
    if hasattr(manager, "__aenter__"):
        return await stack.enter_async_context(manager)
    if hasattr(manager, "__enter__"):
        return stack.enter_context(manager)
    raise TypeError(f"{name}: expected a context manager, got {type(manager).__name__}")


def _running() -> Job[Any]:
    job = running_job.get()
    assert job is not None, "called outside an attempt"
    return job


def _with_resources(engine: Supervisor, needs: tuple[Need, ...], inner: Call) -> Call:
    async def call(*args: Any, **kwargs: Any) -> Any:
        exits = exits_of(_running())
        for need in needs:
            if need.is_given(args, kwargs):
                continue
            if need.per_runtime:
                kwargs[need.name] = await engine.shared.get(need)
            else:
                kwargs[need.name] = await enter(exits, need.name, need.factory())
        return await inner(*args, **kwargs)

    return call


def _with_start_mark(engine: Supervisor, inner: Call) -> Call:
    """Let the journal write that a durable job starts, before it does; the timeout starts after that."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        await engine.begin_durable(_running())
        return await inner(*args, **kwargs)

    return call


def _with_middleware(engine: Supervisor, inner: Call) -> Call:
    async def call(*args: Any, **kwargs: Any) -> Any:
        job = _running()
        entered: list[Any] = []
        try:
            for one in engine.middleware:
                entered.append(await _enter_one(engine, job, one))
            result = await inner(*args, **kwargs)
        except BaseException as error:
            for manager in reversed(entered):
                await _leave_one(engine, job, manager, error)
            raise
        for manager in reversed(entered):
            await _leave_one(engine, job, manager, None)
        return result

    return call


async def _enter_one(engine: Supervisor, job: Job[Any], one: Callable[[Any], Any]) -> Any:
    """The entered context manager; None if it failed, which is its own affair."""
    try:
        manager = one(engine.context_of(job))
        if hasattr(manager, "__aenter__"):
            await manager.__aenter__()
        else:
            manager.__enter__()
    except BaseException as error:
        _pass_on_cancellation(job, error)
        engine.complain(f"middleware {_name(one)} failed on entry", error)
        return None
    return manager


async def _leave_one(engine: Supervisor, job: Job[Any], manager: Any, error: BaseException | None) -> None:
    if manager is None:
        return
    about = (None, None, None) if error is None else (type(error), error, error.__traceback__)
    try:
        if hasattr(manager, "__aexit__"):
            await manager.__aexit__(*about)
        else:
            manager.__exit__(*about)
    except BaseException as raised:
        if raised is not error:
            _pass_on_cancellation(job, raised)
            engine.complain(f"middleware {_name(manager)} failed on exit", raised)


def _pass_on_cancellation(job: Job[Any], error: BaseException) -> None:
    """Raise *error* if it is the cancellation of the attempt and not the middleware's own doing."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and (
        job._stop is not None or (task is not None and task.cancelling())
    ):
        raise error


def _name(thing: Any) -> str:
    return getattr(thing, "__qualname__", type(thing).__qualname__)
