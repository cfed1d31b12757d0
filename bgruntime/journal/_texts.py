"""Texts made from other people's objects: always text, never long, never an exception."""

from __future__ import annotations

from collections.abc import Callable

from bgruntime import extend
from bgruntime.extend import capped

REPR_LIMIT = 500  # characters


def storable(text: str) -> str:
    """`text` as UTF-8 can hold it: lone surrogates and NUL are written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def safe_repr(value: object, limit: int = REPR_LIMIT) -> str:
    """The repr of `value`, or the name of its type where it has none."""
    try:
        return storable(capped(repr(value), limit))
    except Exception as error:
        return f"<{type(value).__qualname__}: repr raised {type(error).__qualname__}>"


def message_of(error: BaseException, scrub: Callable[[str], str]) -> str:
    """What *scrub* leaves of what the error says, its notes included; cut only after that."""
    return storable(extend.message_of(error, scrub))
