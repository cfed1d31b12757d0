"""Tracebacks: taken quickly where the failure happens, written out later, in another thread."""

from __future__ import annotations

import hashlib
import linecache
import os
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import cast

import bgruntime
from bgruntime.extend import Secrets, capped, name_of

from ._texts import message_of, storable

FRAMES = 40  # of one error: the outermost 10 and the innermost 30
OUTERMOST = 10
LINKS = 8  # of a chain of causes
MESSAGE_LIMIT = 2_000  # characters of what one error says
BODY_LIMIT = 16_000  # characters
REMEMBERED = 500  # bodies that were written out already
SOURCE_LIMIT = 200

Frame = tuple[str, int, str]  # file, line, function

OURS = str(Path(bgruntime.__file__).parent) + os.sep
PLACES = ("stdlib", "platstdlib", "purelib", "platlib")
LIBRARIES = (OURS, "<frozen ", *(sysconfig.get_paths()[place] + os.sep for place in PLACES))


@dataclass(frozen=True, slots=True)
class Link:
    """One error of a chain: how it is joined to the next, what it was, and where it passed."""

    joint: str
    error: str
    message: str
    frames: tuple[Frame, ...]
    skipped: int


class Trace:
    """The places an error passed through, without its objects: no frame and no local variable is kept."""

    __slots__ = ("_hash", "_links", "_secrets")

    def __init__(self, error: BaseException, secrets: Secrets) -> None:
        self._secrets = secrets
        self._links = tuple(reversed(list(_chain(error, secrets))))
        self._hash: bytes | None = None

    @property
    def message(self) -> str:
        """What the error said, without secrets."""
        return self._links[-1].message

    @property
    def place(self) -> str:
        """The innermost line of the application itself: `/srv/app/mail.py:42 in send`."""
        frames = self._links[-1].frames
        own = next((frame for frame in reversed(frames) if is_application(frame[0])), None)
        frame = own or (frames[-1] if frames else None)
        return f"{frame[0]}:{frame[1]} in {frame[2]}" if frame else ""

    def hash(self) -> bytes:
        """The same for errors that came the same way, whatever the last one said."""
        if self._hash is None:
            *causes, last = self._links
            told = [(link.joint, link.error, link.message, link.frames) for link in causes]
            way = repr((told, last.error, last.frames))
            self._hash = hashlib.blake2b(way.encode("utf-8", "backslashreplace"), digest_size=16).digest()
        return self._hash

    def body(self) -> str:
        """The formatted traceback, all but its last line; written out once for all that came this way."""
        known = _bodies.get(self.hash())
        if known is None:
            known = storable(capped(self._secrets.scrub("".join(self._written())), BODY_LIMIT))
            if len(_bodies) >= REMEMBERED:
                _bodies.pop(next(iter(_bodies)), None)
            _bodies[self.hash()] = known
        return known

    def _written(self) -> Iterator[str]:
        for position, link in enumerate(self._links):
            yield "Traceback (most recent call last):\n" if link.frames else ""
            for index, (file, line, function) in enumerate(link.frames):
                if link.skipped and index == OUTERMOST:
                    yield f"  [{link.skipped} frames left out]\n"
                source = self._secrets.scrub(linecache.getline(file, line).strip())
                yield f'  File "{file}", line {line}, in {function}\n'
                yield f"    {capped(source, SOURCE_LIMIT)}\n" if source else ""
            if position < len(self._links) - 1:
                yield f"{link.error}: {link.message}\n\n{link.joint}\n\n"


_bodies: dict[bytes, str] = {}

CAUSE = "The above exception was the direct cause of the following exception:"
CONTEXT = "During handling of the above exception, another exception occurred:"


def _chain(error: BaseException | None, secrets: Secrets) -> Iterator[Link]:
    """The error, then what caused it, and so on; at most `LINKS`, and each once."""
    seen: set[int] = set()
    joint = ""
    while error is not None and id(error) not in seen and len(seen) < LINKS:
        seen.add(id(error))
        frames, skipped = _frames(error.__traceback__)
        message = capped(_told(error, secrets.scrub), MESSAGE_LIMIT)
        yield Link(joint, name_of(type(error)), message, frames, skipped)
        joint = CAUSE if error.__cause__ is not None else CONTEXT
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _told(error: BaseException, scrub: Callable[[str], str]) -> str:
    message = message_of(error, scrub)
    if isinstance(error, BaseExceptionGroup):
        inner = cast("tuple[BaseException, ...]", error.exceptions)  # pyright: ignore[reportUnknownMemberType]
        parts = [f"{name_of(type(part))}: {message_of(part, scrub)}" for part in inner[:LINKS]]
        message = "\n  ".join([message, *parts])
    return message


def _frames(traceback: TracebackType | None) -> tuple[tuple[Frame, ...], int]:
    """File, line and function of each frame, without the runtime's own at the outer end."""
    frames: list[Frame] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if frames or not code.co_filename.startswith(OURS):
            frames.append((code.co_filename, traceback.tb_lineno or code.co_firstlineno, code.co_name))
        traceback = traceback.tb_next
    skipped = max(0, len(frames) - FRAMES)
    if skipped:
        frames = frames[:OUTERMOST] + frames[OUTERMOST - FRAMES :]
    return tuple(frames), skipped


@lru_cache(maxsize=4096)
def is_application(file: str) -> bool:
    """Is this file neither of the standard library, nor of an installed package, nor of the runtime?"""
    return not file.startswith(LIBRARIES)
