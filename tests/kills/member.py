"""What a process of the campaign does until it is killed: accept durable jobs, run them, write down both."""

from __future__ import annotations

import asyncio
import os
import random
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import bgruntime.journal
import bgruntime.stack
from bgruntime import Runtime, task

LINE = struct.Struct("<cQIQ")  # what happened, the job's number, the process's number, nanoseconds
PRODUCERS = 4
LOADED = (bgruntime.journal, bgruntime.stack)  # here, once, instead of in every child
LONGEST_JOB = 0.02  # seconds
LONGEST_PAUSE = 0.01

What = Literal[b"A", b"S", b"E"]  # acknowledged, started, ended


@dataclass(frozen=True, slots=True)
class Note:
    """One line of the log."""

    what: What
    job: int
    process: int
    at: int  # nanoseconds on the clock that all processes share


class Log:
    """A file that many processes append to, and that outlives all of them: each line is one write."""

    def __init__(self, path: Path, process: int) -> None:
        self._process = process
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, what: What, job: int) -> None:
        os.write(self._file, LINE.pack(what, job, self._process, time.monotonic_ns()))


def read_log(path: Path) -> Iterator[Note]:
    """All lines in the order they were written."""
    for what, job, process, at in LINE.iter_unpack(path.read_bytes()):
        yield Note(what, job, process, at)


_log: Log


@task(durable=True, name="kills.work", timeout=60)
async def work(number: int) -> None:
    """A job that leaves a trace when it starts and when it ends."""
    _log.note(b"S", number)
    await asyncio.sleep(random.random() * LONGEST_JOB)
    _log.note(b"E", number)


async def live(folder: Path, process: int, ready: int) -> None:
    """Accept and run jobs without end; tell `ready`, a pipe, when it has begun."""
    global _log
    _log = Log(folder / "log", process)
    async with Runtime(journal=folder / "jobs.db") as rt:
        os.write(ready, b"r")
        numbers = iter(range(process * 1_000_000, (process + 1) * 1_000_000))
        await asyncio.gather(*(produce(rt, numbers) for _ in range(PRODUCERS)))


async def produce(rt: Runtime, numbers: Iterator[int]) -> None:
    for number in numbers:
        await rt.submit(work, number)
        _log.note(b"A", number)
        await asyncio.sleep(random.random() * LONGEST_PAUSE)


async def finish(folder: Path, process: int, ready: int) -> None:
    """Run what the others left behind, then end."""
    global _log
    _log = Log(folder / "log", process)
    async with Runtime(journal=folder / "jobs.db") as rt:
        os.write(ready, b"r")
        await rt.drain()
