"""What may be plugged in: what you promise, and what is promised to you."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from .events import Event
from .jobs import Adopted, Definition, Job
from .outcomes import Outcome
from .reports import Check


@runtime_checkable
class Observer(Protocol):
    """Is told what happens.

    `listens_to` names the kinds of event it wants (a kind stands for its subclasses too); without
    it, or when it is empty, it gets all. `on_event` is called in the loop's turn in which the fact
    became true, with the state already consistent: it may call the runtime back and must not block
    (use `extend.Mailbox` for I/O). What it raises harms nothing and is counted. If it is an async
    context manager it is entered before the runtime starts and left after it has stopped.

    It may have more methods than this one; each is called if it is there: those of `Attached`,
    `BatchObserver`, `StatsObserver`, `HealthObserver` and `SurroundingObserver`.

    AttemptStarted is told in the context of the attempt, JobAccepted in that of the submitter: a
    contextvar that is set at an attempt's start is set for the job, and for nobody else.
    """

    def on_event(self, event: Any, /) -> None:
        """Hear one event of the kinds it listens to."""
        ...


class ObserverHost(Protocol):
    """What an observer may ask of the runtime it is attached to, on the runtime's loop."""

    @property
    def runtime(self) -> Any:
        """The runtime, as its users have it."""

    @property
    def journal(self) -> Any:
        """The journal of this run, None without one and until it is open."""

    def counts(self) -> Any:
        """`Runtime.stats` without what observers have measured; all that ended is handed out before."""

    def emit(self, event: Event, /) -> None:
        """Tell *event* to all who listen to its kind."""

    def complain(self, about: str, error: BaseException | None, /) -> None:
        """Count a fault under these words in `stats().faults`, and report the first of its kind."""

    def trace_by(self, source: Callable[[Job[Any]], str], /) -> None:
        """Have the journal ask *source* for the traceparent it keeps with a durable job.

        It is asked while the job is being submitted, in the context of whoever does; that may be refused.
        """

    def job_of(self, task: Any, /) -> Job[Any] | None:
        """The job whose code this asyncio task runs, None for other tasks. From any thread.

        Python 3.11 does not tell for the tasks that a job has started: there it is None.
        """


class Attached(Protocol):
    """An observer that wants to know the runtime."""

    def attach(self, host: ObserverHost, /) -> None:
        """Called once, when the runtime is made and before it takes jobs; again if it is entered again."""


class BatchObserver(Protocol):
    """An observer of the ends of attempts in bulk: by far the cheapest way to measure."""

    def on_batch(self, records: Sequence[Any], /) -> None:
        """Several hundred ended attempts, or those since the last time whenever statistics are read.

        Each is an `extend.Record`. They come in an `extend.Batch`, which offers a cheaper way to those
        who only count.
        """


class StatsObserver(Protocol):
    """An observer that adds to `Runtime.stats`."""

    def complete(self, stats: Any, /) -> Any:
        """*stats* with what it has measured. It gets what the observers before it gave."""


class HealthObserver(Protocol):
    """An observer that adds to `Runtime.health`."""

    def checks(self) -> Sequence[Check]:
        """What it looks at, those that pass included."""
        ...


class SurroundingObserver(Protocol):
    """An observer that also wraps each attempt, outside the runtime's middleware."""

    @property
    def around(self) -> Middleware | None:
        """What wraps the attempts, None for nothing. It is asked when the runtime is entered."""
        ...


class Middleware(Protocol):
    """Wraps each attempt: called with the job's context it gives a context manager, plain or async.

    It is entered before the task's function runs and left with what that raised. It can neither
    swallow an exception nor fail the job: its own errors are counted and passed over.
    """

    def __call__(self, context: Any, /) -> AbstractAsyncContextManager[Any] | AbstractContextManager[Any]: ...


class Payload(Protocol):
    """Arguments that were written down, and what a job gets of them: copies read back from that."""

    @property
    def args(self) -> tuple[Any, ...]:
        """What the job's function is called with, by position."""
        ...

    @property
    def kwargs(self) -> dict[str, Any]:
        """What the job's function is called with, by name."""
        ...


