"""Daemon threads that are reused: a call that never ends holds its thread, not the interpreter's exit."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

IDLE_SECONDS = 10.0


class _Worker:
    """One thread and the box its next call is put into."""

    __slots__ = ("box",)

    def __init__(self, first: Callable[[], None], name: str) -> None:
        self.box: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.box.put(first)
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                call = self.box.get(timeout=IDLE_SECONDS)
            except Empty:
                # Whoever took this worker out of the idle list has promised it a call.
                if _idle_without(self):
                    return
                continue
            call()
            del call  # an idle thread keeps nothing of its last call alive
            _idle.append(self)


_idle: list[_Worker] = []


def _idle_without(worker: _Worker) -> bool:
    try:
        _idle.remove(worker)
    except ValueError:
        return False
    return True


def run_in_daemon(target: Callable[[], None], name: str) -> None:
    """Run *target* once in a daemon thread, an idle one if there is one. *target* must not raise."""
    try:
        worker = _idle.pop()
    except IndexError:
        _Worker(target, f"bgruntime-{name}")
    else:
        worker.box.put(target)


# A forked child has none of the parent's threads.
if hasattr(os, "register_at_fork"):  # pragma: no branch (where there is no fork, as on Windows)
    os.register_at_fork(after_in_child=_idle.clear)
