"""Questions asked of values: each raises a ValueError that names the value and the limit."""

from __future__ import annotations

import math
from typing import Any, cast


def count(name: str, value: int, *, least: int, most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} is a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, got {value}")


def seconds(name: str, value: float, *, least: float | None = None, above: float | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is a number of seconds, got {value!r}")
    if math.isnan(value) or math.isinf(value):
        raise ValueError(f"{name} is a finite number of seconds, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} is in seconds and must be at least {least:g}, got {value!r}")
    if above is not None and value <= above:
        raise ValueError(f"{name} is in seconds and must be more than {above:g}, got {value!r}")


def optional_seconds(
    name: str, value: float | None, *, least: float | None = None, above: float | None = None
) -> None:
    if value is not None:
        seconds(name, value, least=least, above=above)


def choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is one of {', '.join(map(repr, choices))}, got {value!r}")


def exceptions(name: str, value: Any) -> tuple[type[BaseException], ...]:
    several = isinstance(value, tuple | list | set)
    kinds: tuple[Any, ...] = tuple(cast(Any, value)) if several else (value,)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        raise ValueError(f"{name} holds exception classes, got {value!r}")
    return kinds


def sequence(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str | bytes):
        raise ValueError(f"{name} is a sequence of items, got the single {value!r}")
    try:
        return tuple(value)
    except TypeError:
        raise ValueError(f"{name} is a sequence of items, got {value!r}") from None


def check_limit(limit: int | None) -> None:
    """Raise unless *limit*, of a fan-out, is None or at least 1."""
    if limit is not None:
        count("limit", limit, least=1)


def check_seconds(name: str, value: float | None) -> None:
    """Raise unless *value* is None or a number of seconds that is at least 0."""
    optional_seconds(name, value, least=0)


def check_concurrency(value: int) -> None:
    """Raise unless *value* is a count of at least 1."""
    count("concurrency", value, least=1)
