"""`python -m bgruntime`: failures listed, shown and redriven from outside the application."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint

import pytest

from bgruntime import Runtime
from bgruntime.cli import main
from tests.cli.steps import filled
from tests.journal.programs import ROOT
from tests.journal.steps import Switch, durable, ordinary, until


def test_failures_are_listed_the_newest_first_with_what_happened(path, capsys):
    ids = filled(path)
    assert main(["failures", "--journal", str(path)]) == 1
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "TASK", "STATE", "ATTEMPTS", "WHEN", "WHAT"]
    assert {row.split()[0] for row in rows[:7]} == set(ids)
    assert sum("cli.failing" in row and "ValueError: number" in row for row in rows) == 5
    assert rows[-1].startswith("7 failures in ")
    assert f"bgruntime show ID --journal {path}" in rows[-1]


def test_filters_and_the_limit_choose_what_is_listed(path, capsys):
    filled(path)
    for arguments, count in (
        (["--task", "cli.failing"], 5),
        (["--error", "ConnectionError"], 2),
        (["--since", "1h"], 7),
        (["--since", "2126-01-01"], 0),
        (["--state", "completed"], 0),
        (["--limit", "3"], 3),
    ):
        assert main(["failures", "--journal", str(path), "--json", *arguments]) == (1 if count else 0)
        assert len(json.loads(capsys.readouterr().out)) == count
    assert main(["failures", "--journal", str(path), "--limit", "3"]) == 1
    assert "the newest 3 of 7 failures" in capsys.readouterr().out


def test_failures_are_counted_by_cause(path, capsys):
    filled(path)
    assert main(["failures", "--journal", str(path), "--groups"]) == 1
    _, first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:3] == ["5", "cli.failing", "ValueError"]
    assert second.split()[:3] == ["2", "cli.hostile", "ConnectionError"]
    assert main(["failures", "--journal", str(path), "--groups", "--json"]) == 1
    assert [one["count"] for one in json.loads(capsys.readouterr().out)] == [5, 2]


def test_one_job_is_shown_with_its_arguments_and_traceback(path, capsys):
    ids = filled(path)
    assert main(["show", ids[3], "--journal", str(path)]) == 0
    said = capsys.readouterr().out
    assert "discarded, failed" in said
    assert 'arguments   {"n": 3}' in said
    assert "redrivable  yes" in said
    assert said.rstrip().endswith("ValueError: number 3")
    assert main(["show", ids[3], "--journal", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["id"], told["args"], told["error"]) == (ids[3], {"n": 3}, "ValueError")


def test_what_is_printed_as_json_is_json_also_where_an_argument_is_no_number_of_it(path, capsys):
    async def fail(x: list[float]) -> None:
        raise LookupError

    async def fill() -> str:
        async with Runtime(journal=path) as rt:
            job = await rt.submit(ordinary(fail), [float("nan"), float("-inf"), 1.5])
            await job.wait()
            return job.id

    def no_json(word: str) -> None:
        raise AssertionError(word)

    assert main(["show", asyncio.run(fill()), "--journal", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=no_json)
    assert told["args"] == {"x": ["nan", "-inf", 1.5]}


def test_nothing_that_a_terminal_obeys_is_printed(path, capsys):
    ids = filled(path)
    for arguments, code in ((["failures"], 1), (["failures", "--groups"], 1), (["show", ids[-1]], 0)):
        assert main([*arguments, "--journal", str(path)]) == code
        said = capsys.readouterr().out
        assert "\x1b" not in said
        assert "\u202e" not in said


@pytest.mark.slow
def test_a_redrive_is_done_by_the_application_that_runs(run, path, capsys):
    async def main_():
        switch = Switch()

        async def call(n: int) -> None:
            switch.use(n)

        async with Runtime(journal=path) as rt:
            jobs = [await rt.submit(made(call), n) for n, made in enumerate((ordinary, durable))]
            for job in jobs:
                await job.wait()
            assert await rt.journal.count() == 2  # all that has failed is in the file now
            assert await asyncio.to_thread(main, ["redrive", "--dry-run", "--journal", str(path)]) == 0
            assert "2 failures would be redriven" in capsys.readouterr().out
            switch.works = True
            assert await asyncio.to_thread(main, ["redrive", jobs[0].id, "--journal", str(path)]) == 0
            assert "1 failure will be redriven" in capsys.readouterr().out
            await until(lambda: switch.used[2:] == [0])
            assert await asyncio.to_thread(main, ["redrive", "--journal", str(path), "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["dry_run"] is False
            await until(lambda: sorted(switch.used[2:]) == [0, 1])

            async def none_open() -> bool:
                return not await rt.journal.failures()

            await until(none_open)

    run(main_)


def test_what_is_not_there_is_exit_code_2_and_says_so(path, capsys):
    filled(path)
    for command in ("show", "redrive"):
        assert main([command, "nobody", "--journal", str(path)]) == 2
        assert "'nobody'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: None, "there is no journal"),
        (lambda path: path.write_text("hello"), "not an SQLite database"),
        (lambda path: path.mkdir(), "not a regular file"),
    ],
    ids=["missing", "text", "directory"],
)
def test_a_journal_that_is_none_is_exit_code_2_and_nothing_is_made(path, capsys, make, complaint):
    make(path)
    before = sorted(path.parent.iterdir())
    assert main(["failures", "--journal", str(path)]) == 2
    assert complaint in capsys.readouterr().err
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.parametrize(
    "arguments", [[], ["sing"], ["failures"], ["failures", "--journal", "x", "--since", "soon"], ["show"]]
)
def test_a_command_that_makes_no_sense_is_exit_code_2(arguments, capsys, monkeypatch):
    monkeypatch.delenv("BGRUNTIME_JOURNAL", raising=False)
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_state_there_is_not_is_exit_code_2_and_names_those_there_are(path, capsys):
    filled(path)
    assert main(["failures", "--state", "sad", "--journal", str(path)]) == 2
    assert "discarded" in capsys.readouterr().err


def test_the_program_is_what_the_module_runs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert EntryPoint("bgruntime", project["scripts"]["bgruntime"], "console_scripts").load() is main


def test_the_module_runs_and_takes_the_journal_from_the_environment(path):
    ids = filled(path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "bgruntime", "failures"],
        env={"PYTHONPATH": str(ROOT), "BGRUNTIME_JOURNAL": str(path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert ids[0] in done.stdout
    assert "python -m bgruntime show ID" in done.stdout
