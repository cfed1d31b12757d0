"""The way to the file: opened, well or ill, opened again when it was taken away, closed in every case."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from bgruntime import JournalUnavailable
from bgruntime.extend import ports

from ._faults import Fault, Refused, describe, fault_of
from ._line import Line
from ._owners import Owner
from ._schema import read_only
from ._session import Session

P = ParamSpec("P")
R = TypeVar("R")

LOCK_LIMIT = 5.0  # seconds to wait for one's turn
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two tries on a sick file
PASSING = (Fault.FULL, Fault.LOCKED)  # troubles that end without the file being opened anew


class Access:
    """Two connections to one file, for writing and for reading, each on a thread of its own.

    `ill` says in words what is wrong, or is None; `on_change` is called with it whenever it changes,
    `on_open` with the owner that this process is in the file whenever that was opened.
    """

    def __init__(self, path: Path, *, power_safe: bool = True) -> None:
        self.path = path
        self.session = Session(path, ports.current().spawn, power_safe=power_safe)
        self.ill: str | None = None
        self.fault: Fault | None = None
        self.errors = 0
        self.pause = FIRST_PAUSE
        self.on_change: Callable[[str | None], None] = lambda words: None
        self.on_open: Callable[[Owner], None] = lambda owner: None
        self._writing: Line | None = None
        self._reading: Line | None = None
        self._reading_opens: asyncio.Task[Line] | None = None
        self._closing: Line | None = None  # the one that is waited for to close

    @property
    def is_open(self) -> bool:
        """Is there a connection to write with?"""
        return self._writing is not None

    async def open(self) -> None:
        """Opens the file, or tries whether the open one can be written; raises what is wrong.

        It is well again when what waits could be written too: see `is_well`.
        """
        if self._writing is not None:
            await self.write(self.session.beat, LOCK_LIMIT)
        else:
            line = await Line.open(str(self.path), lambda: self.session.prepare(LOCK_LIMIT))
            try:
                owner = await line.call(self.session.open, LOCK_LIMIT)
            except BaseException:
                await line.close()
                raise
            self._writing = line
            self.on_open(owner)

    async def write(
        self, function: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """What `function(connection, *args)` returns, in the writing thread."""
        assert self._writing is not None  # `open` comes first
        return await self._writing.call(function, *args, **kwargs)

    async def read(
        self, function: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """What `function(connection, *args)` returns, in the reading thread; else `JournalUnavailable`."""
        try:
            line = await self._reader()
            return await line.call(function, *args, **kwargs)
        except (sqlite3.Error, OSError, Refused, ValueError) as error:
            raise JournalUnavailable(describe(str(self.path), error)) from error

    async def _reader(self) -> Line:
        if self._reading is not None:
            return self._reading
        if self._writing is None:
            raise JournalUnavailable(self.trouble)
        if self._reading_opens is None:
            loop = asyncio.get_running_loop()
            self._reading_opens = loop.create_task(self._open_reader(), name="bgruntime-journal-reader")
        opening = self._reading_opens
        await asyncio.wait({opening})
        return opening.result()

    async def _open_reader(self) -> Line:
        try:
            line = await Line.open(str(self.path))
            await line.call(read_only)
            self._reading = line
        finally:
            self._reading_opens = None
        return line

    # Well and ill

    async def suffer(self, error: Exception) -> None:
        """Notes what is wrong; a connection that cannot be trusted any more is closed."""
        self.note(error)
        if self.fault not in PASSING:
            await self.hang_up()

    def note(self, error: Exception) -> None:
        self.errors += 1
        self.fault = fault_of(error)
        words, before = describe(str(self.path), error), self.ill
        self.ill = words
        if before is None:
            self.on_change(words)

    def is_well(self) -> None:
        """Notes that all that waited could be written."""
        self.pause = FIRST_PAUSE
        if self.ill is not None:
            self.ill = self.fault = None
            self.on_change(None)

    @property
    def stumbles(self) -> bool:
        """Has nothing been written since the last trouble?"""
        return self.pause > FIRST_PAUSE

    def next_pause(self) -> float:
        """Seconds to wait before the next try; each time longer."""
        pause, self.pause = self.pause, min(self.pause * 2, LONGEST_PAUSE)
        return pause

    def refusal(self) -> JournalUnavailable:
        """What a durable submit raises now."""
        return JournalUnavailable(f"{self.trouble}; nothing was written")

    @property
    def trouble(self) -> str:
        """Why nothing can be written."""
        return self.ill or f"journal {self.path} is not open"

    # The end

    def abort(self) -> None:
        """Ends what is going on in both threads, as far as it is waiting or executing SQL."""
        self.session.abort()
        for line in (self._writing, self._reading, self._closing):
            if line is not None:
                line.interrupt()

    async def close(self, limit: float) -> None:
        """Signs off within `limit` seconds and closes all that is open. Never raises."""
        await self._close_reader()
        if self._writing is not None:
            with contextlib.suppress(Exception):
                await self._writing.call(self.session.close, limit)
        await self.hang_up()
        self.session.free()

    async def hang_up(self) -> None:
        """Closes both connections, whatever they think of it."""
        line, self._writing = self._writing, None  # first: from here on no reader is opened
        await self._close_reader()
        await self._end(line)

    async def _close_reader(self) -> None:
        if self._reading_opens is not None:
            await asyncio.gather(self._reading_opens, return_exceptions=True)
        line, self._reading = self._reading, None
        await self._end(line)

    async def _end(self, line: Line | None) -> None:
        self._closing = line
        if line is not None:
            with contextlib.suppress(Exception):
                await line.close()
        self._closing = None
