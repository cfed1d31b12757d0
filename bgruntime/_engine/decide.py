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
    """What becomes of a job: its next state, why, and the seconds it waits if it runs again."""

    outcome: Outcome
    state: JobState
    reason: str | None = None
    delay: float = 0.0
    counts: bool = True


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
                outcome, JobState.CANCELLED, failure.reason if isinstance(failure, Cancel) else "self"
            )
        case Outcome.DISCARDED:
            assert isinstance(failure, Discard)
            return Verdict(outcome, JobState.DISCARDED, failure.reason)
        case Outcome.SNOOZED:
            assert isinstance(failure, Snooze)
            return Verdict(outcome, JobState.RETRYABLE, "snoozed", failure.seconds, counts=False)
        case Outcome.RETRIED | Outcome.FAILED | Outcome.TIMED_OUT if _may_run_again(
            outcome, failure, options, state
        ):
            return Verdict(outcome, JobState.RETRYABLE, str(outcome), _delay(failure, options, state))
        case Outcome.RETRIED:
            return Verdict(outcome, JobState.DISCARDED, "failed")
        case _:
            return Verdict(outcome, JobState.DISCARDED, str(outcome))


def _may_run_again(
    outcome: Outcome, failure: BaseException | None, options: TaskOptions, state: AttemptState
) -> bool:
    if state.attempt >= options.max_attempts:
        return False
    if outcome is Outcome.RETRIED:
        return True
    kind = JobTimedOut if outcome is Outcome.TIMED_OUT else type(failure)
    return issubclass(kind, options.retry_on) and not issubclass(kind, options.give_up_on)


def _delay(failure: BaseException | None, options: TaskOptions, state: AttemptState) -> float:
    if isinstance(failure, Retry) and failure.after is not None:
        return failure.after
    try:
        delay = float(options.backoff(state))
    except Exception:
        delay = math.nan  # the user's own function: its fault must not cost the job its attempts
    return delay if 0.0 <= delay < math.inf else _FALLBACK_BACKOFF(state)


def _is_cancellation(failure: BaseException | None) -> bool:
    """A CancelledError, or a group of nothing else."""
    if isinstance(failure, BaseExceptionGroup):
        return failure.split(asyncio.CancelledError)[1] is None  # pyright: ignore[reportUnknownMemberType]
    return isinstance(failure, asyncio.CancelledError)
