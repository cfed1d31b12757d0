from __future__ import annotations

import asyncio

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