class Ended(Protocol):
    """How a job or an attempt ended. `error` still has its traceback; times are monotonic."""

    @property
    def outcome(self) -> Outcome | None:
        """How the attempt ended; None where there was no attempt."""

    @property
    def error(self) -> BaseException | None:
        """What it raised, or what awaiting the job raises; with its traceback."""

    @property
    def reason(self) -> str | None:
        """Why, where there is more to say than the outcome; a `Reason` when nobody has asked for it."""

    @property
    def started_at(self) -> float | None:
        """When the attempt began, in seconds of the monotonic clock."""

    @property
    def ended_at(self) -> float:
        """When it ended, in seconds of the monotonic clock."""
        ...


class JournalHost(Protocol):
    """What a journal may ask of the runtime it works for, on the runtime's loop."""

    def definition(self, name: str) -> Definition | None:
        """The task of that name, if this process knows it."""

    def names(self) -> Sequence[str]:
        """The names of all tasks this process knows by now."""
        ...

    def durable(self) -> Sequence[Definition]:
        """The durable tasks this runtime can run, as far as they are defined by now."""
        ...

    def default_redrive(self) -> int:
        """How often a failure is redriven by itself when its task does not say."""
        ...

    async def reserve(self, definition: Definition, wanted: int) -> int:
        """Take room in the queue of *definition*; wait for it. Returns how much, at most *wanted*."""
        ...

    def adopt(self, definition: Definition, jobs: Sequence[Adopted], reserved: int) -> None:
        """Run *jobs*, which came out of the journal, in room reserved for the queue of *definition*."""

    async def submit(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job[Any]:
        """Submit one job through the front door."""
        ...

    def emit(self, event: Event) -> None:
        """Tell whoever listens."""

    def trace(self, job: Job[Any], /) -> str:
        """The W3C traceparent to keep with *job*, which is being submitted; "" where nobody traces."""
        ...

    def nudge(self) -> None:
        """What `waiting` answers has changed."""


class Journal(Protocol):
    """Keeps durable jobs from acceptance to completion, and every failure.

    Every method is called on the runtime's loop. Those that are not coroutines return at once, never
    raise where nothing is said, and see to it later.
    """

    def new_id(self) -> str:
        """An id for a durable job that was given none."""
        ...

    def encode(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Payload:
        """Write the arguments down. Raises PayloadError, and TypeError where they do not fit the function."""
        ...

    async def accept(self, jobs: Sequence[Job[Any]], payloads: Sequence[Any]) -> None:
        """Return when *jobs* are on disk, all or none; a cancelled call withdraws them.

        Raises:
            JournalUnavailable: they are not there.
            AcceptUnknown: they may be there.
            ValueError: an id that was given beforehand is in the journal already.
        """

    def withdraw(self, jobs: Sequence[Job[Any]]) -> None:
        """Take back what was accepted and shall not run."""

    def begin(self, job: Job[Any]) -> Awaitable[bool | None] | None:
        """An attempt of a durable *job* is about to start.

        None: it may. Otherwise await whether it may: True, False when another process has it now,
        None when that cannot be written at present.
        """

    def retrying(self, job: Job[Any], ended: Ended, due: float) -> None:
        """An attempt ended and *job* waits for the next one, until *due* by the wall clock."""

    def settled(self, job: Job[Any], ended: Ended) -> Awaitable[None] | None:
        """*job* is over: any durable one, and any other that did not complete.

        What it returns is awaited before whoever waits for the job is woken.
        """

    def quiet(self) -> None:
        """The runtime stops: bring it no more jobs."""

    def waiting(self) -> bool:
        """Are there jobs on their way from the journal to the runtime?"""
        ...

    def problems(self) -> Sequence[str]:
        """What is wrong with it, in words; empty when it is well."""
        ...

    async def close(self) -> None:
        """Write what is left and close. Durable jobs that are not over will run again. Never raises."""


class Channel(Protocol):
    """Where an alert goes. It may hang, fail or flap: jobs do not notice."""

    async def send(self, alert: Any, /) -> None:
        """Deliver *alert* within a few seconds, or raise and be asked again."""
