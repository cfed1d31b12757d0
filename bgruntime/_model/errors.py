"""Every exception bgruntime raises, sorted by who can act.

* BgRuntimeError
  x the submission was turned away, no job exists
    + QueueFull             come back later
    + RuntimeClosed         not entered yet, or stopping, or stopped
    + WrongLoop             use submit_threadsafe from another thread
    + ForkedRuntime         make a runtime of your own in the child
    + PayloadError          an argument cannot be stored, or must not be one
    + UnknownTask           (also a LookupError)
    + JournalUnavailable    durable work needs a journal that can write
    + AcceptUnknown         whether the job is on disk is not known; its id can be asked later
  x the job existed and did not complete
    + JobTimedOut           (also a TimeoutError)
    + JobExited             the cause is the SystemExit or other BaseException
    + JobDiscarded          the job raised Discard
    + JobCancelled
      - JobInterrupted      by the shutdown; requeued or not
  x JobSignal               raised by jobs themselves: Retry, Snooze, Cancel, Discard
"""

from __future__ import annotations

from typing import Any


class BgRuntimeError(Exception):
    """The root of every error that bgruntime raises."""

    # An exception is copied and unpickled by calling its class with `args`, which here is the message only.
    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args), self.__dict__


class QueueFull(BgRuntimeError):
    """The queue holds as many waiting jobs as it may. No job was created."""

    def __init__(self, queue: str, size: int, why: str = "") -> None:
        super().__init__(f"queue {queue!r} is full: {size} jobs are already waiting{why}")
        self.queue = queue
        self.size = size


class RuntimeClosed(BgRuntimeError):
    """The runtime takes no jobs now: it was not entered yet, or it is stopping or stopped."""

    def __init__(self, phase: str) -> None:
        hints = {"new": "enter it first: async with Runtime(...) as rt"}
        hint = hints.get(phase, "it takes jobs only while it is running")
        super().__init__(f"the runtime is {phase}; {hint}")
        self.phase = phase


class WrongLoop(BgRuntimeError):
    """A runtime belongs to the event loop and the thread it was entered in."""


class ForkedRuntime(BgRuntimeError):
    """A forked child cannot use its parent's runtime."""

    def __init__(self, parent: int, child: int) -> None:
        super().__init__(
            f"this runtime was entered in process {parent} and cannot be used in its forked child "
            f"{child}: make one there"
        )


class PayloadError(BgRuntimeError):
    """An argument cannot be stored, or must not be the argument of a job. No job was created."""


class UnknownTask(BgRuntimeError, LookupError):
    """No task of that name is defined in this process."""


class JournalUnavailable(BgRuntimeError):
    """Durable work was refused because there is no journal that can write now.

    Nothing was written. Of a redrive, a discard and the like the message says so when that is not known.
    """


class AcceptUnknown(BgRuntimeError):
    """Whether the journal holds the job is not known; ask for its `id` later."""

    def __init__(self, id: str, why: str) -> None:
        super().__init__(f"it is not known whether job {id} was written: {why}")
        self.id = id


class JobTimedOut(BgRuntimeError, TimeoutError):
    """The last allowed attempt ran past its timeout, or would not stop when it had to.

    `stuck` is true when the attempt did not end even after it was cancelled twice.
    """

    def __init__(self, message: str, *, stuck: bool = False) -> None:
        super().__init__(message)
        self.stuck = stuck


class JobExited(BgRuntimeError):
    """The job raised SystemExit, KeyboardInterrupt or another BaseException, which is the cause."""


class JobDiscarded(BgRuntimeError):
    """The job raised `Discard`."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class JobCancelled(BgRuntimeError):
    """The job was cancelled before it could complete, for `reason`."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class JobInterrupted(JobCancelled):
    """The shutdown ended the job. `requeued` tells whether it is kept and will run again."""

    def __init__(self, message: str, reason: str, *, requeued: bool = False) -> None:
        super().__init__(message, reason)
        self.requeued = requeued


def _again(kind: type[BgRuntimeError], args: tuple[Any, ...]) -> BgRuntimeError:
    """An error of that *kind* without its attributes, which are filled in next."""
    error = kind.__new__(kind, *args)
    error.args = args  # which an OSError, as JobTimedOut is one, takes in its __init__ only
    return error
