"""Where a job stands, and the one table of how it may move. Code, documentation and tests read it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class JobState(StrEnum):
    """Where a job stands; `str()` gives the plain word. River and Oban use the same names."""

    SCHEDULED = "scheduled"
    AVAILABLE = "available"
    RUNNING = "running"
    RETRYABLE = "retryable"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    DISCARDED = "discarded"
    QUARANTINED = "quarantined"

    @property
    def is_final(self) -> bool:
        """Whether a job in this state is over."""
        return self in FINAL


TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.SCHEDULED: frozenset({JobState.AVAILABLE, JobState.CANCELLED}),
    JobState.AVAILABLE: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.QUARANTINED}),
    JobState.RUNNING: frozenset(
        {
            JobState.COMPLETED,
            JobState.RETRYABLE,
            JobState.CANCELLED,
            JobState.DISCARDED,
            JobState.AVAILABLE,  # a durable job that was interrupted: it will run again
        }
    ),
    JobState.RETRYABLE: frozenset({JobState.AVAILABLE, JobState.CANCELLED, JobState.DISCARDED}),
    JobState.COMPLETED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.DISCARDED: frozenset(),
    JobState.QUARANTINED: frozenset({JobState.AVAILABLE, JobState.DISCARDED}),
}

FINAL: Final = frozenset({JobState.COMPLETED, JobState.CANCELLED, JobState.DISCARDED})


def check_move(old: JobState, new: JobState) -> JobState:
    """Return *new* if a job may go there from *old*; anything else is a bug and raises."""
    if new not in TRANSITIONS[old]:
        raise AssertionError(f"a job cannot go from {old} to {new}")
    return new
