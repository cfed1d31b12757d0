"""The numbers that stand for states in the file."""

from __future__ import annotations

from difflib import get_close_matches
from enum import IntEnum

FIRST_PAUSE_MS = 1_000  # before the first automatic redrive; each further one waits twice as long


class Row(IntEnum):
    """The state of a row. The first four are of jobs that are not over, `RETRYABLE` is of both kinds."""

    AVAILABLE = 0
    SCHEDULED = 1
    RUNNING = 2
    RETRYABLE = 3
    COMPLETED = 4
    DISCARDED = 5
    QUARANTINED = 6
    CANCELLED = 7
    GIVEN_UP = 8  # discarded, and put away by hand

    @property
    def word(self) -> str:
        """The state as people know it."""
        return _WORDS[self]


_WORDS = tuple("discarded" if row is Row.GIVEN_UP else row.name.lower() for row in Row)

OPEN = (Row.RETRYABLE, Row.DISCARDED, Row.QUARANTINED)


def rows_of(word: str) -> tuple[Row, ...]:
    """The rows of ended jobs that are in the state `word`; `ValueError` names the states there are."""
    found = tuple(row for row in Row if row >= Row.RETRYABLE and row.word == word)
    if not found:
        known = sorted({row.word for row in Row if row >= Row.RETRYABLE})
        near = "".join(f"; did you mean {one!r}?" for one in get_close_matches(str(word), known, n=1))
        raise ValueError(f"no such state: {word!r}; a journaled job is one of {', '.join(known)}{near}")
    return found
