"""Who is dead, and what becomes of the jobs it had."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bgruntime import Runtime
from bgruntime.extend import JobQuarantined
from bgruntime.journal import Journal, _claims, _owners
from bgruntime.journal._claims import bury, claim, dead, quarantine_ours
from bgruntime.journal._files import prepare
from bgruntime.journal._flocks import _opened
from bgruntime.journal._owners import LEASE_MS, Other, Owner, boot_id, boot_ms, is_signed_in, others, register
from bgruntime.journal._schema import NEWEST, set_up

from .steps import durable, until

HOST = socket.gethostname()


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    prepare(path, NEWEST)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        set_up(connection, path)
        yield connection


@pytest.fixture
def directory(path: Path) -> Path:
    return Path(f"{path}.owners")


@pytest.fixture
def signed_in(connection: sqlite3.Connection, directory: Path) -> Iterator[Callable[[], Owner]]:
    """Makes another process of the file."""
    made: list[Owner] = []

    def sign_in() -> Owner:
        owner = Owner(directory)
        made.append(owner)
        register(connection, owner)
        return owner

    yield sign_in
    for owner in made:
        owner.close()


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has no such locks."""

    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", flock)


def has(connection: sqlite3.Connection, owner: int | None, *keys: int, **columns: Any) -> None:
    """Durable jobs of this owner, running unless something else is said."""
    for key in keys:
        row = {"key": key, "id": f"job-{key}", "given": 0, "task": "t", "args": "{}", "state": 2,
               "owner": owner, "run": 1, "attempt": 0, "crashes": 0, "created_ms": 1} | columns  # fmt: skip
        marks = ", ".join(f":{name}" for name in row)
        connection.execute(f"INSERT INTO job({', '.join(row)}) VALUES({marks})", row)


# Alive or dead


def test_whose_lock_file_was_removed_is_alive_for_as_long_as_it_runs_and_makes_it_anew(
    connection, directory, signed_in
):
    here, there = signed_in(), signed_in()
    (directory / there.lock).unlink()
    assert dead(connection, here.id, directory) == []
    there.stay()
    assert (directory / there.lock).exists()
    assert there.in_place
    assert sorted(file.name for file in directory.iterdir()) == sorted([here.lock, there.lock])
    assert dead(connection, here.id, directory) == []
    shutil.rmtree(directory)
    there.stay()
    there.stay()
    assert [file.name for file in directory.iterdir()] == [there.lock]
    there.close()
    assert [other.id for other in dead(connection, here.id, directory)] == [there.id]


