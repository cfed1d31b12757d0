"""How every benchmark here measures: the same work, in the same run, forwards and then backwards.

A round runs each way once in the order A B C and once in the order C B A, each run on an event
loop of its own, with the garbage collector on. A ratio is taken within a round, so that a machine
that slows down or speeds up favours nobody; what is told is the median over the rounds, with the
lowest and the highest. Work of the processor is timed in CPU seconds of the process, which other
programs disturb least; waiting is timed in wall seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import json
import os
import platform
import sqlite3
import sys
import sysconfig
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

Job = Callable[[], Coroutine[Any, Any, object]]
Samples = dict[str, list[float]]

CPU, WALL = time.process_time, time.perf_counter
LIMIT = 100
FULL_SEQUENTIAL = 1000  # jobs in sequential_vs_batched.py, fewer in its short form
PEERS = (
    "uvloop", "anyio", "aiojobs", "aiometer", "taskiq", "fastapi", "uvicorn",
    "aiosqlite", "huey", "persist-queue", "litequeue", "dbos",
)  # fmt: skip


@dataclass(frozen=True)
class Way:
    """One way to run so many calls of a job, at most so many at once.

    `run(jobs, limit, job)` returns how many completed. A slow way is measured with `most` jobs at
    most; its figure is per job all the same.
    """

    name: str
    run: Callable[[int, int, Job], Awaitable[int]]
    most: int | None = None


@dataclass(frozen=True)
class Figure:
    """What the rounds said about one thing. With a bar of the same name it is judged."""

    name: str
    unit: str
    values: list[float]

    @property
    def middle(self) -> float:
        return median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


@dataclass(frozen=True)
class Plan:
    """How a benchmark was asked to run."""

    loop: str
    rounds: int
    quick: bool


@dataclass
class Report:
    """The figures of one benchmark in one cell: a version of Python and an event loop."""

    claim: str
    python: str
    loop: str
    machine: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    quick: bool = False


# -- measuring ----------------------------------------------------------------------------------------


def loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes an event loop of the kind *loop*."""
    if loop == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return asyncio.new_event_loop


def run(loop: str, main: Callable[[], Awaitable[Any]]) -> Any:
    """What *main* returns on a new event loop."""

    async def call() -> Any:
        return await main()

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        return runner.run(call())


def time_once(
    way: Way, jobs: int, limit: int, job: Job, loop: str, clock: Callable[[], float] = CPU
) -> float:
    """Seconds per job of one run, which is checked to be complete. Starting the loop is not in it."""
    count = jobs if way.most is None else min(jobs, way.most)

    async def timed() -> float:
        await asyncio.sleep(0)
        began = clock()
        completed = await way.run(count, limit, job)
        took = clock() - began
        if completed != count:
            raise SystemExit(f"{way.name}: {completed} of {count} jobs completed")
        return took / count

    gc.collect()
    seconds: float = run(loop, timed)
    return seconds


def measure(
    ways: Sequence[Way],
    jobs: int,
    job: Job,
    plan: Plan,
    *,
    limit: int = LIMIT,
    clock: Callable[[], float] = CPU,
    warm_up: int = 500,
) -> Samples:
    """Seconds per job of each of *ways*, one value a round."""
    for way in ways:
        time_once(way, min(jobs, warm_up), limit, job, plan.loop, clock)
    samples: Samples = {way.name: [] for way in ways}
    for _ in range(plan.rounds):
        taken: Samples = {way.name: [] for way in ways}
        for way in (*ways, *reversed(ways)):
            taken[way.name].append(time_once(way, jobs, limit, job, plan.loop, clock))
        for name, seconds in taken.items():
            samples[name].append(mean(seconds))
    return samples


def scaled(values: Iterable[float], factor: float) -> list[float]:
    return [value * factor for value in values]


def ratio(over: Iterable[float], under: Iterable[float]) -> list[float]:
    """One quotient a round."""
    return [above / below for above, below in zip(over, under, strict=True)]


def costs(samples: Samples, about: str = "") -> list[Figure]:
    """Nanoseconds per job of each way."""
    return [Figure(about + name, "ns/job", scaled(values, 1e9)) for name, values in samples.items()]


# -- the machine --------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What a reader needs to know to compare figures with their own."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return {
        "cpu": cpu_model(),
        "cpus": cpus,
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_version()}, {'profile-guided' if optimised else 'plain'} build",
        "load": round(os.getloadavg()[0], 2),
        "versions": {name: version for name in PEERS if (version := version_of(name))},
        "sqlite": sqlite3.sqlite_version,
    }


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "?")


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def resident_bytes() -> int:
    """The memory of this process now. Linux only: elsewhere there is no such figure to be had cheaply."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# -- one benchmark as a command -----------------------------------------------------------------------


def command(claim: str, figures: Callable[[Plan], list[Figure]], *, rounds: int = 5, quick: int = 1) -> None:
    """Measure in this process and print a table; `--json FILE` keeps every value."""
    options = arguments(claim, rounds)
    plan = Plan(options.loop, options.rounds or (quick if options.quick else rounds), options.quick)
    report = Report(claim, platform.python_version(), plan.loop, machine(), quick=plan.quick)
    report.figures = figures(plan)
    if options.json is None:
        from benchmarks.telling import print_figures

        print_figures(report)
    else:
        options.json.write_text(json.dumps(asdict(report), indent=1) + "\n")


def arguments(claim: str, rounds: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=claim)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--rounds", type=int, help=f"rounds, each forwards and backwards (default {rounds})")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and, where it helps, less work")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value to FILE, print nothing")
    return parser.parse_args()


def read_all(folder: Path) -> list[Report]:
    """Every report in *folder*."""
    return [report for file in sorted(folder.glob("*.json")) for report in read(file)]


def read(file: Path) -> list[Report]:
    """The reports in one file: of `command` one, of sequential_vs_batched.py one for each loop."""
    document = json.loads(file.read_text())
    if "rows" in document:
        return list(_of_sequential(document))
    document["figures"] = [Figure(**figure) for figure in document["figures"]]
    return [Report(**document)]


def _of_sequential(document: dict[str, Any]) -> Iterator[Report]:
    work = f"{document['jobs']:,} × {document['wait'] * 1e3:.0f} ms"
    facts = document["machine"]
    for loop in dict.fromkeys(row["loop"] for row in document["rows"]):
        report = Report("sequential_vs_batched", facts["python"], loop, facts)
        report.quick = document["jobs"] < FULL_SEQUENTIAL
        for row in document["rows"]:
            if row["loop"] != loop:
                continue
            if row["way"] == "bgruntime":
                name = f"{work}, limit {row['limit']:,}"
                report.figures.append(Figure(f"{name}: × sequential", "×", row["speedup"]))
                report.figures.append(Figure(f"{name}: share of ideal", "share", row["share"]))
        yield report


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
