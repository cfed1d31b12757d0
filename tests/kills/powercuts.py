"""Cuts the power in the middle of durable jobs, and looks for every job that was acknowledged.

    python -m tests.kills.powercuts --cuts 1000

A journal works for a second on a disk that remembers each write and each fsync. Then, for moments
drawn by chance, what a power cut would have left is put in a folder and opened. Exit code 1 if an
acknowledged job that had not ended is not there, one that was cancelled is, or the file is damaged.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from bgruntime import Runtime, task
from bgruntime.journal import Journal

from .disk import Disk, Event, Image, Recorder

JOBS, PRODUCERS = 120, 4
SESSION = 100  # cuts of one run of the journal
FAILING, CANCELLED = 7, 11  # every so many jobs

recorder = Recorder()


@dataclass
class Verdict:
    """What was found after all cuts. The first three must be empty."""

    lost: list[int] = field(default_factory=list)
    back: list[int] = field(default_factory=list)  # cancelled, and told so, and there again
    damaged: list[str] = field(default_factory=list)
    cuts: int = 0
    acknowledged: int = 0  # by the time of the cut, in all

    @property
    def held(self) -> bool:
        return not (self.lost or self.back or self.damaged)


@task(durable=True, name="powercuts.work", timeout=60)
async def work(number: int) -> None:
    await asyncio.sleep(random.random() * 0.01)
    if number % FAILING == 0:
        raise ValueError("as it should")
    recorder.note("ended", number)


async def live(path: Path, synchronous: Literal["FULL", "NORMAL"]) -> None:
    """Accept jobs from several submitters and run them; take every eleventh back."""
    later = work.with_options(delay=3600)

    async def produce(numbers: range) -> None:
        for number in numbers:
            taken_back = number % CANCELLED == 0
            job = await rt.submit(later if taken_back else work, number)
            recorder.note("acknowledged", number)
            if taken_back:
                recorder.note("ended", number)
                job.cancel()
                await job.wait()
                recorder.note("cancelled", number)

    async with Runtime(concurrency=5, journal=Journal(path, synchronous=synchronous)) as rt:
        await asyncio.gather(*(produce(range(first, JOBS, PRODUCERS)) for first in range(PRODUCERS)))
        await rt.drain()


def session(chance: random.Random, cuts: int, synchronous: Literal["FULL", "NORMAL"]) -> Verdict:
    """One run of the journal, cut at so many moments from its first acknowledgement on."""
    recorder.events.clear()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder) / "jobs.db", synchronous))
    events = list(recorder.events)
    first = next(place for place, event in enumerate(events) if event.what == "acknowledged")
    moments = sorted(chance.randrange(first + 1, len(events)) for _ in range(cuts))
    verdict, disk, place = Verdict(), Disk(), 0
    for moment in moments:
        for event in events[place:moment]:
            disk.take(event)
        place = moment
        look(verdict, events[:moment], disk.cut(chance))
    return verdict


def look(verdict: Verdict, happened: list[Event], image: Image) -> None:
    """Open what is left, and compare it with what was promised by then."""
    numbers = {
        what: {event.about for event in happened if event.what == what}
        for what in ("acknowledged", "ended", "cancelled")
    }
    verdict.cuts += 1
    verdict.acknowledged += len(numbers["acknowledged"])
    try:
        open_jobs, failed = contents(image)
    except (sqlite3.Error, ValueError) as error:
        verdict.damaged.append(str(error))
        return
    verdict.lost += sorted(numbers["acknowledged"] - numbers["ended"] - open_jobs - failed)
    verdict.back += sorted(numbers["cancelled"] & open_jobs)


def contents(image: Image) -> tuple[set[int], set[int]]:
    """The numbers of the jobs that are not over, and of those that failed."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in image.items():
            if not name.endswith("-shm"):
                Path(folder, name).write_bytes(content)
        with closing(sqlite3.connect(f"file:{folder}/jobs.db?vfs=unix", uri=True)) as connection:
            fault = connection.execute("PRAGMA integrity_check").fetchone()[0]
            if fault != "ok":
                raise ValueError(fault)
            rows = [connection.execute(f"SELECT args FROM {table}").fetchall() for table in ("job", "ended")]
    open_jobs, failed = ({json.loads(args)["number"] for (args,) in some} for some in rows)
    return open_jobs, failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kills.powercuts", description=__doc__)
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--synchronous", choices=["FULL", "NORMAL"], default="FULL")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    recorder.install()
    began, whole = time.monotonic(), Verdict()
    for done in range(0, options.cuts, SESSION):
        part = session(chance, min(SESSION, options.cuts - done), options.synchronous)
        whole.lost += part.lost
        whole.back += part.back
        whole.damaged += part.damaged
        whole.cuts += part.cuts
        whole.acknowledged += part.acknowledged
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({"held": whole.held, "seconds": seconds, **asdict(whole)}))
    return 0 if whole.held else 1


if __name__ == "__main__":
    sys.exit(main())
