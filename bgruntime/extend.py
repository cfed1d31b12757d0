"""The second window: for authors of observers, middleware, journals and channels."""

from __future__ import annotations

from ._engine.look import times_of
from ._model.errors import JournalUnavailable, PayloadError
from ._model.events import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptStarted,
    Event,
    JobAccepted,
    JobQuarantined,
    JobRejected,
    JobSettled,
    JobUncompleted,
    JournalDegraded,
    JournalRecovered,
    RedriveExhausted,
    RetryScheduled,
    ShutdownProgress,
)
from ._model.jobs import Adopted, Definition, arguments_of, definition_of
from ._model.outcomes import Outcome
from ._model.policies import TaskOptions
from ._model.protocols import Channel, Ended, Journal, JournalHost, Middleware, Observer, Payload
from ._model.reports import JobTimes
from ._model.states import TRANSITIONS, JobState
from ._parts import ports
from ._parts.mailbox import Mailbox
from ._reserve import Reservation

__all__ = [
    "TRANSITIONS",
    "Adopted",
    "AttemptAbandoned",
    "AttemptEnded",
    "AttemptStarted",
    "Channel",
    "Definition",
    "Ended",
    "Event",
    "JobAccepted",
    "JobQuarantined",
    "JobRejected",
    "JobSettled",
    "JobState",
    "JobTimes",
    "JobUncompleted",
    "Journal",
    "JournalDegraded",
    "JournalHost",
    "JournalRecovered",
    "JournalUnavailable",
    "Mailbox",
    "Middleware",
    "Observer",
    "Outcome",
    "Payload",
    "PayloadError",
    "RedriveExhausted",
    "Reservation",
    "RetryScheduled",
    "ShutdownProgress",
    "TaskOptions",
    "arguments_of",
    "definition_of",
    "ports",
    "times_of",
]
