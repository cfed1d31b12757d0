"""Many jobs at once, a bounded number at a time: what `Runtime.map`, `starmap` and `gather` use."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from ._engine.admit import admit, admit_durable, admit_nested, admit_reserved, room_for, wait_for_room
from ._engine.supervise import Wait
from ._model.errors import PayloadError
from ._model.jobs import Entry, Job, reason_of
from ._model.outcomes import Outcome, Reason, Stop
from ._model.states import JobState
from ._task import close_refused, mark_accepted

if TYPE_CHECKING:
    from ._engine.dispatch import Line
    from ._engine.supervise import Supervisor

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

ITEM = "of the fan-out's item"
ENDED = "the fan-out it belongs to ended"
OnError = Literal["raise", "return"]
Request = tuple[Entry, Any, tuple[Any, ...], dict[str, Any]]


class Fanout(Generic[R_co]):
    """The results of many jobs: await it for a list, or iterate it asynchronously, once.

    Nothing starts before that. At most `limit` jobs run at a time; when iterated, at most twice
    as many items have been pulled from the input and not been yielded. ``async with`` cancels on
    leaving what is still in flight, and so does `aclose`.
    """

    def __init__(
        self,
        engine: Supervisor,
        source: Callable[[], Iterator[Request] | AsyncIterator[Request]],
        *,
        limit: int,
        ordered: bool,
        on_error: OnError,
    ) -> None:
        self._flow = _Flow(engine, source, limit, ordered=ordered, raising=on_error == "raise")
        self._used = False

    def __await__(self) -> Generator[Any, None, list[R_co]]:
        self._use()
        return self._flow.collect().__await__()

    def __aiter__(self) -> AsyncIterator[R_co]:
        self._use()
        return _Iteration(self._flow)

    async def __aenter__(self) -> Fanout[R_co]:
        return self

    async def __aexit__(self, *about: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel what is in flight, wait for its end, and start nothing more."""
        self._used = True
        await self._flow.end()

    def _use(self) -> None:
        if self._used:
            raise RuntimeError("a fan-out is used once: call map again")
        self._used = True

    def __repr__(self) -> str:
        flow = self._flow
        return (
            f"<Fanout: {len(flow.in_flight)}/{flow.limit} in flight, "
            f"{flow.pulled} pulled, {flow.yielded} yielded>"
        )


class _Iteration(AsyncIterator[R]):
    """One walk over a fan-out. When it is dropped half-way nothing more starts."""

    # An object of its own: after a bare `break` the interpreter drops it, though the user may
    # still hold the fan-out and the jobs in flight hold the flow.
    __slots__ = ("_flow",)

    def __init__(self, flow: _Flow) -> None:
        self._flow = flow

    def __aiter__(self) -> AsyncIterator[R]:
        return self

    async def __anext__(self) -> R:
        result: R = await self._flow.next()
        return result

    async def aclose(self) -> None:
        """Cancel what is in flight and wait for its end."""
        await self._flow.end()

    def __del__(self) -> None:
        self._flow.abandon()


