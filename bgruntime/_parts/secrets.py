"""What must not reach the disk is taken out of texts before they do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from functools import cached_property, lru_cache
from itertools import islice
from operator import attrgetter, methodcaller
from typing import Any, Protocol, TypeGuard, cast

MASK = "[redacted]"
DEPTH = 6
LOOKED_AT = 5_000
MOST, LONGEST = 1_000, 20_000  # parts of secrets, and characters of them, that are looked for in a text
WORD = 4  # characters; a shorter secret is taken out only where it stands alone


class Secret(Protocol):
    """pydantic's SecretStr and SecretBytes, and all that hide a value in the same way."""

    def get_secret_value(self) -> Any: ...


def is_secret(value: object) -> TypeGuard[Secret]:
    """Does its class say so? Asked of thousands of objects in a row: `isinstance` takes 20 times as long."""
    return hasattr(type(value), "get_secret_value")


class Secrets:
    """Takes the given values out of any text, in every form in which they are usually written.

    Strings inside lists, mappings and attributes of the values count, and what `str` makes of a value
    whose class says how; their repr, JSON and URL forms, too. A value of fewer than 4 characters is taken
    out where it stands as a word of its own. Where there is too much to look for, nothing of a text is left.
    """

    def __init__(self, *values: object) -> None:
        self._values = values

    def __bool__(self) -> bool:
        return bool(self._values)

    def scrub(self, text: str) -> str:
        """`text` without the secrets."""
        if not self._values or not text:
            return text
        if self._parts is None:
            return MASK
        return self._pattern.sub(MASK, text) if self._pattern else text

    @cached_property
    def _parts(self) -> list[str] | None:
        """The texts that are secret; None where they are too many or too long to look for them."""
        parts: list[str] = []
        left = LONGEST
        for part in (leaf for value in self._values for leaf in leaves(value)):
            parts.append(part)
            left -= len(part)
            if len(parts) > MOST or left < 0:
                return None
        return parts

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        forms = {form for part in self._parts or () for form in forms_of(part)}
        forms.discard("")
        ordered = sorted(forms, key=len, reverse=True)
        return re.compile("|".join(map(_expression, ordered))) if ordered else None


def _expression(form: str) -> str:
    escaped = re.escape(form)
    return escaped if len(form) >= WORD else rf"(?<!\w){escaped}(?!\w)"


def forms_of(text: str) -> Iterator[str]:
    """The ways in which `text` may stand inside another text."""
    import json  # here: who has no secrets does not pay 4 ms for the import
    from urllib.parse import quote, quote_plus

    yield text
    yield from (line.strip() for line in text.splitlines())
    yield repr(text)[1:-1]
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    if text.isprintable():
        yield quote(text, safe="", errors="replace")
        yield quote_plus(text, errors="replace")


def leaves(value: object, depth: int = DEPTH) -> Iterator[str]:
    """Every text and number inside `value`, as text."""
    if is_secret(value):
        value = value.get_secret_value()
    match value:
        case str():
            yield value
        case bytes() | bytearray():
            yield bytes(value).decode("utf-8", "backslashreplace")
        case bool() | None:
            return
        case int() | float():
            yield str(value)
        case _ if depth:
            if type(value).__str__ is not object.__str__:
                yield from _texts_of(value)
            for part in _parts_said(value):
                yield from leaves(part, depth - 1)
        case _:
            return  # too deep


def _parts_said(value: object) -> Iterable[object]:
    """`parts_of` *value*, but for what a path or a member of an Enum keeps for itself."""
    if isinstance(value, Enum):
        return value.name, value.value
    if isinstance(value, os.PathLike):
        return (os.path.basename(cast("os.PathLike[str]", value)),)
    return parts_of(value)


def _texts_of(value: object) -> Iterator[str]:
    """What is written for a value whose class says how: a UUID, a Decimal, a date, a path, an address."""
    for write in (str, repr, methodcaller("isoformat"), attrgetter("hex")):
        with suppress(Exception):  # what cannot be written stands in no text
            if isinstance(text := write(value), str):
                yield text


def parts_of(value: object) -> Iterator[object]:
    """What a container, a model or a plain object holds."""
    if isinstance(value, (list, tuple, set, frozenset)):
        yield from value
    elif isinstance(value, (dict, Mapping)):
        yield from value.values()
    else:
        yield from getattr(value, "__dict__", {}).values()
        kind: Any = type(value)
        yield from (getattr(value, name) for name in slots_of(kind) if hasattr(value, name))


@lru_cache(maxsize=1024)
def slots_of(kind: type) -> tuple[str, ...]:
    """The slots of a class and of its bases."""
    found: list[str] = []
    for one in kind.__mro__:
        names = one.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            is_mangled = name.startswith("__") and not name.endswith("__")
            found.append(f"_{one.__name__.lstrip('_')}{name}" if is_mangled else name)
    return tuple(name for name in found if name not in ("__dict__", "__weakref__"))


def secret_parts(value: object) -> Iterator[object]:
    """The secrets that hide inside `value`, as far as a look at a few thousand objects shows."""
    level = [value]
    left = LOOKED_AT
    for _ in range(DEPTH):
        below: list[object] = []
        for one in level:
            if is_secret(one):
                yield one
            elif not isinstance(one, (str, bytes, int, float, type(None))) and left > 0:
                parts = list(islice(parts_of(one), left))
                left -= len(parts)
                below += parts
        level = below
