"""What is listed fits the terminal: in columns where there is room, in two lines each where not."""

from __future__ import annotations

import pytest

from bgruntime.cli import main
from bgruntime.cli._text import cut, table, width_of
from tests.cli.steps import failed, filled
from tests.journal.steps import ordinary

HEAD = ("ID", "TASK", "WHAT")
ROWS = [("1", "a.long.name.of.a.task", "ValueError: " + "x" * 60), ("22", "b", "KeyError: 1")]


def test_where_no_terminal_is_nothing_is_cut(path, capsys):
    async def fail(n: int) -> None:
        raise ValueError("x" * 80)

    failed(path, (ordinary(fail), 1))
    main(["failures", "--journal", str(path)])
    assert "x" * 80 in capsys.readouterr().out


def test_the_last_column_is_cut_where_the_terminal_ends():
    head, first, second = table(HEAD, ROWS, 70, below=(1, 2)).splitlines()
    assert head == "ID  TASK                   WHAT"
    assert first == "1   a.long.name.of.a.task  ValueError: " + "x" * 30 + "…"
    assert second == "22  b                      KeyError: 1"
    assert width_of(first) == 70


def test_in_a_narrow_terminal_each_has_two_lines():
    assert table(HEAD, ROWS, 40, below=(1, 2)).splitlines() == [
        "ID",
        "  TASK  WHAT",
        "1",
        "  a.long.name.of.a.task  ValueError: xx…",
        "22",
        "  b  KeyError: 1",
    ]


@pytest.mark.parametrize("columns", [66, 80, 110])
def test_no_line_is_wider_than_the_terminal_and_all_ids_are_whole(path, capsys, monkeypatch, columns):
    async def fail(n: int) -> None:
        raise ValueError("日本" * 40)

    ids = [*filled(path), *failed(path, (ordinary(fail, name="名前" * 20), 1))]
    monkeypatch.setenv("COLUMNS", str(columns))
    for more in ([], ["--groups"]):
        assert main(["failures", "--journal", str(path), *more]) == 1
        said = capsys.readouterr().out
        lines = said.partition("\n\n")[0].splitlines()
        assert max(map(width_of, lines)) <= columns
        assert more or all(id in said for id in ids)


def test_letters_that_take_two_columns_move_nothing():
    head, wide, narrow = table(("TASK", "WHAT"), [("日本", "x"), ("a", "y")], 80).splitlines()
    assert (head, wide, narrow) == ("TASK  WHAT", "日本  x", "a     y")
    assert cut("日本語", 5) == "日本…"
    assert cut("日本語", 4) == "日…"
    assert cut("日本語", 6) == "日本語"


def test_that_there_are_more_causes_than_are_shown_is_said(path, capsys):
    filled(path)
    assert main(["failures", "--groups", "--limit", "1", "--journal", str(path)]) == 1
    out = capsys.readouterr().out
    assert "cli.hostile" not in out
    assert out.endswith("\n\nthe first 1 causes; there are more\n")
    assert main(["failures", "--groups", "--limit", "2", "--journal", str(path)]) == 1
    assert "there are more" not in capsys.readouterr().out
