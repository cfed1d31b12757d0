"""The second window: for authors of observers, middleware, journals and channels."""

from __future__ import annotations

from ._context import secrets_here
from ._engine.history import Batch, Record, Successes
from ._engine.look import times_of
from ._engine.redact import secrets_of
from ._host import loop_of
from ._model.errors import JournalUnavailable, PayloadError
from ._model.events import (
    AlertRaised,
    AlertResolved,
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
    LoopBlocked,
    RedriveExhausted,
    RetryScheduled,
    ShutdownProgress,
)
from ._model.jobs import Adopted, Definition, arguments_of, definition_of, is_adopted, mark_trace, trace_of
from ._model.outcomes import Outcome, Reason
from ._model.policies import TaskOptions
from ._model.protocols import (
    Attached,
    BatchObserver,
    Channel,
    Ended,
    HealthObserver,
    Journal,
    JournalHost,
    Middleware,
    Observer,
    ObserverHost,
    Payload,
    StatsObserver,
    SurroundingObserver,
)
from ._model.reports import Check, JobTimes
from ._model.states import TRANSITIONS, JobState
from ._model.stats import (
    Block,
    Failures,
    LoopStats,
    ProcessStats,
    QueueStats,
    Recent,
    Spread,
    TaskStats,
    success_rate,
)
from ._parts import ports
from ._parts.mailbox import Mailbox
from ._parts.secrets import MASK, Secrets, secret_parts
from ._parts.sketch import BOUNDS, Sketch
from ._parts.texts import capped, finite, message_of, name_of
from ._reserve import Reservation

__all__ = [
    "BOUNDS",
    "MASK",
    "TRANSITIONS",
    "Adopted",
    "AlertRaised",
    "AlertResolved",
    "Attached",
    "AttemptAbandoned",
    "AttemptEnded",
    "AttemptStarted",
    "Batch",
    "BatchObserver",
    "Block",
    "Channel",
    "Check",
    "Definition",
    "Ended",
    "Event",
    "Failures",
    "HealthObserver",
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
    "LoopBlocked",
    "LoopStats",
    "Mailbox",
    "Middleware",
    "Observer",
    "ObserverHost",
    "Outcome",
    "Payload",
    "PayloadError",
    "ProcessStats",
    "QueueStats",
    "Reason",
    "Recent",
    "Record",
    "RedriveExhausted",
    "Reservation",
    "RetryScheduled",
    "Secrets",
    "ShutdownProgress",
    "Sketch",
    "Spread",
    "StatsObserver",
    "Successes",
    "SurroundingObserver",
    "TaskOptions",
    "TaskStats",
    "arguments_of",
    "capped",
    "definition_of",
    "finite",
    "is_adopted",
    "loop_of",
    "mark_trace",
    "message_of",
    "name_of",
    "ports",
    "secret_parts",
    "secrets_here",
    "secrets_of",
    "success_rate",
    "times_of",
    "trace_of",
]
