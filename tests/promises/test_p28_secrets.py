"""P28: arguments and results are never logged; secrets are redacted before any sink or disk."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.parse

import pytest
import structlog
from pydantic import SecretStr

from bgruntime import Runtime, task
from tests.journal.programs import ROOT, program
from tests.journal.steps import ordinary

ARGUMENT, RESULT, SECRET = "aRgUmEnT-5d3a", "rEsUlT-77b1", "sEcReT-90cf"


async def works(text: str) -> str:
    return RESULT


async def fails(text: str) -> str:
    raise ValueError("it did not work")


async def exits(text: str) -> str:
    raise SystemExit(3)


def thread(text: str) -> str:
    raise OSError("no")


def test_p28_no_argument_and_no_result_is_in_any_log_line_or_repr(run, tmp_path):
    async def main():
        with structlog.testing.capture_logs() as lines:
            async with Runtime(journal=tmp_path / "jobs.db") as rt:
                shown = []
                for function in (works, fails, exits, thread):
                    job = await rt.submit(ordinary(function, max_attempts=2, backoff=0.0), ARGUMENT)
                    await job.wait()
                    shown += [repr(job), str(job), repr(job.task)]
                shown += [repr(rt), repr(rt.stats()), repr(rt.health()), repr(rt.journal)]
        assert len(lines) >= 3
        for text in (*map(repr, lines), *shown):
            assert ARGUMENT not in text
            assert RESULT not in text

    run(main)


TALKATIVE = program("""
from pydantic import SecretStr

@task(redact=("password",), max_attempts=2, backoff=0.0)
async def login(user: str, password: str) -> str:
    raise ValueError(f"{user} may not enter with {password}")

@task
async def typed(password: SecretStr) -> None:
    raise ValueError("not with " + password.get_secret_value())

async def main():
    async with Runtime(journal=sys.argv[1]) as rt:
        first = await rt.submit(login, "eve", sys.argv[2])
        second = await rt.submit(typed, SecretStr(sys.argv[2]))
        await first.wait()
        await second.wait()
        print(await rt.journal.failures())
        await rt.journal.export(sys.argv[1] + ".jsonl")
        await rt.journal.backup(sys.argv[1] + ".copy")
        import os
        os.kill(os.getpid(), 9)  # so that the files stay as they are at work
asyncio.run(main())
""")


def test_p28_a_secret_is_in_no_byte_on_disk_and_in_nothing_that_is_printed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TALKATIVE, tmp_path / "jobs.db", SECRET],
        capture_output=True,
        cwd=ROOT,
        timeout=30,
        check=False,
    )
    assert done.returncode == -9
    assert b"[redacted]" in (tmp_path / "jobs.db-wal").read_bytes()
    assert SECRET.encode() not in done.stdout + done.stderr
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) >= 5
    for file in files:
        assert SECRET.encode() not in file.read_bytes(), file


SECRETS = [SECRET, "q7", "with spaces & ünïcode", 'a "quoted" one', "line\nbreak", "1234"]


@pytest.mark.parametrize("secret", SECRETS)
def test_p28_a_secret_of_any_form_is_taken_out_of_errors_and_their_causes(run, tmp_path, secret):
    forms = [secret, repr(secret), json.dumps(secret), urllib.parse.quote(secret), f"({secret})"]

    async def main():
        async def tells(password: str) -> None:
            try:
                raise KeyError(forms)
            except KeyError as error:
                raise ValueError(" | ".join(forms)) from error

        async with Runtime(journal=tmp_path / "jobs.db") as rt:
            job = await rt.submit(ordinary(tells, redact=("password",)), secret)
            await job.wait()
            kept = await rt.journal.get(job.id)
        told = f"{kept.message} {kept.traceback} {kept.attempts} {kept.args}"
        for form in forms:
            assert form not in told.replace("[redacted]", "")

    run(main)


def test_p28_a_durable_task_with_a_secret_is_an_error_where_it_is_defined():
    async def plain(password: str) -> None: ...

    async def typed(password: SecretStr) -> None: ...

    with pytest.raises((TypeError, ValueError), match="redact"):
        task(plain, name="p28.plain", durable=True, redact=("password",))
    with pytest.raises((TypeError, ValueError), match="secret"):
        task(typed, name="p28.typed", durable=True)
