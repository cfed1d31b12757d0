"""Texts made from other people's objects: always text, never long, never an exception."""

from __future__ import annotations

from collections.abc import Callable

MESSAGE_LIMIT = 2_000  # characters
REPR_LIMIT = 500


def capped(text: str, limit: int) -> str:
    """At most `limit` characters; what was cut is counted at the end."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… (+{len(text) - limit:,} characters)"


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
    """What `scrub` leaves of what the error says, its notes included; cut only after that."""
    try:
        text = str(error)
    except Exception as failed:
        text = f"<str raised {type(failed).__qualname__}>"
    notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
    return storable(capped(scrub("\n".join([text, *notes])), MESSAGE_LIMIT))


def name_of(kind: type) -> str:
    """The name by which people know a class: `smtplib.SMTPException`, and `ValueError` without a module."""
    module = kind.__module__
    if module in ("builtins", "__main__"):
        return kind.__qualname__
    return f"{'bgruntime' if module.startswith('bgruntime.') else module}.{kind.__qualname__}"
