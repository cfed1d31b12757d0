"""Jobs at the edges of what a journal does with them: late, too early, too often, after the end."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from bgruntime import (
    AcceptUnknown,
    JobCancelled,
    JournalUnavailable,
    Queue,
    QueueFull,
    Runtime,
    RuntimeClosed,
    Snooze,
    task,
)
from bgruntime._host import Host
from bgruntime.extend import JobQuarantined
from bgruntime.journal import Journal, _feed, _recorder, _session, _upkeep

from .steps import Switch, durable, ordinary, until
from .test_degraded import Failing, impatient
from .test_feed import nothing_is_written
from .test_redrive import KINDS, _is_free, calling

assert impatient  # a fixture


async def failed(rt: Runtime, what: Any, *args: Any) -> Any:
    """A failure in the journal, as the job it was."""
    job = await rt.submit(what, *args)
    await job.wait()
    return job


# Times and options


def test_a_durable_job_whose_time_is_past_runs_at_once_and_is_available_on_disk(run, path, rows):
    async def main():
        async def work() -> None: ...

        past = datetime(2001, 9, 9, tzinfo=UTC)
        async with Runtime(journal=path) as rt:
            rt.pause()
            job = await rt.submit(durable(work).with_options(run_at=past))
            assert str(job.state) == "available"
            [(state, due)] = rows("SELECT state, due_ms FROM job")
            assert (state, due) == (0, int(past.timestamp() * 1000))
            rt.resume()
            await job

    run(main)


def test_what_a_job_was_submitted_with_is_kept_with_its_failure(run, path):
    async def main():
        async def fail() -> None:
            raise ValueError("no")

        async with Runtime(journal=path) as rt:
            job = await failed(rt, ordinary(fail).with_options(expires_in=60, tags=("a",), priority=2))
            kept = await rt.journal.get(job.id)
        assert kept.options["expires_in"] == 60
        assert kept.tags == ("a",)

    run(main)


def test_a_coroutine_object_that_failed_is_kept_and_says_that_it_runs_once(run, path):
    async def main():
        async def fail(n: int) -> None:
            raise ValueError(n)

        async with Runtime(journal=path) as rt:
            job = await rt.submit(fail(3))
            await job.wait()
            kept = await rt.journal.get(job.id)
            assert (kept.error, kept.message) == ("ValueError", "3")
            assert "coroutine object" in kept.obstacle
            with pytest.raises(LookupError, match="coroutine object"):
                await rt.journal.redrive(job.id)

    run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_of_many_failed_attempts_the_first_are_kept_and_the_last(run, path, monkeypatch, kind):
    monkeypatch.setattr(_recorder, "ERRORS", 3)
    monkeypatch.setattr("bgruntime.journal._journal.ERRORS", 3)

    async def main():
        attempts = []

        async def fail() -> None:
            attempts.append(1)
            if len(attempts) == 2:
                raise Snooze(0)
            raise ValueError(len(attempts))

        async with Runtime(journal=path) as rt:
            job = await failed(rt, KINDS[kind](fail, max_attempts=6, backoff=lambda state: 0))
            kept = await rt.journal.get(job.id)
        assert [one.message for one in kept.attempts] == ["1", "3", "4", "7"]
        assert kept.attempt == 6  # a snooze is none

    run(main)


# Starts


def waiting_in(path: Any, task: Any, *numbers: int) -> None:
    """Durable jobs that an earlier runtime has left."""

    async def main() -> None:
        async with Runtime(journal=path) as rt:
            rt.pause()
            await rt.submit_many(task, [(n,) for n in numbers])
            await rt.stop(drain=0)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def only_slot(rt: Runtime) -> AsyncIterator[asyncio.Event]:
    """Is taken, by something ordinary, until it is said to be free."""
    free = asyncio.Event()
    await rt.submit(free.wait)
    try:
        yield free
    finally:
        free.set()


@pytest.mark.parametrize("when", ["while it is written", "before it is written"])
def test_a_start_that_cannot_be_noted_is_tried_again_until_it_can_and_runs_once(
    run, path, impatient, when, rows
):
    ran: list[int] = []

    async def work(n: int) -> None:
        ran.append(n)

    task = durable(work)
    waiting_in(path, task, 1)

    async def main():
        async with Runtime(journal=path, concurrency=1) as rt, only_slot(rt) as free:
            [job] = await until(lambda: list(rt.jobs(task=task.name)))
            with nothing_is_written(path):
                if when == "before it is written":
                    with pytest.raises(JournalUnavailable):
                        await rt.submit(task, 2)
                free.set()
                await until(lambda: rt.journal.problems())
                assert ran == []
            await job.wait()
            assert ran == [1]
            await until(lambda: not rows("SELECT 1 FROM job"))

    run(main)


def test_a_job_that_somebody_else_has_by_now_is_not_started_here(run, path, rows):
    ran: list[int] = []

    async def work(n: int) -> None:
        ran.append(n)

    task = durable(work)
    waiting_in(path, task, 1)

    def taken(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE job SET owner = 77, run = run + 1")

    async def main():
        async with Runtime(journal=path, concurrency=1) as rt, only_slot(rt) as free:
            [job] = await until(lambda: list(rt.jobs(task=task.name)))
            await rt.journal._writer.step(taken)
            free.set()
            await job.wait()
            assert ran == []
            assert rows("SELECT owner, state FROM job") == [(77, 0)]
            assert repr(rt.journal).endswith("0 durable jobs here>")

    run(main)


def test_a_job_that_was_taken_in_again_and_is_over_meanwhile_does_not_run_again(run, path, rows):
    """As after this process was taken for dead: its jobs are free for a moment, and it takes them itself."""

    async def main():
        gate, ran = asyncio.Event(), []

        async def work(n: int) -> None:
            ran.append(n)
            await gate.wait()

        def struck_off(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE job SET owner = NULL, run = run + 1, due_ms = 1, state = 0")

        async with Runtime(journal=path, concurrency=1) as rt:
            job = await rt.submit(durable(work), 1)
            await until(lambda: ran)
            await rt.journal._writer.flush()
            await rt.journal._writer.step(struck_off)
            [_, again] = await until(lambda: len(both := [*rt.jobs(task=job.task)]) == 2 and both)
            gate.set()
            await job
            await again.wait()
            await until(lambda: not rows("SELECT 1 FROM job"))
            assert ran == [1]

    run(main)


# What the feed finds


class Ear:
    listens_to = (JobQuarantined,)

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def on_event(self, event: Any) -> None:
        self.heard.append((event.task, event.reason))


def version(name: str, kind: type) -> Any:
    async def work(n) -> None: ...

    work.__annotations__["n"] = kind
    return task(work, name=name, durable=True)


def test_a_job_whose_arguments_no_longer_fit_is_quarantined_and_told(run, path):
    old = version("edge.fits", int)
    waiting_in(path, old, 1)

    async def main():
        version("edge.fits", list)
        ear = Ear()
        async with Runtime(journal=path, observers=[ear]) as rt:
            await until(lambda: ear.heard)
            assert ear.heard == [("edge.fits", "arguments no longer fit")]
            [kept] = await rt.journal.failures()
            assert (kept.state, kept.args) == ("quarantined", {"n": 1})

    run(main)


def test_what_cannot_be_quarantined_now_is_given_back_and_quarantined_later(run, path, monkeypatch):
    old = version("edge.later", int)
    waiting_in(path, old, 1)
    real, calls = _feed.quarantine_ours, []

    def fails(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 1:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        real(*args)

    monkeypatch.setattr(_feed, "quarantine_ours", fails)

    async def main():
        version("edge.later", list)
        ear = Ear()
        async with Runtime(journal=path, observers=[ear]) as rt:
            await until(lambda: ear.heard)
            assert len(calls) == 2
            [kept] = await rt.journal.failures()
            assert kept.state == "quarantined"

    run(main)


def test_a_row_of_a_task_that_was_forgotten_meanwhile_is_given_back(run, path, rows, monkeypatch):
    ran: list[int] = []

    async def work(n: int) -> None:
        ran.append(n)

    task = durable(work)
    waiting_in(path, task, 1)
    definition, asked = Host.definition, []

    def forgotten_once(self: Host, name: str) -> Any:
        asked.append(name)
        return None if len(asked) == 1 else definition(self, name)

    monkeypatch.setattr(Host, "definition", forgotten_once)

    async def main():
        async with Runtime(journal=path):
            await until(lambda: ran)  # had it kept the row, nobody could have claimed it again
            await until(lambda: not rows("SELECT 1 FROM job"))
        assert (ran, len(asked)) == ([1], 2)

    run(main)


def test_rows_in_doubt_are_given_back_another_time_when_they_cannot_be_now(run, path, impatient):
    async def main():
        async with Runtime(journal=path) as rt:
            await until(lambda: not rt.journal.waiting())
            feed = rt.journal._feed
            feed.unsure = True
            with nothing_is_written(path), pytest.raises(JournalUnavailable):
                await feed._release()
            assert feed.unsure
            await until(lambda: not feed.unsure)

    run(main)


def test_what_goes_wrong_while_it_looks_is_told_and_it_looks_again(run, path, monkeypatch):
    async def main():
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, said: told.append(said))
        looks = []

        def broken(*_: object) -> list[Any]:
            looks.append(1)
            if len(looks) == 1:
                raise LookupError("no")
            return []

        monkeypatch.setattr(_feed, "dead", broken)
        monkeypatch.setattr(_feed, "SCAN", 0.01)
        async with Runtime(journal=path):
            await until(lambda: len(looks) > 1)
        assert [(said["message"], str(said["exception"])) for said in told] == [
            ("looking for durable jobs failed", "no")
        ]

    run(main)


# Redrives


def test_a_redrive_names_the_reason_of_what_it_means(run, path):
    async def main():
        switch = Switch()
        async with Runtime(journal=path) as rt:
            job = await failed(rt, ordinary(calling(switch)), 1)
            switch.works = True
            assert await rt.journal.redrive(reason="interrupted") == []
            [again] = await rt.journal.redrive(reason="failed")
            assert await again == 1
            assert job.id != again.id

    run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_a_redrive_that_was_cancelled_did_not_count_and_may_be_repeated(run, path, kind):
    async def main():
        switch = Switch()
        gate = asyncio.Event()

        async def call(n: int) -> int:
            if switch.used:
                await gate.wait()
            return switch.use(n)

        async with Runtime(journal=path) as rt:
            job = await failed(rt, KINDS[kind](call), 1)
            again = await rt.journal.redrive(job.id)
            await until(lambda: rt.stats().running)
            again[0].cancel()
            with pytest.raises(JobCancelled):
                await again[0]
            await until(lambda: _is_free(rt, job.id))
            kept = await rt.journal.get(job.id)
            assert (kept.state, kept.error) == ("discarded", "ConnectionError")
            switch.works = True
            gate.set()
            [again] = await rt.journal.redrive(job.id)
            assert await again == 1

    run(main)


CLAIMS = {"all": (), "one": ("id",)}


@pytest.mark.parametrize("which", CLAIMS)
@pytest.mark.parametrize("moment", ["committing", "committed"])
def test_a_redrive_that_is_given_up_while_it_claims_lets_go_of_what_it_claimed(
    run, path, monkeypatch, which, moment
):
    async def main():
        switch = Switch()
        async with Runtime(journal=path) as rt:
            loop = asyncio.get_running_loop()
            jobs = [await failed(rt, ordinary(calling(switch)), n) for n in range(3)]
            await rt.journal._writer.flush()
            begun, go_on = asyncio.Event(), threading.Event()
            commit, written = _session._commit, rt.journal._ledger.written

            def wait(connection: sqlite3.Connection) -> None:
                if connection.execute("SELECT 1 FROM ended WHERE owner IS NOT NULL").fetchone():
                    loop.call_soon_threadsafe(begun.set)
                    go_on.wait(10)
                commit(connection)

            def cancel(batch: Any) -> None:
                written(batch)
                if batch.step is not None and moment == "committed":
                    asking.cancel()  # it has its answer, and has not seen it

            monkeypatch.setattr(_session, "_commit", wait)
            monkeypatch.setattr(rt.journal._ledger, "written", cancel)
            asking = asyncio.ensure_future(rt.journal.redrive(*([jobs[0].id] if which == "one" else [])))
            await begun.wait()
            if moment == "committing":
                asking.cancel()
            go_on.set()
            await asyncio.gather(asking, return_exceptions=True)
            assert asking.cancelled()
            for job in jobs:
                await until(lambda id=job.id: _is_free(rt, id))
            assert await rt.journal.discard(jobs[0].id) == 1
        assert switch.used == [0, 1, 2]

    run(main)


def test_an_automatic_redrive_that_was_given_up_while_it_claimed_does_not_count(run, path, monkeypatch):
    """So it is where a process that leads loses the lead."""
    monkeypatch.setattr(_recorder, "FIRST_PAUSE_MS", 1)

    async def main():
        switch = Switch()
        async with Runtime(journal=path) as rt:
            await rt.journal.leader.close()
            job = await failed(rt, ordinary(calling(switch), redrive=1), 1)
            await rt.journal._writer.flush()
            loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
            commit = _session._commit

            def wait(connection: sqlite3.Connection) -> None:
                if connection.execute("SELECT 1 FROM ended WHERE owner IS NOT NULL").fetchone():
                    loop.call_soon_threadsafe(begun.set)
                    go_on.wait(10)
                commit(connection)

            async def due() -> None:
                while not begun.is_set():
                    await rt.journal._redriver.run_due()

            monkeypatch.setattr(_session, "_commit", wait)
            claiming = asyncio.ensure_future(due())
            await begun.wait()
            claiming.cancel()
            go_on.set()
            await asyncio.gather(claiming, return_exceptions=True)
            await until(lambda: _is_free(rt, job.id))
            kept = await rt.journal.get(job.id)
            assert (kept.state, kept.redrives, kept.redrives_left) == ("retryable", 0, 1)

    run(main)


def test_a_claim_of_which_nobody_knows_whether_it_was_written_is_let_go_of(run, path, monkeypatch):
    async def main():
        switch = Switch()
        async with Runtime(journal=path) as rt:
            job = await failed(rt, ordinary(calling(switch)), 1)
            await rt.journal._writer.flush()
            claimed = "SELECT 1 FROM ended WHERE owner IS NOT NULL"
            monkeypatch.setattr(_session, "_commit", Failing(made=True, when=claimed))
            with pytest.raises(JournalUnavailable, match="not known whether this was written"):
                await rt.journal.redrive(job.id)
            await until(lambda: _is_free(rt, job.id))
            switch.works = True
            [again] = await rt.journal.redrive(job.id)
            assert await again == 1

    run(main)


def test_a_failure_that_another_process_redrives_just_now_cannot_be_had(run, path, monkeypatch):
    async def main():
        async with Runtime(journal=path) as rt:
            job = await failed(rt, ordinary(calling(Switch())), 1)
            await rt.journal._writer.flush()

            async def seen(id: str) -> None: ...

            monkeypatch.setattr(
                rt.journal, "_check_redrivable", seen
            )  # it could be had when it was looked at
            await rt.journal._writer.step(held)
            with pytest.raises(LookupError, match="that can be redriven now"):
                await rt.journal.redrive(job.id)

    def held(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE ended SET owner = 77")

    run(main)


def test_a_redrive_by_hand_that_finds_no_room_gives_back_what_it_did_not_submit(run, path):
    async def main():
        switch = Switch()
        call = ordinary(calling(switch), queue="small")
        small = Queue("small", concurrency=1, size=1, overflow="reject")
        async with Runtime(journal=path, queues=[small]) as rt:
            for n in range(4):
                await failed(rt, call, n)
            switch.works = True
            rt.pause("small")
            with pytest.raises(QueueFull):
                await rt.journal.redrive()
            await rt.journal._writer.flush()
            free = await rt.journal.redrive(dry_run=True)
            assert 0 < len(free) < 4
            rt.resume("small")
            await rt.drain()

            async def none_left() -> bool:
                with contextlib.suppress(QueueFull):
                    await rt.journal.redrive()
                await rt.drain()
                return await rt.journal.count() == 0

            await until(none_left)
        assert sorted(switch.used[4:]) == [0, 1, 2, 3]

    run(main)


def test_what_is_claimed_when_the_stop_comes_is_given_back_uncounted(run, path):
    async def main():
        async with Runtime(journal=path) as rt:
            job = await failed(rt, ordinary(calling(Switch())), 1)
            await rt.journal._writer.flush()
            rt.journal._redriver.stop()
            with pytest.raises(RuntimeClosed):
                await rt.journal.redrive(job.id)
            await until(lambda: _is_free(rt, job.id))
            assert (await rt.journal.get(job.id)).redrives == 0

    run(main)


def test_what_is_still_under_way_when_redriving_ends_is_given_back_uncounted(run, path, monkeypatch):
    monkeypatch.setattr(_recorder, "FIRST_PAUSE_MS", 1)
    monkeypatch.setattr("bgruntime.journal._journal.REDRIVE", 0.02)

    async def main():
        runs, gate = [], asyncio.Event()

        async def fail() -> None:
            runs.append(1)
            if len(runs) > 1:
                await gate.wait()
            raise ValueError("no")

        async with Runtime(journal=path) as rt:
            job = await failed(rt, ordinary(fail, redrive=3))
            await until(lambda: len(runs) == 2)
            assert (await rt.journal.get(job.id)).redrives == 1
            await rt.journal._redriver.close()
            await rt.journal._writer.flush()
            kept = await rt.journal.get(job.id)
            assert (kept.redrives, kept.redrives_left, kept.obstacle) == (0, 3, None)
            gate.set()

    run(main)


def test_a_redrive_whose_acceptance_is_unknown_and_was_not_made_may_be_repeated(
    run, path, monkeypatch, impatient
):
    async def main():
        switch = Switch()
        async with Runtime(journal=path) as rt:
            job = await failed(rt, durable(calling(switch)), 1)
            await rt.journal._writer.flush()
            switch.works = True
            session, held = rt.journal._access.session, threading.Event()
            write = session.write

            def hangs(connection: Any, batch: Any, limit: float) -> Any:
                if batch.accepts and not held.is_set():
                    held.wait(10)
                    raise OSError("the disk is there again, and has nothing of it")
                return write(connection, batch, limit)

            monkeypatch.setattr(session, "write", hangs)
            with pytest.raises(AcceptUnknown):
                await rt.journal.redrive(job.id)
            held.set()
            await until(lambda: rt.journal._writer.takes)

            async def repeated() -> list[Any]:
                with contextlib.suppress(LookupError):
                    return await rt.journal.redrive(job.id)
                return []

            [again] = await until(repeated)
            assert await again == 1
        assert switch.used == [1, 1]

    run(main)


# Copies


def test_a_copy_that_is_damaged_is_refused_and_leaves_what_was_there(run, path, tmp_path):
    async def main():
        target = tmp_path / "copy.db"
        target.write_bytes(b"the copy of yesterday")
        async with Journal(path) as journal:
            await journal._writer.step(damage)
            with pytest.raises(Exception, match="is damaged"):
                await journal.backup(target)
        assert target.read_bytes() == b"the copy of yesterday"
        assert [file.name for file in tmp_path.glob("*.partial")] == []

    def damage(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("DELETE FROM sqlite_schema WHERE name = 'job_free'")  # its pages belong to nobody
        connection.execute("PRAGMA writable_schema=OFF")

    run(main)


def test_a_backup_that_nobody_waits_for_any_more_ends_quietly_even_after_its_loop(
    run, path, tmp_path, monkeypatch
):
    release, copied = threading.Event(), threading.Event()
    noise: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", noise.append)

    def copy(source: str, target: Any) -> None:
        release.wait(10)
        copied.set()

    monkeypatch.setattr(_upkeep, "copy", copy)

    async def main():
        async with Journal(path) as journal:
            making = asyncio.ensure_future(journal.backup(tmp_path / "copy.db"))
            for _ in range(20):
                await asyncio.sleep(0)
            making.cancel()
            with pytest.raises(asyncio.CancelledError):
                await making

    run(main)
    release.set()
    assert copied.wait(10)
    again = threading.Event()
    from bgruntime.extend import ports

    ports.current().spawn(again.set, "journal-backup")  # in the same thread, which has ended well
    assert again.wait(10)
    assert noise == []
