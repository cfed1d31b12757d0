"""Did you mean?"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(what: str, given: str, known: Iterable[str]) -> str:
    """A sentence that names what was not known and the nearest thing that is."""
    names = sorted(known)
    near = get_close_matches(given, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(map(repr, names)) or 'none'}"
    return f"unknown {what} {given!r}; {hint}"
