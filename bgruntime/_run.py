"""Run an application: `asyncio.run` on uvloop where it exists."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")
LET_GO_SECONDS = 2.0

_mains: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[asyncio.Task[Any], list[KeyboardInterrupt]]] = (
    WeakKeyDictionary()
)


def run(main: Coroutine[Any, Any, T] | Callable[[], Awaitable[T]], *, debug: bool | None = None) -> T:
    """Run *main*, a coroutine or an async function without arguments, and return what it returns.

    On uvloop where that is installed, else on the stock loop. A `KeyboardInterrupt` raised in a job
    stops its runtime, cancels *main* and is raised here.

    Raises:
        RuntimeError: a loop is running in this thread already.
    """
    if asyncio._get_running_loop() is not None:
        if inspect.iscoroutine(main):
            main.close()
        raise RuntimeError(
            "run() cannot be called while an event loop runs in this thread: await main instead"
        )
    with asyncio.Runner(debug=debug, loop_factory=_loop_factory()) as runner:
        try:
            return runner.run(_watched(main))
        finally:
            runner.run(_let_go())


async def _let_go() -> None:
    """End what *main* has left running. What will not end in time is left alone and named.

    The Runner waits for every task that is registered, so that one which swallows its cancellations
    would hold the exit of the process for ever.
    """
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if not others:
        return
    _, refusing = await asyncio.wait(others, timeout=LET_GO_SECONDS)
    for task in refusing:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is said here instead
        asyncio._unregister_task(task)  # public to those who extend asyncio, says its documentation
        print(f"bgruntime.run: task {task.get_name()} would not end and was left alone", file=sys.stderr)


async def _watched(main: Coroutine[Any, Any, T] | Callable[[], Awaitable[T]]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    interrupts: list[KeyboardInterrupt] = []
    _mains[loop] = task, interrupts
    try:
        return await (main if inspect.isawaitable(main) else main())
    finally:
        del _mains[loop]
        if interrupts:
            raise interrupts[0]


def interrupt(loop: asyncio.AbstractEventLoop, error: KeyboardInterrupt) -> None:
    """A job of *loop* raised KeyboardInterrupt: end what `run` runs there, if it does."""
    found = _mains.get(loop)
    if found is not None:
        task, interrupts = found
        interrupts.append(error)
        task.cancel()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
