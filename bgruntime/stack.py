"""From a bare `Runtime()` to a running whole: what it has without being asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from bgruntime.extend import JournalHost
from bgruntime.logs import JobLog, complain
from bgruntime.metrics import Metrics


def observers(given: Sequence[Any]) -> tuple[Any, ...]:
    """The observers of a runtime: its metrics, those *given*, and its log, unless given among them.

    The metrics come first, so that the others find the numbers up to date.
    """
    kinds = {type(observer) for observer in given}
    first = () if Metrics in kinds else (Metrics(),)
    last = () if any(issubclass(kind, JobLog) for kind in kinds) else (JobLog(),)
    return (*first, *given, *last)


async def open_journal(journal: str | os.PathLike[str] | Any, host: JournalHost) -> Any:
    """Open *journal*, a path or a `bgruntime.journal.Journal`, for the runtime behind *host*."""
    from bgruntime.journal import Journal

    opened = Journal(journal) if isinstance(journal, str | os.PathLike) else journal
    await opened.open(host)
    return opened


__all__ = ["complain", "observers", "open_journal"]
