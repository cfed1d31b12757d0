"""Reservation: room for one job, taken before it is submitted."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Generic, TypeVar, cast

from ._engine.admit import admit_promised, check_arguments, find_room, give_back, room_for
from ._engine.supervise import Supervisor
from ._model.jobs import Entry, Job

R_co = TypeVar("R_co", covariant=True)


class Reservation(Generic[R_co]):
    """Room for one job. `submit` uses it, `release` gives it back; dropped unused, it goes back by itself.

    What was reserved while the runtime took jobs is taken until the drain is over.
    """

    __slots__ = ("_args", "_engine", "_entry", "_kwargs")

    def __init__(self, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._engine: Supervisor | None = None
        self._entry, self._args, self._kwargs = entry, args, kwargs
        engine: Supervisor = entry.engine
        check_arguments(engine, entry, args, kwargs)
        find_room(engine, entry)
        entry.queue.take(room_for(entry))
        self._engine = engine

    def submit(self) -> Job[R_co]:
        """Accept the job now: there is room for it. Its context is that of whoever calls this.

        Raises:
            RuntimeClosed: the drain is over.
            RuntimeError: it was used or released before.
        """
        engine, self._engine = self._engine, None
        if engine is None:
            raise RuntimeError(f"{self!r}: a reservation is used once")
        return cast("Job[R_co]", admit_promised(engine, self._entry, self._args, self._kwargs))

    def release(self) -> None:
        """Give the room back, if it is still held: there will be no job."""
        engine, self._engine = self._engine, None
        if engine is not None and engine.phase != "closed":
            give_back(engine, self._entry, 1)

    def __del__(self) -> None:
        engine, self._engine = self._engine, None
        if engine is None or engine.loop.is_closed():
            return
        # The collector runs wherever it likes: in another thread, or in the middle of an admission.
        with suppress(RuntimeError):  # the loop was closed just now
            engine.loop.call_soon_threadsafe(give_back, engine, self._entry, 1)

    def __repr__(self) -> str:
        return f"<Reservation for {self._entry.name}: {'used' if self._engine is None else 'open'}>"


__all__ = ["Reservation"]