class _Flow:
    """Pulls, submits, collects. Driven by the ends of its jobs; it needs a task only for input that waits."""

    def __init__(
        self,
        engine: Supervisor,
        source: Callable[[], Iterator[Request] | AsyncIterator[Request]],
        limit: int,
        *,
        ordered: bool,
        raising: bool,
    ) -> None:
        self._engine = engine
        self._make_source: Callable[[], Iterator[Request] | AsyncIterator[Request]] | None = source
        self._source: Iterator[Request] | AsyncIterator[Request] | None = None
        self.limit = limit
        self._ordered = ordered
        self._raising = raising
        self._context = copy_context()
        self._nested = False
        self.in_flight: dict[Job[Any], int] = {}
        self.pulled = self.yielded = self._lingering = 0
        self._waiting: dict[int, Any] = {}  # ended, ordered, not yielded
        self._ready: deque[Any] = deque()  # ended, unordered, not yielded
        self._collected: dict[int, Any] | None = None
        self._exhausted = self._ended = self._filling = False
        self._failure: BaseException | None = None
        self._feeder: asyncio.Task[Any] | None = None
        self._changes: list[Wait] = []  # of several consumers, or of one and of who ends it
        self._capacity: asyncio.Future[None] | None = None

    # -- the consumer's side ---------------------------------------------------------------------

    async def collect(self) -> list[Any]:
        """All results; the consumer sleeps until the last."""
        self._collected = {}
        self._start()
        await self._until(lambda: self._failure is not None or self._is_over())
        await self._raise_failure()
        found = self._collected
        return [found[index] for index in sorted(found)] if self._ordered else list(found.values())

    async def next(self) -> Any:
        """The next result. Raises StopAsyncIteration after the last."""
        if self._ended:
            raise StopAsyncIteration
        self._start()
        await self._until(lambda: self._failure is not None or self._has_next() or self._is_over())
        await self._raise_failure()
        if not self._has_next():
            self._ended = True
            raise StopAsyncIteration
        result = self._waiting.pop(self.yielded) if self._ordered else self._ready.popleft()
        self.yielded += 1
        self._fill()
        if self._capacity is not None and not self._capacity.done() and self._wanted() > 0:
            self._capacity.set_result(None)
        return result

    async def end(self) -> None:
        """Start nothing more, cancel what is in flight, and wait until it has ended.

        A cancellation that arrives meanwhile is raised once that is so.
        """
        self._cut()
        interrupted: asyncio.CancelledError | None = None
        while self.in_flight or self._feeder is not None:
            try:
                await self._wait_for_change()
            except asyncio.CancelledError as error:
                interrupted = error
        await self._close_source()
        if interrupted is not None:
            raise interrupted

    def abandon(self) -> None:
        """The consumer has gone without a word. Safe from any thread, as finalizers may run in any."""
        if self._ended or (self._source is None):
            return
        self._ended = True
        for job in self.in_flight:
            # Started but still before its first step: no line of it shall run. Only marked here,
            # since a finalizer may run in the midst of anything.
            if job._state is JobState.RUNNING and job._started is None and job._stop is None:
                job._stop = Stop(Outcome.CANCELLED, ENDED)
        with suppress(RuntimeError):  # the loop is closed, and with it the jobs
            self._engine.loop.call_soon_threadsafe(self._cut)

    async def _raise_failure(self) -> None:
        if self._failure is not None:
            failure = self._failure
            await self.end()
            try:
                raise failure
            finally:
                del failure

    async def _until(self, done: Callable[[], bool]) -> None:
        try:
            while not done():
                await self._wait_for_change()
        except asyncio.CancelledError:
            await self.end()
            raise

    async def _wait_for_change(self) -> None:
        wait = Wait(self._engine, self._engine.inside())
        self._changes.append(wait)
        await wait.until_signalled()

    def _has_next(self) -> bool:
        return self.yielded in self._waiting if self._ordered else bool(self._ready)

    def _is_over(self) -> bool:
        return self._exhausted and not self.in_flight and self._feeder is None

    # -- the jobs' side --------------------------------------------------------------------------

    def job_ended(self, job: Job[Any]) -> None:
        """One of ours is over."""
        index = self.in_flight.pop(job, None)
        if index is None:
            return
        if job in self._engine.live and job._task is not None:
            # Declared over at its timeout, while its attempt still cleans up and holds its slot.
            job._get_more().after = self
            self._lingering += 1
        if job._state is JobState.COMPLETED:
            self._keep(index, job._value)
        else:
            _say_which(job._value, index)
            if self._raising:
                self._fail(job._value)
            else:
                self._keep(index, job._value)
        if job._state is JobState.CANCELLED and reason_of(job) is Reason.DROPPED:
            # Its place is for the one that it was dropped for, who has not taken it yet.
            self._engine.loop.call_soon(self._fill_and_wake)
        elif not self._filling:
            self._fill()
        self._wake()

    def attempt_ended(self, job: Job[Any]) -> None:
        """The attempt of a job that was over already has really ended, or was abandoned."""
        self._lingering -= 1
        self._fill_and_wake()

    def _fill_and_wake(self) -> None:
        self._fill()
        self._wake()

    def _keep(self, index: int, result: Any) -> None:
        if self._ended:
            return
        if self._collected is not None:
            self._collected[index] = result
            self.yielded += 1
        elif self._ordered:
            self._waiting[index] = result
        else:
            self._ready.append(result)

    def _fail(self, failure: BaseException) -> None:
        """Note the first failure; from here on nothing starts and the others are cancelled."""
        if self._failure is None and not self._ended:
            self._failure = failure
            self._cut()
            self._wake()

    def _cut(self) -> None:
        self._ended = True
        if self._feeder is not None:
            self._feeder.cancel()
        for job in list(self.in_flight):
            self._engine.cancel(job, ENDED)
        self._wake()

    def _wake(self) -> None:
        changes, self._changes = self._changes, []
        for wait in changes:
            wait.signal()
        if self._capacity is not None and not self._capacity.done():
            self._capacity.set_result(None)

    # -- the input's side ------------------------------------------------------------------------

    def _start(self) -> None:
        make = self._make_source
        if make is None:
            return
        engine = self._engine
        engine.check_here()
        self._nested = engine.inside() is not None
        engine.check_open(nested=self._nested)
        self._source, self._make_source = make(), None  # which holds the input: nobody else here does
        if isinstance(self._source, AsyncIterator):
            self._feeder = self._help(self._feed(self._source))
        else:
            self._fill()

    def _wanted(self) -> int:
        """How many items more may be pulled now."""
        if self._exhausted or self._ended:
            return 0
        limit = self.limit
        free = limit - len(self.in_flight) - self._lingering
        return min(free, 2 * limit - self.pulled + self.yielded)

    def _fill(self) -> None:
        """Pull and submit as much as may be in flight, in the context in which the fan-out was made."""
        if self._feeder is not None or self._filling:
            return
        self._filling = True
        try:
            while (wanted := self._wanted()) > 0 and self._feeder is None:
                self._context.run(self._fill_here, wanted)
        finally:
            self._filling = False

    def _fill_here(self, wanted: int) -> None:
        source: Any = self._source
        for _ in range(wanted):
            if self._ended:
                return
            try:
                request = next(source)
            except StopIteration:
                self._exhausted = True
                return
            except BaseException as error:
                self._exhausted = True
                self._fail(error)
                return
            if request[0].durable or (not self._nested and self._must_wait(request[0])):
                self._feeder = self._help(self._submit_waiting(request), request[1])
                if self._feeder is not None:
                    return
                continue
            self._submit(request, admit_nested if self._nested else admit)

    def _must_wait(self, entry: Entry) -> bool:
        """Whether a job of *entry* has to wait for room, or behind others who do."""
        line: Line = entry.queue
        if line.at_once > 0 or line.reckon() > 0:
            return False
        return bool(line.room) or not line.has_room(self._engine, room_for(entry))

    def _submit(self, request: Request, how: Callable[..., Job[Any]]) -> None:
        entry, origin, args, kwargs = request
        index = self.pulled
        self.pulled += 1
        try:
            job = how(self._engine, entry, args, kwargs, self)
        except BaseException as error:
            close_refused(origin)
            self._refused(index, error)
        else:
            self.in_flight[job] = index
            if origin is not None:
                mark_accepted(origin)

    def _refused(self, index: int, error: BaseException) -> None:
        if not self._raising and isinstance(error, PayloadError):
            self._keep(index, error)
        else:
            self._fail(error)

    async def _submit_waiting(self, request: Request) -> None:
        """Submit one job that has to wait, for room or for the disk, then go on as before."""
        try:
            await self._submit_when_room(request)
        finally:
            self._feeder = None
            self._fill()
            self._wake()

    async def _submit_when_room(self, request: Request) -> None:
        entry = request[0]
        if entry.durable:
            await self._submit_durable(request)
            return
        try:
            await wait_for_room(self._engine, entry, limit=self._engine.limits.wait_limit)
        except asyncio.CancelledError:
            close_refused(request[1])
            raise
        except Exception as error:
            close_refused(request[1])
            self.pulled += 1
            self._fail(error)
        else:
            self._submit(request, admit_reserved)

    async def _submit_durable(self, request: Request) -> None:
        entry, _, args, kwargs = request
        index = self.pulled
        self.pulled += 1
        try:
            [job] = await admit_durable(
                self._engine, entry, [(args, kwargs)], self._engine.limits.wait_limit, self
            )
        except Exception as error:
            self._refused(index, error)
            return
        self.in_flight[job] = index
        if self._ended:  # the fan-out was cut while it was written
            self._engine.cancel(job, ENDED)

    async def _feed(self, source: AsyncIterator[Request]) -> None:
        """Pull from input that is itself asynchronous."""
        try:
            while not self._ended:
                while self._wanted() <= 0:
                    if self._ended:
                        return
                    self._capacity = self._engine.loop.create_future()
                    await self._capacity
                try:
                    request = await anext(source)
                except StopAsyncIteration:
                    break
                if self._nested and not request[0].durable:
                    self._submit(request, admit_nested)
                else:
                    await self._submit_when_room(request)
        except asyncio.CancelledError as error:
            if not self._ended:  # nobody cut it: something that the input waited for was cancelled
                lost = RuntimeError("the input of the fan-out was cancelled")
                lost.__cause__ = error
                self._fail(lost)
        except BaseException as error:  # a SystemExit would end the loop here instead of being raised there
            if not self._engine.loop.is_running():
                raise  # what is left of this task is being collected
            self._fail(error)
        finally:
            self._exhausted = True
            self._feeder = None
            self._wake()

    async def _close_source(self) -> None:
        source: Any = self._source
        if inspect.isgenerator(source):
            source.close()
        elif inspect.isasyncgen(source):
            await source.aclose()

    def _help(self, coroutine: Any, origin: Any = None) -> asyncio.Task[Any] | None:
        task = self._engine.help(coroutine, "bgruntime fan-out", self._context.copy())
        if task.done():
            return None
        task.add_done_callback(partial(self._feeder_ended, origin))
        return task

    def _feeder_ended(self, origin: Any, task: asyncio.Task[Any]) -> None:
        """A feeder that is cancelled before its first step runs no line of its own clean-up."""
        if self._feeder is task:
            close_refused(origin)
            self._feeder = None
            self._wake()


