"""Plant one bug in a copy of the package, and let the simulation look for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SEEDS = 2_000


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug that a tired engineer could write: in *file*, *old* becomes *new*."""

    name: str
    file: str
    old: str
    new: str
    why: str

    def applied_to(self, source: str) -> str:
        """The source with the bug in it; *old* must stand in it exactly once."""
        if (found := source.count(self.old)) != 1:
            raise ValueError(f"{self.name}: its text stands {found} times in {self.file}")
        return source.replace(self.old, self.new)


class Catch(NamedTuple):
    """Which seed caught a mutant first and what it said; no seed if it was not caught."""

    mutant: Mutant
    seed: int | None
    told: str


def plant(mutant: Mutant, folder: Path) -> None:
    """Put a copy of the package with the bug into *folder*."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "bgruntime", folder / "bgruntime", ignore=ignored)
    path = folder / "bgruntime" / mutant.file
    path.write_text(mutant.applied_to(path.read_text()))


def hunt(mutant: Mutant, seeds: int = SEEDS) -> Catch:
    """Run so many seeds of the scenario against the bug, up to the first that fails."""
    with tempfile.TemporaryDirectory() as folder:
        plant(mutant, Path(folder))
        done = subprocess.run(
            [sys.executable, "-m", "tests.sim.campaign", "--hunt", str(seeds)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([folder, str(ROOT)]), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    if done.returncode:
        # So broken that not even the scenario can be set up: that is caught at once.
        return Catch(mutant, 0, done.stderr.strip().splitlines()[-1])
    seed, _, told = done.stdout.strip().splitlines()[-1].partition(" ")
    return Catch(mutant, None if seed == "none" else int(seed), told)
