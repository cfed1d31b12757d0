"""What the command line says of input, journals and outputs that are not as they should be."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import bgruntime.cli
from bgruntime import Runtime
from bgruntime.cli import main
from tests.cli.steps import failed, failing, filled, in_the_journal
from tests.journal.programs import ROOT
from tests.journal.steps import durable, ordinary

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
NINES = "9" * 5_000


class Boom(Exception):
    pass


async def booming() -> None:
    raise Boom


def told(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return out, err


# Exit codes


def test_open_failures_are_exit_code_1_and_others_0(path, capsys):
    ids = filled(path)
    assert main(["failures", "--journal", str(path)]) == 1
    assert main(["failures", "--journal", str(path), "--groups"]) == 1
    assert main(["failures", "--journal", str(path), "--state", "discarded"]) == 1
    assert main(["failures", "--journal", str(path), "--state", "completed"]) == 0
    for id in ids:
        assert in_the_journal(path, lambda journal, id=id: journal.discard(id)) == 1
    assert main(["failures", "--journal", str(path)]) == 0
    assert main(["failures", "--journal", str(path), "--groups"]) == 0
    told(capsys)
    assert main(["failures", "--journal", str(path), "--state", "discarded"]) == 0
    assert "7 failures in" in told(capsys)[0]


def test_a_failure_that_could_never_be_redriven_is_not_open_once_it_was_put_away(path):
    (id,) = failed(path, (ordinary(failing), object()))
    assert main(["failures", "--journal", str(path)]) == 1
    in_the_journal(path, lambda journal: journal.discard(id))
    assert main(["failures", "--journal", str(path), "--state", "discarded"]) == 0


INTERRUPTED = """
import asyncio, signal, sys
import bgruntime.cli

async def work(options):
    signal.raise_signal(signal.SIGINT)
    try:
        await asyncio.Event().wait()
    finally:
        signal.raise_signal(signal.SIGINT)  # whoever waits for the end is impatient
        try:
            await asyncio.Event().wait()
        finally:
            print("closed", flush=True)