def _say_which(error: BaseException, index: int) -> None:
    """Note at *error* which item it belongs to, once: the same object may be raised many times."""
    if not any(note.startswith(ITEM) for note in getattr(error, "__notes__", ()) if isinstance(note, str)):
        error.add_note(f"{ITEM} {index}, counted from 0")


def zipped(iterables: tuple[Any, ...]) -> Iterator[tuple[Any, ...]] | AsyncIterator[tuple[Any, ...]]:
    """The items of *iterables* side by side, until the shortest ends; asynchronous if one of them is."""
    if any(isinstance(one, AsyncIterator) or hasattr(one, "__aiter__") for one in iterables):
        return _zip_async(iterables)
    return zip(*iterables, strict=False)


async def _zip_async(iterables: tuple[Any, ...]) -> AsyncIterator[tuple[Any, ...]]:
    pulls = [aiter(one) if hasattr(one, "__aiter__") else iter(one) for one in iterables]
    try:
        while True:
            items: list[Any] = []
            for pull in pulls:
                try:
                    items.append(await anext(pull) if hasattr(pull, "__anext__") else next(pull))
                except (StopAsyncIteration, StopIteration):
                    return
            yield tuple(items)
    finally:
        for pull in pulls:
            if hasattr(pull, "aclose"):
                await pull.aclose()
            elif inspect.isgenerator(pull):
                pull.close()


async def unpacked(pairs: AsyncIterator[tuple[Any]]) -> AsyncIterator[tuple[Any, ...]]:
    """The one item of each of *pairs*."""
    try:
        async for (item,) in pairs:
            yield item
    finally:
        if isinstance(pairs, AsyncGenerator):
            await pairs.aclose()


def requests(
    entry: Entry, arguments: Iterator[tuple[Any, ...]] | AsyncIterator[tuple[Any, ...]]
) -> Iterator[Request] | AsyncIterator[Request]:
    """One request for each tuple of arguments."""
    if isinstance(arguments, AsyncIterator):
        return _async_requests(entry, arguments)
    return ((entry, None, tuple(args), {}) for args in arguments)  # pyright: ignore[reportUnknownVariableType]


async def _async_requests(entry: Entry, arguments: AsyncIterator[tuple[Any, ...]]) -> AsyncIterator[Request]:
    try:
        async for args in arguments:
            yield entry, None, tuple(args), {}
    finally:
        if isinstance(arguments, AsyncGenerator):
            await arguments.aclose()


__all__ = ["Fanout", "OnError", "Request", "requests", "unpacked", "zipped"]
