"""Tracebacks for log lines: places and errors, never a local variable."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import bgruntime

PLACES = ("stdlib", "platstdlib", "purelib", "platlib")
LIBRARIES = tuple(
    str(place) + os.sep
    for place in (Path(bgruntime.__file__).parent, *(sysconfig.get_paths()[name] for name in PLACES))
)

FRAMES = 30  # innermost ones of each error
CHARACTERS = 8_000


def place_of(error: BaseException) -> str:
    """The innermost line of the application that *error* passed: `report.py:42 in build`, "" for none."""
    raised = error if error.__traceback__ is not None or error.__cause__ is None else error.__cause__
    passed = list(_passed(raised.__traceback__))
    own = [one for one in passed if is_application(one[0])] or passed
    if not own:
        return ""
    file, line, function = own[-1]
    return f"{os.path.basename(file)}:{line} in {function}"


def _passed(trace: TracebackType | None) -> Iterator[tuple[str, int, str]]:
    while trace is not None:
        code = trace.tb_frame.f_code
        yield code.co_filename, trace.tb_lineno, code.co_qualname
        trace = trace.tb_next


def written(error: BaseException, scrub: Callable[[str], str] = str) -> str:
    """*error* with its causes as Python prints them, without local variables.

    At most the last 8,000 characters of what *scrub* leaves of it: a secret that was cut is not found.
    """
    try:
        lines = traceback.TracebackException.from_exception(error, limit=-FRAMES, capture_locals=False)
        text = "".join(lines.format()).rstrip()
    except Exception as failed:  # an error whose own methods raise
        text = f"{type(error).__qualname__} (its traceback could not be written: {type(failed).__qualname__})"
    text = scrub(text)
    return text if len(text) <= CHARACTERS else f"…{text[-CHARACTERS:]}"


@lru_cache(maxsize=4096)
def is_application(file: str) -> bool:
    """Whether this file is neither of the standard library, nor of a package, nor of the runtime."""
    return not file.startswith(("<frozen ", *LIBRARIES))
