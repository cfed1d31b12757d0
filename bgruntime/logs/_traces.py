"""Tracebacks for log lines: places and errors, never a local variable."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

FRAMES = 30  # innermost ones of each error
CHARACTERS = 8_000


def trace_of(error: BaseException, scrub: Callable[[str], str] = str) -> dict[str, Any]:
    """The field `traceback` for *error* and its causes, after *scrub*; nothing where it passed nowhere."""
    if error.__traceback__ is None and error.__cause__ is None:
        return {}
    return {"traceback": scrub(written(error))}


def written(error: BaseException) -> str:
    """*error* with its causes as Python prints them, without local variables, at most 8,000 characters."""
    try:
        lines = traceback.TracebackException.from_exception(error, limit=-FRAMES, capture_locals=False)
        text = "".join(lines.format()).rstrip()
    except Exception as failed:  # an error whose own methods raise
        text = f"{type(error).__qualname__} (its traceback could not be written: {type(failed).__qualname__})"
    return text if len(text) <= CHARACTERS else f"…{text[-CHARACTERS:]}"
