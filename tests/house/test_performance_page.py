"""docs/performance.md says what is kept of the measurements, and the gate on instructions closes."""

from __future__ import annotations

import json

import pytest

from benchmarks.bars import BARS
from benchmarks.harness import Figure, Report
from benchmarks.instructions import KINDS, MINE, above
from benchmarks.page import BEGIN, COUNTS, END, PAGE, RESULTS, cells_in, measured, short, take, written

RATIO = "no-op: throughput ÷ aiojobs"


def report(*values: float, quick: bool = False, claim: str = "throughput") -> Report:
    facts = {
        "cpu": "A CPU",
        "cpus": 2,
        "system": "Linux 6.1.0-somebody x86_64",
        "python": "3.13.0",
        "load": 0.5,
    }
    return Report(claim, "3.13.0", "asyncio", facts, [Figure(RATIO, "×", list(values))], quick)


def part(tmp_path):
    """The generated part, without instructions."""
    return measured(tmp_path, tmp_path / "no-counts.json", tmp_path / "page.md")


def row(text, name):
    (found,) = [line for line in text.splitlines() if line.startswith(f"| {name} | ×")]
    return [cell.strip() for cell in found.strip("|").split("|")]


# -- the page as it stands ----------------------------------------------------------------------------


def test_the_page_says_what_is_kept():
    page = PAGE.read_text()
    assert page == written(page, measured(RESULTS, COUNTS, PAGE)), "run python -m benchmarks.page"


def test_of_a_system_the_name_and_the_architecture_are_kept_and_no_release():
    for cell in cells_in(RESULTS):
        for claim, kept in cell.claims.items():
            assert len(kept["machine"]["system"].split()) == 2, claim


def test_the_baseline_has_each_way_of_ours_on_the_oldest_and_the_newest_python():
    known = json.loads(COUNTS.read_text())
    assert {short(build.split()[1]) for build in known} == {"3.11", "3.13"}
    for build in known.values():
        assert {way.name for way in MINE} <= set(build["no-op"]) & set(build["suspends once"])


# -- how it is made -----------------------------------------------------------------------------------


def test_a_figure_is_told_with_its_range_and_the_verdict_of_its_cell(tmp_path):
    take([report(2.1, 1.9, 2.4)], tmp_path, quick=False)
    assert row(part(tmp_path), RATIO) == [RATIO, "×", "2.10 [1.90–2.40] met ≥ 2.00"]
    assert "Bars that are missed" not in part(tmp_path)


def test_a_table_says_how_often_it_was_measured_and_how_busy_the_machine_was(tmp_path):
    take([report(2.1, 1.9, 2.4)], tmp_path, quick=False)
    assert "\n3.13, stock loop: 3 rounds, load 0.5 at the start.\n" in part(tmp_path)


def test_a_missed_bar_is_told_before_all_others_and_in_bold(tmp_path):
    take([report(1.5, 1.4, 1.9)], tmp_path, quick=False)
    text = part(tmp_path)
    assert row(text, RATIO)[-1] == "1.50 [1.40–1.90] **missed ≥ 2.00**"
    assert f"| {RATIO}, × | 3.13, stock loop | 1.50 [1.40–1.90] | ≥ 2.00 |" in text
    assert "| 3.13, stock loop | 0 of 1 |" in text


def test_what_was_not_measured_has_no_row_and_no_column(tmp_path):
    take([report(2.1)], tmp_path, quick=False)
    text = part(tmp_path)
    assert "3.11" not in text
    assert "uvloop" not in text
    assert not [name for name in BARS if name != RATIO and name in text]


def test_nothing_measured_makes_nothing(tmp_path):
    assert part(tmp_path).strip() == ""


def test_the_short_form_is_kept_only_where_it_was_asked_for(tmp_path):
    take([report(2.1, quick=True)], tmp_path, quick=False)
    assert cells_in(tmp_path) == []
    take([report(2.1, quick=True)], tmp_path, quick=True)
    assert len(cells_in(tmp_path)) == 1


def test_a_benchmark_that_was_not_measured_again_keeps_what_it_had(tmp_path):
    take([report(2.1, claim="memory"), report(2.2)], tmp_path, quick=False)
    take([report(3.3)], tmp_path, quick=False)
    (cell,) = cells_in(tmp_path)
    kept = {claim: one["figures"][RATIO]["median"] for claim, one in cell.claims.items()}
    assert kept == {"throughput": 3.3, "memory": 2.1}


def test_what_is_written_by_hand_stays(tmp_path):
    page = f"# Title\n\nbefore\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    assert written(page, "new\n") == f"# Title\n\nbefore\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"
    assert written(written(page, "new\n"), "new\n") == written(page, "new\n")
    with pytest.raises(SystemExit, match="the page has no"):
        written("# Title\n", "new\n")


# -- the gate on instructions -------------------------------------------------------------------------


def counted(count: float):
    return {kind: {way.name: count for way in MINE} for kind in KINDS}


@pytest.mark.parametrize(("count", "objections"), [(1030, 0), (900, 0), (1031, 6)])
def test_three_percent_more_instructions_is_the_most_that_is_let_through(count, objections):
    found = list(above(counted(count), counted(1000)))
    assert len(found) == objections
    assert all("more than 3 % above 1,000" in line for line in found)


def test_a_python_without_a_baseline_is_not_let_through():
    assert all("no baseline for" in line for line in above(counted(1000), {}))
    assert len(list(above(counted(1000), {}))) == 6
