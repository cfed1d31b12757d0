"""Texts for a terminal: one line each, and nothing in them that a terminal obeys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from bgruntime.extend import ports

LINE = 100  # characters


def one_line(text: str, limit: int = LINE) -> str:
    """*text* without line breaks and control characters, cut to *limit* characters."""
    flat = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[: limit + 1])
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as what stands in them; the last one as it is."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in (head, *rows)
    )


def ago(at: float) -> str:
    """How long ago an instant was, in its largest unit."""
    seconds = max(0, int(ports.current().time() - at))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def local(at: float) -> str:
    """An instant in the time zone of this machine."""
    return datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds")
