"""Planted bugs can be planted, are caught by the seeds that are known to catch them, and are all listed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from tests.mutants import journal, table
from tests.mutants.__main__ import ROOT
from tests.mutants.bug import Edit
from tests.mutants.planted import BUGS


@pytest.mark.parametrize("bug", [*BUGS, *journal.BUGS], ids=lambda bug: bug.name)
def test_a_bug_can_be_planted_in_the_source_as_it_is(bug):
    for edit in bug.edits:
        text = (ROOT / "bgruntime" / edit.file).read_text()
        assert text.count(edit.old) == 1, edit.file
        compile(text.replace(edit.old, edit.new), edit.file, "exec")


def test_each_bug_has_its_own_name():
    names = Counter(bug.name for bug in (*BUGS, *journal.BUGS))
    assert [name for name, times in names.items() if times > 1] == []


def test_the_page_names_each_bug_with_its_sentence_and_the_seed_that_caught_it():
    page, seeds = table.PAGE.read_text(), table.known_seeds()
    assert sorted(seeds) == sorted(bug.name for bug in BUGS)
    assert max(seeds.values()) < 2000
    for bug in BUGS:
        assert table.row(bug, seeds[bug.name], "").rpartition(" | ")[0] in page


def test_an_edit_that_no_longer_fits_says_so(tmp_path):
    (tmp_path / "part.py").write_text("a = 1\nb = 1\n")
    Edit("part.py", "a = 1", "a = 2").apply(tmp_path)
    assert (tmp_path / "part.py").read_text() == "a = 2\nb = 1\n"
    with pytest.raises(ValueError, match="0 times"):
        Edit("part.py", "c = 1", "c = 2").apply(tmp_path)


def test_the_runner_tells_a_bug_that_is_caught_by_the_seed_it_names():
    name = BUGS[0].name
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants", "--known", "--json", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f'"name": "{name}"' in done.stdout
    assert "1 of 1 planted bugs caught" in done.stderr
