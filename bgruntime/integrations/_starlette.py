"""A runtime inside a Starlette application: it lives as long, and stops in step with the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import HTTPConnection

from bgruntime import Runtime, Shutdown, ShutdownReport
from bgruntime.extend import ports

from ._problems import exception_handlers
from ._signals import listening
from ._streams import Streams

DRAIN = 20.0  # seconds, for a runtime that would wait without limit
WAIT_LIMIT = 5.0  # seconds that a request may wait for room in a queue

log = logging.getLogger("bgruntime.integrations")

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]  # of None, or of the state of requests


def runtime_lifespan(
    runtime: Runtime,
    lifespan: Lifespan | None = None,
    *,
    shutdown: Shutdown | None = None,
    wait_limit: float | None = WAIT_LIMIT,
) -> Lifespan:
    """A lifespan in which *runtime* runs: ``FastAPI(lifespan=runtime_lifespan(Runtime()))``.

    The application's own *lifespan* is entered before the runtime and left after it, so that jobs
    find open what it opens. Either both start, or neither stays.

    In the main thread it hears SIGTERM and SIGINT before the server does: readiness goes off, open
    streams end and the clock of the shutdown starts, while requests that were accepted may still
    submit. When the server ends the lifespan, jobs get what is left of the drain. A second signal
    skips it.

    Args:
        runtime: not entered yet.
        lifespan: the application's own.
        shutdown: seconds for each phase; those of the runtime unless given, and 20 for a drain
            without limit.
        wait_limit: seconds that a submit in a request waits for room.
    """
    limits = runtime.shutdown if shutdown is None else shutdown
    if limits.drain is None:
        limits = replace(limits, drain=DRAIN)
    in_requests = runtime.with_options(wait_limit=wait_limit)

    @asynccontextmanager
    async def composed(app: Any) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            state = None if lifespan is None else await stack.enter_async_context(lifespan(app))
            await stack.enter_async_context(runtime)
            serving = Serving(in_requests, limits)
            stack.enter_context(installed(app, serving))
            stack.enter_context(listening(serving.note_signal, serving.close))
            yield state
            await serving.stop()

    return composed


class Serving:
    """One runtime at work in one application.

    `runtime` is the one to submit to in a request; `closing` is set when the server has been told to stop.
    """

    def __init__(self, runtime: Runtime, limits: Shutdown) -> None:
        self.runtime = runtime
        self.closing = asyncio.Event()
        self.waiting = 0  # requests that wait for the end of a job
        self.streams: Streams | None = None
        self._limits = limits
        self._clock = ports.current().monotonic
        self._signalled_at: float | None = None
        self._stopping = False
        self._hurry = False
        self._hurrying: list[asyncio.Task[ShutdownReport]] = []

    @property
    def ready(self) -> bool:
        """Whether new requests should come here."""
        return self._signalled_at is None and self.runtime.health().ready

    def note_signal(self) -> None:
        """The clock of the shutdown starts. Called by the signal handler."""
        self._signalled_at = self._clock()

    def close(self, hurry: bool = False) -> None:
        """End the streams and whoever waits for a job; with *hurry* skip the drain too."""
        self.closing.set()
        if self.streams is not None:
            self.streams.end()
        if hurry and not self._hurry:
            self._hurry = True
            if self._stopping:
                task = asyncio.get_running_loop().create_task(self.runtime.stop(), name="bgruntime hurry")
                self._hurrying.append(task)

    async def stop(self) -> ShutdownReport:
        """Stop the runtime with what is left of the drain."""
        began = self._clock() if self._signalled_at is None else self._signalled_at
        self.close()
        drain = self._limits.drain
        assert drain is not None
        left = 0.0 if self._hurry else max(0.0, drain - (self._clock() - began))
        self._stopping = True
        report = await self.runtime.stop(drain=left, cancel=self._limits.cancel, close=self._limits.close)
        if self._hurrying:
            await asyncio.wait(self._hurrying)
        return report


@contextmanager
def installed(app: Any, serving: Serving) -> Iterator[None]:
    """Let *app* know its runtime, and have it answer with problems, meanwhile."""
    stack = getattr(app, "middleware_stack", None)
    app.state.bgruntime = serving
    if stack is not None:
        serving.streams = app.middleware_stack = Streams(stack, serving)
        _add_exception_handlers(stack)
    try:
        yield
    finally:
        if stack is not None and app.middleware_stack is serving.streams:
            app.middleware_stack = stack
        del app.state.bgruntime


def _add_exception_handlers(stack: Any) -> None:
    """Add ours for what the application does not handle itself."""
    while stack is not None and not isinstance(stack, ExceptionMiddleware):
        stack = getattr(stack, "app", None) or getattr(stack, "_app", None)
    if stack is None:
        log.warning(
            "no ExceptionMiddleware was found behind the application's middleware, which keeps the next "
            "application neither as app nor as _app: a full queue is answered with 500 instead of 503"
        )
        return
    theirs = set(stack._exception_handlers)
    for kind, handler in exception_handlers.items():
        if not theirs.intersection(kind.__mro__[: kind.__mro__.index(Exception)]):
            stack.add_exception_handler(kind, handler)


def serving_of(connection: HTTPConnection) -> Serving:
    """What serves this request.

    Raises:
        RuntimeError: the application has no `runtime_lifespan`, or it was not started.
    """
    found = connection.scope.get("bgruntime") or getattr(connection.app.state, "bgruntime", None)
    if not isinstance(found, Serving):
        raise RuntimeError(
            "this application has no running runtime: give it lifespan=runtime_lifespan(Runtime(...)), and "
            "in tests use its client as a context manager"
        )
    return found


def runtime_of(connection: HTTPConnection) -> Runtime:
    """The runtime of the application that serves this request."""
    return serving_of(connection).runtime


__all__ = ["Lifespan", "Serving", "runtime_lifespan", "runtime_of", "serving_of"]
