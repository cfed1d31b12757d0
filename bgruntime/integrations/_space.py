"""The disk space that uploaded files take together, and its bound."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from threading import Lock

from starlette.exceptions import HTTPException

from bgruntime.extend import ports

from ._problems import RETRY_AFTER

FRESH = 1.0  # seconds that a look at the disk counts for
SHARE = 20  # times as long as a look has taken: it costs a twentieth of a thread at most


class Space:
    """Counts the bytes of the files in a folder that several processes may share. For any thread.

    What this process keeps is counted as it comes and goes, what others keep is what the last look at
    the disk found: at most a second ago, or twenty times as long as a look takes.

    Args:
        total: bytes that all files may have together.
        look: blocks, and returns the bytes of each file by its name. One that is moved from a folder of
            a process to the common one while it looks must be among them.
    """

    def __init__(self, total: int, look: Callable[[], Mapping[str, int]]) -> None:
        self._total = total
        self._look = look
        self._ports = ports.current()
        self._lock = Lock()
        self._ours: dict[str, int] = {}
        self._taken = 0  # by ours
        self._others = 0
        self._look_at = -float("inf")

    def take(self, name: str, size: int) -> None:
        """Count *size* more bytes for a file that is there. It may block for a look at the disk.

        Raises:
            HTTPException: 503 with Retry-After, it would be more than may be. Nothing is counted.
        """
        self._look_if_stale()
        with self._lock:
            taken = self._taken + self._others
            if taken + size > self._total:
                raise HTTPException(
                    503,
                    f"the files that are kept here have at most {self._total} bytes together, "
                    f"{taken} are taken: try again later",
                    headers={"Retry-After": str(RETRY_AFTER)},
                )
            self._ours[name] = self._ours.get(name, 0) + size
            self._taken += size

    def give_back(self, name: str) -> None:
        """The file of that name is gone. Nobody minds one that was not counted."""
        with self._lock:
            self._taken -= self._ours.pop(name, 0)

    def _look_if_stale(self) -> None:
        now = self._ports.monotonic()
        with self._lock:
            if now < self._look_at:
                return
            self._look_at = float("inf")  # one looks, the others go on with what is known
            before = list(self._ours)
        try:
            found = self._look()
            with self._lock:
                for name in before:
                    if name not in found:
                        self._taken -= self._ours.pop(name, 0)  # another process has removed it
                self._others = sum(size for name, size in found.items() if name not in self._ours)
        finally:
            after = self._ports.monotonic()
            self._look_at = after + max(FRESH, SHARE * (after - now))


def sizes_in(folder: str | os.PathLike[str], wanted: Callable[[str], object]) -> dict[str, int]:
    """The bytes of the files with *wanted* names in *folder*; nothing where it is gone."""
    sizes: dict[str, int] = {}
    try:
        with os.scandir(folder) as entries:
            for one in entries:
                if wanted(one.name):
                    try:
                        sizes[one.name] = one.stat(follow_symlinks=False).st_size
                    except FileNotFoundError:
                        continue  # somebody has removed it meanwhile
    except FileNotFoundError:
        return {}
    return sizes


__all__ = ["Space", "sizes_in"]
