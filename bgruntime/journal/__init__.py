"""The journal: failures kept, and durable jobs that survive anything, in one SQLite file.

async with Runtime(journal="jobs.db") as rt:
    for failure in await rt.journal.failures(task="mail:send"):
        print(failure.id, failure.message)
    await rt.journal.redrive()
"""

from __future__ import annotations

from ._failures import AttemptFailure, Failure, FailureGroup
from ._journal import Journal
from ._shelf import JournalStats
from ._trends import Trend
from ._upkeep import Retention

__all__ = ["AttemptFailure", "Failure", "FailureGroup", "Journal", "JournalStats", "Retention", "Trend"]
