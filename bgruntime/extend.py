"""The second window: for authors of observers, middleware, journals and channels."""

from __future__ import annotations

from ._model.errors import JournalUnavailable, PayloadError
from ._model.events import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptStarted,
    Event,
    JobAccepted,
    JobRejected,
    JobSettled,
    JobUncompleted,
    RetryScheduled,
    ShutdownProgress,
)
from ._model.outcomes import Outcome
from ._model.protocols import Channel, Journal, Middleware, Observer
from ._model.states import TRANSITIONS, JobState
from ._parts import ports
from ._parts.mailbox import Mailbox

__all__ = [
    "TRANSITIONS",
    "AttemptAbandoned",
    "AttemptEnded",
    "AttemptStarted",
    "Channel",
    "Event",
    "JobAccepted",
    "JobRejected",
    "JobSettled",
    "JobState",
    "JobUncompleted",
    "Journal",
    "JournalUnavailable",
    "Mailbox",
    "Middleware",
    "Observer",
    "Outcome",
    "PayloadError",
    "RetryScheduled",
    "ShutdownProgress",
    "ports",
]
