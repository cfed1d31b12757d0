"""What the promises are tested with: a gate for jobs, patience without sleeping, a child process."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

LOG_LINE = re.compile(r"\S+ \[(warning|error)\s*\] (job|loop|runtime)\.")

ROOT = Path(__file__).resolve().parents[2]


async def turns(count: int = 12) -> None:
    """Let the loop go round `count` times, so that whatever is ready has run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], what: str = "the condition", within: float = 5.0) -> None:
    """Return as soon as `condition()` holds; fail when it does not within `within` real seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while not condition():
        assert loop.time() < end, f"{what} did not come true within {within} s"
        await asyncio.sleep(0)


class Gate:
    """Jobs that report their start, hold their slot, and end when the gate opens."""

    def __init__(self) -> None:
        self.started: list[object] = []
        self.ended: list[object] = []
        self.cancelled: list[object] = []
        self.running = 0
        self.most = 0
        self._open = asyncio.Event()

    def open(self) -> None:
        """Let every job that waits here, now or later, go on."""
        self._open.set()

    async def hold(self, label: object = None) -> object:
        """A job: start, wait for the gate, return the label."""
        self.started.append(label)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(label)
            raise
        finally:
            self.running -= 1
        self.ended.append(label)
        return label

    async def note(self, label: object = None) -> object:
        """A job: write down that it ran, and return the label."""
        self.started.append(label)
        self.ended.append(label)
        return label


def word(value: object) -> str:
    """The plain word of a state, a reason or an outcome."""
    return str(value)


def python(
    source: str, *, timeout: float = 30.0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `source` in a fresh interpreter that treats every warning as an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines a child marked with "> ", without the log lines that a bare runtime writes between them."""
    return [line[2:] for line in done.stdout.splitlines() if line.startswith("> ")]


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What a child said on standard error, without the log lines of its runtime."""
    return [line for line in done.stderr.splitlines() if line and not LOG_LINE.match(line) and line[0] != " "]
