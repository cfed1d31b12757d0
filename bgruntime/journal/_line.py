"""One SQLite connection on a thread of its own, and one call per transaction."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import weakref
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import aiosqlite

P = ParamSpec("P")
R = TypeVar("R")


class CallableConnection(sqlite3.Connection):
    """A connection that also executes a function: `execute(f, (a, b))` answers `f(connection, a, b)`.

    aiosqlite hands what it is given to `execute` in its own thread. With a function in the place of
    SQL a whole transaction is one trip there and back, with nothing to be cancelled in between.
    """

    def execute(self, sql: Any, parameters: Any = (), /) -> Any:
        if callable(sql):
            return Answer(sql(self, *parameters))
        return super().execute(sql, parameters)


class Answer:
    """What a function returned, in the shape of a cursor."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def fetchall(self) -> object:
        return self._value


class Unsaid(tuple[Any, ...]):
    """Arguments that do not show: aiosqlite writes what it executes to its log, at DEBUG."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "(…)"


class Line:
    """An open connection to `path`; `await Line.open(…)`, and `close` it in every case.

    Calls run one after the other in the order they were made. Cancelling whoever awaits a call
    does not stop the call.
    """

    def __init__(self, connection: aiosqlite.Connection, made: list[sqlite3.Connection]) -> None:
        self._connection = connection
        self._made = made

    @classmethod
    async def open(cls, path: str, before: Callable[[], None] | None = None) -> Line:
        """Connects, after `before` was called in the connection's thread.

        Transactions are the caller's to begin.

        Raises what `before` or SQLite raised, with nothing left open. So does a cancellation.
        """
        failures: list[BaseException] = []
        made: list[sqlite3.Connection] = []

        def connecting(database: str, *args: Any, **kwargs: Any) -> sqlite3.Connection:
            # A connection that cannot be made would leave its thread behind, unwaited for: one to nothing is
            # made instead, and closed in good order.
            try:
                if before is not None:
                    before()
                made.append(CallableConnection(database, *args, **kwargs))
                return made[0]
            except BaseException as error:
                failures.append(error)
                return CallableConnection(":memory:", *args, **kwargs)

        connection = aiosqlite.connect(path, isolation_level=None, factory=connecting, cached_statements=64)
        _ends_with_the_program(connection)
        loop = asyncio.get_running_loop()
        line = cls(connection, made)
        try:
            await finish(loop.create_task(_connect(connection), name="bgruntime-journal-open"))
        except BaseException:
            await line.close()
            raise
        if failures:
            await line.close()
            raise failures[0]
        return line

    async def call(
        self, function: Callable[Concatenate[sqlite3.Connection, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """What `function(connection, *args)` returns, run in the connection's thread."""
        assert not kwargs
        return cast("R", await self._connection.execute_fetchall(cast("str", function), Unsaid(args)))

    def interrupt(self) -> None:
        """Ends the statement that is being executed, if there is one: it raises `OperationalError`."""
        for connection in self._made:
            with contextlib.suppress(sqlite3.ProgrammingError):  # it is closed
                connection.interrupt()

    async def close(self) -> None:
        """Closes the connection when the calls before it are done. A cancellation is kept, not obeyed."""
        closing = asyncio.get_running_loop().create_task(
            self._connection.close(), name="bgruntime-journal-close"
        )
        await finish(closing)


async def _connect(connection: aiosqlite.Connection) -> None:
    _ = await connection


async def finish(task: asyncio.Task[R]) -> R:
    """Wait for the end of `task`, whatever happens to the one who waits; then be cancelled if it was."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()
        raise cancelled
    return task.result()


_open: weakref.WeakSet[aiosqlite.Connection] = weakref.WeakSet()
_watched = threading.Event()


def _ends_with_the_program(connection: aiosqlite.Connection) -> None:
    """Keep a connection that nobody closed from holding the interpreter's exit: its thread is no daemon."""
    _open.add(connection)
    if not _watched.is_set():
        _watched.set()
        threading.Thread(target=_stop_after_main, name="bgruntime-journal-exit", daemon=True).start()


def _stop_after_main() -> None:
    threading.main_thread().join()
    for connection in list(_open):
        connection.stop()  # pyright: ignore[reportUnknownMemberType]
