"""Every planted bug fits the source it is planted in, and is caught."""

from __future__ import annotations

import pytest

from tests.mutants.catalogue import MUTANTS
from tests.mutants.planting import ROOT, SEEDS, Mutant, hunt


def by_name(mutant: Mutant) -> str:
    return mutant.name


def test_there_are_at_least_thirty_of_them_under_different_names() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30


@pytest.mark.parametrize("mutant", MUTANTS, ids=by_name)
def test_a_planted_bug_fits_its_source(mutant: Mutant) -> None:
    source = (ROOT / "bgruntime" / mutant.file).read_text()
    compile(mutant.applied_to(source), mutant.file, "exec")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS, ids=by_name)
def test_a_planted_bug_is_caught(mutant: Mutant) -> None:
    catch = hunt(mutant)
    assert catch.seed is not None, f"{mutant.name} escaped {SEEDS} seeds: {mutant.why}"
