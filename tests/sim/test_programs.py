"""Ordinary asyncio, anyio and aiosqlite programs run unmodified on a SimLoop, and replay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bgruntime.testing import run_seed, simulate
from tests.sim.programs import PROGRAMS, Program

ROOT = Path(__file__).parents[2]
DIGESTS = """
from bgruntime.testing import simulate
from tests.sim.programs import PROGRAMS
noise = [object() for _ in range({noise})]
for policy in ("soft", "fifo", "tasks"):
    print([simulate(program, 6, policy=policy).digest for program in PROGRAMS])
"""


@pytest.mark.parametrize("policy", ["soft", "fifo", "tasks"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_program_holds_under_every_seed(program: Program, policy: str) -> None:
    simulate(program, 60, policy=policy)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_seed_replays_bit_for_bit(program: Program) -> None:
    for seed in range(10):
        assert run_seed(program, seed).trace_hash == run_seed(program, seed).trace_hash


@pytest.mark.parametrize("program", PROGRAMS[1:], ids=lambda program: program.__name__)
def test_seeds_differ(program: Program) -> None:
    assert len({run_seed(program, seed).trace_hash for seed in range(20)}) > 1


@pytest.mark.slow
def test_p29_the_hash_is_the_same_in_every_process() -> None:
    """Neither hash randomisation nor the addresses of objects have a say."""
    heard = {digests(hash_seed, noise) for hash_seed, noise in [(0, 0), (1, 50_000), (77, 3_333)]}
    assert len(heard) == 1


def digests(hash_seed: int, noise: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", DIGESTS.format(noise=noise)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("[") == 3
    return done.stdout
