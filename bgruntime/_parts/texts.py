"""Texts made from other people's objects: always text, never long, never an exception."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

MESSAGE_LIMIT = 2_000  # characters


def capped(text: str, limit: int) -> str:
    """At most *limit* characters; what was cut is counted at the end."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… (+{len(text) - limit:,} characters)"


def in_a_line(text: str, limit: int) -> str:
    """*text* in one line, cut as `capped` does."""
    return capped(" ".join(text.split()), limit)


def finite(value: Any) -> Any:
    """What JSON made, with a word for each number that JSON does not know: "nan", "inf" and "-inf"."""
    if isinstance(value, dict):
        parts: Any = value  # pyright: ignore[reportUnknownVariableType]
        return {name: finite(part) for name, part in parts.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]  # pyright: ignore[reportUnknownVariableType]
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def message_of(error: BaseException, scrub: Callable[[str], str] = str) -> str:
    """What *error* says, its notes included: at most 2,000 characters of what *scrub* leaves.

    Raises nothing but what *scrub* raises.
    """
    try:
        text = str(error)
    except Exception as failed:
        text = f"<str raised {type(failed).__qualname__}>"
    notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
    return capped(scrub("\n".join([text, *notes])), MESSAGE_LIMIT)


def name_of(kind: type) -> str:
    """The name by which people know a class: `smtplib.SMTPException`, and `ValueError` without a module."""
    module = kind.__module__
    if module in ("builtins", "__main__"):
        return kind.__qualname__
    return f"{'bgruntime' if module.startswith('bgruntime.') else module}.{kind.__qualname__}"
