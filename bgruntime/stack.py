"""From a bare `Runtime()` to a running whole: what it has without being asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, cast

from bgruntime.extend import JournalHost
from bgruntime.logs import JobLog, complain


def observers(given: Sequence[Any]) -> tuple[Any, ...]:
    """The observers of a runtime: those *given*, and a `JobLog` unless there is one among them."""
    if any(isinstance(observer, JobLog) for observer in given):
        return tuple(given)
    return (*given, JobLog())


async def open_journal(journal: str | os.PathLike[str] | Any, host: JournalHost) -> Any:
    """Open *journal*, a path or a `bgruntime.journal.Journal`, for the runtime behind *host*."""
    from bgruntime.journal import Journal

    opened = Journal(cast(Any, journal)) if isinstance(journal, str | os.PathLike) else journal
    await opened.open(host)
    return opened


__all__ = ["complain", "observers", "open_journal"]
