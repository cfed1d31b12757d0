"""Kills processes in the middle of durable jobs, and counts what became of the jobs.

    python -m tests.kills.campaign --kills 300 --processes 3

Every job that was acknowledged must have ended, or still be in the file; none may have started in a
process while another one that had it was alive. Exit code 1 if that did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from .member import Note, finish, live, read_log

WHOLE_GROUP = 10  # every tenth kill takes all processes at once: nobody is left to take over
SHORTEST, LONGEST = 0.01, 0.12  # seconds between two kills
PATIENCE = 60.0  # seconds for a process that shall end by itself

Body = Callable[[Path, int, int], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the log and the file say. The first four must be empty or `ok`."""

    lost: list[int]  # acknowledged, and neither ended nor in the file
    twice: list[int]  # started while a process that had it was alive
    left: list[int]  # in the file as not over, when all was quiet
    integrity: str
    kills: int = 0
    acknowledged: int = 0
    again: int = 0  # started more than once, for somebody was killed
    unacknowledged: int = 0  # ran although nobody was told: killed in that instant
    quarantined: int = 0
    taken_over_ms: tuple[float, float, float] = (0.0, 0.0, 0.0)  # median, 99 %, longest

    @property
    def held(self) -> bool:
        return not (self.lost or self.twice or self.left) and self.integrity == "ok"


@dataclass
class Campaign:
    """A group of processes on one journal in `folder`, killed one by one and all at once."""

    folder: Path
    processes: int
    chance: random.Random
    killed_at: dict[int, int] = field(default_factory=dict)  # the process's number: nanoseconds
    _running: list[tuple[int, int]] = field(default_factory=list)  # pid and number
    _last: int = 0

    def run(self, kills: int) -> Verdict:
        self._running = [self._start(live) for _ in range(self.processes)]
        for number in range(1, kills + 1):
            time.sleep(self.chance.uniform(SHORTEST, LONGEST))
            if number % WHOLE_GROUP:
                self._kill([self.chance.randrange(self.processes)])
            else:
                self._kill(range(self.processes))
        self._kill(range(self.processes), again=False)
        pid, _ = self._start(finish)
        reap(pid)
        return judge(read_log(self.folder / "log"), self.killed_at, self.folder / "jobs.db")

    def _kill(self, places: Iterable[int], *, again: bool = True) -> None:
        places = list(places)
        for place in places:
            pid, number = self._running[place]
            self.killed_at[number] = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
        for place in places:
            os.waitpid(self._running[place][0], 0)
        if again:
            for place in places:
                self._running[place] = self._start(live)

    def _start(self, body: Body) -> tuple[int, int]:
        """A child of ours that has opened the journal: its pid and its number."""
        self._last += 1
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            run_child(body, self.folder, self._last, writing)
        os.close(writing)
        said = os.read(reading, 1)
        os.close(reading)
        if said != b"r":
            raise RuntimeError(f"process {self._last} could not start")
        return pid, self._last


def run_child(body: Body, folder: Path, number: int, ready: int) -> None:
    """Never returns."""
    try:
        random.seed(number)
        asyncio.run(body(folder, number, ready))
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def reap(pid: int) -> None:
    """Wait for a child that shall end by itself."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            if status:
                raise RuntimeError(f"it ended with status {status}")
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError(f"it was not done within {PATIENCE:.0f} s")


def judge(notes: Iterable[Note], killed_at: Mapping[int, int], journal: Path) -> Verdict:
    """Compare what was promised with what happened."""
    acknowledged: set[int] = set()
    ended: set[int] = set()
    starts: dict[int, list[Note]] = defaultdict(list)
    for note in notes:
        if note.what == b"S":
            starts[note.job].append(note)
        else:
            (acknowledged if note.what == b"A" else ended).add(note.job)
    open_jobs, over, integrity = contents(journal)
    pairs = [pair for runs in starts.values() for pair in pairwise(sorted(runs, key=lambda note: note.at))]
    never = 1 << 63
    delays = sorted(
        (after.at - killed_at[before.process]) / 1e6 for before, after in pairs if before.process in killed_at
    )
    return Verdict(
        lost=sorted(acknowledged - ended - open_jobs - over),
        twice=sorted(after.job for before, after in pairs if after.at < killed_at.get(before.process, never)),
        left=sorted(open_jobs),
        integrity=integrity,
        kills=len(killed_at),
        acknowledged=len(acknowledged),
        again=len(pairs),
        unacknowledged=len(starts.keys() - acknowledged),
        quarantined=len(over),
        taken_over_ms=quantiles(delays),
    )


def contents(journal: Path) -> tuple[set[int], set[int], str]:
    """The jobs in the file that are not over, those that are, and what SQLite says of the file."""
    connection = sqlite3.connect(journal)
    try:
        numbers = (
            {json.loads(args)["number"] for (args,) in connection.execute(f"SELECT args FROM {table}")}
            for table in ("job", "ended")
        )
        return next(numbers), next(numbers), connection.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        connection.close()


def quantiles(values: list[float]) -> tuple[float, float, float]:
    """Median, 99 % and the largest of sorted values."""
    if not values:
        return (0.0, 0.0, 0.0)
    last = len(values) - 1
    return round(values[last // 2], 1), round(values[last * 99 // 100], 1), round(values[last], 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kills.campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    held = True
    for processes in options.processes:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            verdict = Campaign(Path(folder), processes, random.Random(options.seed)).run(options.kills)
        held = held and verdict.held
        seconds = round(time.monotonic() - began, 1)
        facts = {"processes": processes, "held": verdict.held, "seconds": seconds, **asdict(verdict)}
        print(json.dumps(facts), flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
