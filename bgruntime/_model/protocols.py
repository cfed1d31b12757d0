"""What may be plugged in: what you promise, and what is promised to you."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from .jobs import Job


@runtime_checkable
class Observer(Protocol):
    """Is told what happens.

    `listens_to` names the kinds of event it wants (a kind stands for its subclasses too); without
    it, or when it is empty, it gets all. `on_event` is called in the loop's turn in which the fact became true, with the state
    already consistent: it may call the runtime back and must not block (use `extend.Mailbox` for
    I/O). What it raises harms nothing and is counted. If it is an async context manager it is
    entered before the runtime starts and left after it has stopped.
    """

    def on_event(self, event: Any, /) -> None: ...


class Middleware(Protocol):
    """Wraps each attempt: called with the job's context it gives a context manager, plain or async.

    It is entered before the task's function runs and left with what that raised. It can neither
    swallow an exception nor fail the job: its own errors are counted and passed over.
    """

    def __call__(self, context: Any, /) -> AbstractAsyncContextManager[Any] | AbstractContextManager[Any]: ...


class Journal(Protocol):
    """Keeps durable jobs from acceptance to completion.

    Every method is called on the runtime's loop. `accept` returns once the jobs are on disk and
    raises if they are not; the others return at once and see to it later.
    """

    def encode(self, job: Job[Any]) -> None:
        """Check and encode the job's arguments. Raises PayloadError."""

    async def accept(self, jobs: Sequence[Job[Any]]) -> None:
        """Write *jobs*, all or none. Raises JournalUnavailable, AcceptUnknown."""

    def withdraw(self, jobs: Sequence[Job[Any]]) -> None:
        """Take back what was accepted, or is still being written, and shall not run."""

    def started(self, job: Job[Any]) -> None:
        """An attempt of *job* starts now."""

    def waits(self, job: Job[Any], delay: float) -> None:
        """*job* waits *delay* seconds for its next attempt."""

    def settled(self, job: Job[Any]) -> None:
        """*job* is over."""

    def interrupted(self, job: Job[Any]) -> None:
        """The shutdown ended *job* in this process: it is to run again."""

    async def flushed(self) -> None:
        """Return when everything said so far is on disk."""


class Channel(Protocol):
    """Where an alert goes. It may hang, fail or flap: jobs do not notice."""

    async def send(self, alert: Any, /) -> None:
        """Deliver *alert* within a few seconds, or raise and be asked again."""
