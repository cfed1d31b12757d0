"""P28: arguments and results are never logged; secrets are redacted before any sink or disk."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import subprocess
import sys
import urllib.parse

import pytest
import structlog
from pydantic import SecretStr

from bgruntime import Cancel, Discard, Runtime, task
from bgruntime.logs import configure
from bgruntime.metrics import Metrics
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


class Events:
    """What an observer hears, as text."""

    def __init__(self):
        self.text = ""

    def on_event(self, event):
        self.text += str(getattr(event, "message", ""))


HEAD, TAIL = "hE4d-5d3a", "tA1l-77b1"
LONG = [f"{HEAD}{'y' * 50}{TAIL}", f"{HEAD}{'y' * 2_500}{TAIL}", f"{HEAD}{'y' * 9_000}{TAIL}"]


@pytest.mark.parametrize("secret", LONG, ids=lambda secret: f"{len(secret)} characters")
def test_p28_no_part_of_a_secret_is_left_where_a_text_was_cut(run, tmp_path, secret):
    async def tells(tok: str) -> None:
        logging.getLogger("app").warning("before", exc_info=ValueError("x" * 1_965 + " " + tok))
        try:
            raise KeyError("x" * 1_965 + " " + tok)
        except KeyError as error:
            raise ValueError("x" * 1_965 + " " + tok + " at its end") from error

    stream, events = io.StringIO(), Events()

    async def main():
        async with Runtime(journal=tmp_path / "jobs.db", observers=[events]) as rt:
            job = await rt.submit(ordinary(tells, redact=("tok",), max_attempts=2, backoff=0.0), secret)
            await job.wait()
            kept = await rt.journal.get(job.id)
            return f"{kept.message} {kept.traceback} {kept.attempts} {rt.jobs()} {rt.stats()}"

    with configure(json=True, level="DEBUG", stream=stream) as logs:
        told = {"kept": run(main)}
        logs.flush()
    told |= {"logs": stream.getvalue(), "events": events.text}
    told |= {str(file): file.read_text("latin-1") for file in tmp_path.rglob("*") if file.is_file()}
    assert '"traceback"' in told["logs"]
    for way, text in told.items():
        assert HEAD not in text, way
        assert TAIL not in text, way


def test_p28_a_secret_in_the_reason_of_a_discarded_job_is_not_written(run, tmp_path):
    async def tells(password: str) -> None:
        raise Discard(f"nobody enters with {password}")

    async def main():
        async with Runtime(journal=tmp_path / "jobs.db") as rt:
            job = await rt.submit(ordinary(tells, redact=("password",)), SECRET)
            await job.wait()
            kept = await rt.journal.get(job.id)
        assert kept.reason == "nobody enters with [redacted]"
        assert not any(SECRET.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())

    run(main)


@pytest.mark.parametrize("held", [True, False], ids=["held", "of which the record is left"])
@pytest.mark.parametrize("way", ["Discard", "Cancel", "cancelled while it waits", "while it runs", "stuck"])
def test_p28_a_secret_in_a_reason_that_somebody_gave_is_shown_by_no_job(run, clock, way, held):
    reason = f"nobody enters with {SECRET}"

    async def tells(password: str) -> None:
        if way in ("Discard", "Cancel"):
            raise {"Discard": Discard, "Cancel": Cancel}[way](reason)
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                if way != "stuck":
                    raise

    let_go = asyncio.Event()

    async def main():
        async with Runtime(observers=[Metrics(on=False)], cancel_grace=5, cancel_hard=5) as rt:
            if way == "cancelled while it waits":
                rt.pause()
            job = await rt.submit(ordinary(tells, redact=("password",)), SECRET)
            await clock.settle()
            job.cancel(reason)
            for _ in range(3):
                await clock.advance(5)
            error = job.exception()
            assert error.reason == reason  # whoever holds the handle has submitted the secret
            if not held:
                del job, error
                gc.collect()
            let_go.set()
            rt.resume()
            await clock.settle()
            [job] = rt.jobs()
            return job.reason, repr(job), repr(rt.jobs())

    reason_shown, *shown = run(main)
    assert reason_shown == "nobody enters with [redacted]"
    assert all(SECRET not in text and reason_shown in text for text in shown)


def test_p28_the_words_of_the_runtime_stay_though_a_secret_reads_like_one(run):
    async def main():
        async with Runtime() as rt:
            rt.pause()
            job = await rt.submit(ordinary(works, redact=("text",)), "cancelled")
            job.cancel()
            return job.reason

    assert run(main) == "cancelled"
