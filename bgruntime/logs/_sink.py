"""Lines leave through a bounded queue and a thread of their own: a sink that hangs holds nobody."""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Protocol, TextIO

from bgruntime.extend import ports

CLOSE_SECONDS = 2.0


class Sink(Protocol):
    """Where finished lines go. It may be slow, and it may raise."""

    def write(self, line: str, /) -> object: ...

    def flush(self) -> object: ...


class RotatingFile:
    """A file that is renamed when it is full: app.log, app.log.1, app.log.2, the newest without a number."""

    def __init__(self, path: str | os.PathLike[str], max_bytes: int, keep: int) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._handler = RotatingFileHandler(
            path,
            maxBytes=max_bytes,
            backupCount=keep,
            encoding="utf-8",
            errors="backslashreplace",
            delay=True,
        )
        self._max_bytes = max_bytes

    def write(self, line: str) -> None:
        """Append *line*, after turning the files if it would not fit."""
        handler = self._handler
        if handler.stream is None:
            handler.stream = handler._open()
        if self._max_bytes and handler.stream.tell() + len(line.encode("utf-8", "replace")) > self._max_bytes:
            handler.doRollover()
        handler.stream.write(line)

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._handler.flush()

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class Pipe:
    """Takes lines without waiting and has a thread write them, in order.

    It holds at most *size* lines; what comes beyond that is dropped, counted in `dropped`, and said in
    a line of its own when there is room again. What a sink raises is counted in `failed`.
    """

    def __init__(
        self, sinks: list[Sink | TextIO], *, size: int = 10_000, told: Callable[[int], str] | None = None
    ) -> None:
        self._sinks = sinks
        self._size = size
        self._told = told
        self._lines: deque[str] = deque()
        self._wake = threading.Condition()
        self._begin()
        self.dropped = self.failed = 0
        self._unsaid = 0
        atexit.register(self.close)

    def _begin(self) -> None:
        self._wake = threading.Condition()
        self._pid = os.getpid()
        self._closing = self._busy = False
        ports.current().spawn(self._run, "bgruntime-logs")

    def put(self, line: str) -> bool:
        """Take *line*; False if there was no room for it."""
        if self._pid != os.getpid():
            self._lines.clear()  # the parent writes those
            self._begin()
        with self._wake:
            if self._closing or len(self._lines) >= self._size:
                self.dropped += 1
                self._unsaid += 1
                return False
            self._lines.append(line)
            self._wake.notify()
        return True

    def flush(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Wait until what was put is written, at most *timeout* seconds; whether it is."""
        if self._pid != os.getpid():
            return True
        with self._wake:
            return self._wake.wait_for(lambda: not self._lines and not self._busy, timeout)

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Write what is there, for at most *timeout* seconds, and take no more."""
        atexit.unregister(self.close)
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self.flush(timeout):
            for sink in self._sinks:
                if isinstance(sink, RotatingFile):
                    sink.close()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._busy = False
                self._wake.notify_all()
                self._wake.wait_for(lambda: self._lines or self._closing)
                if not self._lines:
                    return
                lines, self._lines = self._lines, deque()
                unsaid, self._unsaid = self._unsaid, 0
                self._busy = True
            if unsaid and self._told is not None:
                lines.append(self._told(unsaid))
            for sink in self._sinks:
                self._write(sink, lines)

    def _write(self, sink: Sink | TextIO, lines: deque[str]) -> None:
        for line in lines:
            try:
                sink.write(f"{line}\n")
            except Exception:
                self.failed += 1
        try:
            sink.flush()
        except Exception:
            self.failed += 1
