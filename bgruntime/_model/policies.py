"""What a user may ask for: options of a task, of a queue, of a shutdown. A policy that exists is valid."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any, Literal, TypeVar, cast, get_args

from .checks import choice, count, exceptions, optional_seconds, seconds, sequence

Overflow = Literal["wait", "reject", "drop_oldest"]
ContextMode = Literal["submitter", "fresh"]

T = TypeVar("T")

LOWEST_PRIORITY = 9
USUAL_PRIORITY = 5


class Default:
    """The default of an option. It looks like its value, and yet is told apart from that value given."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return self.value == other

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        return repr(self.value)


def default(value: T) -> T:
    """*value* as the default of a parameter: `explicit` tells whether somebody gave another, or the same."""
    return cast("T", Default(value))


def explicit(options: dict[str, Any]) -> dict[str, Any]:
    """Those of *options* that are no defaults."""
    return {name: value for name, value in options.items() if type(value) is not Default}


def show_defaults(function: Any) -> None:
    """Let the signature of *function* show its defaults as they are, without what takes any other name."""
    signature = inspect.signature(function)
    shown = [
        one.replace(default=one.default.value) if type(one.default) is Default else one
        for one in signature.parameters.values()
        if one.kind is not one.VAR_KEYWORD
    ]
    function.__signature__ = signature.replace(parameters=shown)


@dataclass(frozen=True, slots=True)
class AttemptState:
    """What a backoff may look at: how often the job has run, how it ended, and a source of chance.

    `attempt` counts from 1, `elapsed` is the seconds since the job was accepted, `random` the
    runtime's own generator.
    """

    attempt: int
    error: BaseException | None
    elapsed: float
    random: Random


Backoff = Callable[[AttemptState], float]


@dataclass(frozen=True, slots=True)
class FullJitter:
    """Seconds drawn evenly from 0 to ``min(cap, base * 2 ** (attempt - 1))``.

    "Full jitter" of the AWS Architecture Blog, *Exponential Backoff And Jitter* (2015): of the
    usual forms it spreads competing clients best.
    """

    base: float = 1.0
    cap: float = 300.0

    def __post_init__(self) -> None:
        seconds("base", self.base, above=0)
        seconds("cap", self.cap, above=0)

    def __call__(self, state: AttemptState) -> float:
        exponent = min(state.attempt - 1, 63)
        return state.random.uniform(0.0, min(self.cap, self.base * 2.0**exponent))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """The options of a task, and of one submission of it. Times are in seconds."""

    queue: str = "default"
    timeout: float | None = 300.0
    max_attempts: int = 1
    backoff: Backoff = FullJitter()
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    give_up_on: tuple[type[BaseException], ...] = ()
    priority: int = USUAL_PRIORITY
    durable: bool = False
    redrive: int | None = None
    expires_in: float | None = None
    redact: tuple[str, ...] = ()
    context: ContextMode = "submitter"
    carry: tuple[ContextVar[Any], ...] = ()
    delay: float = 0.0
    run_at: datetime | float | None = None
    id: str | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        optional_seconds("timeout", self.timeout, above=0)
        optional_seconds("expires_in", self.expires_in, above=0)
        seconds("delay", self.delay, least=0)
        count("max_attempts", self.max_attempts, least=1)
        count("priority", self.priority, least=0, most=LOWEST_PRIORITY)
        if self.redrive is not None:
            count("redrive", self.redrive, least=0)
        choice("context", self.context, get_args(ContextMode))
        if not (isinstance(self.queue, str) and self.queue):
            raise ValueError(f"queue is the name of one, got {self.queue!r}")
        if not callable(self.backoff):
            raise ValueError(f"backoff is a callable from attempt state to seconds, got {self.backoff!r}")
        for name in ("retry_on", "give_up_on"):
            object.__setattr__(self, name, exceptions(name, getattr(self, name)))
        for name in ("redact", "carry", "tags"):
            object.__setattr__(self, name, sequence(name, getattr(self, name)))
        if not all(isinstance(variable, ContextVar) for variable in self.carry):
            raise ValueError(f"carry holds ContextVars, got {self.carry!r}")
        if not all(isinstance(word, str) for word in (*self.redact, *self.tags)):
            raise ValueError("redact and tags hold strings")
        if self.carry and self.context != "fresh":
            raise ValueError('carry goes with context="fresh": context="submitter" carries every variable')
        self._check_one_submission()

    def _check_one_submission(self) -> None:
        if self.id is not None and not (isinstance(self.id, str) and self.id):
            raise ValueError(f"id is a string that is not empty, got {self.id!r}")
        if self.run_at is None:
            return
        if self.delay:
            raise ValueError("give delay or run_at, not both")
        if isinstance(self.run_at, datetime):
            if self.run_at.tzinfo is None:
                raise ValueError(f"run_at needs a time zone, got the naive {self.run_at.isoformat()}")
        elif isinstance(self.run_at, bool) or not isinstance(self.run_at, int | float):
            raise ValueError(f"run_at is a datetime or seconds since the epoch, got {self.run_at!r}")

    @property
    def run_at_s(self) -> float | None:
        """`run_at` as seconds since the epoch."""
        return self.run_at.timestamp() if isinstance(self.run_at, datetime) else self.run_at


@dataclass(frozen=True, slots=True)
class Queue:
    """A named lane of waiting jobs with its own limits; None takes the runtime's."""

    name: str
    concurrency: int | None = None
    size: int | None = None
    overflow: Overflow | None = None

    def __init__(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        size: int | None = None,
        overflow: Overflow | None = None,
    ) -> None:
        if not (isinstance(name, str) and name):
            raise ValueError(f"a queue's name is a string that is not empty, got {name!r}")
        if concurrency is not None:
            count("concurrency", concurrency, least=1)
        if size is not None:
            count("size", size, least=1)
        if overflow is not None:
            choice("overflow", overflow, get_args(Overflow))
        for field, value in (
            ("name", name),
            ("concurrency", concurrency),
            ("size", size),
            ("overflow", overflow),
        ):
            object.__setattr__(self, field, value)


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Seconds for each phase of a stop. `drain` None waits until the work is done."""

    drain: float | None = None
    cancel: float = 5.0
    close: float = 2.0

    def __post_init__(self) -> None:
        optional_seconds("drain", self.drain, least=0)
        seconds("cancel", self.cancel, least=0)
        seconds("close", self.close, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of everything one runtime allows. Counts, and seconds."""

    concurrency: int = 100
    queue_size: int = 10_000
    overflow: Overflow = "wait"
    wait_limit: float | None = None
    threads: int = 40
    redrive: int = 0
    cancel_grace: float = 5.0
    cancel_hard: float = 5.0

    def __post_init__(self) -> None:
        count("concurrency", self.concurrency, least=1)
        count("queue_size", self.queue_size, least=1)
        choice("overflow", self.overflow, get_args(Overflow))
        optional_seconds("wait_limit", self.wait_limit, least=0)
        count("threads", self.threads, least=1)
        count("redrive", self.redrive, least=0)
        seconds("cancel_grace", self.cancel_grace, least=0)
        seconds("cancel_hard", self.cancel_hard, least=0)
