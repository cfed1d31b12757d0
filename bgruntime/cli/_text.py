"""Texts for a terminal: one line each, and nothing in them that a terminal obeys."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from unicodedata import east_asian_width

from bgruntime.extend import finite, ports

LINE = 100  # characters
UNBOUNDED = 1 << 31  # columns where no terminal is
LEAST = 40  # columns of a terminal for the last one of a table, unless it needs less


def terminal() -> int:
    """How many columns there are to print in."""
    bounded = "COLUMNS" in os.environ or (sys.stdout is not None and sys.stdout.isatty())
    return shutil.get_terminal_size().columns if bounded else UNBOUNDED


def one_line(text: str, limit: int = LINE) -> str:
    """*text* without line breaks and control characters, cut to *limit* characters."""
    flat = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[: limit + 1])
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], columns: int, below: Sequence[int] = ()) -> str:
    """Columns as wide as what stands in them; the last one is cut where the terminal ends.

    Where that would leave too little of it, the cells *below* are on a second line of their row.
    """
    widths = [max(width_of(row[place]) for row in (head, *rows)) for place in range(len(head))]
    before, last = sum(width + 2 for width in widths[:-1]), widths[-1]
    widths[-1] = 0  # nothing stands behind it
    lines: list[str] = []
    for row in (head, *rows):
        cells = [cell + " " * (width - width_of(cell)) for cell, width in zip(row, widths, strict=True)]
        if before + min(last, LEAST) <= columns:
            lines.append("  ".join(cells))
        else:
            lines.append("  ".join(cell for place, cell in enumerate(cells) if place not in below))
            lines.append("  " + "  ".join(row[place] for place in below))
    return "\n".join(cut(line.rstrip(), columns) for line in lines)


def width_of(text: str) -> int:
    """The columns that it takes: East Asian letters take two each."""
    return len(text) if text.isascii() else sum(1 + (east_asian_width(letter) in "FW") for letter in text)


def cut(text: str, columns: int) -> str:
    """As much of it as has room."""
    if width_of(text) <= columns:
        return text
    while text and width_of(text) >= columns:
        text = text[:-1]
    return text + "…"


def as_json(value: Any) -> str:
    """JSON in ASCII, for a program to read."""
    return json.dumps(finite(value), indent=1, ensure_ascii=True, allow_nan=False)


def ago(at: float) -> str:
    """How long ago an instant was, in its largest unit."""
    seconds = max(0, int(ports.current().time() - at))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def local(at: float) -> str:
    """An instant in the time zone of this machine."""
    try:
        return datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds")
    except (OverflowError, ValueError, OSError):
        return f"{at:,.0f} seconds after 1970"
