"""Definition, entry, job: what can be asked, what one runtime makes of it, and one time it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast

from .outcomes import Outcome, Stop
from .policies import USUAL_PRIORITY, TaskOptions
from .states import JobState

if TYPE_CHECKING:
    from types import TracebackType

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Need:
    """A parameter whose value is opened for each attempt, or once for the runtime.

    `position` is None for one that can be given by name only; `in_thread` says that it is entered
    and left by the thread that runs the function.
    """

    name: str
    position: int | None
    factory: Callable[[], Any]
    per_runtime: bool
    in_thread: bool

    def is_given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the caller gave it a value."""
        return self.name in kwargs or (self.position is not None and self.position < len(args))


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """A named function and its options, as the engine sees a task.

    `threaded` says that it is a plain function; `resources` are the parameters that are opened for it;
    `coroutine` is the coroutine object when the job is one; `kept` says that the definition lives
    as long as the program, so that a runtime may remember it. `trace` is the traceparent of an earlier
    submission, where the journal makes a job of one.
    """

    name: str
    function: Callable[..., Any]
    options: TaskOptions
    threaded: bool = False
    resources: tuple[Need, ...] = ()
    coroutine: Any = None
    kept: bool = False
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A durable job that comes out of the journal. `attempt` runs of it count already.

    `due_at` is when it may run, or since when it might have, in seconds of the wall clock; `fresh`
    says that it has never been started.
    """

    id: str
    definition: Definition
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    attempt: int
    due_at: float
    tags: tuple[str, ...] = ()
    fresh: bool = True

    def due_in(self, now: float) -> float:
        """Seconds until it may run; below 0 for how long it has waited."""
        return self.due_at - now


class Waiter(Protocol):
    """Something that is told when a job is over."""

    def job_ended(self, job: Job[Any]) -> None: ...


class Keeper(Protocol):
    """What a job asks of the engine that keeps it."""

    def cancel(self, job: Job[Any], reason: str | None) -> bool: ...

    def name_job(self, job: Job[Any]) -> str: ...

    def until_ended(self, job: Job[Any]) -> Generator[Any, None, None]: ...

    def when_ended(self, job: Job[Any], callback: Callable[[Job[Any]], object]) -> None: ...


class Entry:
    """What one runtime keeps of one definition: its options laid flat, and what was counted.

    `call` is what an attempt awaits; `plain` says that a job of it needs nothing but a place in the line,
    `at_once` that it also has the usual priority and context and may come in by the fast path. `push` puts
    a job into the line.
    `shell` is what stays of it in the records of jobs that ended: itself, or for a definition that does
    not live as long as the program the same without the function, which may be a partial with arguments.
    """

    __slots__ = (
        "at_once",
        "backoff",
        "call",
        "carry",
        "definition",
        "durable",
        "ends",
        "engine",
        "fresh",
        "look_within",
        "name",
        "options",
        "patience",
        "plain",
        "priority",
        "push",
        "queue",
        "shell",
        "submitted",
        "tally",
        "threaded",
        "timeout",
    )

    shell: Entry

    def __init__(
        self, engine: Any, definition: Definition, queue: Any, tally: Any, call: Callable[..., Any]
    ) -> None:
        options = definition.options
        self.engine = engine
        self.definition = definition
        self.name = definition.name
        self.options = options
        self.queue = queue
        self.tally = tally
        self.submitted = 0  # by the fast path and not in the tally yet
        self.call = call
        self.threaded = definition.threaded
        self.timeout = options.timeout
        self.patience = FOREVER if options.timeout is None else options.timeout
        # A Task that was started lazily may have been cancelled by somebody before its first step.
        self.look_within = min(BEGINS_WITHIN, self.patience)
        self.priority = options.priority
        self.fresh = options.context == "fresh"
        self.carry: tuple[ContextVar[Any], ...] = options.carry
        self.backoff = options.backoff
        self.durable = options.durable
        self.plain = not (
            options.delay
            or options.run_at is not None
            or options.expires_in is not None
            or options.durable
            or options.id is not None
            or options.tags
            or definition.coroutine is not None
            or definition.threaded
        )
        self.at_once = self.plain and definition.kept and not self.fresh and self.priority == USUAL_PRIORITY
        self.push: Callable[[Job[Any]], None] = _gone
        self.ends: Any = []  # of first attempts that succeeded, until they are counted: four values each
        self.shell = self if definition.kept else self._without_function()

    def join(self, shell: Entry) -> None:
        """Leave behind what *shell* does, as others of the same name: one such for each job would pile up."""
        self.shell, self.ends = shell, shell.ends

    def _without_function(self) -> Entry:
        definition = Definition(self.name, _gone, self.options, self.threaded, kept=True)
        return Entry(self.engine, definition, self.queue, self.tally, _gone)


def _gone(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("this is what is left of a task whose jobs are over: its function is gone")


class ThreadUse(Enum):
    """Where an attempt of a plain function stands with its thread slot."""

    NONE = "none"
    RESERVED = "reserved"
    RUNNING = "running"


class More:
    """What only few jobs have. It is made when first needed, and has what differs from the class."""

    after: Any = None  # is told when the attempt of a job that is over has really ended
    context: Any = None
    exits: Any = None
    expiry: float | None = None
    dirs: list[str] | None = None
    front = False
    holds = True
    marking = False  # the journal is still writing that it starts
    moved = False
    leaving = False  # the function is over, what the attempt entered is being closed
    payload: Any = None
    progress: tuple[float, str] | None = None
    retake: asyncio.Future[None] | None = None
    secrets: Any = None
    stop: Stop | None = None
    stopping: Any = None
    tags: tuple[str, ...] = ()
    thread = ThreadUse.NONE
    timer: Any = None
    trace = ""
    waits = 0

    def add_dir(self, path: str) -> None:
        """Remember a temporary directory of the job. From any of its threads."""
        vars(self).setdefault("dirs", []).append(path)

    def drop_dir(self, path: str) -> None:
        """Forget it again, if it is known."""
        if self.dirs is not None and path in self.dirs:
            self.dirs.remove(path)


BEGINS_WITHIN = 1.0  # seconds between looks at an attempt that has not begun
FOREVER = float("inf")
COMPLETED = JobState.COMPLETED
OVER: Final = "over"  # what stands in `_waiters` once a job is over and nobody can wait any more
GONE: Final = object()  # the value of a job of which only the record is left


class Job(Generic[R_co]):
    """One accepted call of a task. Await it for the result, watch it, cancel it, or drop it.

    Any number of tasks may await it, before and after its end. Dropping it loses nothing: the job
    runs all the same and its failure is still reported.
    """

    # One object is both the record that the engine moves and the handle that the user holds: a
    # second one would cost 250 ns and 150 bytes a job. Slots are filled when they are first needed.
    __slots__ = (
        "__weakref__",
        "_args",
        "_attempt",
        "_context",
        "_deadline",
        "_entry",
        "_id",
        "_kwargs",
        "_more",
        "_reason",
        "_since",
        "_started",
        "_state",
        "_task",
        "_trace",
        "_value",
        "_waiters",
    )

    _args: tuple[Any, ...] | None
    _attempt: int
    _context: Any  # a Context; after a plain end the time of it; of a job that is gone the record
    _deadline: float
    _entry: Entry
    _id: str | None
    _kwargs: dict[str, Any] | None
    _more: More | None
    _reason: str | None  # not there before there is something to say
    _since: float
    _started: float | None
    _state: JobState
    _task: asyncio.Task[None] | None
    _trace: TracebackType | None
    _value: Any
    _waiters: list[Waiter | asyncio.Future[None]] | Waiter | str | None

    def __init__(self) -> None:
        raise TypeError("jobs are made by a runtime: await rt.submit(task, ...)")

    @property
    def id(self) -> str:
        """An opaque string, unique and not to be guessed; made when it is first asked for."""
        id = self._id
        if id is not None:
            return id
        keeper: Keeper = self._entry.engine
        return keeper.name_job(self)

    @property
    def task(self) -> str:
        """The name of its task."""
        return self._entry.name

    @property
    def state(self) -> JobState:
        """Where it stands now."""
        return self._state

    @property
    def reason(self) -> str | None:
        """Why it entered its state, where there is more to say than the state; without the job's secrets."""
        reason = reason_of(self)
        return None if reason is None else str(reason)

    @property
    def attempt(self) -> int:
        """How many attempts have been started and count: 0 before the first."""
        return self._attempt

    @property
    def tags(self) -> tuple[str, ...]:
        """The words it was submitted with."""
        return () if self._more is None else self._more.tags

    @property
    def progress(self) -> tuple[float, str] | None:
        """The fraction and the note it last reported, or None."""
        return None if self._more is None else self._more.progress

    def done(self) -> bool:
        """Whether it is over, as far as this handle goes."""
        return self._waiters is OVER

    def cancel(self, reason: str | None = None) -> bool:
        """Ask for its end: a waiting job never starts, a running one gets `CancelledError`.

        Returns whether that could still make a difference. For a durable job the cancellation
        survives a crash once ``await job.wait()`` has returned.
        """
        keeper: Keeper = self._entry.engine
        return keeper.cancel(self, reason)

    async def wait(self) -> None:
        """Return when it is over, however it ended. Cancelling the waiter does not cancel the job."""
        if self._waiters is not OVER:
            await _Ended(self)

    def add_done_callback(self, callback: Callable[[Job[Any]], object], /) -> None:
        """Call *callback* with the job soon after it is over, or soon when it is over already.

        It runs on the loop, in the context of whoever adds it; what it raises is reported once and
        disturbs nobody.
        """
        keeper: Keeper = self._entry.engine
        keeper.when_ended(self, callback)

    def result(self) -> R_co:
        """The result, or raises what awaiting it would raise.

        Raises:
            asyncio.InvalidStateError: it is not over yet.
        """
        self._check_over()
        return self._unwrap()

    def exception(self) -> BaseException | None:
        """What awaiting it would raise, or None.

        Raises:
            asyncio.InvalidStateError: it is not over yet.
        """
        self._check_over()
        if self._value is GONE:
            raise self._gone()
        return None if self._state is JobState.COMPLETED else cast("BaseException", self._value)

    def __await__(self) -> Generator[Any, None, R_co]:
        if self._waiters is not OVER:
            keeper: Keeper = self._entry.engine
            yield from keeper.until_ended(self)
        value: R_co = self._value
        if self._state is COMPLETED and value is not GONE:
            return value
        return self._unwrap()

    def _check_over(self) -> None:
        if self._waiters is not OVER:
            raise asyncio.InvalidStateError(f"{self!r} is not over yet: await it")

    def _unwrap(self) -> R_co:
        if self._value is GONE:
            raise self._gone()
        if self._state is JobState.COMPLETED:
            return cast("R_co", self._value)
        # Every waiter gets the same exception; without this each would add its own frames to it.
        error: BaseException = self._value
        try:
            raise error.with_traceback(self._trace)
        finally:
            del error, self

    def _gone(self) -> asyncio.InvalidStateError:
        return asyncio.InvalidStateError(
            f"{self!r} is a record of a finished job: its result stayed with the handle that submit returned"
        )

    @property
    def _stop(self) -> Stop | None:
        """Why its attempt was told to stop, if it was. For the engine."""
        return None if self._more is None else self._more.stop

    @_stop.setter
    def _stop(self, stop: Stop | None) -> None:
        self._get_more().stop = stop

    def _get_more(self) -> More:
        """What only few jobs have, made now if it was not there. For the engine."""
        if self._more is None:
            self._more = More()
        return self._more

    def __repr__(self) -> str:
        parts = [f"<Job {self._entry.name}", str(self._state)]
        if self._id is not None:
            parts[0] += f"#{self._id}"
        if self._attempt:
            parts.append(f"attempt {self._attempt}/{self._entry.options.max_attempts}")
        reason = reason_of(self)
        if reason is not None and reason != self._state:
            error = self._error_told()
            parts.append(f"({reason})" if error is None else f"({reason}: {error})")
        return f"{parts[0]} {', '.join(parts[1:])}>"

    def _error_told(self) -> str | None:
        """The error that ended it: what may be said of it where only the record is left, else its kind."""
        if self._state is not JobState.DISCARDED or self._waiters is not OVER:
            return None
        if self._value is GONE:
            error: str | None = self._context.error
            return error
        return type(self._value).__name__


