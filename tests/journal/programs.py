"""Programs of their own process, to be killed; and what they have in common."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADER = """
import asyncio, os, sys
from pathlib import Path
from bgruntime import *
from bgruntime.journal import Journal
"""


def program(body: str) -> str:
    """The source of a program; the arguments are in `sys.argv`."""
    return HEADER + textwrap.dedent(body)


@contextlib.contextmanager
def started(source: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    """A running process; killed and reaped at the end, whatever happened."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", source, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def ran(source: str, *args: object, timeout: float = 30) -> str:
    """What a program printed that had to end well, and in time."""
    with started(source, *args) as process:
        output, _ = process.communicate(timeout=timeout)
        assert process.returncode == 0, output
        return output


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that the program prints."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def kill(process: subprocess.Popen[str]) -> None:
    """`kill -9`, and wait until it is dead."""
    process.kill()
    process.wait()
