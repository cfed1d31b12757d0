"""Facts the engine tells, past tense. One that nobody listens to is never built.

event            | when it is told
-----------------|-----------------------------------------------------------------
JobAccepted      | a job came in; `submit` returns next
JobRejected      | a submission was turned away; no job exists
AttemptStarted   | an attempt got its slot and runs its first step now
AttemptEnded     | how it ended is known; at a timeout that is before it has stopped
AttemptAbandoned | it did not stop when asked twice; it is left alone
RetryScheduled   | the job waits for its next attempt
JobSettled       | the job is over
JobUncompleted   | to listen to: each JobSettled in any state but completed
ShutdownProgress | a phase of the stop began or went on
JournalDegraded  | the journal cannot write; ordinary work goes on
JournalRecovered | it can again
JobQuarantined   | a journaled job will not run again by itself
RedriveExhausted | a journaled failure has used up its automatic redrives
LoopBlocked      | something held the event loop, and goes on only now
AlertRaised      | an alert rule has begun to hold
AlertResolved    | it holds no more

Times are seconds of the runtime's monotonic clock, durations are seconds. `message` is what the error
says, without the secrets among the job's arguments; `error` itself may hold them, and is not in the repr.
`scrub(text)` takes them out of any other text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .jobs import Job
from .outcomes import Outcome
from .states import JobState


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `at` says when."""

    at: float


@dataclass(frozen=True, slots=True)
class JobAccepted(Event):
    """A job came in and will reach exactly one end."""

    job: Job[Any]


@dataclass(frozen=True, slots=True)
class JobRejected(Event):
    """A submission was turned away; `reason` is queue_full, closed or payload."""

    task: str
    reason: str


@dataclass(frozen=True, slots=True)
class AttemptStarted(Event):
    """An attempt got its slot, after `queue_wait` seconds in the line."""

    job: Job[Any]
    attempt: int
    queue_wait: float


@dataclass(frozen=True, slots=True)
class AttemptEnded(Event):
    """An attempt ended, `duration` seconds after its start; `error` is what it raised, or None."""

    job: Job[Any]
    attempt: int
    outcome: Outcome
    duration: float
    error: BaseException | None = field(repr=False)
    message: str = ""
    scrub: Callable[[str], str] = field(default=str, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class AttemptAbandoned(Event):
    """An attempt would not stop. `stack` says where it was."""

    job: Job[Any]
    attempt: int
    stack: str


@dataclass(frozen=True, slots=True)
class RetryScheduled(Event):
    """The job waits `delay` seconds for its next attempt."""

    job: Job[Any]
    attempt: int
    outcome: Outcome
    delay: float
    error: BaseException | None = field(repr=False)
    message: str = ""
    scrub: Callable[[str], str] = field(default=str, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class JobSettled(Event):
    """The job is over; `error` is what awaiting it raises, or None.

    `queue_wait` and `duration` are those of its last attempt. A job that ended outside an attempt (it
    never ran, or waited for its next one) has no duration; its wait began when it last became available.
    """

    job: Job[Any]
    state: JobState
    outcome: Outcome | None
    reason: str | None
    error: BaseException | None = field(repr=False)
    queue_wait: float
    duration: float
    message: str = ""
    scrub: Callable[[str], str] = field(default=str, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class JobUncompleted(JobSettled):
    """The kind to listen to for jobs that ended and did not complete; they come as `JobSettled`.

    Who listens to nothing wider costs the jobs that complete nothing.
    """


@dataclass(frozen=True, slots=True)
class ShutdownProgress(Event):
    """The stop is in `phase`, with this many jobs running and waiting."""

    phase: str
    running: int
    waiting: int


@dataclass(frozen=True, slots=True)
class JournalDegraded(Event):
    """The journal cannot write, for `reason`: durable submits fail, failures wait in memory.

    Told once more when it closes before that is over, with what was lost.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class JournalRecovered(Event):
    """The journal can write again; `dropped` failure records were lost since the runtime was entered."""

    dropped: int


@dataclass(frozen=True, slots=True)
class JobQuarantined(Event):
    """A journaled job will not run again by itself, for `reason`."""

    id: str
    task: str
    reason: str


@dataclass(frozen=True, slots=True)
class RedriveExhausted(Event):
    """The failure with this id was redriven as often as its task says, and failed each time."""

    id: str
    task: str


@dataclass(frozen=True, slots=True)
class LoopBlocked(Event):
    """Something held the event loop for `duration` seconds; `at` is when it let go.

    `job` is the job whose code it was, None when it was no job's; `place` the application's own line that
    was at work, "report.py:42 in build", and `stack` all of it, without local variables.
    """

    duration: float
    job: Job[Any] | None
    place: str
    stack: str


@dataclass(frozen=True, slots=True)
class AlertRaised(Event):
    """An alert rule has begun to hold: `alert` is what the channels are told."""

    alert: Any


@dataclass(frozen=True, slots=True)
class AlertResolved(Event):
    """An alert rule holds no more: `alert` is what the channels are told."""

    alert: Any
