"""Failures: what is kept of them, and how they are found, counted, put away and deleted."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from bgruntime import JobTimedOut, Runtime
from bgruntime.journal import Journal, Retention, _upkeep
from bgruntime.journal._keys import milliseconds

from .steps import Switch, durable, ordinary, until

SENTINEL = "sEnTiNeL-8c1f5e"


async def failing(n: int) -> None:
    raise ValueError(f"number {n}")


async def calling(n: int) -> None:
    raise ConnectionError("nobody")


async def all_failed(rt: Runtime, function, count: int, **options) -> list:
    jobs = await rt.submit_many(ordinary(function, **options), [(n,) for n in range(count)])
    for job in jobs:
        await job.wait()
    return jobs


# What is kept


def test_a_failure_is_kept_with_its_arguments_error_traceback_attempts_and_times(run, path):
    async def main():
        began = time.time()
        async with Runtime(journal=path) as rt:
            task = ordinary(failing, max_attempts=3, backoff=lambda _: 0.01).with_options(tags=["a"])
            job = await rt.submit(task, 7)
            await job.wait()
            kept = await rt.journal.get(job.id)
        assert (kept.id, kept.task, kept.state, kept.reason) == (job.id, job.task, "discarded", "failed")
        assert (kept.error, kept.message, kept.args) == ("ValueError", "number 7", {"n": 7})
        assert (kept.attempt, kept.durable, kept.tags, kept.obstacle) == (3, False, ("a",), None)
        assert [(one.attempt, one.outcome, one.message) for one in kept.attempts] == [
            (1, "failed", "number 7"),
            (2, "failed", "number 7"),
            (3, "failed", "number 7"),
        ]
        assert kept.traceback.startswith("Traceback (most recent call last):\n")
        assert kept.traceback.endswith("ValueError: number 7")
        assert f'File "{__file__}"' in kept.traceback
        assert 'raise ValueError(f"number {n}")' in kept.traceback
        assert "bgruntime/_engine" not in kept.traceback
        assert kept.place.startswith(f"{__file__}:")
        assert kept.place.endswith("in failing")
        assert began <= kept.failed_at <= time.time() + 0.001

    run(main)


def test_a_job_that_timed_out_and_one_that_exited_are_kept_too(run, path):
    async def main():
        async def hang() -> None:
            await asyncio.Event().wait()

        async def leave() -> None:
            raise SystemExit(3)

        async with Runtime(journal=path) as rt:
            slow = await rt.submit(ordinary(hang, timeout=0.01))
            gone = await rt.submit(ordinary(leave))
            await slow.wait()
            await gone.wait()
            assert isinstance(slow.exception(), JobTimedOut)
            assert (await rt.journal.get(slow.id)).reason == "timed_out"
            assert (await rt.journal.get(gone.id)).reason == "exited"

    run(main)


def test_the_causes_of_an_error_are_in_its_traceback_and_no_local_variable_is(run, path):
    async def main():
        async def work() -> None:
            local = SENTINEL
            try:
                raise KeyError("first")
            except KeyError as error:
                raise RuntimeError("second") from error
            finally:
                del local

        async with Runtime(journal=path) as rt:
            job = await rt.submit(ordinary(work))
            await job.wait()
            told = (await rt.journal.get(job.id)).traceback
        assert told.index("KeyError: 'first'") < told.index("direct cause") < told.index("RuntimeError")

    run(main)


def test_equal_tracebacks_are_stored_once_and_long_ones_are_cut(run, path, rows):
    async def main():
        async def dive(n: int) -> None:
            def down(depth: int) -> None:
                if not depth:
                    raise ValueError(str(n))
                down(depth - 1)

            down(200)

        async with Runtime(journal=path) as rt:
            await all_failed(rt, failing, 50)
            await all_failed(rt, dive, 3)
            assert await rt.journal.count() == 53
            assert rows("SELECT count(*) FROM trace") == [(2,)]
            assert rows("SELECT max(length(body)) < 20000 FROM trace") == [(1,)]
            [deep] = await rt.journal.failures(limit=1)
            assert "frames left out" in deep.traceback

    run(main)


def test_an_error_that_cannot_be_written_is_written_all_the_same(run, path):
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    async def main():
        async def odd() -> None:
            raise Odd

        async def surrogate() -> None:
            raise ValueError("\ud800\0 end")

        async def long() -> None:
            raise ValueError("x" * 1_000_000)

        async with Runtime(journal=path) as rt:
            jobs = [await rt.submit(ordinary(function)) for function in (odd, surrogate, long)]
            for job in jobs:
                await job.wait()
            told = [(await rt.journal.get(job.id)).message for job in jobs]
        assert told[0] == "<str raised RuntimeError>"
        assert told[1] == "\\ud800\\x00 end"
        assert len(told[2]) < 2100

    run(main)


def test_arguments_that_json_does_not_know_are_kept_as_their_repr_and_not_redriven(run, path):
    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    async def main():
        async def fail(*things, **more) -> None:
            raise ValueError("no")

        async with Runtime(journal=path) as rt:
            odd = await rt.submit(ordinary(fail), {1, 2}, Bad(), good=[1])
            large = await rt.submit(ordinary(fail), Bad(), "x" * 400_000, good=[1])
            await odd.wait()
            await large.wait()
            kept = [await rt.journal.get(job.id) for job in (odd, large)]
        assert [one.obstacle for one in kept] == [
            "arguments that cannot be written as JSON",
            "more than 262,144 bytes of arguments",
        ]
        for one in kept:
            assert len(str(one.args)) < 400_000
            assert not one.redrivable

    run(main)


# Secrets


class Login(BaseModel):
    user: str
    password: SecretStr


@pytest.mark.parametrize("kind", ["redact", "SecretStr", "model", "nested"])
def test_a_secret_is_in_no_byte_of_the_journal_and_its_neighbours(run, path, kind):
    async def plain(user: str, password: str) -> None:
        raise ValueError(f"{user} may not enter with {password!r}")

    async def typed(user: str, password: SecretStr) -> None:
        raise ValueError(f"{user} may not enter with {password.get_secret_value()}")

    async def model(login: Login) -> None:
        try:
            raise KeyError(login.password.get_secret_value())
        except KeyError as error:
            raise ValueError(f"{login.user} may not enter") from error

    async def nested(logins: list[Login]) -> None:
        error = ValueError("nobody may enter")
        error.add_note(logins[0].password.get_secret_value())
        raise error

    login = Login(user="eve", password=SecretStr(SENTINEL))
    cases = {
        "redact": (ordinary(plain, redact=("password",), max_attempts=2, backoff=0.0), ("eve", SENTINEL)),
        "SecretStr": (ordinary(typed, max_attempts=2, backoff=0.0), ("eve", SecretStr(SENTINEL))),
        "model": (ordinary(model), (login,)),
        "nested": (ordinary(nested), ([login],)),
    }
    task, args = cases[kind]

    async def main():
        async with Runtime(journal=path) as rt:
            job = await rt.submit(task, *args)
            await job.wait()
            kept = await rt.journal.get(job.id)
            assert "redacted" in kept.obstacle
            assert SENTINEL not in repr(kept)
            with pytest.raises(LookupError, match="redacted"):
                await rt.journal.redrive(job.id)
            await rt.journal.backup(path.with_name("copy.db"))
            await rt.journal.export(path.with_name("lines.jsonl"))
            for file in path.parent.rglob("*"):
                assert not file.is_file() or SENTINEL.encode() not in file.read_bytes(), file
        for file in path.parent.rglob("*"):
            assert not file.is_file() or SENTINEL.encode() not in file.read_bytes(), file

    run(main)


# How they are found


def test_failures_are_found_by_task_error_time_state_and_reason_the_newest_first(run, path):
    async def main():
        async with Runtime(journal=path) as rt:
            first = await all_failed(rt, failing, 5, name="first-task")
            last = max([one.failed_at for one in await rt.journal.failures()])
            await until(lambda: time.time() > last + 0.002)
            middle = datetime.now(UTC)
            second = await all_failed(rt, calling, 5, name="second-task")
            journal = rt.journal
            found = await journal.failures()
            assert {one.id for one in found} == {job.id for job in (*first, *second)}
            assert [one.failed_at for one in found] == sorted((one.failed_at for one in found), reverse=True)
            assert {one.id for one in await journal.failures(task="first-task")} == {job.id for job in first}
            assert await journal.count(error="ConnectionError") == 5
            assert await journal.count(error="builtins.ConnectionError") == 0
            assert {one.id for one in await journal.failures(since=middle)} == {job.id for job in second}
            assert await journal.count(until=middle) == 5
            assert await journal.count(since=timedelta(hours=1)) == 10
            assert await journal.count(state="quarantined") == 0
            assert await journal.count(reason="failed", task="second-task", error="ConnectionError") == 5
            assert len(await journal.failures(limit=3)) == 3
            assert await journal.failures(limit=0) == []
            assert len(await journal.failures(limit=10**30)) == 10
            assert sum(group.count for group in await journal.groups(limit=10**30)) == 10
            for limit in (-1, True, 2.5, None):
                with pytest.raises(ValueError, match="limit is a whole number"):
                    await journal.failures(limit=limit)
                with pytest.raises(ValueError, match="limit is a whole number"):
                    await journal.groups(limit=limit)
            with pytest.raises(ValueError, match="completed, discarded"):
                await journal.failures(state="lost")
            with pytest.raises(ValueError, match="time zone"):
                await journal.failures(since=datetime(2026, 1, 1))

    run(main)


def test_an_error_is_found_by_the_last_part_of_its_name_or_all_of_it(run, path):
    class Own_Error(ValueError):
        pass

    async def main():
        async def own() -> None:
            raise Own_Error("x")

        async with Runtime(journal=path) as rt:
            job = await rt.submit(ordinary(own))
            await job.wait()
            full = (await rt.journal.get(job.id)).error
            assert full.endswith(".Own_Error")
            assert await rt.journal.count(error=full) == await rt.journal.count(error="Own_Error") == 1
            assert await rt.journal.count(error="OwnxError") == 0
            assert await rt.journal.count(error="%") == 0

    run(main)


def test_failures_are_grouped_by_task_error_and_place_the_most_frequent_first(run, path):
    async def main():
        async def sometimes(n: int) -> None:
            if n % 3:
                raise ValueError("not a third")
            raise ValueError("a third")

        async with Runtime(journal=path) as rt:
            jobs = await all_failed(rt, sometimes, 9, name="sometimes")
            await all_failed(rt, calling, 1, name="called")
            groups = await rt.journal.groups()
            assert [(one.task, one.error, one.count) for one in groups] == [
                ("sometimes", "ValueError", 6),
                ("sometimes", "ValueError", 3),
                ("called", "ConnectionError", 1),
            ]
            assert groups[0].place != groups[1].place
            assert groups[0].first_seen <= groups[0].last_seen
            assert [one.count for one in await rt.journal.groups(task="called")] == [1]
            assert [one.count for one in await rt.journal.groups(error="ConnectionError")] == [1]
            await rt.journal.discard(jobs[0].id)
            assert [one.count for one in await rt.journal.groups(task="sometimes")] == [6, 2]

    run(main)


def test_the_numbers_of_a_journal_are_those_of_what_is_in_it(run, path):
    async def main():
        gate = asyncio.Event()

        async def wait() -> None:
            await gate.wait()

        async with Runtime(journal=path) as rt, Runtime(journal=path):
            await all_failed(rt, failing, 4)
            await rt.submit(durable(wait).with_options(delay=100))
            stats = await rt.journal.stats()
            assert dict(stats.failures) == {"discarded": 4}
            assert dict(stats.jobs) == {"scheduled": 1}
            assert (stats.processes, stats.dropped, stats.late, stats.poisoned, stats.errors) == (
                2,
                0,
                0,
                0,
                0,
            )
            assert stats.bytes > 10_000
            assert stats.commits > 0
            gate.set()

    run(main)


# How they go


def test_what_was_put_away_is_neither_open_nor_redriven_and_still_found_by_its_id(run, path):
    async def main():
        async with Runtime(journal=path) as rt:
            jobs = await all_failed(rt, failing, 5, redrive=3, name="put-away")
            others = await all_failed(rt, calling, 2, name="stays")
            assert await rt.journal.discard(jobs[0].id, dry_run=True) == 1
            assert await rt.journal.discard(jobs[0].id) == 1
            assert await rt.journal.discard(jobs[0].id, dry_run=True) == 0
            assert await rt.journal.discard(jobs[0].id) == 0
            assert await rt.journal.discard("no such id") == 0
            assert await rt.journal.discard(task="put-away", dry_run=True) == 4
            assert await rt.journal.discard(task="put-away") == 4
            assert {one.id for one in await rt.journal.failures()} == {job.id for job in others}
            assert (await rt.journal.get(jobs[0].id)).state == "discarded"
            with pytest.raises(LookupError, match="put away"):
                await rt.journal.redrive(jobs[0].id)
            assert len(await rt.journal.redrive(dry_run=True)) == 2
            with pytest.raises(ValueError, match="purge"):
                await rt.journal.discard()

    run(main)


def test_a_purge_deletes_what_is_old_enough_in_the_state_that_is_named(run, path, rows):
    async def main():
        async with Runtime(journal=path) as rt:
            await all_failed(rt, failing, 1200)
            assert await rt.journal.purge(older_than=3600, dry_run=True) == 0
            assert await rt.journal.purge(older_than=timedelta(hours=1)) == 0
            assert await rt.journal.purge(state="cancelled") == 0
            assert await rt.journal.purge(dry_run=True) == 1200
            assert await rt.journal.purge() == 1200
            assert await rt.journal.count() == 0
            assert rows("SELECT count(*) FROM cause") == [(0,)]

    run(main)


def test_a_purge_leaves_what_is_still_to_be_redriven(run, path):
    async def main():
        async with Runtime(journal=path) as rt:
            await all_failed(rt, failing, 3, redrive=3)
            assert await rt.journal.purge() == 0
            assert await rt.journal.purge(state="retryable") == 3

    run(main)


def test_retention_deletes_by_state_and_by_number_and_forgets_unused_tracebacks(run, path, rows, monkeypatch):
    monkeypatch.setattr(_upkeep, "BATCH", 10)

    async def main():
        kept = Retention(most_discarded=25)
        async with Runtime(journal=Journal(path, retention=kept)) as rt:
            await all_failed(rt, failing, 60)
            await rt.journal.stats()
            await asyncio.gather(*[rt.journal._upkeep.tidy() for _ in range(3)])
            assert await rt.journal.count() == 25
            newest = [one.args["n"] for one in await rt.journal.failures()]
            assert len(newest) == 25
        gone = Retention(discarded=0)
        async with Runtime(journal=Journal(path, retention=gone)) as rt:
            await asyncio.sleep(0.01)
            await rt.journal._upkeep.tidy()
            assert await rt.journal.count() == 0
            monkeypatch.setattr(_upkeep, "UNSEEN_MS", 0)
            await rt.journal._upkeep.tidy()
            assert rows("SELECT count(*) FROM trace") == [(0,)]
            job = (await all_failed(rt, failing, 1))[0]
            assert "Traceback" in (await rt.journal.get(job.id)).traceback

    run(main)


@pytest.mark.parametrize("kind", [ordinary, durable])
def test_a_failure_in_a_file_whose_name_is_no_utf8_is_kept_like_any_other(run, path, kind):
    space: dict[str, Any] = {}
    file = b"/srv/caf\xe9/mail.py".decode("utf-8", "surrogateescape")
    exec(compile("async def send(n: int) -> None:\n    raise ValueError(n)\n", file, "exec"), space)

    async def main():
        async with Runtime(journal=path) as rt:
            job = await rt.submit(kind(space["send"]), 7)
            await job.wait()
            [kept] = await rt.journal.failures()
            assert (kept.id, kept.message) == (job.id, "7")
            assert kept.place == "/srv/caf\\udce9/mail.py:2 in send"
            assert kept.place.replace(":2", '", line 2,') in kept.traceback
            assert (await rt.journal.stats()).poisoned == 0
            assert (await rt.journal.stats()).jobs == {}

    run(main)


def test_what_cannot_be_written_at_all_is_a_problem_that_health_tells_of(run, path, monkeypatch):
    from bgruntime.journal import _recorder

    monkeypatch.setattr(_recorder, "milliseconds", lambda seconds: 1 << 70)

    async def main():
        async with Runtime(journal=path) as rt:
            await all_failed(rt, failing, 1)
            await rt.journal._writer.flush()
            assert any("1 rows could not be written at all" in reason for reason in rt.health().reasons)

    run(main)


def test_a_traceback_that_came_again_since_it_was_found_unused_stays(run, path, rows):
    async def main():
        async with Runtime(journal=path) as rt:
            await all_failed(rt, failing, 1)
            await rt.journal.purge()
            await rt.journal._writer.step(
                lambda connection: connection.execute("UPDATE trace SET seen_ms = 0")
            )
            unused = await rt.journal._access.read(_upkeep.unused_traces)
            assert len(unused) == 1
            job = (await all_failed(rt, failing, 1))[0]
            await rt.journal._writer.flush()
            await rt.journal._writer.step(_upkeep.delete_traces, unused, milliseconds(time.time()) - 60_000)
            assert "Traceback" in (await rt.journal.get(job.id)).traceback

    run(main)


def test_tracebacks_are_forgotten_in_short_steps_however_many_failures_are_new(run, path, rows, monkeypatch):
    """What waits for a commit meanwhile waits for one of these steps at most."""
    monkeypatch.setattr(_upkeep, "BATCH", 50)
    hashes = [n.to_bytes(16, "big") for n in range(200)]

    def add(connection: sqlite3.Connection, failures: int) -> None:
        connection.executemany("INSERT INTO trace VALUES(?, '', 0)", [(key,) for key in hashes])
        names = "key, id, task, args, state, reason, error, message, cause, trace, attempt, crashes, durable"
        names += ", redrives, budget, created_ms, failed_ms, changed_ms"
        now = milliseconds(time.time())
        for key in range(failures):
            row = (key, str(key), "t", "{}", 5, "", "", "", 0, b"used", 1, 0, 0, 0, 0, now, now, now)
            connection.execute(f"INSERT INTO ended({names}) VALUES({','.join('?' * len(row))})", row)

    async def longest(rt: Runtime, failures: int) -> int:
        """Steps of SQLite's machine in the longest transaction."""
        await rt.journal._writer.step(add, failures)
        taken, steps = [], _upkeep.delete_traces

        def counted(connection: sqlite3.Connection, *args: Any) -> None:
            ticks = [0]

            def tick() -> None:
                ticks[0] += 1

            connection.set_progress_handler(tick, 10)
            steps(connection, *args)
            connection.set_progress_handler(None, 0)
            taken.append(ticks[0])

        with monkeypatch.context() as patched:
            patched.setattr(_upkeep, "delete_traces", counted)
            await rt.journal._upkeep._forget_traces(milliseconds(time.time()))
        assert len(taken) == 4
        assert rows("SELECT count(*) FROM trace") == [(0,)]
        return max(taken)

    async def main():
        async with Runtime(journal=path) as rt:
            await rt.journal.leader.close()  # which does the same by itself
            few, many = await longest(rt, 0), await longest(rt, 2_000)
            assert many < 1.5 * few

    run(main)


def test_a_failure_that_was_redriven_with_success_stays_for_the_retention(run, path):
    async def main():
        switch = Switch()

        async def call() -> None:
            switch.use()

        async with Runtime(journal=Journal(path, retention=Retention(completed=0.0))) as rt:
            job = await rt.submit(ordinary(call))
            await job.wait()
            switch.works = True
            for again in await rt.journal.redrive():
                await again
            await until(lambda: _is(rt, job.id, "completed"))
            await asyncio.sleep(0.01)
            await rt.journal._upkeep.tidy()
            assert await rt.journal.get(job.id) is None

    run(main)


async def _is(rt: Runtime, id: str, state: str) -> bool:
    return (await rt.journal.get(id)).state == state
