"""The pytest plugin, used as its users use it: in a project of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = """
import asyncio

async def race():
    chance = asyncio.get_running_loop().random
    await asyncio.sleep(1)
    assert chance.random() < 0.9, "lost"

def test_race(sim):
    sim(race, seeds=200)

def test_count(sim):
    print(sim(lambda: asyncio.sleep(1), seeds=3).seeds, "seeds")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "test_race.py").write_text(SUITE)
    return tmp_path


def run_pytest(project: Path, *args: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "bgruntime.testing.plugin", "-p", "no:cacheprovider", *args],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_failing_seed_is_told_with_the_command_that_replays_it(project: Path) -> None:
    told = run_pytest(project)
    replay = re.search(r"seed (\d+); replay it with: BGRUNTIME_SEED=\1 pytest test_race.py::test_race", told)
    assert replay is not None, told
    assert "AssertionError: lost" in told
    assert "seed " + replay[1] in run_pytest(project, "test_race.py::test_race", BGRUNTIME_SEED=replay[1])
    assert "seed " + replay[1] in run_pytest(project, f"--bgruntime-seed={replay[1]}")
    assert "1 passed" in run_pytest(project, "--bgruntime-seed=0", "test_race.py::test_race")


def test_the_command_line_sets_how_many_seeds_run(project: Path) -> None:
    assert "17 seeds" in run_pytest(project, "--bgruntime-seeds=17", "-s", "-k", "test_count")
    assert "3 seeds" in run_pytest(project, "-s", "-k", "test_count")
