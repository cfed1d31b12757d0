"""Instructions of the processor per job: the same figure on a busy machine as on an idle one.

Counted by valgrind's cachegrind on the stock loop, over jobs submitted 500 at a time: the count of
a long run less that of a short one, divided by the jobs between them. One process, one core, no
chance: figures repeat within about half a percent, so a change that adds more than 3 % shows.

    python -m benchmarks.instructions                 count everything and print a table
    python -m benchmarks.instructions --check         only bgruntime; exit 1 if above the baseline by 3 %
    python -m benchmarks.instructions --update        keep what was counted as the baseline
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks import ours, peers
from benchmarks.harness import LIMIT, Way, note, run
from benchmarks.work import JOBS

PORTION = 500
SHORT, LONG = 3 * PORTION, 9 * PORTION
ALLOWED = 1.03
BASELINE = Path(__file__).parent / "instructions.json"
KINDS = ("no-op", "suspends once")

NOWAIT = Way("bgruntime, submit_nowait", partial(ours.submit_nowait, portion=PORTION))
SUBMIT = Way("bgruntime, await submit", partial(ours.submit, portion=PORTION))
OURS = (NOWAIT, SUBMIT, ours.MAP)
PEERS = (
    peers.RAW,
    Way(peers.GATHER.name, partial(peers.in_portions, peers.gather_semaphore, PORTION)),
    Way(peers.AIOJOBS.name, partial(peers.aiojobs_portions, portion=PORTION)),
    Way(peers.ANYIO.name, partial(peers.in_portions, peers.anyio_limiter, PORTION)),
    Way(peers.AIOMETER.name, partial(peers.in_portions, peers.aiometer_all, PORTION)),
)
WAYS = {way.name: way for way in (*OURS, *PEERS)}


def main() -> int:
    """Count, tell, compare; the status is 1 when a count is too high."""
    options = arguments()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed (Debian: apt-get install valgrind)")
    chosen = OURS if options.check else (*OURS, *PEERS)
    counted = {kind: {way.name: per_job(way.name, kind) for way in chosen} for kind in KINDS}
    known = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    before = known.get(version(), {})
    print("\n".join(table(counted, before)))
    if options.update:
        BASELINE.write_text(json.dumps({**known, version(): counted}, indent=1, sort_keys=True) + "\n")
    return 1 if options.check and not held(counted, before) else 0


def version() -> str:
    """What the counts belong to: another build of Python has others."""
    return f"{platform.python_implementation()} {platform.python_version()} {platform.machine()}"


def per_job(name: str, kind: str) -> float:
    """Instructions per job of one way."""
    note(f"counting {kind}, {name}")
    short, long = (instructions(name, kind, jobs) for jobs in (SHORT, LONG))
    return (long - short) / (LONG - SHORT)


def instructions(name: str, kind: str, jobs: int) -> int:
    """Instructions of one whole process."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    command += [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.instructions",
        "--one",
        name,
        kind,
        str(jobs),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    found = re.search(r"I\s+refs:\s+([\d,]+)", ran.stderr)
    if ran.returncode or found is None:
        sys.exit(f"valgrind failed:\n{ran.stderr}")
    return int(found[1].replace(",", ""))


def one(way: Way, kind: str, jobs: int) -> None:
    """The work that is counted."""
    run("asyncio", lambda: way.run(jobs, LIMIT, JOBS[kind]))


def table(counted: dict[str, dict[str, float]], before: dict[str, dict[str, float]]) -> list[str]:
    lines = [f"Instructions per job, {version()}, stock loop", ""]
    lines += [
        "| job | way | instructions | ÷ create_task | baseline | change |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for kind, ways in counted.items():
        raw = ways.get(peers.RAW.name) or before.get(kind, {}).get(peers.RAW.name)
        for name, count in ways.items():
            old = before.get(kind, {}).get(name)
            against = "" if raw is None else f"{count / raw:.2f}"
            change = "| |" if old is None else f"| {old:,.0f} | {count / old - 1:+.1%}"
            lines.append(f"| {kind} | {name} | {count:,.0f} | {against} {change} |")
    return lines


def held(counted: dict[str, dict[str, float]], before: dict[str, dict[str, float]]) -> bool:
    """Whether no count is more than 3 % above its baseline."""
    if not before:
        print(f"no baseline for {version()}: run with --update")
        return False
    fine = True
    for kind, ways in counted.items():
        for name, count in ways.items():
            old = before[kind][name]
            if count > old * ALLOWED:
                fine = False
                print(f"{kind}, {name}: {count:,.0f} instructions, more than 3 % above {old:,.0f}")
    return fine


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Instructions per job, under valgrind.")
    parser.add_argument("--check", action="store_true", help="exit 1 when a count is 3 %% above the baseline")
    parser.add_argument("--update", action="store_true", help="write the baseline")
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        name, kind, jobs = sys.argv[2:]
        one(WAYS[name], kind, int(jobs))
    else:
        sys.exit(main())
