"""All benchmarks, each in a process of its own: one table with the bars, JSON, Markdown and pictures.

    python -m benchmarks                      the short form, three minutes
    python -m benchmarks --full               every workload and peer, about half an hour a Python
    python -m benchmarks --only web memory    some of them
    python -m benchmarks --tell FOLDER        nothing measured: the table of what FOLDER has

The results of one Python are added to those that others have left in the folder, a file for each
benchmark and loop. `python -m benchmarks.page` puts them into docs/performance.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import note, read_all
from benchmarks.pictures import draw
from benchmarks.telling import print_verdicts, write_page

HERE = Path(__file__).parent
CLAIMS = (
    "throughput",
    "round_trip",
    "timeouts",
    "sleeping",
    "loop_hold",
    "memory",
    "web",
    "threads",
    "journal",
)
SEQUENTIAL = "sequential_vs_batched"
EVERY = (SEQUENTIAL, *CLAIMS)
SHORT = tuple(claim for claim in CLAIMS if claim not in ("threads", "journal"))
ONCE = ("memory",)  # the same on both loops, to the byte


def main() -> int:
    """Measure, tell, and return 1 if asked to check and a bar is missed."""
    options = arguments()
    folder: Path = options.tell or options.out
    folder.mkdir(parents=True, exist_ok=True)
    if options.tell is None:
        measure_all(options, folder)
    reports = read_all(folder)
    reports.sort(key=lambda report: (EVERY.index(report.claim), report.loop))
    missed = print_verdicts(reports)
    write_page(reports, folder / "measured.md")
    pictures = draw(reports, folder)
    print(f"written: {', '.join(str(file) for file in (folder / 'measured.md', *pictures))}")
    return 1 if options.check and missed else 0


def measure_all(options: argparse.Namespace, folder: Path) -> None:
    began = time.monotonic()
    chosen = options.only or (EVERY if options.full else (SEQUENTIAL, *SHORT))
    for claim in chosen:
        if claim == SEQUENTIAL:
            measure_sequential(folder, full=options.full)
            continue
        for loop in loops():
            if options.full or loop == "asyncio" or claim not in ONCE:
                measure_one(claim, loop, folder, full=options.full)
    note(f"measured in {time.monotonic() - began:.0f} s")


def measure_sequential(folder: Path, *, full: bool) -> None:
    """A script of its own, for both loops and with a picture."""
    name = folder / f"{SEQUENTIAL}.{version()}"
    command = [
        sys.executable,
        str(HERE / f"{SEQUENTIAL}.py"),
        "--json",
        f"{name}.json",
        "--plot",
        f"{name}.png",
    ]
    if not full:
        command.append("--quick")
    subprocess.run(command, check=True, cwd=HERE.parent, stdout=subprocess.DEVNULL)


def version() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def measure_one(claim: str, loop: str, folder: Path, *, full: bool) -> None:
    file = folder / f"{claim}.{version()}.{loop}.json"
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        f"benchmarks.{claim}",
        "--loop",
        loop,
        "--json",
        str(file),
    ]
    if not full:
        command.append("--quick")
    subprocess.run(command, check=True, cwd=HERE.parent)


def loops() -> list[str]:
    return ["asyncio", "uvloop"] if importlib.util.find_spec("uvloop") else ["asyncio"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="All benchmarks of bgruntime.")
    parser.add_argument("--full", action="store_true", help="every workload and peer, more rounds")
    parser.add_argument("--only", nargs="+", choices=EVERY, metavar="CLAIM", help=", ".join(EVERY))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "local", help="the folder written to")
    parser.add_argument("--tell", type=Path, metavar="FOLDER", help="measure nothing, tell what FOLDER has")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
