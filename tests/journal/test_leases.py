"""Where the file system has no locks, a lease in time tells who lives, and the first of them leads."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from bgruntime import Runtime
from bgruntime.journal import Journal, _owners
from bgruntime.journal._claims import bury, dead
from bgruntime.journal._leader import Leader
from bgruntime.journal._owners import LEASE_MS, boot_id

from .programs import kill, line_of, program, started
from .steps import until

# A file system without locks, and a lease of three seconds.
WITHOUT_LOCKS = """
import errno, fcntl
from bgruntime.journal import _owners

def flock(fd, operation):
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

fcntl.flock = flock
_owners.LEASE_MS = 3_000
"""

WORKS = program(
    WITHOUT_LOCKS
    + """
@task(name="lease.work", durable=True, timeout=None, max_attempts=1)
async def work(name):
    print(f"{name} {sys.argv[2]}", flush=True)
    await asyncio.Event().wait()

async def main():
    async with Runtime(journal=sys.argv[1]) as rt:
        if sys.argv[2] == "first":
            await rt.submit(work, "job")
        while not rt.journal.leader.leads:
            await asyncio.sleep(0.01)
        print(f"leads {sys.argv[2]}", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
)


@pytest.mark.slow
def test_p22_without_locks_the_jobs_and_the_lead_of_a_dead_process_pass_to_another(path: Path) -> None:
    with started(WORKS, path, "first") as first:
        assert {line_of(first), line_of(first)} == {"job first", "leads first"}
        with started(WORKS, path, "second") as second:
            kill(first)
            assert {line_of(second), line_of(second)} == {"job second", "leads second"}


@pytest.mark.slow
def test_without_locks_a_process_that_was_stopped_for_longer_than_its_lease_leads_no_more(
    path: Path, rows: Any
) -> None:
    with started(WORKS, path, "first") as first:
        assert {line_of(first), line_of(first)} == {"job first", "leads first"}
        [(before,)] = rows("SELECT id FROM owner")
        with started(WORKS, path, "second") as second:
            first.send_signal(signal.SIGSTOP)
            assert {line_of(second), line_of(second)} == {"job second", "leads second"}
            first.send_signal(signal.SIGCONT)

            asyncio.run(until(lambda: len(rows("SELECT id FROM owner")) == 2))
            assert (before,) not in rows("SELECT id FROM owner")


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_without_locks_the_lead_passes_to_the_next_when_the_first_leaves(
    run: Any, path: Path, no_flock: None
) -> None:
    async def main() -> None:
        async with Runtime(journal=path) as one:
            await until(lambda: one.journal.leader.leads)
            async with Runtime(journal=path) as two:
                await one.stop()
                await until(lambda: two.journal.leader.leads)

    run(main)


def test_without_locks_a_leader_that_is_no_longer_the_first_ends_its_services(
    run: Any, clock: Any, path: Path, no_flock: None
) -> None:
    async def main() -> None:
        is_first = True
        served: list[int] = []

        async def first() -> bool:
            return is_first

        async def service() -> None:
            served.append(1)

        leader = Leader(str(path), first, lambda name, error: None)
        leader.add("one", service, 1)
        leader.start()
        await until(lambda: leader.leads and served)
        is_first = False
        await clock.advance(2)
        assert not leader.leads
        served.clear()
        await clock.advance(5)
        assert served == []
        await leader.close()

    run(main)


def test_a_journal_that_cannot_be_read_does_not_lead(run: Any, path: Path) -> None:
    async def main() -> None:
        assert await Journal(path)._is_first() is False

    run(main)


def test_another_trouble_with_the_lock_of_a_process_says_nothing_about_its_life(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    (path.parent / "lock").touch()
    with pytest.raises(OSError, match="error"):
        _owners.Other(7, "lock", 1, socket.gethostname(), boot_id(), None).is_dead(path.parent)


def test_a_lease_that_was_renewed_since_somebody_looked_is_not_over(
    run: Any, path: Path, no_flock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looked first and writes then looks again: at what is in the file by now."""

    async def main() -> None:
        async with Journal(path) as one, Journal(path) as two:
            now = _owners.boot_ms()
            monkeypatch.setattr(_owners, "boot_ms", lambda: now + LEASE_MS + 1)
            owner, other = one._ledger.owner, two._ledger.owner
            directory = Path(f"{path}.owners")
            [gone] = await two._access.read(dead, other, directory)
            assert gone.id == owner
            await one._writer.step(_owners.renew, owner)
            await two._writer.step(bury, gone, directory, 0)
            assert [one.id for one in await two._access.read(_owners.others, other)] == [owner]

    run(main)


@pytest.mark.parametrize(("boot", "gone"), [("this", False), ("another", True)])
def test_who_had_a_lock_where_there_are_none_now_is_dead_after_a_start_of_the_machine(
    path: Path, no_flock: None, boot: str, gone: bool
) -> None:
    boot = boot_id() if boot == "this" else boot
    other = _owners.Other(7, "lock", 1, socket.gethostname(), boot, None)
    (path.parent / "lock").touch()
    assert other.is_dead(path.parent) is gone
