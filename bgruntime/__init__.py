"""Background work inside an asyncio application: bounded, timed out, retried, accounted for."""

from __future__ import annotations

import typing as _typing

from ._context import JobContext, Resource, Stopping, current_job, tempdir
from ._fanout import Fanout
from ._group import Group
from ._model.errors import (
    AcceptUnknown,
    BgRuntimeError,
    ForkedRuntime,
    JobCancelled,
    JobDiscarded,
    JobExited,
    JobInterrupted,
    JobTimedOut,
    JournalUnavailable,
    PayloadError,
    QueueFull,
    RuntimeClosed,
    UnknownTask,
    WrongLoop,
)
from ._model.jobs import Job
from ._model.outcomes import Cancel, Discard, Outcome, Retry, Snooze
from ._model.policies import AttemptState, FullJitter, Queue, Shutdown
from ._model.reports import Health, ShutdownReport
from ._model.states import JobState
from ._run import run
from ._runtime import Runtime
from ._task import Call, Registry, Task, task

if _typing.TYPE_CHECKING:
    from ._model.stats import RuntimeStats
    from .settings import RuntimeSettings

__version__ = "0.1.0"

__all__ = [
    "AcceptUnknown",
    "AttemptState",
    "BgRuntimeError",
    "Call",
    "Cancel",
    "Discard",
    "Fanout",
    "ForkedRuntime",
    "FullJitter",
    "Group",
    "Health",
    "Job",
    "JobCancelled",
    "JobContext",
    "JobDiscarded",
    "JobExited",
    "JobInterrupted",
    "JobState",
    "JobTimedOut",
    "JournalUnavailable",
    "Outcome",
    "PayloadError",
    "Queue",
    "QueueFull",
    "Registry",
    "Resource",
    "Retry",
    "Runtime",
    "RuntimeClosed",
    "RuntimeSettings",
    "RuntimeStats",
    "Shutdown",
    "ShutdownReport",
    "Snooze",
    "Stopping",
    "Task",
    "UnknownTask",
    "WrongLoop",
    "current_job",
    "run",
    "task",
    "tempdir",
]


def __dir__() -> list[str]:
    return [*globals(), "RuntimeSettings", "RuntimeStats"]


def __getattr__(name: str) -> _typing.Any:
    # pydantic-settings takes 95 ms to import; only who reads settings pays for it.
    if name == "RuntimeSettings":
        from .settings import RuntimeSettings

        return RuntimeSettings
    if name == "RuntimeStats":  # 7 ms
        from ._model.stats import RuntimeStats

        return RuntimeStats
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
