from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable

import pytest

import bgruntime

ERRORS = (
    "JobTimedOut",
    "JobExited",
    "JobDiscarded",
    "JobCancelled",
    "JobInterrupted",
    "QueueFull",
    "RuntimeClosed",
    "WrongLoop",
    "ForkedRuntime",
    "PayloadError",
    "UnknownTask",
    "JournalUnavailable",
    "AcceptUnknown",
)


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_a_bgruntime_error_and_never_a_cancellation(name: str) -> None:
    error = getattr(bgruntime, name)
    assert issubclass(error, bgruntime.BgRuntimeError)
    assert issubclass(error, Exception)
    assert not issubclass(error, asyncio.CancelledError)


def test_a_timed_out_job_is_caught_as_the_builtin_timeout_error() -> None:
    assert issubclass(bgruntime.JobTimedOut, TimeoutError)


def test_an_interrupted_job_is_caught_as_a_cancelled_one() -> None:
    assert issubclass(bgruntime.JobInterrupted, bgruntime.JobCancelled)


@pytest.mark.parametrize("name", ["Retry", "Snooze", "Cancel", "Discard"])
def test_what_steers_a_job_can_be_raised(name: str) -> None:
    assert issubclass(getattr(bgruntime, name), Exception)


MADE = (
    bgruntime.JobTimedOut("it took too long", stuck=True),
    bgruntime.JobExited("it left"),
    bgruntime.JobDiscarded("it was discarded", "no use"),
    bgruntime.JobCancelled("it was cancelled", "not wanted"),
    bgruntime.JobInterrupted("it was interrupted", "interrupted", requeued=True),
    bgruntime.QueueFull("mail", 3, "; for ever"),
    bgruntime.RuntimeClosed("new"),
    bgruntime.WrongLoop("another loop"),
    bgruntime.ForkedRuntime(1, 2),
    bgruntime.PayloadError("no JSON"),
    bgruntime.UnknownTask("who?"),
    bgruntime.JournalUnavailable("no disk"),
    bgruntime.AcceptUnknown("an-id", "who knows"),
    bgruntime.Retry(2.0),
    bgruntime.Snooze(3.0),
    bgruntime.Cancel("later"),
    bgruntime.Discard("never"),
)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_an_error_reaches_another_process_with_all_that_it_says(
    error: Exception, again: Callable[[Exception], Exception]
) -> None:
    error.add_note("seen on the way")
    other = again(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert other.args == error.args
    assert vars(other) == vars(error)
