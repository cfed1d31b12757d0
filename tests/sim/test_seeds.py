"""Seeds that have failed once hold, each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim import scenario

LINES = Path(__file__).with_name("seeds.txt").read_text().splitlines()
SEEDS = [int(line.split()[0]) for line in LINES if not line.startswith("#")]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_that_has_failed_holds_now(seed):
    run = scenario.run(seed)
    if run.failure is not None:
        raise run.failure
