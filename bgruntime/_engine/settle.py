"""Settle: one terminal record per job, waiters woken, observers told, memory let go."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

from .._model.errors import JobCancelled, JobDiscarded, JobExited, JobInterrupted, JobTimedOut
from .._model.events import JobSettled, JobUncompleted
from .._model.jobs import OVER, Job, Waiter
from .._model.outcomes import Outcome, Reason, Retry
from .._model.states import JobState, check_move
from .._parts.frames import clear_frames, without_own_frames
from .redact import Said, keep_secrets, may_be_said, reason_said

if TYPE_CHECKING:
    from .supervise import Supervisor

ENGINE = "bgruntime._engine"


class Ending(NamedTuple):
    """How a job or an attempt ended, as the journal is told. The error still has its traceback."""

    outcome: Outcome | None
    error: BaseException | None
    reason: str | None
    started_at: float | None
    ended_at: float


def settle(
    engine: Supervisor,
    job: Job[Any],
    state: JobState,
    reason: str | None,
    outcome: Outcome | None,
    *,
    value: Any = None,
    error: BaseException | None = None,
) -> None:
    """Make *state* the last one of *job*. It happens once; whoever waits is woken.

    A job that interruption leaves to run again later goes back to available: its handle is over.
    """
    if not (state is JobState.AVAILABLE is job._state):
        job._state = check_move(job._state, state)
    job._reason = reason_said(job, reason)
    job._trace = None
    if state is JobState.COMPLETED:
        job._value = value
    else:
        job._value = error = _what_awaiting_raises(job, reason, outcome, error)
    began = job._started if outcome is not None else None
    wait = engine.keep(job, Ending(outcome, error, reason, began, engine.clock()))
    said = None
    kind = JobSettled if state is JobState.COMPLETED else JobUncompleted
    if engine.tell.wanted(kind):
        said = may_be_said(job, error, reason)
    if error is not None:
        job._trace = without_own_frames(error, ENGINE)
        if outcome is Outcome.EXITED and error.__cause__ is not None:
            without_own_frames(error.__cause__, ENGINE)  # this is what the job has raised
        clear_frames(error)
    coroutine = job._entry.definition.coroutine
    if coroutine is not None and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
        coroutine.close()  # no line of it has run, and none will
    if job in engine.live:
        keep_secrets(job)
    job._args = job._kwargs = job._context = None
    if job._more is not None and job._more.timer is not None:
        engine.timers.cancel(job._more.timer)
        job._more.timer = None
    if wait is None:
        end_handle(engine, job)
    else:
        engine.after(wait, end_handle, job)
    if said is not None:
        _tell(engine, kind, job, state, outcome, error, said)
    engine.note_end(job, state)


def end_handle(engine: Supervisor, job: Job[Any]) -> None:
    """Wake whoever waits for *job*; from here on its handle is over."""
    waiters, job._waiters = job._waiters, OVER
    if waiters is not None:
        wake(job, waiters)


def wake(job: Job[Any], waiters: list[Waiter | asyncio.Future[None]] | Waiter | str) -> None:
    """Tell each waiter once; those that were cancelled meanwhile are passed over."""
    if isinstance(waiters, list):
        for waiter in waiters:
            if not isinstance(waiter, asyncio.Future):
                waiter.job_ended(job)
            elif not waiter.done():
                waiter.set_result(None)
    else:
        assert not isinstance(waiters, str)  # it would be over already
        waiters.job_ended(job)


def _what_awaiting_raises(
    job: Job[Any], reason: str | None, outcome: Outcome | None, error: BaseException | None
) -> BaseException:
    name = job._entry.name
    match outcome:
        case Outcome.FAILED | Outcome.SNOOZED:
            assert error is not None
            return error
        case Outcome.RETRIED:
            assert isinstance(error, Retry)
            return error.__cause__ or error
        case Outcome.TIMED_OUT | Outcome.STUCK if job._state is JobState.DISCARDED:
            return timed_out(job, stuck=outcome is Outcome.STUCK)
        case Outcome.EXITED:
            ends = (
                "begins the stop too"
                if isinstance(error, KeyboardInterrupt)
                else "ends a job and nothing else"
            )
            exited = JobExited(f"job of {name} raised {type(error).__name__}, which {ends}")
            exited.__cause__ = error
            return exited
        case Outcome.DISCARDED:
            return JobDiscarded(f"job of {name} was discarded: {reason}", reason or "discarded")
        case _ if reason is Reason.INTERRUPTED:
            requeued = job._state is JobState.AVAILABLE
            fate = "it is kept and will run again" if requeued else "it will not run again by itself"
            return JobInterrupted(
                f"job of {name} was interrupted by the shutdown; {fate}", str(reason), requeued=requeued
            )
        case _:
            return JobCancelled(f"job of {name} was cancelled: {reason}", str(reason or "cancelled"))


def timed_out(job: Job[Any], *, stuck: bool = False) -> JobTimedOut:
    """The error of an attempt of *job* that ran past its timeout."""
    timeout = job._entry.timeout
    limit = "it was told to stop" if timeout is None else f"its timeout of {timeout:g} s"
    end = " and would not stop" if stuck else ""
    message = f"job of {job._entry.name} ran past {limit}{end}, attempt {job._attempt}"
    return JobTimedOut(message, stuck=stuck)


def _tell(
    engine: Supervisor,
    kind: type[JobSettled],
    job: Job[Any],
    state: JobState,
    outcome: Outcome | None,
    error: BaseException | None,
    said: Said,
) -> None:
    now = engine.clock()
    started = now if outcome is None or job._started is None else job._started
    waited, ran = max(0.0, started - job._since), now - started
    engine.tell(
        JobSettled(now, job, state, outcome, said.reason, error, waited, ran, said.message, said.scrub), kind
    )
