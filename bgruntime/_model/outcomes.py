"""How an attempt ended, why it was stopped, and what a job may raise to steer its own fate."""

from __future__ import annotations

from enum import StrEnum

from .errors import BgRuntimeError


class Outcome(StrEnum):
    """How one attempt ended. An outcome is never a state: a failed attempt may still be retried."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    RETRIED = "retried"
    SNOOZED = "snoozed"
    DISCARDED = "discarded"
    EXITED = "exited"
    STUCK = "stuck"


class Reason(StrEnum):
    """Why a job was ended that nobody asked to end. What a user gives as a reason is a plain string,
    even when it reads the same.
    """

    INTERRUPTED = "interrupted"
    EXPIRED = "expired"
    DROPPED = "dropped"


class Stop:
    """Why a running attempt was asked to stop, written before the cancel; the first one stays.

    `stage` counts what was done about it: 1 cancelled, 2 cancelled again, 3 abandoned. `told` says
    that the end of the attempt was declared already, `fate` that the job was cancelled, and why,
    while the attempt was being stopped for something else.
    """

    __slots__ = ("fate", "outcome", "reason", "stage", "told")

    def __init__(self, outcome: Outcome, reason: str) -> None:
        self.outcome = outcome
        self.reason = reason
        self.stage = 1
        self.told = False
        self.fate: str | None = None

    def __repr__(self) -> str:
        return f"<Stop {self.outcome}: {self.reason}>"


class JobSignal(BgRuntimeError):
    """Raised by a job's own function to steer its fate. Not a failure."""


class Retry(JobSignal):
    """Run this job again, in *after* seconds or after the task's backoff, if attempts remain.

    On the last attempt the job is discarded with the signal's ``__cause__``, else the signal itself.
    """

    def __init__(self, after: float | None = None) -> None:
        if after is not None and not after >= 0:
            raise ValueError(f"after is in seconds and at least 0, got {after!r}")
        super().__init__("retry" if after is None else f"retry in {after:g} s")
        self.after = after


class Snooze(JobSignal):
    """Run this job again in *seconds*. It costs no attempt and holds no slot meanwhile."""

    def __init__(self, seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError(f"seconds is at least 0, got {seconds!r}")
        super().__init__(f"snooze for {seconds:g} s")
        self.seconds = seconds


class Cancel(JobSignal):
    """End this job as cancelled, for *reason*."""

    def __init__(self, reason: str = "cancelled") -> None:
        super().__init__(reason)
        self.reason = reason


class Discard(JobSignal):
    """End this job as discarded, for *reason*, whatever attempts remain."""

    def __init__(self, reason: str = "discarded") -> None:
        super().__init__(reason)
        self.reason = reason
