"""The simulated loop finds known bugs where they live, and only there."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.sim.canaries import first_seed

ROOT = Path(__file__).parents[2]
SEEDS = 2_000


def old_anyio(version: str) -> Path:
    """A folder with that version of anyio and nothing else, installed when first asked for."""
    target = ROOT / ".cache" / f"anyio-{version}"
    if not target.is_dir():
        target.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            install(f"anyio=={version}", Path(folder) / "new")
            with contextlib.suppress(OSError):  # another run was quicker
                (Path(folder) / "new").rename(target)
    return target


def install(requirement: str, target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--target", str(target), requirement], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"{requirement} cannot be installed here: {done.stderr.strip()[-200:]}")


def first_seed_with(anyio: Path, policy: str, seeds: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim.canaries", "lock", str(seeds), policy],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(anyio), str(ROOT)])},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_lock_of_anyio_4_13_deadlocks_only_when_steps_are_shuffled() -> None:
    anyio = old_anyio("4.13.0")
    assert int(first_seed_with(anyio, "soft", SEEDS)) < SEEDS
    assert first_seed_with(anyio, "fifo", 500) == "None"


def test_the_lock_of_the_installed_anyio_does_not() -> None:
    assert importlib.metadata.version("anyio") != "4.13.0"
    assert first_seed("lock", 500) is None


def test_task_groups_lose_a_cancellation_before_3_13_and_not_since() -> None:
    seed = first_seed("taskgroup", 500)
    assert (seed is not None) == (sys.version_info < (3, 13))


def test_wait_for_loses_a_cancellation_before_3_12_and_not_since() -> None:
    seed = first_seed("wait_for", 500)
    assert (seed is not None) == (sys.version_info < (3, 12))
