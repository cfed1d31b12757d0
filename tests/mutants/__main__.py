"""
Plant every bug in a copy of the package and let the simulation look for it.

``python -m tests.mutants`` prints for each the first seed that catches it, and exits with 1 if one
is not caught or can no longer be planted. ``python -m tests.mutants NAME …`` takes only those, and
``--known`` begins with the seed that caught it last time, which is quick. ``--markdown`` prints the
table of docs/planted-bugs.md, ``--json`` the same for programs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.mutants import table
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


def hunt(seeds: int, suspects: dict[str, int], bug: Bug) -> Verdict:
    """Plant *bug* and run seeds until one fails, the suspect first."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        try:
            plant(bug, Path(folder))
        except ValueError as error:
            return Verdict(bug, None, f"cannot be planted any more: {error}")
        return look(seeds, suspects.get(bug.name), bug, Path(folder))


def plant(bug: Bug, folder: Path) -> None:
    """Copy what a seed needs, and change it."""
    for part in ("bgruntime", "tests/sim"):
        shutil.copytree(ROOT / part, folder / part)
    for edit in bug.edits:
        edit.apply(folder / "bgruntime")
        for stale in (folder / "bgruntime" / edit.file).parent.glob("__pycache__/*.pyc"):
            stale.unlink()


def look(seeds: int, suspect: int | None, bug: Bug, folder: Path) -> Verdict:
    command = [sys.executable, "-W", "ignore", "-m", "tests.sim.campaign", "--hunt", str(seeds)]
    if suspect is not None:
        command += ["--suspect", str(suspect)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return Verdict(bug, None, f"no verdict within {PATIENCE:g} s")
    if done.returncode:
        return Verdict(bug, None, f"the simulation does not even run: {done.stderr.strip()[-300:]}")
    found, _, told = done.stdout.strip().splitlines()[-1].partition(" ")
    return Verdict(bug, int(found), told) if found != "none" else Verdict(bug, None, "NOT CAUGHT")


# What is printed --------------------------------------------------------------------------


def line(verdict: Verdict) -> str:
    seed = "-" if verdict.seed is None else f"{verdict.seed}"
    told = verdict.told if verdict.seed is None else verdict.told[:110]
    return f"{seed:>5}  {verdict.bug.promise}  {verdict.bug.name:<42}  {told}"


def why(verdict: Verdict) -> str:
    return f"{line(verdict)}\n       {verdict.bug.why}"


def as_text(verdicts: Sequence[Verdict]) -> str:
    return "\n".join(map(why, verdicts))


def as_json(verdicts: Sequence[Verdict]) -> str:
    rows = [
        {"name": bug.name, "promise": bug.promise, "why": bug.why, "seed": seed, "told": told}
        for bug, seed, told in verdicts
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False)


def as_markdown(verdicts: Sequence[Verdict]) -> str:
    return table.page([(*verdict,) for verdict in verdicts])


def sum_of(verdicts: Sequence[Verdict], seconds: float) -> str:
    caught = [verdict.seed for verdict in verdicts if verdict.seed is not None]
    median = f", the median by seed {statistics.median(caught):g}" if caught else ""
    return f"{len(caught)} of {len(verdicts)} planted bugs caught{median}, {seconds:.0f} s"


def hunted(find: Callable[[Bug], Verdict], bugs: Sequence[Bug], processes: int) -> Iterator[Verdict]:
    with ThreadPoolExecutor(processes) as pool:
        for verdict in pool.map(find, bugs):
            print(line(verdict), file=sys.stderr, flush=True)
            yield verdict


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--known", action="store_true", help="begin with the seed of docs/planted-bugs.md")
    form = parser.add_mutually_exclusive_group()
    for name, function in (("text", as_text), ("json", as_json), ("markdown", as_markdown)):
        form.add_argument(f"--{name}", dest="form", action="store_const", const=function)
    options = parser.parse_args()
    chosen = [bug for bug in BUGS if not options.names or bug.name in options.names]
    suspects = table.known_seeds() if options.known else {}
    began = time.monotonic()
    verdicts = list(hunted(partial(hunt, options.seeds, suspects), chosen, options.processes))
    if options.form is not None:
        print(options.form(verdicts))
    print(sum_of(verdicts, time.monotonic() - began), file=sys.stderr)
    return 0 if all(verdict.seed is not None for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
