"""Decide: from how an attempt ended to what becomes of the job. Pure: no clock, no loop, no I/O."""

from __future__ import annotations

import asyncio
import math
from typing import NamedTuple

from .._model.errors import JobTimedOut
from .._model.outcomes import Cancel, Discard, Outcome, Retry, Snooze, Stop
from .._model.policies import AttemptState, FullJitter, TaskOptions
from .._model.states import JobState

_FALLBACK_BACKOFF = FullJitter()


class Verdict(NamedTuple):
    """What becomes of a job: its next state, why, and the seconds it waits if it runs again.

    `fault` is what was wrong with the task's own backoff, in whose place the usual one was asked.
    """

    outcome: Outcome
    state: JobState
    reason: str | None = None
    delay: float = 0.0
    counts: bool = True
    fault: BaseException | None = None


def name_the_end(stop: Stop | None, failure: BaseException | None) -> Outcome:
    """How an attempt ended. Who asked for the end matters more than what was raised on the way out."""
    if stop is not None:
        late_but_welcome = failure is None and stop.outcome is Outcome.INTERRUPTED
        return Outcome.SUCCEEDED if late_but_welcome else stop.outcome
    match failure:
        case None:
            return Outcome.SUCCEEDED
        case Retry():
            return Outcome.RETRIED
        case Snooze():
            return Outcome.SNOOZED
        case Cancel():
            return Outcome.CANCELLED
        case Discard():
            return Outcome.DISCARDED
        case Exception():
            return Outcome.FAILED
        case _ if _is_cancellation(failure):
            return Outcome.CANCELLED
        case _:
            return Outcome.EXITED


def decide(
    outcome: Outcome,
    stop: Stop | None,
    failure: BaseException | None,
    options: TaskOptions,
    state: AttemptState,
) -> Verdict:
    """The verdict on an attempt that ended with *outcome*, raised *failure* and was stopped by *stop*."""
    match outcome:
        case Outcome.SUCCEEDED:
            return Verdict(outcome, JobState.COMPLETED)
        case _ if stop is not None and stop.fate is not None:
            return Verdict(outcome, JobState.CANCELLED, stop.fate)
        case Outcome.CANCELLED | Outcome.INTERRUPTED if stop is not None:
            return Verdict(outcome, JobState.CANCELLED, stop.reason)
        case Outcome.CANCELLED:
            return Verdict(
                outcome, JobState.CANCELLED, str(failure.reason) if isinstance(failure, Cancel) else "self"
            )
        case Outcome.DISCARDED:
            assert isinstance(failure, Discard)
            return Verdict(outcome, JobState.DISCARDED, failure.reason)
        case Outcome.SNOOZED:
            assert isinstance(failure, Snooze)
            return Verdict(outcome, JobState.RETRYABLE, "snoozed", failure.seconds, counts=False)
        case Outcome.RETRIED | Outcome.FAILED | Outcome.TIMED_OUT if may_run_again(
            outcome, failure, options, state.attempt
        ):
            return _again(outcome, failure, options, state)
        case Outcome.RETRIED:
            return Verdict(outcome, JobState.DISCARDED, "failed")
        case _:
            return Verdict(outcome, JobState.DISCARDED, str(outcome))


def may_run_again(
    outcome: Outcome, failure: BaseException | None, options: TaskOptions, attempt: int
) -> bool:
    """Whether another attempt may follow *attempt*, the number of one that ended with *outcome*."""
    if attempt >= options.max_attempts:
        return False
    if outcome is Outcome.RETRIED:
        return True
    kind = JobTimedOut if outcome is Outcome.TIMED_OUT else type(failure)
    return issubclass(kind, options.retry_on) and not issubclass(kind, options.give_up_on)


def _again(
    outcome: Outcome, failure: BaseException | None, options: TaskOptions, state: AttemptState
) -> Verdict:
    """Another attempt, after the seconds that the signal or the backoff says."""
    fault: BaseException | None = None
    if isinstance(failure, Retry) and failure.after is not None:
        delay = failure.after
    else:
        try:
            delay = _seconds(options.backoff(state))
        # The user's own function: its fault must not cost the job its attempts.
        except BaseException as error:
            delay, fault = _FALLBACK_BACKOFF(state), error
    return Verdict(outcome, JobState.RETRYABLE, str(outcome), delay, fault=fault)


def _seconds(delay: float) -> float:
    if not 0.0 <= float(delay) < math.inf:
        raise ValueError(f"a backoff is in seconds and at least 0, got {delay!r}")
    return float(delay)


def _is_cancellation(failure: BaseException | None) -> bool:
    """A CancelledError, or a group of nothing else."""
    if isinstance(failure, BaseExceptionGroup):
        return failure.split(asyncio.CancelledError)[1] is None  # pyright: ignore[reportUnknownMemberType]
    return isinstance(failure, asyncio.CancelledError)
