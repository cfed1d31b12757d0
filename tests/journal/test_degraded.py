"""Whatever is wrong with the file: ordinary work goes on, durable submits say so, and it mends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bgruntime import AcceptUnknown, JournalUnavailable, Runtime
from bgruntime.extend import JournalDegraded, JournalRecovered
from bgruntime.journal import Journal, _access, _session, _writer
from bgruntime.journal._faults import CommitUnknown, Locked
from bgruntime.journal._states import Row

from .programs import line_of, program, started
from .steps import Switch, directory_instead, durable, is_writing, ordinary, until
from .test_feed import nothing_is_written, writer_waits


class Ear:
    """Hears of the journal's troubles."""

    listens_to = (JournalDegraded, JournalRecovered)

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_event(self, event: Any) -> None:
        self.heard.append(event)

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.heard]


async def work(n: int = 0) -> int:
    return n


async def goes_on(rt: Runtime) -> None:
    """Ordinary work is not touched, and its failures are no trouble."""
    switch = Switch()

    async def fail() -> None:
        switch.use()

    assert await (await rt.submit(work, 5)) == 5
    job = await rt.submit(ordinary(fail))
    await job.wait()


async def refuses(rt: Runtime, complaint: str) -> None:
    """A durable submit fails fast, and says why."""
    began = time.monotonic()
    with pytest.raises(JournalUnavailable, match=complaint):
        await rt.submit(durable(work))
    assert time.monotonic() - began < 1
    health = rt.health()
    assert health.status != "pass"
    assert any("journal" in reason for reason in health.reasons)


async def takes_again(rt: Runtime) -> None:
    """It is well by itself, and then everything is as before."""

    async def accepted() -> bool:
        with contextlib.suppress(JournalUnavailable):
            assert await (await rt.submit(durable(work), 7)) == 7
            return True
        return False

    await until(accepted)
    assert not any("journal" in reason for reason in rt.health().reasons)


def a_journal(path: Path) -> None:
    """A file as a runtime leaves it."""

    async def main() -> None:
        async with Runtime(journal=path):
            pass

    asyncio.run(main())


BAD_FILES = {
    "text": (lambda path: path.write_bytes(b"hello\n" * 1000), "not an SQLite database"),
    "foreign": (lambda path: foreign(path), "another application"),
    "newer": (lambda path: newer(path), "schema version 99"),
    "truncated": (lambda path: truncated(path), "corrupt|not an SQLite"),
    "directory": (lambda path: path.mkdir(), "not a regular file"),
}


def foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE job(a, b)")
    connection.commit()
    connection.close()


