"""Texts made from other people's objects: always text, never long, never an exception."""

from __future__ import annotations

import reprlib
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


def short_repr(value: object) -> str:
    """What `safe_repr` says of something large, without going through all of it."""
    if isinstance(value, (str, bytes, bytearray)):
        left = len(value) - REPR_LIMIT
        units = "characters" if isinstance(value, str) else "bytes"
        return f"{storable(repr(value[:REPR_LIMIT]))}… (+{left:,} {units})"
    return storable(capped(_shortened.repr(value), REPR_LIMIT))


class _Shortened(reprlib.Repr):
    """Only of the simplest objects the repr that they give of themselves."""

    def repr_bytes(self, x: bytes, level: int) -> str:
        return repr(x[: self.maxstring])

    def repr_instance(self, x: object, level: int) -> str:
        return repr(x) if isinstance(x, (float, complex, bool)) or x is None else f"<{type(x).__qualname__}>"


_shortened = _Shortened()


def message_of(error: BaseException, scrub: Callable[[str], str]) -> str:
    """What *scrub* leaves of what the error says, its notes included; cut only after that."""
    return storable(extend.message_of(error, scrub))