def reason_of(job: Job[Any]) -> str | None:
    """Why *job* entered its state, as it was given; None where there is no more to say than the state."""
    return getattr(job, "_reason", None)  # a slot that is filled when there is something to say


def definition_of(job: Job[Any]) -> Definition:
    """The task of *job* as it was submitted, its options included."""
    return job._entry.definition


def arguments_of(job: Job[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of *job*, which are kept until it is over."""
    return job._args or (), job._kwargs or {}


def trace_of(job: Job[Any]) -> str:
    """The W3C traceparent that *job* belongs to: what was marked, else that of the submission which
    the journal made it of; "" where nobody traces.
    """
    return (job._more.trace if job._more is not None else "") or job._entry.definition.trace


def mark_trace(job: Job[Any], trace: str) -> None:
    """Have log lines and the journal name *trace*, a W3C traceparent, for *job*."""
    job._get_more().trace = trace


def is_adopted(job: Job[Any]) -> bool:
    """Whether the journal gave *job* to the runtime; it was submitted before, in another run perhaps."""
    return job._more is not None and isinstance(job._more.payload, Adopted)


class _Ended:
    """Awaits the end of a job and nothing else."""

    __slots__ = ("_job",)

    def __init__(self, job: Job[Any]) -> None:
        self._job = job

    def __await__(self) -> Generator[Any, None, None]:
        keeper: Keeper = self._job._entry.engine
        return keeper.until_ended(self._job)


class Tally:
    """What one runtime has counted of one task. Plain integers, read by whoever wants them."""

    __slots__ = ("outcomes", "rejected", "states", "submitted", "succeeded")

    def __init__(self) -> None:
        self.submitted = 0
        self.rejected = 0
        self.succeeded = 0
        self.outcomes: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self.states: dict[JobState, int] = dict.fromkeys(JobState, 0)
