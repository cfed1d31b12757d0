"""Defects that background layers written by hand have had, each provoked here and not found.

They are numbered in the order of the review that listed them: what leaks (S06–S08), what is lost or told
wrongly (S13–S18), what measures and alerts wrongly (S34–S40).
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import math
import stat
import threading
from datetime import UTC, datetime

import anyio.to_thread
import pytest

from bgruntime import JobTimedOut, Runtime, Shutdown, task
from bgruntime.alerts import AlertRule, Alerts
from bgruntime.extend import JobState
from bgruntime.journal import Journal, Retention
from bgruntime.logs import configure
from tests.alerts.inbox import Inbox
from tests.promises.steps import Gate, until

ROW = AlertRule("row", "consecutive_failures", threshold=3)
RATE = AlertRule("rate", "failure_rate", threshold=0.1, window=300, min_jobs=20)
EMAIL = "eve@example.org"
DSN = "postgresql://app:hunter22@db.internal/shop"


@task(name="defects.fails")
async def fails(*args: object) -> None:
    raise LookupError("no such account")


@task(name="defects.works")
async def works(*args: object) -> str:
    return "r3sult"


def logged(run, main, level: str = "DEBUG") -> list[dict]:
    """The lines of an application that runs *main*; each is one JSON object."""
    stream = io.StringIO()
    with configure(json=True, level=level, stream=stream) as logs:
        run(main)
        assert logs.flush()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


# ── what leaks ──


def test_s06_neither_arguments_nor_results_nor_credentials_in_an_error_are_logged(run):
    @task(name="defects.connects")
    async def connects(to: str, subject: str) -> None:
        raise ConnectionError(f"no connection to {DSN}, Authorization: Bearer abcdef0123456789")

    async def main():
        async with Runtime() as rt:
            await (await rt.submit(connects, EMAIL, subject="salary")).wait()
            await (await rt.submit(works, EMAIL)).wait()

    text = json.dumps(logged(run, main))
    assert "job.completed" in text
    assert "no connection to postgresql://app:" in text
    for secret in (EMAIL, "salary", "r3sult", "hunter22", "abcdef0123456789"):
        assert secret not in text


def test_s07_the_journal_is_its_users_own_redacts_and_forgets(run, tmp_path):
    @task(name="defects.login", redact=("password",))
    async def login(user: str, password: str) -> None:
        raise PermissionError(f"not with {password}")

    async def main():
        journal = Journal(tmp_path / "data" / "jobs.db", retention=Retention(discarded=0))
        async with Runtime(journal=journal) as rt:
            await journal.leader.close()  # which forgets it too, before it can be looked at
            await (await rt.submit(login, "eve", password="hunter22")).wait()
            [kept] = await rt.journal.failures()
            assert "hunter22" not in f"{kept.args}{kept.message}{kept.traceback}"
            files = list((tmp_path / "data").glob("jobs.db*"))
            for file in files:
                mode = stat.S_IMODE(file.stat().st_mode)
                assert not mode & 0o077, (file, oct(mode))
                assert file.is_dir() or b"hunter22" not in file.read_bytes()
            await journal._upkeep.tidy()
            assert await rt.journal.failures() == []

    run(main)


@pytest.mark.parametrize("text", ["eve\r\nERROR root logged in", "eve\x1b[2J\x1b[31mred", "eve\u2028next"])
def test_s08_a_line_break_or_an_escape_in_a_log_text_stays_in_its_line(run, text):
    @task(name="defects.greets")
    async def greets(email: str) -> None:
        logging.getLogger("app").info(f"mail to {email}")  # noqa: G004 - as it is found in the wild
        raise ValueError(email)

    async def main():
        async with Runtime() as rt:
            await (await rt.submit(greets, text)).wait()

    lines = logged(run, main, "INFO")
    assert [line["event"] for line in lines] == [f"mail to {text}", "job.failed"]
    assert lines[1]["error"] == text


# ── what is lost or told wrongly ──


def test_s13_a_failure_is_no_success_for_whoever_looks_at_it(run, tmp_path):
    @task(name="defects.plain")
    def plain() -> None:
        raise OSError("disk")

    async def main():
        async with Runtime(journal=tmp_path / "jobs.db") as rt:
            for what in (fails, plain):
                job = await rt.submit(what)
                with pytest.raises((LookupError, OSError)):
                    await job
                assert job.state is JobState.DISCARDED
            stats = rt.stats()
            assert (stats.completed, stats.failed, stats.success_rate) == (0, 2, 0.0)
            assert len(await rt.journal.failures()) == 2

    run(main)


def test_s14_a_log_call_that_raises_hides_no_failure(run, tmp_path):
    """`extra={"args": …}` is a KeyError of `logging`, inside the handler of the first error."""

    @task(name="defects.logs-badly")
    async def logs_badly() -> None:
        try:
            raise LookupError("the first error")
        except LookupError:
            logging.getLogger("app").error("failed", extra={"args": (1, 2)})  # noqa: G101

    async def main():
        async with Runtime(journal=tmp_path / "jobs.db") as rt:
            await (await rt.submit(logs_badly)).wait()
            [kept] = await rt.journal.failures()
            assert kept.error == "KeyError"
            assert "the first error" in kept.traceback

    assert [line["event"] for line in logged(run, main, "INFO")] == ["job.failed"]


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no repr today")


@pytest.mark.parametrize(
    "argument", [b"\xff\x00", datetime(2026, 1, 1, tzinfo=UTC), {1, 2}, object(), Odd()], ids=type
)
def test_s15_an_argument_that_json_does_not_know_hides_no_failure(run, tmp_path, argument):
    async def main():
        async with Runtime(journal=tmp_path / "jobs.db") as rt:
            await (await rt.submit(fails, argument)).wait()
            [kept] = await rt.journal.failures()
            assert (kept.error, kept.message) == ("LookupError", "no such account")

    run(main)


def test_s16_a_failure_runs_again_with_the_arguments_it_had(run, tmp_path):
    got: list[tuple] = []
    given = ((1, 2), {1: "one"}, 0.1)

    @task(name="defects.takes")
    async def takes(pair: tuple[int, int], table: dict[int, str], far: float, data: object = "") -> None:
        got.append((pair, table, far) if data == "" else (pair, table, far, data))
        if len(got) == 1:
            raise ConnectionError

    async def main():
        async with Runtime(journal=tmp_path / "jobs.db") as rt:
            await (await rt.submit(takes, *given)).wait()
            [again] = await rt.journal.redrive()
            await again
            assert got == [given, given]
            assert repr(got[1]) == repr(given)
            for odd in (math.nan, math.inf):
                got.clear()
                job = await rt.submit(takes, *given, odd)
                await job.wait()
                [again] = await rt.journal.redrive(job.id)
                await again
                assert repr(got[1]) == repr((*given, odd))
            got.clear()
            job = await rt.submit(takes, *given, b"\xff")  # an object may be bytes or text
            await job.wait()
            with pytest.raises(LookupError, match="cannot be written as JSON"):  # rather than with others
                await rt.journal.redrive(job.id)

    run(main)


def test_s17_what_a_shutdown_cancels_is_counted_and_in_the_journal(run, tmp_path):
    async def main():
        gate = Gate()
        async with Runtime(journal=tmp_path / "jobs.db", concurrency=1) as rt:
            running, waiting = await rt.submit(gate.hold), await rt.submit(fails)
            await until(lambda: gate.running)
            report = await rt.stop(drain=0, cancel=1)
            assert set(report.cancelled) == {running.id, waiting.id}
            assert report.lost == ()
            assert rt.stats().cancelled == 2
        async with Journal(tmp_path / "jobs.db") as journal:
            kept = await journal.failures(reason="interrupted")
            assert {one.id for one in kept} == {running.id, waiting.id}

    run(main)


def test_s18_a_timeout_of_the_jobs_own_is_a_failure_and_ours_is_a_timeout(run, clock):
    @task(name="defects.reads")
    async def reads() -> None:
        raise TimeoutError("the database did not answer")

    @task(name="defects.hangs", timeout=5)
    async def hangs() -> None:
        await asyncio.Event().wait()

    async def main():
        async with Runtime() as rt:
            own, ours = await rt.submit(reads), await rt.submit(hangs)
            await clock.advance(6)
            with pytest.raises(TimeoutError, match="did not answer") as failed:
                await own
            assert not isinstance(failed.value, JobTimedOut)
            with pytest.raises(JobTimedOut):
                await ours
            stats = rt.stats()
            assert stats.timed_out == 1
            assert {name: one.count for name, one in stats.failures.items()} == {
                "TimeoutError": 1,
                "JobTimedOut": 1,
            }

    run(main)


# ── what measures and alerts wrongly ──


async def end(rt: Runtime, what, times: int) -> None:
    for _ in range(times):
        await (await rt.submit(what)).wait()


def test_s34_a_task_that_only_fails_alerts_though_nobody_reads_the_statistics(run, clock):
    inbox = Inbox()

    async def main():
        async with Runtime(observers=[Alerts(channels=[inbox])]) as rt:
            await end(rt, fails, 3)
            await clock.advance(5)

    run(main)
    assert [task for _, _, task in inbox.told] == [fails.name]


def test_s35_looking_while_tasks_and_threads_come_and_go_breaks_nothing(run):
    alerts = Alerts(rules=[ROW, RATE], channels=[Inbox()])

    async def main():
        async with Runtime(observers=[alerts], queue_size=5_000) as rt:

            def submits(first: int) -> None:
                for number in range(first, first + 12):
                    made = task(name=f"defects.made-{number}")(lambda: None)
                    rt.submit_threadsafe(made).result(10)
                    rt.stats()

            threads = [threading.Thread(target=submits, args=(first,)) for first in (0, 100, 200)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                alerts.look()
                rt.stats()
                await asyncio.sleep(0)
            for thread in threads:
                thread.join()
            stats = rt.stats()
            assert len(stats.tasks) == 36
            assert stats.completed == 36
            assert stats.faults == {}

    run(main)


def test_s36_a_long_good_past_hides_no_bad_present_and_the_end_is_told(run, clock):
    inbox = Inbox()

    async def main():
        async with Runtime(observers=[Alerts(rules=[RATE], channels=[inbox])]) as rt:
            jobs = [await rt.submit(works) for _ in range(5_000)]
            for job in jobs:
                await job
            await clock.advance(600)
            await end(rt, fails, 30)
            clock.set_wall(clock.time() - 3600)
            await clock.advance(5)
            assert {state for state, _, _ in inbox.told} == {"raised"}
            await clock.advance(600)
            assert {state for state, _, _ in inbox.told} == {"raised", "resolved"}

    run(main)


def test_s37_an_error_while_looking_ends_no_alerting_and_neither_does_the_collector(run, clock):
    inbox, looks = Inbox(), []

    class Stumbles(Alerts):
        def look(self) -> None:
            looks.append(1)
            if len(looks) == 1:
                raise RuntimeError("dictionary changed size during iteration")
            super().look()

    async def main():
        async with Runtime(observers=[Stumbles(rules=[ROW], channels=[inbox])]) as rt:
            await end(rt, fails, 3)
            await clock.advance(5)
            gc.collect()
            await clock.advance(10)
            assert inbox.told == [("raised", "row", fails.name)]
            assert rt.stats().faults["alerts failed to look"] == 1

    run(main)


def test_s38_a_channel_that_hangs_holds_no_other_and_no_look(run, clock):
    hanging, well = Inbox(), Inbox()
    hanging.hang = hanging.deaf = True

    async def main():
        async with Runtime(observers=[Alerts(rules=[ROW], channels=[hanging, well])]) as rt:
            await end(rt, fails, 3)
            await clock.advance(5)
            assert well.told == [("raised", "row", fails.name)]
            await end(rt, works, 1)
            await clock.advance(5)
            await end(rt, fails, 2)
            await end(rt, works, 1)
            hanging.hang = False
            await clock.advance(10)

    run(main)
    assert hanging.tries >= 1


def test_s39_functions_of_one_name_are_two_tasks_and_a_step_of_the_clock_makes_no_time_negative(run, clock):
    def made_in(module: str):
        async def send() -> None:
            clock.set_wall(clock.time() - 7200)
            await clock.advance(0.25)

        send.__module__ = module
        return task(send, name=f"{module}:send")

    async def main():
        async with Runtime() as rt:
            for module in ("mail", "chat"):
                await (await rt.submit(made_in(module)))
            return rt.stats()

    stats = run(main)
    assert {"mail:send", "chat:send"} <= set(stats.tasks)
    for name in ("mail:send", "chat:send"):
        spread = stats.tasks[name].run_time
        assert spread.p50 == pytest.approx(0.25, rel=0.02)
        assert (spread.p95, spread.p99, spread.max) == pytest.approx((0.25,) * 3, rel=0.02)


def test_s40_health_has_reasons_and_plain_functions_leave_the_servers_threads_alone(run):
    async def main():
        gate = threading.Event()

        def blocks() -> None:
            gate.wait(10)

        async with Runtime(concurrency=50, threads=50, queue_size=2, shutdown=Shutdown(drain=5)) as rt:
            assert rt.health().status == "pass"
            jobs = [await rt.submit(blocks) for _ in range(52)]
            await until(lambda: rt.stats().threads_in_use == 50)
            limiter = anyio.to_thread.current_default_thread_limiter()
            assert limiter.borrowed_tokens == 0
            assert await anyio.to_thread.run_sync(lambda: "answered") == "answered"
            health = rt.health()
            assert health.status == "warn"
            assert any(
                "default" in f"{check.name} {check.reason}"
                for check in health.checks
                if check.status != "pass"
            )
            gate.set()
            for job in jobs:
                await job

    run(main)