def newer(path: Path) -> None:
    a_journal(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()


def truncated(path: Path) -> None:
    a_journal(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 // 4096 * 4096])


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_must_not_be_written_keeps_its_bytes_and_the_application_runs(run, path, kind):
    make, complaint = BAD_FILES[kind]
    make(path)
    before = path.read_bytes() if path.is_file() else None

    async def main():
        ear = Ear()
        async with Runtime(journal=path, observers=[ear]) as rt:
            await refuses(rt, complaint)
            await goes_on(rt)
            assert ear.kinds == ["JournalDegraded"]
            with pytest.raises(JournalUnavailable):
                await rt.journal.failures()
        if before is not None:
            assert path.read_bytes() == before

    run(main)


def test_a_file_that_was_put_right_is_used_without_a_restart(run, path, rows):
    path.write_bytes(b"hello\n" * 1000)

    async def main():
        ear = Ear()
        async with Runtime(journal=path, observers=[ear]) as rt:
            await refuses(rt, "not an SQLite database")
            await goes_on(rt)
            path.unlink()
            await takes_again(rt)
            assert ear.kinds == ["JournalDegraded", "JournalRecovered"]
            assert [one.error for one in await rt.journal.failures()] == ["ConnectionError"]  # told meanwhile

    run(main)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that waits a quarter of a second where it would wait for five."""
    monkeypatch.setattr(_access, "LOCK_LIMIT", 0.25)
    monkeypatch.setattr(_writer, "LOCK_LIMIT", 0.25)
    monkeypatch.setattr(_writer, "ACCEPT_LIMIT", 0.25)
    monkeypatch.setattr(_writer, "GRACE", 0.25)


HOLD = program("""
import fcntl
fd = os.open(sys.argv[1] + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
""")


def test_a_lock_that_is_held_fails_accepts_at_their_limit_and_names_the_holder(run, path, impatient):
    async def main():
        ear = Ear()
        async with Runtime(journal=path, observers=[ear]) as rt:
            with started(HOLD, path) as holder:
                assert line_of(holder) == "held"
                os.kill(holder.pid, signal.SIGSTOP)
                began = time.monotonic()
                with pytest.raises(JournalUnavailable, match=f"pid {holder.pid}"):
                    await rt.submit(durable(work))
                assert time.monotonic() - began < 2
                await refuses(rt, f"pid {holder.pid}")
                await goes_on(rt)
            await takes_again(rt)
            assert ear.kinds == ["JournalDegraded", "JournalRecovered"]

    run(main)


def test_whoever_waits_less_long_for_a_lock_is_accepted_when_it_comes_free(run, path):
    async def main():
        async with Runtime(journal=path) as rt:
            with started(HOLD, path) as holder:
                assert line_of(holder) == "held"
                submitting = asyncio.ensure_future(rt.submit(durable(work), 3))
                await asyncio.sleep(0.05)
                assert not submitting.done()
            assert await (await submitting) == 3

    run(main)


def test_a_stranger_that_locks_the_database_itself_is_waited_out(run, path):
    async def main():
        async with Runtime(journal=path) as rt:
            stranger = sqlite3.connect(path, isolation_level=None)
            stranger.execute("BEGIN IMMEDIATE")
            submitting = asyncio.ensure_future(rt.submit(durable(work), 3))
            await until(lambda: rt.journal.problems())
            stranger.execute("ROLLBACK")
            stranger.close()
            with contextlib.suppress(JournalUnavailable):
                await (await submitting)
            await takes_again(rt)

    run(main)


def test_a_full_disk_fails_durable_submits_and_keeps_the_newest_failures_until_there_is_room(run, path):
    async def main():
        ear = Ear()
        async with Runtime(journal=path, observers=[ear]) as rt:
            access = rt.journal._access
            big = "x" * 200_000

            async def never(text: str) -> None: ...

            pages = await access.write(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
            await access.write(lambda c: c.execute(f"PRAGMA max_page_count={pages}").fetchone())
            with pytest.raises(JournalUnavailable, match="disk full"):
                await rt.submit(durable(never), big)
            await goes_on(rt)
            await access.write(lambda c: c.execute("PRAGMA max_page_count=1000000").fetchone())
            await takes_again(rt)
            assert [one.error for one in await rt.journal.failures()] == ["ConnectionError"]
            assert ear.kinds == ["JournalDegraded", "JournalRecovered"]

    run(main)


def no_room(access: Any) -> Any:
    """No page more fits on the disk; what is there can be written to."""
    return access.write(
        lambda c: c.execute(
            f"PRAGMA max_page_count={c.execute('PRAGMA page_count').fetchone()[0]}"
        ).fetchone()
    )


def index_spoiled(access: Any) -> Any:
    """A page is damaged that is not read before a failure is written down."""

    def spoil(connection: sqlite3.Connection) -> None:
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ended_state'").fetchone()[
            0
        ]
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with open(access.path, "r+b") as file:
            file.seek((page - 1) * 4096)
            file.write(b"\xee" * 4096)
        connection.execute("PRAGMA shrink_memory")

    return access.write(spoil)


@pytest.mark.parametrize("break_it", [no_room, index_spoiled])
def test_what_cannot_be_written_is_tried_at_growing_pauses_and_the_trouble_is_told_once(run, path, break_it):
    """Also where the file itself can be opened and written to in other places."""

    async def main():
        ear = Ear()

        async def fail(text: str) -> None:
            raise ValueError(text)

        async with Runtime(journal=path, observers=[ear]) as rt:
            await rt.drain()
            access = rt.journal._access
            await break_it(access)
            began = time.monotonic()
            await (await rt.submit(ordinary(fail), "x" * 100_000)).wait()
            await until(lambda: access.errors >= 4)
            assert time.monotonic() - began >= 0.1 + 0.2 + 0.4
            assert ear.kinds == ["JournalDegraded"]
            with pytest.raises(JournalUnavailable):
                await rt.submit(durable(work))
            await goes_on(rt)
            if break_it is no_room:
                await access.write(lambda c: c.execute("PRAGMA max_page_count=1000000").fetchone())
                await takes_again(rt)
                assert len(await rt.journal.failures()) == 2
                assert ear.kinds == ["JournalDegraded", "JournalRecovered"]

    run(main)


def test_a_commit_that_fails_half_way_again_and_again_is_tried_at_growing_pauses(run, path, monkeypatch):
    tries: list[float] = []
    commit = _session._commit

    def break_down(connection: sqlite3.Connection) -> None:
        tries.append(time.monotonic())
        if len(tries) < 6:
            raise CommitUnknown("the disk failed during a commit: injected")
        commit(connection)

    async def main():
        ear = Ear()

        async def fail() -> None:
            raise ValueError

        async with Runtime(journal=path, observers=[ear]) as rt:
            await rt.drain()
            monkeypatch.setattr(_session, "_commit", break_down)
            await (await rt.submit(ordinary(fail))).wait()
            await until(lambda: len(tries) >= 6)
            assert tries[1] - tries[0] < 0.1 <= tries[2] - tries[1] < tries[5] - tries[4]
            assert len(await until(rt.journal.failures)) == 1
            assert ear.kinds == ["JournalDegraded", "JournalRecovered"]

    run(main)


def test_a_file_that_became_read_only_is_noticed_and_used_again_when_it_is_not(run, path):
    """By the next submit, or before it by what the journal has to write for itself."""

    async def main():
        ear = Ear()
        async with Runtime(journal=path, observers=[ear]) as rt:
            await rt.drain()
            await rt.journal._access.write(lambda c: c.execute("PRAGMA query_only=ON").fetchall())
            try:
                await rt.submit(durable(work))
            except JournalUnavailable as error:
                assert "read-only" in str(error)
            degraded = next(event for event in ear.heard if isinstance(event, JournalDegraded))
            assert "read-only" in degraded.reason
            await goes_on(rt)
            await takes_again(rt)  # on a new connection
            assert ear.kinds[:2] == ["JournalDegraded", "JournalRecovered"]

    run(main)


def test_failure_records_that_nobody_takes_are_bounded_and_what_is_lost_is_counted(run, path, monkeypatch):
    from bgruntime.journal import _ledger

    monkeypatch.setattr(_ledger, "RECORDS", 20)
    path.write_bytes(b"hello\n" * 1000)

    async def main():
        async def fail(n: int) -> None:
            raise ValueError(n)

        task = ordinary(fail)
        async with Runtime(journal=path) as rt:
            for n in range(50):
                await rt.submit(task, n)
            await rt.drain()
            assert any("30 failure records were dropped" in problem for problem in rt.journal.problems())
            path.unlink()
            await until(lambda: rt.journal._writer.takes)
            assert {one.message for one in await rt.journal.failures()} == {str(n) for n in range(30, 50)}
            assert (await rt.journal.stats()).dropped == 30

    run(main)


def locked_by_a_stranger(path: Path) -> sqlite3.Connection:
    """A connection that does not know our lock, and has SQLite's."""
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    return stranger


async def with_a_failure_and_a_cancelled_job(rt: Runtime) -> None:
    """One of each is in memory only, and the journal knows that it cannot be written."""

    async def fail() -> None:
        raise ValueError

    async def wait() -> None:
        await asyncio.Event().wait()

    job = await rt.submit(durable(wait))
    await until(lambda: job.state == "running")
    await rt.journal._writer.flush()
    stranger = locked_by_a_stranger(rt.journal.path)
    try:
        await (await rt.submit(ordinary(fail))).wait()
        job.cancel()
        await until(lambda: any("1 durable jobs are over" in one for one in rt.journal.problems()))
    finally:
        rt.journal.stranger = stranger


def test_what_is_unwritten_when_a_sick_journal_closes_is_counted_and_told(run, path, impatient):
    async def main():
        ear = Ear()
        rt = Runtime(journal=path, observers=[ear])
        async with rt:
            await with_a_failure_and_a_cancelled_job(rt)
            journal = rt.journal
        journal.stranger.close()
        last = ear.heard[-1]
        assert isinstance(last, JournalDegraded)
        assert "locked" in last.reason
        assert "closed with 1 failure records, which are lost, and the ends of 1 durable jobs" in last.reason
        assert journal._ledger.dropped == 1

    run(main)


def test_what_could_not_be_written_before_is_tried_once_more_when_the_journal_closes(
    run, path, rows, impatient, monkeypatch
):
    monkeypatch.setattr(_access, "FIRST_PAUSE", 5.0)

    async def main():
        ear = Ear()
        rt = Runtime(journal=path, observers=[ear])
        async with rt:
            await with_a_failure_and_a_cancelled_job(rt)
            rt.journal.stranger.close()
        assert ear.kinds == ["JournalDegraded", "JournalRecovered"]
        assert rows("SELECT state FROM ended ORDER BY state") == [(Row.DISCARDED,), (Row.CANCELLED,)]
        assert rows("SELECT * FROM job") == []

    run(main)


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


@pytest.mark.parametrize("thread", ["reads", "writes"])
def test_a_question_that_takes_too_long_is_ended_when_the_journal_closes(
    run, path, rows, monkeypatch, thread
):
    monkeypatch.setattr(_writer, "CLOSE_LIMIT", 0.2)

    async def main():
        begun = threading.Event()

        def ask(connection: sqlite3.Connection) -> None:
            begun.set()
            connection.execute(ENDLESS).fetchone()

        async with Runtime(journal=path) as rt:
            call = rt.journal._access.read if thread == "reads" else rt.journal._writer.step
            asking = asyncio.ensure_future(call(ask))
            await until(begun.is_set)
            await (await rt.submit(ordinary(fail))).wait()
        with pytest.raises(JournalUnavailable, match="interrupted"):
            await asking
        assert len(rows("SELECT * FROM ended")) == 1

    async def fail() -> None:
        raise ValueError

    run(main)


def test_a_stop_does_not_wait_longer_than_its_limit_for_a_disk_that_hangs(run, path):
    async def main():
        begun, go_on = threading.Event(), threading.Event()

        def hang(connection: sqlite3.Connection) -> int:
            begun.set()
            go_on.wait(30)
            return 7

        async with Runtime(journal=path) as rt:
            journal = rt.journal
            asking = asyncio.ensure_future(journal._writer.step(hang))
            await until(begun.is_set)
            began = time.monotonic()
            try:
                await rt.stop(drain=0, close=0.2)
                assert 0.2 <= time.monotonic() - began < 2
                assert "the journal did not close within 0.2 s" in rt.stats().faults
            finally:
                go_on.set()
            assert await asking == 7
            await until(lambda: not journal._open and len(asyncio.all_tasks()) == 1)  # it ended all the same

    run(main)


# The file is taken away under a runtime


def unlinked(path: Path) -> None:
    path.unlink()


def log_unlinked(path: Path) -> None:
    path.with_name(path.name + "-wal").unlink()


def index_unlinked(path: Path) -> None:
    path.with_name(path.name + "-shm").unlink()


def all_unlinked(path: Path) -> None:
    for side in ("", "-wal", "-shm"):
        path.with_name(path.name + side).unlink()


def replaced(path: Path) -> None:
    other = path.with_name("other.db")
    a_journal(other)
    os.replace(other, path)


def directory_removed(path: Path) -> None:
    while path.parent.exists():  # somebody may make a file in it meanwhile
        shutil.rmtree(path.parent, ignore_errors=True)


def directory_renamed(path: Path) -> None:
    path.parent.rename(path.parent.with_name("renamed"))


@pytest.mark.parametrize(
    "take_away", [unlinked, log_unlinked, index_unlinked, replaced, directory_removed, directory_renamed]
)
def test_no_accept_is_answered_from_a_file_that_is_gone_and_nothing_accepted_is_lost(
    run, tmp_path, take_away
):
    path = tmp_path / "inside" / "jobs.db"

    def found() -> set[str]:
        connection = sqlite3.connect(path)
        try:
            return {id for (id,) in connection.execute("SELECT id FROM job")}
        finally:
            connection.close()

    async def main():
        gate = asyncio.Event()

        async def wait(n: int) -> None:
            await gate.wait()

        task = durable(wait)
        async with Runtime(journal=path) as rt:
            before = await rt.submit(task, 1)
            await asyncio.to_thread(take_away, path)  # another loop runs in there
            ids = {before.id}
            for _ in range(2):
                with contextlib.suppress(JournalUnavailable, AcceptUnknown):
                    ids.add((await rt.submit(task, 2)).id)
                    break
            await until(lambda: rt.journal._writer.takes)
            after = await rt.submit(task, 3)
            assert found() >= ids | {after.id}
            gate.set()
            await rt.drain()
            await until(lambda: not found())

    run(main)


def test_what_was_accepted_into_a_file_that_is_gone_is_in_the_new_one_however_long_there_is_none(
    run, path, rows
):
    async def main():
        gate = asyncio.Event()

        async def wait(n: int) -> None:
            await gate.wait()

        task = durable(wait)
        async with Runtime(journal=path) as rt:
            jobs = await rt.submit_many(task, [(1,), (2,)])
            directory_instead(path)
            with contextlib.suppress(JournalUnavailable, AcceptUnknown):
                await rt.submit(task, 3)
            await refuses(rt, "not a regular file")
            path.rmdir()
            await until(lambda: rt.journal._writer.takes)
            theirs = {job.id for job in jobs}
            await until(lambda: {id for (id,) in rows("SELECT id FROM job")} >= theirs)
            gate.set()
            await rt.drain()
            await until(lambda: not rows("SELECT 1 FROM job"))

    run(main)


def test_an_id_that_was_taken_in_a_file_that_is_gone_may_be_given_in_the_new_one(run, path, rows):
    async def main():
        task = durable(work)
        async with Runtime(journal=path) as rt:
            connection = sqlite3.connect(path, isolation_level=None)
            connection.execute(
                "INSERT INTO job(key, id, given, task, args, state, run, attempt, crashes, created_ms)"
                " VALUES(1, 'given', 1, 'of nobody', '{}', 0, 1, 0, 0, 1)"
            )
            connection.close()
            with pytest.raises(ValueError, match="in the journal already"):
                await rt.submit(task.with_options(id="given"), 1)
            all_unlinked(path)
            assert await (await rt.submit(task.with_options(id="given"), 2)) == 2
            await until(lambda: not rows("SELECT 1 FROM job"))

    run(main)


def test_a_process_that_was_taken_for_dead_signs_in_again_and_its_jobs_are_its_own(run, path, rows):
    async def main():
        gate = asyncio.Event()

        async def wait(n: int) -> None:
            await gate.wait()

        task = durable(wait)
        async with Runtime(journal=path) as rt, Journal(path) as other:
            await rt.submit(task, 1)
            [(before,)] = rows("SELECT owner FROM job")
            await other._writer.step(struck_off, before)
            job = await taken(rt, task, 2)
            [(after,)] = rows(f"SELECT owner FROM job WHERE id = '{job.id}'")
            assert after != before
            assert (after,) in rows("SELECT id FROM owner")
            gate.set()
            await job
            await until(lambda: not rows(f"SELECT 1 FROM job WHERE id = '{job.id}'"))

    run(main)


async def taken(rt: Runtime, task: Any, n: int) -> Any:
    """The job, once it is accepted: while the journal signs in again it is not."""
    for _ in range(1_000):
        try:
            return await rt.submit(task, n)
        except JournalUnavailable:
            await asyncio.sleep(0.01)
    pytest.fail("it is never accepted")


def struck_off(connection: sqlite3.Connection, owner: int) -> None:
    """What another process does with one that it takes for dead."""
    connection.execute("UPDATE job SET owner = NULL, run = run + 1, due_ms = 1 << 50")
    connection.execute("DELETE FROM owner WHERE id = ?", (owner,))


# The disk fails in the middle of a commit


def disk_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    return error


class Failing:
    """A commit that fails, before it is made or after, of a transaction that finds what it looks for."""

    def __init__(self, *, made: bool, times: int = 1, when: str = "SELECT 1 FROM job") -> None:
        self.when = when
        self.made = made
        self.left = times
        self._commit = _session._commit

    def __call__(self, connection: sqlite3.Connection) -> None:
        if not self.left or not connection.execute(self.when).fetchone():
            self._commit(connection)
            return
        self.left -= 1
        if self.made:
            self._commit(connection)
        else:
            connection.execute("ROLLBACK")
        from bgruntime.journal._faults import CommitUnknown

        raise CommitUnknown("the disk failed during a commit: disk I/O error") from disk_error()


@pytest.mark.parametrize("made", [False, True], ids=["not made", "made"])
def test_a_commit_that_failed_half_way_is_looked_up_before_it_is_answered(run, path, monkeypatch, made):
    async def main():
        async with Runtime(journal=path) as rt:
            monkeypatch.setattr(_session, "_commit", Failing(made=made))
            if made:
                assert await (await rt.submit(durable(work), 4)) == 4
            else:
                with pytest.raises(JournalUnavailable, match="input/output"):
                    await rt.submit(durable(work), 4)
            await takes_again(rt)
            assert (await rt.journal.stats()).errors >= 1

    run(main)


def lock_unlinked(path: Path) -> None:
    path.with_name(path.name + ".lock").unlink()


def test_a_change_that_may_stand_in_a_file_whose_lock_was_removed_is_not_said_to_be_unwritten(run, path):
    async def fail() -> None:
        raise LookupError

    async def main():
        async with Runtime(journal=path) as rt:
            job = await rt.submit(ordinary(fail))
            await job.wait()
            await until(rt.journal.failures)
            lock_unlinked(path)
            with pytest.raises(JournalUnavailable, match=r"jobs\.db\.lock is no longer.*not known whether"):
                await rt.journal.discard(job.id)
            await until(lambda: rt.journal._writer.takes)
            assert await rt.journal.failures() == []
            assert (await rt.journal.get(job.id)).obstacle == "it was put away by hand"

    run(main)


@pytest.mark.parametrize("made", [False, True], ids=["not made", "made"])
@pytest.mark.parametrize("looked_up", [False, True], ids=["not looked up", "looked up"])
def test_a_change_whose_commit_failed_half_way_is_not_said_to_be_unwritten(
    run, path, monkeypatch, made, looked_up
):
    async def fail() -> None:
        raise LookupError

    async def cannot(self):
        raise disk_error()

    async def main():
        async with Runtime(journal=path) as rt:
            job = await rt.submit(durable(fail))
            await job.wait()
            await until(rt.journal.failures)
            put_away = f"SELECT 1 FROM ended WHERE state = {Row.GIVEN_UP:d}"
            monkeypatch.setattr(_session, "_commit", Failing(made=made, when=put_away))
            with monkeypatch.context() as patched:
                if not looked_up:
                    patched.setattr(_access.Access, "open", cannot)
                with pytest.raises(JournalUnavailable, match="not known whether this was written"):
                    await rt.journal.discard(job.id)
            await until(lambda: rt.journal._writer.takes)
            assert (await rt.journal.discard(job.id) == 0) is made

    run(main)


def test_a_change_in_a_commit_with_new_jobs_is_known_to_be_written_with_them(run, path, monkeypatch):
    async def main():
        async with Runtime(journal=path) as rt:
            monkeypatch.setattr(_session, "_commit", Failing(made=True))
            job, seven = await asyncio.gather(
                rt.submit(durable(work), 4), rt.journal._writer.step(lambda connection: 7)
            )
            assert seven == 7
            assert await job == 4

    run(main)


@pytest.mark.slow
def test_a_commit_that_cannot_be_looked_up_is_answered_with_its_id(run, path, monkeypatch):
    async def main():
        seen = []

        async def look(n: int) -> None:
            seen.append(n)

        async with Runtime(journal=path) as rt:
            looks = durable(look)
            for n in range(20):  # until nothing that a start brings with it shares a commit
                await (await rt.submit(looks, n))
            of_77 = "SELECT 1 FROM job WHERE CAST(args AS TEXT) LIKE '%77%'"
            monkeypatch.setattr(_session, "_commit", Failing(made=True, when=of_77))
            original = _access.Access.open
            broken = [True]

            async def opened(self):
                if broken[0]:
                    raise disk_error()
                await original(self)

            monkeypatch.setattr(_access.Access, "open", opened)
            with pytest.raises(AcceptUnknown) as caught:
                await rt.submit(looks, 77)
            broken[0] = False
            await until(lambda: rt.journal._writer.takes)
            await until(lambda: seen[20:] == [77])  # it was there, so it runs
            await until(lambda: _over(rt, caught.value.id))

    run(main)


async def _over(rt: Runtime, id: str) -> bool:
    return await rt.journal.get(id) is None


def test_a_disk_that_hangs_leaves_the_loop_alone_and_the_answer_open(run, path, monkeypatch, impatient):
    async def main():
        release = threading.Event()
        write = _session.Session.write
        seen = []

        async def look(n: int) -> None:
            seen.append(n)

        def hang(self, connection, batch, limit):
            if batch.accepts:
                release.wait(10)
            return write(self, connection, batch, limit)

        async with Runtime(journal=path) as rt:
            monkeypatch.setattr(_session.Session, "write", hang)
            with pytest.raises(AcceptUnknown):
                await rt.submit(durable(look), 1)
            assert await (await rt.submit(work, 5)) == 5
            release.set()
            await until(lambda: seen == [1])

    run(main)


def test_what_had_not_begun_to_be_written_when_its_time_was_over_is_not_written(
    run, path, monkeypatch, impatient
):
    async def main():
        release, hanging, seen = threading.Event(), threading.Event(), []
        write = _session.Session.write

        async def look(n: int) -> None:
            seen.append(n)

        def hang(self, connection, batch, limit):
            if batch.accepts:
                hanging.set()
                release.wait(10)
            return write(self, connection, batch, limit)

        async with Runtime(journal=path) as rt:
            await until(lambda: not rt.journal.waiting())
            monkeypatch.setattr(_session.Session, "write", hang)
            task = durable(look)
            begun = asyncio.ensure_future(rt.submit(task, 1))
            await until(hanging.is_set)
            queued = asyncio.ensure_future(rt.submit(task, 2))
            answers = await asyncio.gather(begun, queued, return_exceptions=True)
            assert [type(answer) for answer in answers] == [AcceptUnknown, JournalUnavailable]
            assert str(answers[1]).endswith("has not answered within 0 s; nothing was written")
            release.set()
            await until(lambda: seen == [1])
            await rt.drain()
            assert (await rt.journal.stats()).jobs == {}
            assert seen == [1]

    run(main)


def test_what_may_have_been_rescued_from_a_file_that_is_gone_is_never_said_to_be_unwritten(
    run, path, monkeypatch, impatient
):
    async def main():
        seen, locked = [], []
        write = _session.Session.write

        async def look(n: int) -> None:
            seen.append(n)

        def lose(self, connection, batch, limit):
            if batch.accepts and not locked:
                locked.append(True)
                all_unlinked(path)  # so that it is written to a file that has no name any more
            elif batch.accepts and locked[0]:
                raise Locked("locked by pid 1")
            return write(self, connection, batch, limit)

        async with Runtime(journal=path) as rt:
            await until(lambda: not rt.journal.waiting())
            monkeypatch.setattr(_session.Session, "write", lose)
            with pytest.raises(AcceptUnknown, match="locked by pid 1$"):
                await rt.submit(durable(look), 1)
            locked[0] = False
            await until(lambda: seen == [1])

    run(main)


def test_what_waits_behind_a_lock_that_others_hold_is_refused_by_name_when_its_time_is_over(
    run, path, monkeypatch
):
    """Not as unknown: it had not begun to be written."""
    monkeypatch.setattr(_writer, "LOCK_LIMIT", 0.05)  # of the step before it; the next try has five seconds
    monkeypatch.setattr(_writer, "ACCEPT_LIMIT", 0.4)
    monkeypatch.setattr(_writer, "GRACE", 0.0)

    async def main():
        async with Runtime(journal=path) as rt:
            await until(lambda: not rt.journal.waiting())
            with nothing_is_written(path):
                before_it = asyncio.ensure_future(rt.journal._writer.step(lambda connection: None))
                await writer_waits(rt.journal)
                with pytest.raises(JournalUnavailable, match="locked by pid .* nothing was written"):
                    await rt.submit(durable(work), 1)
                await asyncio.wait([before_it])
                assert isinstance(before_it.exception(), JournalUnavailable)
            await until(lambda: rt.journal._writer.takes)
            assert await (await rt.submit(durable(work), 2)) == 2

    run(main)


def test_who_left_while_the_disk_hung_is_not_told_and_its_job_does_not_run(run, path, monkeypatch, impatient):
    async def main():
        release, seen = threading.Event(), []
        write = _session.Session.write

        async def look(n: int) -> None:
            seen.append(n)

        def hang(self, connection, batch, limit):
            if batch.accepts:
                release.wait(10)
            return write(self, connection, batch, limit)

        async with Runtime(journal=path) as rt:
            monkeypatch.setattr(_session.Session, "write", hang)
            task = durable(look)
            leaving, staying = (asyncio.ensure_future(rt.submit(task, n)) for n in (1, 2))
            await until(lambda: is_writing(rt.journal._writer, "accepts"))
            leaving.cancel()
            with pytest.raises(AcceptUnknown):
                await staying
            assert leaving.cancelled()
            release.set()
            await until(lambda: seen == [2])
            await rt.drain()
            assert seen == [2]

    run(main)


# One row, or one caller


def test_a_row_that_cannot_be_written_fails_alone(run, path):
    async def main():
        async with Runtime(journal=path) as rt:
            good, bad = durable(work), durable(work, name="bad \ud800 name")
            answers = await asyncio.gather(
                rt.submit(good, 1), rt.submit(bad, 2), rt.submit(good, 3), return_exceptions=True
            )
            assert [await answers[0], await answers[2]] == [1, 3]
            assert "cannot be written" in str(answers[1])

    run(main)
