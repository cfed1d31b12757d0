"""From a bare `Runtime()` to a running whole: what it has without being asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, cast

from bgruntime.extend import JournalHost
from bgruntime.health import LoopWatch
from bgruntime.logs import JobLog, complain
from bgruntime.metrics import Metrics


def observers(given: Sequence[Any]) -> tuple[Any, ...]:
    """The observers of a runtime: its metrics and the watch on its loop, those *given*, and its log.

    What is given among them is not added. The metrics come first: the others find the numbers there.
    """
    first = [kind() for kind in (Metrics, LoopWatch) if not _is_there(kind, given)]
    last = [] if _is_there(JobLog, given) else [JobLog()]
    return (*first, *given, *last)


def _is_there(kind: type[Any], given: Sequence[Any]) -> bool:
    return any(isinstance(observer, kind) for observer in given)


async def open_journal(journal: str | os.PathLike[str] | Any, host: JournalHost) -> Any:
    """Open *journal*, a path or a `bgruntime.journal.Journal`, for the runtime behind *host*."""
    from bgruntime.journal import Journal

    opened = Journal(cast(Any, journal)) if isinstance(journal, str | os.PathLike) else journal
    await opened.open(host)
    return opened


__all__ = ["complain", "observers", "open_journal"]
