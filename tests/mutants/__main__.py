"""
Plant every bug in a copy of the package and let the simulation look for it.

``python -m tests.mutants`` prints for each the first seed that catches it, and exits with 1 if one
is not caught or can no longer be planted. ``python -m tests.mutants NAME …`` takes only those.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.mutants.bug import Bug
from tests.mutants.planted import BUGS

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 2000
PATIENCE = 300.0  # seconds for one bug


class Verdict(NamedTuple):
    """What became of one planted bug: the first seed that caught it, and by what."""

    bug: Bug
    seed: int | None
    told: str


def hunt(seeds: int, bug: Bug) -> Verdict:
    """Plant *bug* and run seeds until one fails."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        try:
            plant(bug, Path(folder))
        except ValueError as error:
            return Verdict(bug, None, f"cannot be planted any more: {error}")
        return look(seeds, bug, Path(folder))


def plant(bug: Bug, folder: Path) -> None:
    """Copy what a seed needs, and change it."""
    for part in ("bgruntime", "tests/sim"):
        shutil.copytree(ROOT / part, folder / part)
    for edit in bug.edits:
        edit.apply(folder / "bgruntime")
        for stale in (folder / "bgruntime" / edit.file).parent.glob("__pycache__/*.pyc"):
            stale.unlink()


def look(seeds: int, bug: Bug, folder: Path) -> Verdict:
    command = [sys.executable, "-W", "ignore", "-m", "tests.sim.campaign", "--hunt", str(seeds)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return Verdict(bug, None, f"no verdict within {PATIENCE:g} s")
    if done.returncode:
        return Verdict(bug, None, f"the simulation does not even run: {done.stderr.strip()[-300:]}")
    found, _, told = done.stdout.strip().splitlines()[-1].partition(" ")
    return Verdict(bug, int(found), told) if found != "none" else Verdict(bug, None, "NOT CAUGHT")


def report(verdicts: Sequence[Verdict], seconds: float) -> int:
    caught = [verdict.seed for verdict in verdicts if verdict.seed is not None]
    median = f", the median by seed {statistics.median(caught):g}" if caught else ""
    print(f"{len(caught)} of {len(verdicts)} planted bugs caught{median}, {seconds:.0f} s")
    return 0 if len(caught) == len(verdicts) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--show", action="store_true", help="show how each was caught, in full")
    options = parser.parse_args()
    chosen = [bug for bug in BUGS if not options.names or bug.name in options.names]
    began = time.perf_counter()
    verdicts = []
    with ThreadPoolExecutor(options.processes) as pool:
        for verdict in pool.map(partial(hunt, options.seeds), chosen):
            verdicts.append(verdict)
            print(line(verdict, full=options.show), flush=True)
    return report(verdicts, time.perf_counter() - began)


def line(verdict: Verdict, *, full: bool) -> str:
    seed = "-" if verdict.seed is None else f"{verdict.seed}"
    told = verdict.told if full or verdict.seed is None else verdict.told[:110]
    return f"{seed:>5}  {verdict.bug.promise}  {verdict.bug.name:<42}  {told}"


if __name__ == "__main__":
    sys.exit(main())
