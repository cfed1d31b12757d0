"""Runtime: the front door. It assembles the engine and forwards the calls."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import os
from asyncio import _get_running_loop
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import AsyncExitStack, suppress
from contextvars import Context, copy_context
from dataclasses import fields, replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Never, ParamSpec, Self, TypeVar, overload

from . import _run
from ._context import context_of
from ._engine.admit import (
    admit,
    admit_at_once,
    admit_durable,
    admit_nested,
    admit_reserved,
    check_arguments,
    check_open_here,
    check_stack_for_many,
    check_submission,
    full,
    give_back,
    wait_for_room,
)
from ._engine.dispatch import Line, list_line, unlist_line
from ._engine.look import asked_on_loop, find_job, find_jobs, health_of
from ._engine.stop import Stopping
from ._engine.supervise import Supervisor, Wait
from ._fanout import Fanout, OnError, Request, requests, unpacked, zipped
from ._group import Group
from ._host import Host
from ._model.checks import check_concurrency, check_limit, check_seconds, sequence
from ._model.errors import JournalUnavailable, RuntimeClosed
from ._model.jobs import Entry, Job
from ._model.policies import Limits, Overflow, Queue, Shutdown, default, explicit, show_defaults
from ._model.protocols import Middleware
from ._model.reports import Check, Health, ShutdownReport
from ._model.states import JobState
from ._parts import ports
from ._parts.spelling import did_you_mean
from ._reserve import Reservation
from ._task import (
    Call,
    Registry,
    Task,
    close_refused,
    definition_of,
    mark_accepted,
)
from ._task import (
    registry as default_registry,
)

if TYPE_CHECKING:
    from ._model.stats import RuntimeStats
    from .settings import RuntimeSettings

P = ParamSpec("P")
R = TypeVar("R")
R1 = TypeVar("R1")
R2 = TypeVar("R2")
R3 = TypeVar("R3")
R4 = TypeVar("R4")
R5 = TypeVar("R5")
R6 = TypeVar("R6")
A = TypeVar("A", bound=Awaitable[Any])

Called = Call[R] | Coroutine[Any, Any, R]

_OPTIONS = (
    *(field.name for field in fields(Limits)),
    "queues",
    "journal",
    "registry",
    "observers",
    "middleware",
)
_FROM_SETTINGS = (*(field.name for field in fields(Limits)), "journal", "shutdown")
_NO_LIMIT = Shutdown()
_GRACE = 0.1  # seconds the journal may take longer than it should, when the runtime stops
_PATIENCE = 5.0  # seconds another thread waits for the loop to answer


class Runtime:
    """Runs jobs on the event loop it is entered in, with a limit on everything.

    ``async with Runtime() as rt`` starts it and, when left, waits for what was accepted; leaving it by
    an exception or a cancellation interrupts instead. It can be entered again afterwards.

    Args:
        concurrency: how many attempts run at once.
        queue_size: how many jobs may wait beyond the free slots, in each queue that has no size of its own.
        overflow: what a submit does when a queue is full: "wait", "reject" or "drop_oldest".
        wait_limit: seconds a submit waits for room; None for no limit.
        queues: named queues beside "default".
        threads: how many plain functions run at once.
        journal: the path of the SQLite file that keeps failures and durable jobs.
        redrive: how often a journaled failure is run again by itself, unless its task says otherwise.
        registry: where task names are looked up; that of `task` unless given.
        observers: are told what happens, in this order. See `extend.Observer`.
        middleware: wrap each attempt, the first outermost. See `extend.Middleware`.
        shutdown: seconds for each phase of a stop.
        cancel_grace: seconds an attempt may clean up after its cancellation before it is cancelled again.
        cancel_hard: seconds after that until it is abandoned as stuck.
        settings: the same values from the environment; what is given here beside them wins, also when it
            is the default.

    Raises:
        ValueError: a value is out of its range.
        TypeError: an option is not known.
    """

    def __init__(
        self,
        *,
        concurrency: int = default(100),
        queue_size: int = default(10_000),
        overflow: Overflow = default("wait"),
        wait_limit: float | None = default(None),
        queues: Sequence[Queue] = (),
        threads: int = default(40),
        journal: str | os.PathLike[str] | None = default(None),
        redrive: int = default(0),
        registry: Registry | None = None,
        observers: Sequence[Any] = (),
        middleware: Sequence[Middleware] = (),
        shutdown: Shutdown = default(_NO_LIMIT),
        cancel_grace: float = default(5),
        cancel_hard: float = default(5),
        settings: RuntimeSettings | None = None,
        **unknown: Never,
    ) -> None:
        for name in unknown:
            raise TypeError(did_you_mean("option", name, (*_OPTIONS, "shutdown", "settings")))
        options = explicit(
            {
                "concurrency": concurrency,
                "queue_size": queue_size,
                "overflow": overflow,
                "wait_limit": wait_limit,
                "threads": threads,
                "journal": journal,
                "redrive": redrive,
                "shutdown": shutdown,
                "cancel_grace": cancel_grace,
                "cancel_hard": cancel_hard,
            }
        )
        if settings is not None:
            options = _values_of(settings) | options
        self._journal_path = _checked_journal(options.pop("journal", None))
        self._shutdown = _checked_shutdown(options.pop("shutdown", _NO_LIMIT))
        self._limits = Limits(**options)
        self._queues = _checked_queues(sequence("queues", queues))
        self._registry = default_registry if registry is None else _checked_registry(registry)
        self._observers = sequence("observers", observers)
        self._middleware = sequence("middleware", middleware)
        for observer in self._observers:
            if not callable(getattr(observer, "on_event", observer)):
                raise ValueError(f"an observer has on_event(event), got {observer!r}")
        for one in self._middleware:
            if not callable(one):
                raise ValueError(f"middleware is called with the job's context, got {one!r}")
        self._engine: Supervisor | None = None
        self._at_once: dict[Any, Entry] = {}  # what may come in by the fast path: the engine's
        self._stopping: Stopping | None = None
        self._entered: AsyncExitStack | None = None
        self._entering = False

    # -- its life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._engine is not None and self._engine.phase != "closed":
            raise RuntimeError(f"{self!r} was entered already: a runtime is entered once at a time")
        if self._entered is not None:
            raise RuntimeError(f"{self!r} was stopped and not left yet: leave it before entering it again")
        if self._entering:
            raise RuntimeError(f"{self!r} is being entered already: a runtime is entered once at a time")
        self._entering = True
        try:
            await self._enter()
        finally:
            self._entering = False
        return self

    async def _enter(self) -> None:
        from . import stack

        observers = stack.observers(self._observers)
        async with AsyncExitStack() as entering:
            for observer in observers:
                if hasattr(observer, "__aenter__"):
                    await entering.enter_async_context(observer)
            engine = Supervisor(
                self._limits,
                self._queues,
                observers=observers,
                middleware=(*_arounds(observers), *self._middleware),
                context_of=context_of,
                on_interrupt=self._on_interrupt,
                complain=stack.complain,
                loop=asyncio.get_running_loop(),
                ports=ports.current(),
            )
            host = Host(self, engine)
            for observer in observers:
                if hasattr(observer, "attach"):
                    observer.attach(host)
            if self._journal_path is not None:
                engine.journal = await stack.open_journal(self._journal_path, host)
            self._engine, self._stopping, self._at_once = engine, None, engine.at_once
            self._entered = entering.pop_all()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entered, self._entered = self._entered, None
        if entered is None:
            raise RuntimeError(f"{self!r} is left without having been entered")
        async with entered:
            if error is None:
                await self._leave(self._shutdown, leaving=True)
            else:
                await self._leave(replace(self._shutdown, drain=0.0), leaving=False)

    async def _leave(self, limits: Shutdown, *, leaving: bool) -> None:
        """Stop, and wait for it whatever happens: nothing of the runtime outlives the ``async with``.

        A cancellation that arrives meanwhile ends the drain and is raised when the stop is over.
        """
        stopping = self._begin_stop(limits, leaving=leaving)
        interrupted: asyncio.CancelledError | None = None
        while not stopping.done.done():
            try:
                await asyncio.wait([stopping.done])
            except asyncio.CancelledError as error:
                interrupted = error
                stopping.skip_drain()
        try:
            await stopping.end_callers(limits.cancel)
        except asyncio.CancelledError as error:
            interrupted = error
        if interrupted is not None:
            raise interrupted

    async def stop(
        self,
        *,
        drain: float | None = ...,  # type: ignore[assignment]
        cancel: float = ...,  # type: ignore[assignment]
        close: float = ...,  # type: ignore[assignment]
    ) -> ShutdownReport:
        """Stop in phases: take no new work, wait for the old, cancel what is left, close.

        Args:
            drain: seconds to wait for what was accepted; None waits until it is done.
            cancel: seconds for interrupted attempts to clean up.
            close: seconds for resources and the journal to close.

        The limits not given are those of `Runtime(shutdown=...)`. Called again it skips the drain;
        called from a job it does not wait for that job. Cancelling the caller does not cancel the stop.

        Returns:
            What became of the jobs that were there.
        """
        given: dict[str, Any] = {"drain": drain, "cancel": cancel, "close": close}
        limits = replace(self._shutdown, **{name: value for name, value in given.items() if value is not ...})
        if self._stopping is None:
            self._running().check_here()
        stopping = self._begin_stop(limits, leaving=False)
        if not stopping.done.done():
            engine = self._running(even_closed=True)
            wait = Wait(engine, engine.inside())  # in a job without its slot, which others may need to drain
            stopping.done.add_done_callback(lambda _: wait.signal())
            await wait.until_signalled()
        return stopping.done.result()

    def _begin_stop(self, limits: Shutdown, *, leaving: bool) -> Stopping:
        if self._stopping is None:
            engine = self._running()
            self._stopping = Stopping(engine, self._close)
            self._stopping.begin(limits, leaving=leaving)
        elif not leaving:
            self._stopping.add_caller()
            self._stopping.skip_drain()
        return self._stopping

    async def _close(self, limit: float) -> None:
        """Close what the runtime opened, within *limit* seconds."""
        engine = self._running(even_closed=True)
        for future in list(engine.outside):
            if not future.done():
                future.set_exception(RuntimeClosed("closed"))
        end = engine.clock() + limit
        closing = engine.help(engine.shared.close(), "bgruntime close")
        if not closing.done():
            await asyncio.wait([closing], timeout=limit)
        if not closing.done():
            engine.complain(f"resources did not close within {limit:g} s", None)
            closing.cancel()
        if engine.journal is not None:
            closing = engine.help(engine.journal.close(), "bgruntime journal close")
            await asyncio.wait([closing], timeout=max(0.0, end - engine.clock()) + _GRACE)
            if not closing.done():  # it goes on: what it writes is worth waiting for, but not here
                engine.complain(f"the journal did not close within {limit:g} s", None)

    def _on_interrupt(self, error: KeyboardInterrupt) -> None:
        engine = self._running(even_closed=True)
        if self._stopping is None:
            self._begin_stop(replace(self._shutdown, drain=0.0), leaving=False)
        _run.interrupt(engine.loop, error)

    def _running(self, *, even_closed: bool = False) -> Supervisor:
        engine = self._engine
        if engine is None:
            raise RuntimeClosed("new")
        if engine.phase == "closed" and not even_closed:
            raise RuntimeClosed("closed")
        return engine

    # -- submitting --------------------------------------------------------------------------------

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
        """Accept one job and return its handle; a durable one is on disk when this returns.

        When the queue is full it does what the queue's `overflow` says. A cancelled submit leaves no
        job behind. Inside a job of this runtime it never waits.

        Args:
            task: a task, a plain function, or a coroutine object.

        Raises:
            QueueFull: there is no room, or none within `wait_limit`.
            RuntimeClosed: the runtime was not entered, or is stopping.
            PayloadError: an argument cannot be one.
            WrongLoop, ForkedRuntime: called from elsewhere.
            JournalUnavailable, AcceptUnknown: a durable job could not be written.
        """
        try:
            entry = self._at_once.get(task)
        except TypeError:  # it cannot be hashed
            entry = None
        if entry is not None:
            job = admit_at_once(entry, args, kwargs)
            if job is not None:
                return job
        return await self._submit(task, args, kwargs, None)

    async def _submit(
        self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any], waiters: Any, *, owned: bool = False
    ) -> Job[Any]:
        """Submit for *waiters*, which are told of the end; *owned* says that they are a group."""
        try:
            entry = self._entry(task, args, kwargs)
            engine: Supervisor = entry.engine
            line: Line = entry.queue
            if owned and engine.inside() is not None and not entry.options.durable:
                job = admit_nested(engine, entry, args, kwargs, waiters)
            elif entry.options.durable:
                engine.check_here()
                engine.check_open()
                [job] = await admit_durable(engine, entry, [(args, kwargs)], self._limits.wait_limit, waiters)
            elif line.reckon() > 0:
                job = admit(engine, entry, args, kwargs, waiters)
            else:
                engine.check_here()
                engine.check_open()
                check_submission(engine, entry, args, kwargs)
                await wait_for_room(engine, entry, limit=self._limits.wait_limit)
                job = admit_reserved(engine, entry, args, kwargs, waiters)
        except BaseException:
            close_refused(task)
            raise
        if entry.definition.coroutine is not None:
            mark_accepted(task)
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
        """Accept one job now, or raise; it never waits and never overtakes who does.

        Raises:
            QueueFull: there is no room now.
            JournalUnavailable: the task is durable, and writing takes time: await `submit`.
            RuntimeClosed, PayloadError, WrongLoop, ForkedRuntime: as `submit`.
        """
        try:
            entry = self._at_once.get(task)
        except TypeError:  # it cannot be hashed
            entry = None
        if entry is None:
            return self._submit_nowait(task, args, kwargs, None)
        return admit_at_once(entry, args, kwargs) or self._submit_nowait(task, args, kwargs, None)

    def _submit_nowait(
        self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any], waiters: Any
    ) -> Job[Any]:
        try:
            entry = self._entry(task, args, kwargs)
            if entry.options.durable:
                raise JournalUnavailable(
                    f"task {entry.name} is durable and submit_nowait cannot wait for the disk: "
                    "await submit(...)"
                )
            if waiters is not None and entry.engine.inside() is not None:
                job = admit_nested(entry.engine, entry, args, kwargs, waiters)
            else:
                job = admit(entry.engine, entry, args, kwargs, waiters)
        except BaseException:
            close_refused(task)
            raise
        if entry.definition.coroutine is not None:
            mark_accepted(task)
        return job

    @overload
    def submit_threadsafe(
        self, task: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[R]: ...
    @overload
    def submit_threadsafe(self, task: Coroutine[Any, Any, R], /) -> concurrent.futures.Future[R]: ...
    @overload
    def submit_threadsafe(
        self, task: Callable[P, A], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[object]: ...
    @overload
    def submit_threadsafe(
        self, task: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[R]: ...
    def submit_threadsafe(self, task: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Submit from any thread. The future gets the result, or what awaiting the job would raise.

        Cancelling the future cancels the job. Inside a job of this runtime it never waits for room.
        A thread that blocks on the future while its job needs a thread too can be its own deadlock.

        Raises:
            RuntimeClosed: the runtime was not entered, is stopping, or its loop is closed.
            ForkedRuntime: called in a forked child.
        """
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            engine = self._running()
            if os.getpid() != engine.pid:
                engine.check_here()
            engine.outside[future] = None
            context = copy_context()
            engine.loop.call_soon_threadsafe(
                partial(self._arrive, engine, future, task, args, kwargs, context), context=context.copy()
            )
            if engine.phase == "closed":
                raise RuntimeClosed("closed")
        except RuntimeClosed:
            close_refused(task)
            raise
        except RuntimeError as error:
            close_refused(task)
            raise RuntimeClosed("closed") from error
        return future

    def _arrive(
        self,
        engine: Supervisor,
        future: concurrent.futures.Future[Any],
        task: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context,
    ) -> None:
        """On the loop: submit what another thread has sent, and let the future follow the job."""
        _ = engine.help(
            self._submit_outside(engine, future, task, args, kwargs), "bgruntime submit_threadsafe", context
        )

    async def _submit_outside(
        self,
        engine: Supervisor,
        future: concurrent.futures.Future[Any],
        task: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        try:
            if future.cancelled():
                _note_cancelled(future)
                close_refused(task)
                return
            job = await self._submit(task, args, kwargs, _Follow(engine, future))
        except BaseException as error:
            _resolve(future, error=error)
            if not isinstance(error, Exception):
                raise
        else:
            future.add_done_callback(partial(_cancel_from_thread, engine, job))
        finally:
            engine.outside.pop(future, None)
            engine.check_idle()

    def reserve(self, task: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Reservation[Any]:
        """Take room for one job now, or raise; it is submitted later, and then there is room for it.

        Raises:
            QueueFull: there is no room now.
            TypeError: the task is durable, and its job must be on disk first: await `submit`.
            RuntimeClosed, PayloadError, WrongLoop, ForkedRuntime: as `submit`.
        """
        entry = self._entry(task, args, kwargs)
        if entry.definition.coroutine is not None:
            close_refused(task)
            raise TypeError("reserve takes a task or a function with its arguments, not a coroutine object")
        if entry.options.durable:
            raise TypeError(f"task {entry.name} is durable, and its job must be on disk first: await submit")
        check_open_here(entry.engine, entry)
        return Reservation(entry, args, kwargs)

    def with_options(self, *, wait_limit: float | None) -> Runtime:
        """The same runtime, whose submits wait at most *wait_limit* seconds for room; None for no limit."""
        return _SameRuntime(self, replace(self._limits, wait_limit=wait_limit))

    @overload
    async def submit_many(
        self, task: Callable[..., Coroutine[Any, Any, R]], calls: Iterable[Sequence[Any]], /
    ) -> list[Job[R]]: ...
    @overload
    async def submit_many(
        self, task: Callable[..., A], calls: Iterable[Sequence[Any]], /
    ) -> list[Job[object]]: ...
    @overload
    async def submit_many(
        self, task: Callable[..., R], calls: Iterable[Sequence[Any]], /
    ) -> list[Job[R]]: ...
    async def submit_many(self, task: Any, calls: Iterable[Sequence[Any]], /) -> list[Job[Any]]:
        """Accept one job for each tuple of arguments, all or none.

        Raises:
            QueueFull: they can never fit, or there is no room and the queue does not wait.
            As `submit`.
        """
        if inspect.iscoroutine(task):
            close_refused(task)
            raise TypeError("submit_many takes a task or a function, not a coroutine object: it can run once")
        arguments = [tuple(call) if isinstance(call, tuple | list) else (call,) for call in calls]
        entry = self._entry(task, (), {})
        if not arguments:
            return []
        engine: Supervisor = entry.engine
        engine.check_here()
        engine.check_open()
        for args in arguments:
            check_arguments(engine, entry, args, {})
        if entry.options.id is not None and len(arguments) > 1:
            raise ValueError(f"one id, {entry.options.id!r}, for {len(arguments)} jobs")
        self._check_can_fit(engine, entry, len(arguments))
        check_stack_for_many()
        if entry.options.durable:
            calls_made = [(args, dict[str, Any]()) for args in arguments]
            return await admit_durable(engine, entry, calls_made, self._limits.wait_limit)
        await wait_for_room(engine, entry, len(arguments), self._limits.wait_limit)
        if engine.phase != "running":
            give_back(engine, entry, len(arguments))
            raise RuntimeClosed(engine.phase)
        return [admit_reserved(engine, entry, args, {}) for args in arguments]

    def _check_can_fit(self, engine: Supervisor, entry: Entry, jobs: int) -> None:
        line: Line = entry.queue
        slots = engine.limit if line.limit is None else min(engine.limit, line.limit)
        if jobs > line.size + slots:
            raise full(engine, entry, f"; {jobs} at once can never fit")

    # -- many at once ------------------------------------------------------------------------------

    @overload
    def map(
        self,
        task: Callable[..., Coroutine[Any, Any, R]],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        limit: int | None = None,
        ordered: bool = True,
        on_error: Literal["raise"] = "raise",
    ) -> Fanout[R]: ...
    @overload
    def map(
        self,
        task: Callable[..., A],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        limit: int | None = None,
        ordered: bool = True,
        on_error: Literal["raise"] = "raise",
    ) -> Fanout[object]: ...
    @overload
    def map(
        self,
        task: Callable[..., R],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        limit: int | None = None,
        ordered: bool = True,
        on_error: Literal["raise"] = "raise",
    ) -> Fanout[R]: ...
    @overload
    def map(
        self,
        task: Callable[..., Coroutine[Any, Any, R]],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        limit: int | None = None,
        ordered: bool = True,
        on_error: OnError,
    ) -> Fanout[R | BaseException]: ...
    @overload
    def map(
        self,
        task: Callable[..., A],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        limit: int | None = None,
        ordered: bool = True,
        on_error: OnError,
    ) -> Fanout[object]: ...
    @overload
    def map(
        self,
        task: Callable[..., R],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        limit: int | None = None,
        ordered: bool = True,
        on_error: OnError,
    ) -> Fanout[R | BaseException]: ...
    def map(
        self,
        task: Any,
        *iterables: Iterable[Any] | AsyncIterable[Any],
        limit: int | None = None,
        ordered: bool = True,
        on_error: OnError = "raise",
    ) -> Any:
        """One job for each item (of several iterables: side by side), at most *limit* at a time.

        Args:
            iterables: sync or async, pulled lazily.
            limit: how many run at once; the runtime's concurrency unless given.
            ordered: yield results in the order of the input, or as they come.
            on_error: "raise" cancels the others at the first failure, waits for them and raises it;
                "return" yields the exception in the place of the result.

        A note at an exception (its ``__notes__``) says which item it belongs to. With ``ordered=False``
        have the function return its item with its result to know whose it is.

        Raises:
            ValueError: *limit* is below 1, or there is no iterable.
        """
        if not iterables:
            raise ValueError("map needs at least one iterable")
        return self._fan_out(task, lambda: zipped(iterables), limit, ordered, on_error)

    @overload
    def starmap(
        self,
        task: Callable[..., Coroutine[Any, Any, R]],
        iterable: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]],
        *,
        limit: int | None = None,
        ordered: bool = True,
        on_error: Literal["raise"] = "raise",
    ) -> Fanout[R]: ...
    @overload
    def starmap(
        self,
        task: Callable[..., A],
        iterable: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]],
        *,
        limit: int | None = None,
        ordered: bool = True,
        on_error: Literal["raise"] = "raise",
    ) -> Fanout[object]: ...
    @overload
    def starmap(
        self,
        task: Callable[..., R],
        iterable: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]],
        *,
        limit: int | None = None,
        ordered: bool = True,
        on_error: Literal["raise"] = "raise",
    ) -> Fanout[R]: ...
    @overload
    def starmap(
        self,
        task: Callable[..., Coroutine[Any, Any, R]],
        iterable: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]],
        *,
        limit: int | None = None,
        ordered: bool = True,
        on_error: OnError,
    ) -> Fanout[R | BaseException]: ...
    @overload
    def starmap(
        self,
        task: Callable[..., A],
        iterable: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]],
        *,
        limit: int | None = None,
        ordered: bool = True,
        on_error: OnError,
    ) -> Fanout[object]: ...
    @overload
    def starmap(
        self,
        task: Callable[..., R],
        iterable: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]],
        *,
        limit: int | None = None,
        ordered: bool = True,
        on_error: OnError,
    ) -> Fanout[R | BaseException]: ...
    def starmap(
        self,
        task: Any,
        iterable: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]],
        *,
        limit: int | None = None,
        ordered: bool = True,
        on_error: OnError = "raise",
    ) -> Any:
        """Like `map`, with each item a tuple of arguments."""

        def arguments() -> Iterator[tuple[Any, ...]] | AsyncIterator[tuple[Any, ...]]:
            pairs = zipped((iterable,))
            return unpacked(pairs) if isinstance(pairs, AsyncIterator) else (item for (item,) in pairs)

        return self._fan_out(task, arguments, limit, ordered, on_error)

    def _fan_out(
        self,
        task: Any,
        arguments: Callable[[], Iterator[tuple[Any, ...]] | AsyncIterator[tuple[Any, ...]]],
        limit: int | None,
        ordered: bool,
        on_error: OnError,
    ) -> Fanout[Any]:
        check_limit(limit)
        if on_error not in ("raise", "return"):
            raise ValueError(f"on_error is 'raise' or 'return', got {on_error!r}")
        entry = self._entry(task, (), {})
        engine: Supervisor = entry.engine
        if entry.definition.coroutine is not None:
            close_refused(task)
            raise TypeError("map takes a task or a function, not a coroutine object: it can run once")
        return Fanout(
            engine,
            lambda: requests(entry, arguments()),
            limit=engine.limit if limit is None else limit,
            ordered=ordered,
            on_error=on_error,
        )

    @overload
    async def gather(
        self,
        call1: Called[R1],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> tuple[R1]: ...
    @overload
    async def gather(
        self,
        call1: Called[R1],
        call2: Called[R2],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> tuple[R1, R2]: ...
    @overload
    async def gather(
        self,
        call1: Called[R1],
        call2: Called[R2],
        call3: Called[R3],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> tuple[R1, R2, R3]: ...
    @overload
    async def gather(
        self,
        call1: Called[R1],
        call2: Called[R2],
        call3: Called[R3],
        call4: Called[R4],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> tuple[R1, R2, R3, R4]: ...
    @overload
    async def gather(
        self,
        call1: Called[R1],
        call2: Called[R2],
        call3: Called[R3],
        call4: Called[R4],
        call5: Called[R5],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> tuple[R1, R2, R3, R4, R5]: ...
    @overload
    async def gather(
        self,
        call1: Called[R1],
        call2: Called[R2],
        call3: Called[R3],
        call4: Called[R4],
        call5: Called[R5],
        call6: Called[R6],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> tuple[R1, R2, R3, R4, R5, R6]: ...
    @overload
    async def gather(
        self,
        call1: Called[R1],
        /,
        *,
        limit: int | None = None,
        return_exceptions: bool,
    ) -> tuple[R1 | BaseException]: ...
    @overload
    async def gather(
        self,
        call1: Called[R1],
        call2: Called[R2],
        /,
        *,
        limit: int | None = None,
        return_exceptions: bool,
    ) -> tuple[R1 | BaseException, R2 | BaseException]: ...
    @overload
    async def gather(
        self,
        call1: Called[R1],
        call2: Called[R2],
        call3: Called[R3],
        /,
        *,
        limit: int | None = None,
        return_exceptions: bool,
    ) -> tuple[R1 | BaseException, R2 | BaseException, R3 | BaseException]: ...
    @overload
    async def gather(
        self,
        call1: Called[R1],
        call2: Called[R2],
        call3: Called[R3],
        call4: Called[R4],
        /,
        *,
        limit: int | None = None,
        return_exceptions: bool,
    ) -> tuple[R1 | BaseException, R2 | BaseException, R3 | BaseException, R4 | BaseException]: ...
    @overload
    async def gather(
        self,
        call1: Called[R1],
        call2: Called[R2],
        call3: Called[R3],
        call4: Called[R4],
        call5: Called[R5],
        /,
        *,
        limit: int | None = None,
        return_exceptions: bool,
    ) -> tuple[
        R1 | BaseException, R2 | BaseException, R3 | BaseException, R4 | BaseException, R5 | BaseException
    ]: ...
    @overload
    async def gather(
        self,
        call1: Called[R1],
        call2: Called[R2],
        call3: Called[R3],
        call4: Called[R4],
        call5: Called[R5],
        call6: Called[R6],
        /,
        *,
        limit: int | None = None,
        return_exceptions: bool,
    ) -> tuple[
        R1 | BaseException,
        R2 | BaseException,
        R3 | BaseException,
        R4 | BaseException,
        R5 | BaseException,
        R6 | BaseException,
    ]: ...
    @overload
    async def gather(
        self,
        call1: Called[R],
        call2: Called[R],
        call3: Called[R],
        call4: Called[R],
        call5: Called[R],
        call6: Called[R],
        call7: Called[R],
        /,
        *calls: Called[R],
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> list[R]: ...
    @overload
    async def gather(
        self,
        call1: Called[R],
        call2: Called[R],
        call3: Called[R],
        call4: Called[R],
        call5: Called[R],
        call6: Called[R],
        call7: Called[R],
        /,
        *calls: Called[R],
        limit: int | None = None,
        return_exceptions: bool,
    ) -> list[R | BaseException]: ...
    async def gather(self, *calls: Any, limit: int | None = None, return_exceptions: bool = False) -> Any:
        """Different calls at once, at most *limit* at a time; their results in order.

        Args:
            calls: what `Task.bind` gives, or coroutine objects.
            limit: how many run at once; the runtime's concurrency unless given.
            return_exceptions: put what awaiting each would raise in its place; otherwise the first
                failure cancels the others, waits for them, and is raised.
        """
        try:
            check_limit(limit)
            engine = self._running()
            made = [self._request(call) for call in calls]
            coroutines = [id(origin) for _, origin, _, _ in made if origin is not None]
            if len(set(coroutines)) < len(coroutines):
                raise TypeError("one coroutine object stands twice among the calls: it can run once")
            fanout: Fanout[Any] = Fanout(
                engine,
                lambda: iter(made),
                limit=engine.limit if limit is None else limit,
                ordered=True,
                on_error="return" if return_exceptions else "raise",
            )
            return await fanout
        finally:
            for call in calls:
                close_refused(call)

    def _request(self, call: Any) -> Request:
        if isinstance(call, Call):
            return self._entry(call.task, call.args, call.kwargs), None, call.args, call.kwargs  # pyright: ignore[reportUnknownMemberType]
        entry = self._entry(call, (), {})
        if entry.definition.coroutine is None:
            raise TypeError(f"gather takes task.bind(...) or coroutine objects, got {call!r}")
        return entry, call, (), {}

    def group(self) -> Group:
        """Structured concurrency: ``async with rt.group() as group: await group.submit(...)``."""
        return Group(self)

    # -- looking and steering ----------------------------------------------------------------------

    def job(self, id: str) -> Job[Any] | None:
        """The job of that id, live or among the last that ended; None if it is not known."""
        return find_job(self._running(even_closed=True), id)

    def jobs(
        self, *, state: str | JobState | None = None, task: str | Task[..., Any] | None = None
    ) -> list[Job[Any]]:
        """The live jobs and the last that ended, of that *state* and *task* (or its name) where given.

        Raises:
            ValueError: there is no such state.
        """
        if state is not None and state not in set(JobState):
            raise ValueError(did_you_mean("state", str(state), map(str, JobState)))
        name = task.name if isinstance(task, Task) else task
        return find_jobs(self._running(even_closed=True), None if state is None else JobState(state), name)

    def pause(self, queue: str | None = None) -> None:
        """Start nothing more from *queue*, or from any. What runs goes on."""
        engine = self._running()
        engine.check_here()
        for line in self._lines(queue):
            line.paused = True
            unlist_line(engine, line)
        engine.check_idle()
        engine.offer_room()

    def resume(self, queue: str | None = None) -> None:
        """Start jobs from *queue*, or from all, again after `pause`."""
        engine = self._running()
        engine.check_here()
        for line in self._lines(queue):
            line.paused = False
            list_line(engine, line)
        engine.kick()
        engine.offer_room()

    def resize(self, queue: str | None, concurrency: int) -> None:
        """Let *queue*, or with None the whole runtime, run *concurrency* attempts at once from now on.

        More than that may run for a while: nothing is cancelled.
        """
        check_concurrency(concurrency)
        engine = self._running()
        engine.check_here()
        if queue is None:
            engine.limit = concurrency
        else:
            self._lines(queue)[0].limit = concurrency
        for line in engine.lines.values():
            list_line(engine, line)
        engine.kick()
        engine.offer_room()

    def _lines(self, queue: str | None) -> list[Line]:
        lines = self._running().lines
        if queue is None:
            return list(lines.values())
        if queue not in lines:
            raise ValueError(did_you_mean("queue", queue, lines))
        return [lines[queue]]

    async def drain(self, timeout: float | None = None) -> None:
        """Return when nothing is available, running or retryable, jobs submitted meanwhile included.

        Scheduled jobs and paused queues do not count.

        Args:
            timeout: seconds to wait at most; None for no limit.

        Raises:
            TimeoutError: it took longer; nothing has changed.
            RuntimeError: called inside a job, which would wait for itself.
        """
        check_seconds("timeout", timeout)
        engine = self._running(even_closed=True)
        if engine.phase == "closed":
            return
        engine.check_here()
        if engine.inside() is not None:
            raise RuntimeError("drain inside a job would wait for that job: use group or map")
        over: asyncio.Future[None] | None = None
        timer = None
        if timeout is not None:
            over = engine.loop.create_future()
            timer = engine.timers.at(engine.clock() + timeout, _set, over)
        try:
            if not await engine.until_idle(give_up=over):
                raise TimeoutError(f"still {engine.in_use} running after {timeout:g} s of draining")
        finally:
            if timer is not None:
                engine.timers.cancel(timer)

    def stats(self) -> RuntimeStats:
        """What is where now, and what was counted since the runtime was entered. From any thread.

        Raises:
            RuntimeClosed: it was not entered yet.
            TimeoutError: called from another thread while the loop is held for 5 seconds.
        """
        from ._engine.count import completed_by_observers, stats_of

        engine = self._running(even_closed=True)
        return asked_on_loop(engine, lambda: completed_by_observers(engine, stats_of(engine)), _PATIENCE)

    def health(self) -> Health:
        """Whether the runtime is well, and if not, why. From any thread.

        Asked from another thread it is not `live` when the loop does not turn for 5 seconds.
        """
        engine = self._engine
        if engine is None:
            return health_of(None)
        if engine.loop.is_closed() and engine.phase != "closed":
            return _not_live("the event loop was closed before the runtime was left")
        try:
            return asked_on_loop(engine, lambda: health_of(engine), _PATIENCE)
        except TimeoutError:
            return _not_live(f"the event loop has not turned for {_PATIENCE:g} s")

    @property
    def journal(self) -> Any:
        """The journal, or None without one."""
        return None if self._engine is None else self._engine.journal

    @property
    def shutdown(self) -> Shutdown:
        """Seconds for each phase of a stop, unless `stop` is given others."""
        return self._shutdown

    @property
    def registry(self) -> Registry:
        """Where it looks up task names."""
        return self._registry

    def _entry(self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Entry:
        definition = definition_of(task, args, kwargs)
        engine = self._running()
        entry = engine.entries.get(definition)
        if entry is None:
            entry = engine.entry_of(definition)
        engine.remember_at_once(task, entry)
        return entry

    def __repr__(self) -> str:
        engine = self._engine
        if engine is None:
            return (
                f"<Runtime new: concurrency {self._limits.concurrency}, queue size {self._limits.queue_size}>"
            )
        queued = sum(line.waiting + line.nested + line.later for line in engine.lines.values())
        size = sum(line.size for line in engine.lines.values())
        return (
            f"<Runtime {engine.phase}: {engine.in_use}/{engine.limit} slots in use, {queued}/{size} queued>"
        )


show_defaults(Runtime.__init__)


class _SameRuntime(Runtime):
    """Another one's runtime, under options of its own; everything else is that one's."""

    def __init__(self, origin: Runtime, limits: Limits) -> None:
        self._origin = origin
        self._limits = limits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._origin, name)

    async def __aenter__(self) -> Self:
        await self._origin.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._origin.__aexit__(kind, error, trace)

    def _begin_stop(self, limits: Shutdown, *, leaving: bool) -> Stopping:
        return self._origin._begin_stop(limits, leaving=leaving)


class _Follow:
    """Lets a future of another thread follow a job."""

    __slots__ = ("_engine", "_future")

    def __init__(self, engine: Supervisor, future: concurrent.futures.Future[Any]) -> None:
        self._engine = engine
        self._future = future

    def job_ended(self, job: Job[Any]) -> None:
        if job.state is JobState.COMPLETED:
            _resolve(self._future, value=job.result())
        else:
            _resolve(self._future, error=job.exception())


def _resolve(
    future: concurrent.futures.Future[Any], *, value: Any = None, error: BaseException | None = None
) -> None:
    try:
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
    except concurrent.futures.InvalidStateError:
        pass  # its owner cancelled it, or the runtime has closed it


def _note_cancelled(future: concurrent.futures.Future[Any]) -> None:
    """Let those who wait for several futures know: without this a cancelled one is never done."""
    with suppress(concurrent.futures.InvalidStateError, RuntimeError):
        future.set_running_or_notify_cancel()


def _cancel_from_thread(engine: Supervisor, job: Job[Any], future: concurrent.futures.Future[Any]) -> None:
    if not future.cancelled():
        return
    _note_cancelled(future)
    try:
        if _get_running_loop() is engine.loop:
            job.cancel()
        else:
            engine.loop.call_soon_threadsafe(job.cancel)
    except RuntimeError:
        pass  # the loop is closed, and with it the job


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _arounds(observers: Sequence[Any]) -> tuple[Middleware, ...]:
    arounds = (getattr(observer, "around", None) for observer in observers)
    return tuple(around for around in arounds if around is not None)


def _checked_queues(queues: Sequence[Queue]) -> tuple[Queue, ...]:
    names: set[str] = set()
    for queue in queues:
        if not isinstance(queue, Queue):
            raise ValueError(f"queues holds Queue(name, ...), got {queue!r}")
        if queue.name in names:
            raise ValueError(f"two queues are called {queue.name!r}")
        names.add(queue.name)
    return tuple(queues)


def _not_live(reason: str) -> Health:
    check = Check("loop", "fail", reason)
    return Health("fail", live=False, ready=False, reasons=(reason,), checks=(check,))


def _checked_registry(registry: Registry) -> Registry:
    if not isinstance(registry, Registry):
        raise ValueError(f"registry is a Registry, got {registry!r}")
    return registry


def _checked_journal(journal: Any) -> Any:
    if journal is None or (isinstance(journal, str) and journal):
        return journal
    if not isinstance(journal, os.PathLike) and not hasattr(journal, "open"):
        raise ValueError(f"journal is the path of a file, got {journal!r}")
    return journal  # pyright: ignore[reportUnknownVariableType]


def _values_of(settings: RuntimeSettings) -> dict[str, Any]:
    try:
        return {name: getattr(settings, name) for name in _FROM_SETTINGS}
    except AttributeError:
        raise ValueError(f"settings is a RuntimeSettings, got {settings!r}") from None


def _checked_shutdown(shutdown: Shutdown) -> Shutdown:
    if not isinstance(shutdown, Shutdown):
        raise ValueError(f"shutdown is a Shutdown(drain=, cancel=, close=), got {shutdown!r}")
    return shutdown


__all__ = ["Runtime"]
