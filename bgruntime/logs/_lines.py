"""What a line looks like: one event, one line, whatever its values hold."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, cast

import structlog

from bgruntime.extend import ports

EventDict = MutableMapping[str, Any]

# Control characters, line and paragraph separators, marks that turn the direction of text, lone surrogates.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
TEXT_LIMIT = 16_000  # characters of one value
DEPTH = 8
TRACES = ("traceback", "exception", "stack")

FIRST = ("timestamp", "level", "event", "logger", "job_id", "task", "attempt")


def stamp(_: Any, __: str, event: EventDict) -> EventDict:
    """Adds `timestamp`: UTC, ISO 8601, to the microsecond."""
    moment = datetime.fromtimestamp(ports.current().time(), UTC)
    event["timestamp"] = moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return event


def escaped(text: str) -> str:
    """*text* without a character that could end the line, colour it or turn it around."""
    return UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    return short or (f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}")


class Json:
    """Renders an event as one line of JSON that any parser reads; never raises."""

    def __call__(self, _: Any, __: str, event: EventDict) -> str:
        ordered = {key: event[key] for key in FIRST if key in event} | dict(event)
        try:
            text = json.dumps(ordered, default=safe, ensure_ascii=False, allow_nan=False)
        except (ValueError, TypeError, RecursionError):
            text = json.dumps(plain(ordered), ensure_ascii=False, allow_nan=False)
        return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class Console:
    """Renders an event as one line for people, a traceback below it, indented; never raises."""

    def __init__(self, *, colors: bool | None = None) -> None:
        wanted = sys.stderr.isatty() if colors is None else colors
        self._console = structlog.dev.ConsoleRenderer(
            colors=wanted, exception_formatter=structlog.dev.plain_traceback, sort_keys=False
        )

    def __call__(self, logger: Any, name: str, event: EventDict) -> str:
        traces = [str(event.pop(key)) for key in TRACES if event.get(key)]
        shown = {escaped(str(key)): _shown(value) for key, value in event.items() if value is not None}
        line = str(self._console(logger, name, shown))
        return "\n".join([line, *(f"    {escaped(row)}" for text in traces for row in text.splitlines())])


def _shown(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return value
    return escaped(value if isinstance(value, str) else _represented(value))


def safe(value: Any) -> Any:
    """What stands in JSON for a *value* that JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): one for key, one in pairs_of(value)}
    if isinstance(value, set | frozenset | tuple):
        return list(cast("Iterable[Any]", value))
    if isinstance(value, datetime):
        return value.isoformat()
    return _represented(value)


def plain(value: Any, depth: int = DEPTH) -> Any:
    """*value* as JSON can hold it, cut off where it is too deep or contains itself."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case _ if depth == 0:
            return "…"
        case Mapping():
            return {str(key): plain(one, depth - 1) for key, one in pairs_of(value)}
        case list() | tuple() | set() | frozenset():
            return [plain(one, depth - 1) for one in cast("Iterable[Any]", value)]
        case _:
            return _represented(value)


def pairs_of(mapping: Any) -> list[tuple[Any, Any]]:
    """What a mapping of anything to anything holds."""
    return list(mapping.items())


def _represented(value: Any) -> str:
    try:
        return repr(value)[:TEXT_LIMIT]
    except Exception as error:
        return f"<{type(value).__qualname__}: repr raised {type(error).__qualname__}>"