bgruntime.cli.failures = work
sys.exit(bgruntime.cli.main(["failures", "--journal", "x"]))
"""


def test_ctrl_c_is_exit_code_130_without_a_traceback_and_all_is_closed_before(path):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "closed\n", "")


def test_ctrl_c_before_there_is_an_event_loop_is_exit_code_130(path, monkeypatch):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bgruntime.cli, "parser", interrupted)
    assert main(["failures", "--journal", str(path)]) == 130


@pytest.mark.parametrize("command", ["", "failures", "show", "redrive"])
def test_the_exit_codes_stand_in_every_help(command, path, capsys):
    with pytest.raises(SystemExit) as left:
        main([*command.split(), "--help"])
    assert left.value.code == 0
    said = " ".join(told(capsys)[0].split())
    assert "exit codes: 0 fine, 1 failures found that are open, 2 it cannot be done, 130 interrupted" in said


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert (left.value.code, told(capsys)) == (0, (f"bgruntime {bgruntime.__version__}\n", ""))


# The journal


def test_an_empty_file_is_no_journal_and_is_left_alone(path, capsys):
    path.touch()
    assert main(["failures", "--journal", str(path)]) == 2
    assert "is an empty file, and no journal yet" in told(capsys)[1]
    assert (list(path.parent.iterdir()), path.stat().st_size) == ([path], 0)


def test_a_name_that_no_file_can_have_is_exit_code_2(path, capsys):
    assert main(["failures", "--journal", str(path.with_name("n" * 300))]) == 2
    assert "cannot be opened: File name too long" in told(capsys)[1]
    for name in ("", "a\0b"):
        with pytest.raises(SystemExit) as left:
            main(["failures", "--journal", name])
        assert left.value.code == 2
        assert f"{name!r} is not the name of a file" in told(capsys)[1]


def test_a_name_cannot_command_the_terminal(path, capsys):
    assert main(["failures", "--journal", "\x1b[2J\n\udcff"]) == 2
    assert told(capsys) == ("", "bgruntime: there is no journal \\x1b[2J\\n\\udcff\n")


@pytest.mark.parametrize(
    ("denied", "complaint"),
    [("jobs.db", "no permission to read and write it"), ("", "no permission to write in its folder")],
    ids=["file", "folder"],
)
def test_where_permissions_are_missing_nothing_is_left_behind(path, capsys, monkeypatch, denied, complaint):
    filled(path)
    for side in path.parent.glob("jobs.db.*"):
        side.rmdir() if side.is_dir() else side.unlink()
    told(capsys)
    access = os.access  # asked, for who runs the tests may be allowed everything
    monkeypatch.setattr(os, "access", lambda at, mode: Path(at) != path.parent / denied and access(at, mode))
    assert main(["failures", "--journal", str(path)]) == 2
    assert told(capsys)[1] == f"bgruntime: journal {path} cannot be opened: {complaint}\n"
    assert list(path.parent.iterdir()) == [path]


def test_what_is_refused_is_named_once(path, capsys):
    filled(path)
    told(capsys)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    assert main(["failures", "--journal", str(path)]) == 2
    assert told(capsys)[1].startswith(f"bgruntime: journal {path} has schema version 99; ")


def test_it_works_while_an_application_has_the_journal_open(run, path, capsys):
    async def main_():
        async with Runtime(journal=path) as rt:
            job = await rt.submit(ordinary(failing), 1)
            await job.wait()
            assert await rt.journal.count() == 1
            assert await asyncio.to_thread(main, ["failures", "--journal", str(path)]) == 1
            assert job.id in told(capsys)[0]
            assert await asyncio.to_thread(main, ["show", job.id, "--journal", str(path)]) == 0
            assert "ValueError: number 1" in told(capsys)[0]

    run(main_)


# What is asked for


@pytest.mark.parametrize(
    "since", ["99999999999d", f"{NINES}s", "0001-01-01", "0001-01-01T00:00+14:00", "1970-01-01"]
)
def test_a_time_before_all_times_means_everything(path, capsys, since):
    filled(path)
    assert main(["failures", "--journal", str(path), "--json", "--since", since]) == 1
    assert len(json.loads(told(capsys)[0])) == 7


@pytest.mark.parametrize("since", ["9999-12-31", "9999-12-31T23:59:59-14:00"])
def test_a_time_after_all_times_means_nothing(path, capsys, since):
    filled(path)
    assert main(["failures", "--journal", str(path), "--json", "--since", since]) == 0
    assert json.loads(told(capsys)[0]) == []


@pytest.mark.parametrize("limit", [str(10**30), NINES, "0008"])
@pytest.mark.parametrize("more", [[], ["--groups"]], ids=["each", "groups"])
def test_a_limit_above_all_numbers_is_none(path, capsys, limit, more):
    filled(path)
    assert main(["failures", "--journal", str(path), "--json", "--limit", limit, *more]) == 1
    assert len(json.loads(told(capsys)[0])) == (2 if more else 7)


@pytest.mark.parametrize("limit", ["0", "000", "-1", "", "٣"])
def test_a_limit_that_lets_nothing_through_is_exit_code_2(path, capsys, limit):
    with pytest.raises(SystemExit) as left:
        main(["failures", "--journal", str(path), f"--limit={limit}"])
    assert left.value.code == 2
    assert "is not a number above 0" in told(capsys)[1]


@pytest.mark.parametrize("text", ["a\udcff", "a\0b", "\x1b[2J"], ids=["surrogate", "NUL", "control"])
def test_a_text_that_nothing_can_be_called_is_not_found(path, capsys, text):
    filled(path)
    told(capsys)
    for command in ("show", "redrive"):
        assert main([command, text, "--journal", str(path)]) == 2
        out, err = told(capsys)
        assert out == ""
        assert err.startswith(("bgruntime: there is no job", "bgruntime: no failure"))
    for command in (["failures"], ["failures", "--groups"], ["redrive"]):
        for option in ("--task", "--error"):
            assert main([*command, option, text, "--journal", str(path)]) == 0
            assert told(capsys) == (f"nothing in {path} matches; open there: 7 failures\n", "")


def test_a_task_with_a_name_that_no_file_can_hold_is_found_by_it(path, capsys):
    (id,) = failed(path, (ordinary(failing, name="cli\udcff"), 1))
    told(capsys)
    assert main(["failures", "--task", "cli\udcff", "--journal", str(path), "--json"]) == 1
    assert [one["id"] for one in json.loads(told(capsys)[0])] == [id]


def test_a_state_that_is_misspelled_is_recognised(path, capsys):
    filled(path)
    assert main(["failures", "--state", "discardd", "--journal", str(path)]) == 2
    assert told(capsys)[1].endswith("; did you mean 'discarded'?\n")


def test_causes_are_found_by_the_last_part_of_an_exceptions_name_as_failures_are(path, capsys):
    failed(path, (ordinary(booming, name="cli.booming"),), (ordinary(failing), 1))
    for more in ([], ["--groups"]):
        for name in ("Boom", f"{__name__}.Boom"):
            assert main(["failures", "--error", name, "--journal", str(path), "--json", *more]) == 1
            assert [one["task"] for one in json.loads(told(capsys)[0])] == ["cli.booming"]
    assert main(["failures", "--error", "Boom", "--task", "other", "--groups", "--journal", str(path)]) == 0


def test_causes_have_no_state(path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["failures", "--groups", "--state", "completed", "--journal", str(path)])
    assert left.value.code == 2
    assert "not allowed with" in told(capsys)[1]


def test_where_nothing_is_found_it_is_said_whether_there_is_anything(path, capsys):
    filled(path)
    told(capsys)
    commands = (["failures"], ["failures", "--groups"], ["redrive"], ["redrive", "--dry-run"])
    for command in commands:
        assert main([*command, "--task", "nope", "--journal", str(path)]) == 0
        assert told(capsys)[0] == f"nothing in {path} matches; open there: 7 failures\n"
    assert main(["failures", "--state", "cancelled", "--journal", str(path)]) == 0
    assert told(capsys)[0] == f"nothing in {path} matches; open there: 7 failures\n"
    in_the_journal(path, lambda journal: journal.purge())
    for command in commands:
        assert main([*command, "--journal", str(path)]) == 0
        assert told(capsys)[0] == f"no failure in {path} is open\n"


def test_a_failure_that_cannot_be_redriven_is_exit_code_2_and_says_why(path, capsys):
    (id,) = failed(path, (ordinary(failing, name="cli.odd"), object()))
    told(capsys)
    assert main(["redrive", id, "--journal", str(path)]) == 2
    out, err = told(capsys)
    assert (out, f"failure {id!r} cannot be redriven: arguments that cannot be written" in err) == ("", True)
    assert main(["redrive", "--task", "cli.odd", "--journal", str(path)]) == 0
    assert told(capsys)[0] == "1 failure cannot be redriven; bgruntime show ID says why\n"


def test_a_redrive_is_of_one_or_of_those_that_match_and_not_of_both(path, capsys):
    ids = filled(path)
    assert main(["redrive", ids[0], "--task", "cli.hostile", "--journal", str(path)]) == 2
    assert "an id or filters, not both" in told(capsys)[1]


def test_failures_that_only_a_lost_task_makes_are_counted(path, capsys):
    id = to_come(path, 1e6)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE job SET due_ms = 1000")
    connection.commit()
    connection.close()
    assert main(["failures", "--journal", str(path)]) == 1
    out, _ = told(capsys)
    assert id in out
    assert "\n1 failure in " in out


@pytest.mark.parametrize("delay", [1e6, 1e12], ids=["soon", "in 30,000 years"])
def test_a_job_that_is_still_to_come_is_due_and_has_not_failed(path, capsys, delay):
    assert main(["show", to_come(path, delay), "--journal", str(path)]) == 0
    names = [line.split()[0] for line in told(capsys)[0].splitlines()]
    assert "due" in names
    assert "failed" not in names


def to_come(path: Path, delay: float) -> str:
    """The id of a durable job that waits in the journal."""

    async def later(n: int) -> None:
        pass

    async def accept() -> str:
        async with Runtime(journal=path) as rt:
            return (await rt.submit(durable(later).with_options(delay=delay), 1)).id

    return asyncio.run(accept())


# The output


def test_an_id_and_an_exceptions_name_cannot_command_the_terminal(path, capsys):
    async def fail() -> None:
        raise type("\x1b[2J", (Exception,), {})

    id = "\x1b[2J\n1"
    failed(path, (ordinary(fail).with_options(id=id),))
    told(capsys)
    for arguments in (["failures"], ["failures", "--groups"], ["show", id], ["redrive", "--dry-run"]):
        assert main([*arguments, "--journal", str(path)]) in (0, 1)
        out, _ = told(capsys)
        assert "\x1b" not in out
        assert "\\x1b[2J" in out


def test_what_goes_wrong_is_json_too_where_json_is_wanted(path, capsys):
    (id,) = failed(path, (ordinary(failing, name="cli.odd"), object()))
    told(capsys)
    for arguments in (
        ["show", "nobody", "--journal", str(path)],
        ["redrive", id, "--journal", str(path)],
        ["failures", "--state", "sad", "--journal", str(path)],
        ["failures", "--journal", f"{path}.none"],
    ):
        assert main([*arguments, "--json"]) == 2
        out, err = told(capsys)
        assert err == f"bgruntime: {json.loads(out)['error']}\n"


def test_nothing_is_json_too_where_json_is_wanted(path, capsys):
    filled(path)
    told(capsys)
    for arguments, nothing in (
        (["failures"], []),
        (["failures", "--groups"], []),
        (["redrive"], {"ids": [], "dry_run": False}),
        (["redrive", "--dry-run"], {"ids": [], "dry_run": True}),
    ):
        assert main([*arguments, "--task", "nope", "--json", "--journal", str(path)]) == 0
        assert json.loads(told(capsys)[0]) == nothing


def test_an_output_with_few_letters_gets_escapes(path, monkeypatch):
    async def fail(text: str) -> None:
        raise ValueError(text)

    (id,) = failed(path, (ordinary(fail), "日本"))
    for arguments, code in ((["failures"], 1), (["show", id], 0)):
        said = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(said, encoding="ascii"))
        assert main([*arguments, "--journal", str(path)]) == code
        assert b"ValueError: \\u65e5\\u672c" in said.getvalue()


@needs_full
@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
def test_an_output_that_is_full_is_exit_code_2_and_says_so(path, capsys, monkeypatch, more):
    filled(path)
    told(capsys)
    with open("/dev/full", "w") as full:  # nothing is left in it that could not be written when it is closed
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["failures", "--journal", str(path), *more]) == 2
    assert told(capsys)[1] == "bgruntime: the output cannot be written: No space left on device\n"


@needs_full
def test_help_for_an_output_that_is_full_is_exit_code_2(capsys, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as left:
            main(["--help"])
    assert left.value.code == 2
    assert "cannot be written" in told(capsys)[1]


@needs_full
def test_complaints_that_cannot_be_written_change_no_exit_code(path, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert main(["failures", "--journal", str(path)]) == 2
        with pytest.raises(SystemExit) as left:
            main(["sing"])
    assert left.value.code == 2


def test_a_reader_that_has_seen_enough_changes_no_exit_code(path, capsys, monkeypatch):
    filled(path)
    told(capsys)
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["failures", "--journal", str(path)]) == 1
    assert told(capsys)[1] == ""


def test_without_outputs_the_exit_code_is_all_there_is(path, capsys, monkeypatch):
    filled(path)
    told(capsys)
    with monkeypatch.context() as without:
        without.setattr(sys, "stderr", None)
        assert main(["show", "nobody", "--journal", str(path)]) == 2
        without.setattr(sys, "stdout", None)
        assert main(["failures", "--journal", str(path)]) == 1
    assert told(capsys) == ("", "")