def test_a_lock_file_that_cannot_be_made_anew_now_is_made_later(directory, signed_in, monkeypatch):
    owner = signed_in()
    (directory / owner.lock).unlink()

    def rename(old: str, new: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", rename)
        for _ in range(3):
            owner.stay()
    assert sum(lock._fd >= 0 for lock in _opened if str(directory) in getattr(lock, "path", "")) == 1
    owner.stay()
    assert owner.in_place


@pytest.mark.parametrize(
    ("changed", "is_dead"),
    [
        ({}, False),
        ({"pid": 1}, False),
        ({"pid": 2**22 + 1}, True),
        ({"host": "x"}, True),
        ({"boot": "x"}, True),
    ],
)
def test_whose_lock_file_is_missing_is_dead_unless_it_may_be_running_here(tmp_path, changed, is_dead):
    known = {"id": 1, "lock": "missing", "pid": os.getpid(), "host": HOST, "boot": boot_id(), "beat_ms": None}
    assert Other(**{**known, **changed}).is_dead(tmp_path) is is_dead


def test_a_process_of_another_user_is_alive(tmp_path, monkeypatch):
    def kill(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    assert not Other(1, "missing", 77, HOST, boot_id(), None).is_dead(tmp_path)


def test_a_job_does_not_run_twice_at_once_where_the_lock_files_were_cleaned_away(run, path, directory):
    async def main():
        running, most, gate = [], [], asyncio.Event()

        async def work() -> None:
            running.append(1)
            most.append(len(running))
            await gate.wait()
            running.pop()

        async with Runtime(journal=path) as rt:
            job = await rt.submit(durable(work))
            await until(lambda: running)
            for file in directory.iterdir():
                file.unlink()
            async with Runtime(journal=path) as other:
                await until(lambda: other.journal._feed._scanned)
                await until(lambda: len(list(directory.iterdir())) == 2)
                gate.set()
                await job
            assert most == [1]

    run(main)


def test_who_could_not_sign_off_is_found_dead_while_its_process_runs_on(connection, directory, signed_in):
    here, there = signed_in(), signed_in()
    has(connection, there.id, 1)
    there.close()
    [other] = dead(connection, here.id, directory)
    assert bury(connection, other, directory, 1) is not None


def test_where_locks_do_not_work_a_process_is_dead_half_a_minute_after_its_last_sign_of_life(tmp_path):
    def process(beat_ms: int, boot: str = boot_id(), host: str = HOST) -> Other:
        return Other(1, "lock", 4711, host, boot, beat_ms)

    now = boot_ms()
    assert not process(now - LEASE_MS + 5_000).is_dead(tmp_path)
    assert process(now - LEASE_MS - 1).is_dead(tmp_path)
    assert process(now, boot="before the last start").is_dead(tmp_path)
    assert not process(0, boot="another", host="elsewhere").is_dead(tmp_path)  # its clock is not ours


def test_where_nothing_tells_one_start_of_the_machine_from_another_all_are_one(monkeypatch, tmp_path):
    monkeypatch.setattr(_owners, "Path", lambda _: tmp_path / "nothing")
    boot_id.cache_clear()
    try:
        assert boot_id() == ""
        assert not Other(1, "lock", 1, HOST, "", boot_ms()).is_dead(tmp_path)
    finally:
        boot_id.cache_clear()


def test_a_lock_file_that_cannot_be_locked_is_the_journals_trouble_and_is_not_left_open(
    monkeypatch, directory
):
    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    before = set(_opened)
    with pytest.raises(OSError, match="Input/output error") as caught:
        Owner(directory)
    assert [lock._fd for lock in set(_opened) - before] == [-1]
    del caught  # its traceback has kept the lock in memory


def test_a_process_that_gave_a_sign_of_life_since_it_was_asked_about_is_not_buried(
    no_flock, connection, directory, signed_in
):
    slow = signed_in()
    has(connection, slow.id, 1)
    connection.execute("UPDATE owner SET beat_ms = beat_ms - ?", (LEASE_MS + 1_000,))
    [taken_for_dead] = dead(connection, 0, directory)
    connection.execute("UPDATE owner SET beat_ms = ?", (boot_ms(),))
    assert bury(connection, taken_for_dead, directory, 5) is None
    assert is_signed_in(connection, slow)
    assert connection.execute("SELECT owner, run FROM job").fetchall() == [(slow.id, 1)]


def test_a_process_is_buried_once(connection, directory, signed_in):
    gone = signed_in()
    [other] = others(connection, 0)
    gone.close()
    assert bury(connection, other, directory, 5) == _claims.Buried(0, None, ())
    assert bury(connection, other, directory, 5) is None


def test_who_turns_out_to_be_alive_keeps_its_lock_and_its_jobs(run, path, directory):
    async def main():
        async with Journal(path) as alive, Runtime(journal=path) as rt:
            [other] = await rt.journal._access.read(others, rt.journal._ledger.owner)
            await rt.journal._feed._bury(other, directory)
            assert (directory / other.lock).exists()
            assert (await alive.stats()).processes == 2

    run(main)


# What it had


def test_the_jobs_of_the_dead_come_free_page_by_page_and_those_that_killed_twice_do_not(
    monkeypatch, connection, directory, signed_in
):
    monkeypatch.setattr(_claims, "PAGE", 2)
    gone, alive = signed_in(), signed_in()
    has(connection, gone.id, 1, 3)
    has(connection, gone.id, 2, crashes=1)
    has(connection, gone.id, 4, crashes=1, state=3, due_ms=9)  # it waited: that counts no death
    has(connection, alive.id, 5)
    gone.close()
    [other] = dead(connection, 0, directory)
    first = bury(connection, other, directory, 5)
    assert first == _claims.Buried(2, 2, (("job-2", "t"),))
    second = bury(connection, other, directory, 5, 2)
    assert second == _claims.Buried(2, 4, ())
    assert bury(connection, other, directory, 5, 4) == _claims.Buried(0, None, ())
    rows = connection.execute("SELECT key, owner, state, crashes, due_ms FROM job ORDER BY key")
    freed = [(1, None, 0, 1, 1), (3, None, 0, 1, 1), (4, None, 3, 1, 9)]
    assert rows.fetchall() == [*freed, (5, alive.id, 2, 0, None)]
    kept = connection.execute("SELECT key, state, reason, crashes, message FROM ended").fetchall()
    assert kept == [(2, 6, "crash loop", 2, "its process died 2 times while it ran")]
    assert [other.id for other in others(connection, 0)] == [alive.id]


def test_what_somebody_else_has_taken_is_not_claimed_and_not_quarantined(connection, signed_in):
    ours, theirs = signed_in(), signed_in()
    has(connection, None, 1, state=0, due_ms=1)
    [claimed] = claim(connection, theirs.id, ["t"], 10, 5)
    assert (claimed.key, claimed.run) == (1, 2)
    assert claim(connection, ours.id, ["t"], 10, 5) == []
    quarantine_ours(connection, ours.id, [(1, 2, "no"), (7, 1, "gone")], "unfit", 5)
    assert connection.execute("SELECT owner FROM job").fetchall() == [(theirs.id,)]
    assert connection.execute("SELECT 1 FROM ended").fetchall() == []


class Ear:
    listens_to = (JobQuarantined,)

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def on_event(self, event: Any) -> None:
        self.heard.append((event.id, event.reason))


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "leases"])
def test_a_living_runtime_runs_the_jobs_of_a_dead_one_and_tells_which_it_will_not(run, path, request, locks):
    if not locks:
        request.getfixturevalue("no_flock")

    async def main():
        ran = []

        async def work(n: int) -> None:
            ran.append(n)

        task = durable(work)

        def dies(connection: sqlite3.Connection) -> None:
            owner = Owner(Path(f"{path}.owners"))
            register(connection, owner)
            has(connection, owner.id, 1, 2, task=task.name, args='{"n": 1}')
            has(connection, owner.id, 3, task=task.name, args='{"n": 3}', crashes=1)
            connection.execute("UPDATE owner SET beat_ms = beat_ms - 60000 WHERE id = ?", (owner.id,))
            owner._flock.close()

        async with Journal(path) as journal:
            await journal._writer.step(dies)
        ear = Ear()
        async with Runtime(journal=path, observers=[ear]) as rt:
            await until(lambda: ran == [1, 1])
            assert ear.heard == [("job-3", "crash loop")]
            stats = await rt.journal.stats()
            assert stats.processes == 1
            assert dict(stats.failures) == {"quarantined": 1}
            here = [file.name for file in Path(f"{path}.owners").iterdir()]
            assert here == [rt.journal._access.session.owner.lock]

    run(main)
