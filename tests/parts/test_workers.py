"""A thread that is kept for the next call: it ends when none comes, and never with a call promised to it."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty
from typing import Any

from bgruntime._parts import workers


class Box:
    """Gives what a worker waits for, in this order: a call, or that its patience is over."""

    def __init__(self, *given: Callable[[], None] | type[Empty]) -> None:
        self.given = list(given)

    def get(self, timeout: float) -> Callable[[], None]:
        assert timeout == workers.IDLE_SECONDS
        following = self.given.pop(0)
        if following is Empty:
            raise Empty
        return following  # type: ignore[return-value]


def worker_with(box: Box) -> Any:
    worker = object.__new__(workers._Worker)
    worker.box = box  # type: ignore[assignment]
    return worker


def test_a_call_that_was_promised_in_the_moment_its_patience_ended_is_made() -> None:
    made: list[str] = []
    # It is not among the idle ones: somebody has taken it out to give it a call.
    worker = worker_with(Box(Empty, lambda: made.append("promised"), Empty))
    worker._run()
    assert made == ["promised"]
    assert worker not in workers._idle


def test_a_worker_for_which_no_call_comes_leaves_the_idle_ones_and_ends() -> None:
    worker = worker_with(Box(Empty))
    workers._idle.append(worker)
    worker._run()
    assert worker not in workers._idle
