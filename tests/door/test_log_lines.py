"""What a bare runtime writes to the log: retries and final failures, and never an argument."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest
import structlog

import bgruntime
from bgruntime import JobState, Runtime, Snooze, task
from bgruntime.logs import JobLog
from tests.door.turns import Gate, hold, until

SECRET = "4111-1111-1111-1111"


@pytest.fixture
def lines() -> Any:
    """The lines written during the test."""
    with structlog.testing.capture_logs() as written:
        yield written


def of(lines: list[Any], level: str) -> list[Any]:
    return [line for line in lines if line["log_level"] == level]


@task
async def fail(card: str) -> None:
    raise LookupError("no such account")


@task(max_attempts=3, backoff=lambda state: 1)
async def flaky(card: str) -> None:
    raise ConnectionError("refused")


def test_a_final_failure_is_one_line_at_error(run: Any, lines: list[Any]) -> None:
    async def main() -> Any:
        async with Runtime() as rt:
            job = await rt.submit(fail, SECRET)
            await job.wait()
            return job

    job = run(main)
    [line] = lines
    assert (line["event"], line["log_level"]) == ("job.failed", "error")
    assert (line["job_id"], line["task"], line["attempt"]) == (job.id, fail.name, 1)
    assert line["error_type"] == "LookupError"
    assert line["outcome"] == "failed"
    assert line["duration_s"] >= 0
    assert line["queue_wait_s"] >= 0


def test_each_retry_is_a_line_at_warning_and_the_last_failure_one_at_error(
    run: Any, clock: Any, lines: list[Any]
) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(flaky, SECRET)
            await clock.advance(5)
            await job.wait()

    run(main)
    warnings, errors = of(lines, "warning"), of(lines, "error")
    assert [line["attempt"] for line in warnings] == [1, 2]
    assert len({line["event"] for line in warnings}) == 1
    assert {line["error_type"] for line in warnings} == {"ConnectionError"}
    assert [(line["event"], line["attempt"]) for line in errors] == [("job.failed", 3)]
    assert len(lines) == 3


def test_a_job_that_completes_writes_nothing(run: Any, lines: list[Any]) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            await (await rt.submit(lambda: "fine"))

    run(main)
    assert lines == []


def test_a_bare_runtime_prints_nothing_for_work_that_goes_well(
    run: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            await (await rt.submit(lambda: "fine"))

    run(main)
    assert capfd.readouterr() == ("", "")


def test_a_failure_is_there_to_see_without_any_configuration(
    run: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            await (await rt.submit(fail, SECRET)).wait()

    run(main)
    written = "".join(capfd.readouterr())
    assert "job.failed" in written
    assert "LookupError" in written
    assert SECRET not in written


def test_a_timeout_is_a_failure_that_says_so(run: Any, clock: Any, lines: list[Any]) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold.with_options(timeout=5), gate)
            await until(lambda: gate.started)
            await clock.advance(6)
            await job.wait()

    run(main)
    [line] = lines
    assert (line["event"], line["log_level"]) == ("job.failed", "error")
    assert (line["outcome"], line["reason"]) == ("timed_out", "timed_out")


def test_event_names_are_dotted_words_and_never_sentences(run: Any, clock: Any, lines: list[Any]) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            await rt.submit(flaky, SECRET)
            await rt.submit(fail, SECRET)
            await clock.advance(5)
            await rt.submit(hold, gate)
            await until(lambda: gate.started)
            await rt.stop(drain=0)

    run(main)
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", line["event"])


def test_no_line_holds_an_argument_or_a_result(run: Any, clock: Any, lines: list[Any]) -> None:
    async def nested(card: str) -> None:
        await asyncio.sleep(0)
        raise bgruntime.Discard("poisoned")

    async def main() -> None:
        async with Runtime() as rt:
            for job in (
                await rt.submit(fail, SECRET),
                await rt.submit(flaky, card=SECRET),
                await rt.submit(nested, SECRET),
                await rt.submit(hold.with_options(timeout=2), Gate(), SECRET),
            ):
                assert job is not None
            await clock.advance(10)

    run(main)
    assert len(lines) >= 5
    assert SECRET not in repr(lines)


@pytest.mark.parametrize("kind", ["cancel", "Cancel", "stop"])
def test_a_cancelled_job_is_no_failure_in_the_log(run: Any, lines: list[Any], kind: str) -> None:
    async def main() -> None:
        gate = Gate()

        async def steer() -> None:
            raise bgruntime.Cancel("enough")

        async with Runtime() as rt:
            if kind == "Cancel":
                await (await rt.submit(steer)).wait()
                return
            job = await rt.submit(hold, gate)
            await until(lambda: gate.started)
            if kind == "stop":
                await rt.stop(drain=0)
            job.cancel()
            await job.wait()

    run(main)
    assert of(lines, "error") == []


@pytest.mark.parametrize("level", [None, logging.DEBUG])
def test_cancelled_and_snoozed_jobs_are_lines_at_debug_only_where_these_are_asked_for(
    run: Any, lines: list[Any], level: int | None
) -> None:
    @task
    async def snooze() -> None:
        raise Snooze(60)

    async def main() -> None:
        async with Runtime(observers=[] if level is None else [JobLog(level=level)]) as rt:
            job = await rt.submit(snooze)
            await until(lambda: job.state is JobState.RETRYABLE)
            job.cancel()
            await job.wait()

    run(main)
    names = [line["event"] for line in lines]
    assert names == ([] if level is None else ["job.started", "job.snoozed", "job.cancelled"])
