"""Where a thread stands right now, and which line of it is the application's own."""

from __future__ import annotations

import asyncio
import linecache
import os
import selectors
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from types import FrameType

import bgruntime

FRAMES = 40  # innermost ones
OURS = str(Path(bgruntime.__file__).parent) + os.sep
PLACES = ("stdlib", "platstdlib", "purelib", "platlib")
LIBRARIES = (OURS, "<frozen ", *(sysconfig.get_paths()[place] + os.sep for place in PLACES))
LOOPS = (os.path.dirname(asyncio.__file__) + os.sep, selectors.__file__)

Line = tuple[str, int, str]  # file, line, function


def lines_of(thread: int) -> list[Line]:
    """File, line and function of each frame of a thread, innermost first; no local variables."""
    frame: FrameType | None = sys._current_frames().get(thread)
    lines: list[Line] = []
    while frame is not None and len(lines) < FRAMES:
        lines.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname))
        frame = frame.f_back
    return lines


def place_of(lines: list[Line]) -> str:
    """The innermost line of the application itself: `report.py:42 in build`; else the innermost of all."""
    if not lines:
        return ""
    file, line, function = next((one for one in lines if is_application(one[0])), lines[0])
    return f"{os.path.basename(file)}:{line} in {function}"


def is_idle(lines: list[Line]) -> bool:
    """Whether the loop itself stands there and waits: nobody's code runs."""
    return not lines or lines[0][0].startswith(LOOPS)


def written(lines: list[Line]) -> str:
    """*lines* as Python prints a stack, outermost first."""
    return "".join(
        f'  File "{file}", line {line}, in {function}\n    {source_of(file, line)}\n'
        for file, line, function in reversed(lines)
    )


def source_of(file: str, line: int) -> str:
    """That line of that file, "" where it cannot be had."""
    try:
        return linecache.getline(file, line).strip()
    except Exception:  # not meant for several threads at once, linecache may find its own entry half made
        return ""


@lru_cache(maxsize=4096)
def is_application(file: str) -> bool:
    """Whether this file is neither of the standard library, nor of a package, nor of the runtime."""
    return not file.startswith(LIBRARIES)


__all__ = ["Line", "is_idle", "lines_of", "place_of", "written"]
