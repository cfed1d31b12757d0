"""From a bare `Runtime()` to a running whole: what it has without being asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from bgruntime.extend import JournalUnavailable
from bgruntime.logs import JobLog, complain


def observers(given: Sequence[Any]) -> tuple[Any, ...]:
    """The observers of a runtime: those *given*, and a `JobLog` unless there is one among them."""
    if any(isinstance(observer, JobLog) for observer in given):
        return tuple(given)
    return (*given, JobLog())


async def open_journal(path: str | os.PathLike[str], runtime: Any, host: Any) -> Any:
    """Open the journal at *path* for *runtime*."""
    raise JournalUnavailable(f"this version has no journal: leave out journal={os.fspath(path)!r}")


__all__ = ["complain", "observers", "open_journal"]
