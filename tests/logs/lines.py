"""A stream that a test can read, make fail, or make hang."""

from __future__ import annotations

import io
import json
import threading
from typing import Any


class Stream(io.StringIO):
    """Keeps what is written; `hold()` makes writers wait until `release()`, `broken` makes them fail."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.entered = threading.Event()
        self._open = threading.Event()
        self._open.set()

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def write(self, text: str) -> int:
        self.entered.set()
        self._open.wait(20)
        if self.broken:
            raise OSError("no space left on device")
        return super().write(text)

    @property
    def lines(self) -> list[str]:
        return self.getvalue().splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().split("\n") if line]
