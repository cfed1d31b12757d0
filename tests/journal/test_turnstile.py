"""One writer at a time, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgruntime import Runtime
from bgruntime.extend import ports
from bgruntime.journal import _flocks, _turnstile
from bgruntime.journal._faults import Locked, describe
from bgruntime.journal._flocks import Flock, Tickets, holder, is_free
from bgruntime.journal._turnstile import Turnstile

from .steps import durable, until

HOLD = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path) -> Path:
    return tmp_path / "jobs.db.lock"


@pytest.fixture
def turnstile(lock) -> Iterator[Turnstile]:
    made = Turnstile(str(lock), ports.current().spawn)
    yield made
    made.close()


@pytest.fixture
def stranger(lock) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock until its standard input is closed."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdin=-1, stdout=-1)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin.close()


def test_whoever_has_entered_is_alone_until_it_leaves(turnstile, lock):
    turnstile.enter(1)
    assert not is_free(str(lock))
    turnstile.leave()
    assert is_free(str(lock))


@pytest.fixture
def no_flock(monkeypatch) -> None:
    """A file system that has no such locks."""

    def flock(fd, operation):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_where_there_are_no_such_locks_everybody_may_enter_and_one_leads(run, tmp_path, no_flock):
    async def main():
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _, said: told.append(said))
        path = tmp_path / "jobs.db"

        async def double(n: int) -> int:
            return 2 * n

        task = durable(double)
        async with Runtime(journal=path) as one, Runtime(journal=path) as two:
            assert not one.journal.problems()
            assert not two.journal.problems()
            assert one.journal._access.session.owner.leased
            submits = [rt.submit(task, n) for n in range(10) for rt in (one, two)]
            jobs = await asyncio.gather(*submits)
            assert [await job for job in jobs] == [2 * n for n in range(10) for _ in (one, two)]
            await until(lambda: one.journal.leader.leads)
            assert not two.journal.leader.leads
        assert told == []

    run(main)


def test_another_trouble_with_the_lock_is_the_journals(turnstile, monkeypatch):
    def flock(fd, operation):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="error") as caught:
        turnstile.enter(1)
    assert describe("jobs.db", caught.value).startswith("journal jobs.db cannot be opened: ")


def test_a_wait_ends_at_its_limit_and_names_the_holder(turnstile, stranger):
    with pytest.raises(Locked, match=f"locked by pid {stranger.pid} for more than 0.1 s"):
        turnstile.enter(0.1)


def test_a_lock_that_comes_free_is_handed_over(turnstile, stranger, lock):
    threading.Timer(0.05, lambda: stranger.stdin.close()).start()
    turnstile.enter(10)
    assert holder(str(lock)) == os.getpid()
    turnstile.leave()
    assert is_free(str(lock))


def test_a_lock_won_after_the_wait_was_given_up_is_let_go(turnstile, stranger, lock):
    with pytest.raises(Locked):
        turnstile.enter(0.02)
    stranger.stdin.close()
    turnstile.enter(10)  # in the place in the line that was kept
    turnstile.leave()
    assert is_free(str(lock))


def test_a_stopped_holder_does_not_hold_whoever_wants_to_leave(turnstile, stranger):
    os.kill(stranger.pid, signal.SIGSTOP)
    threading.Timer(0.05, turnstile.abort).start()
    began = time.monotonic()
    with pytest.raises(Locked):
        turnstile.enter(60)
    assert time.monotonic() - began < 5
    with pytest.raises(Locked):  # nor does anybody wait after that
        turnstile.enter(60)


def entering(lock: Path, name: str, entered: list[str]) -> threading.Thread:
    """A thread that enters through a turnstile of its own, notes that and leaves; it waits in line by now."""

    def enter() -> None:
        turnstile.enter(10)
        entered.append(name)
        turnstile.leave()

    turnstile = Turnstile(str(lock), ports.current().spawn)
    before = waiting(lock)
    thread = threading.Thread(target=enter)
    thread.start()
    until = time.monotonic() + 10
    while waiting(lock) == before:
        assert time.monotonic() < until
        time.sleep(0.001)
    return thread


def waiting(lock: Path) -> list[int]:
    """The numbers of all that wait. Only looked at: one that is drawn here would stand in the line."""
    tickets = Tickets(str(lock))
    told = [_flocks._number(tickets._fd, _flocks.TEST, fcntl.F_WRLCK, number, 1) for number in range(8)]
    tickets.close()
    return [number for number, (kind, *_) in enumerate(told) if kind != fcntl.F_UNLCK]


@pytest.mark.skipif(sys.platform != "linux", reason="there are no such locks")
def test_nobody_overtakes_those_who_wait_and_they_enter_in_the_order_they_came(turnstile, lock, monkeypatch):
    monkeypatch.setattr(_turnstile, "STALLED", 10.0)  # however busy the machine is, none of them was stopped
    for _ in range(5):
        entered: list[str] = []
        turnstile.enter(1)
        threads = [entering(lock, name, entered) for name in ("first", "second", "third")]
        turnstile.leave()
        turnstile.enter(10)
        entered.append("the one who has just left")
        turnstile.leave()
        for thread in threads:
            thread.join()
        assert entered == ["first", "second", "third", "the one who has just left"]


@pytest.mark.skipif(sys.platform != "linux", reason="there are no such locks")
def test_a_number_that_came_free_while_one_is_drawn_is_not_taken_before_those_who_wait(lock, monkeypatch):
    early, later, late = (Tickets(str(lock)) for _ in range(3))
    assert (early.draw(), later.draw()) == (None, 0)
    early.drop()
    monkeypatch.setattr(Tickets, "first", lambda _: None)  # as it is before anybody has a number
    assert late.draw() == 1
    assert waiting(lock) == [1, 2]
    for tickets in (early, later, late):
        tickets.close()


@pytest.mark.skipif(sys.platform != "linux", reason="there are no such locks")
def test_one_who_waits_and_does_not_move_keeps_nobody_from_a_lock_that_is_free(turnstile, lock):
    stopped = Tickets(str(lock))
    assert stopped.draw() is None
    for _ in range(20):  # only the first of these takes a while to find out
        turnstile.enter(2)
        assert holder(str(lock)) == os.getpid()
        turnstile.leave()
    stopped.close()
    turnstile.enter(2)
    turnstile.leave()


def test_a_lock_file_that_was_removed_is_noticed(turnstile, lock):
    assert turnstile.in_place()
    lock.unlink()
    assert not turnstile.in_place()


def test_the_lock_of_a_dead_process_is_free_at_once(stranger, lock):
    assert not is_free(str(lock))
    stranger.kill()
    stranger.wait()
    assert is_free(str(lock))


def test_a_lock_file_that_is_gone_is_held_by_nobody(tmp_path):
    assert is_free(str(tmp_path / "never"))


def test_a_forked_child_does_not_keep_its_parents_lock(tmp_path):
    path = tmp_path / "owner"
    script = f"""
import os, sys, warnings
warnings.simplefilter("ignore")
from bgruntime.journal._flocks import Flock
lock = Flock({str(path)!r})
assert lock.try_lock()
if os.fork() == 0:
    print("child", flush=True)
    sys.stdin.read()
    os._exit(0)
os.wait()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"child\n"
    assert not is_free(str(path))
    process.kill()
    process.wait()
    assert is_free(str(path))
    process.stdin.close()
    process.stdout.close()


def test_a_lock_that_was_closed_is_free_and_may_be_closed_again(tmp_path):
    lock = Flock(str(tmp_path / "x"))
    assert lock.try_lock()
    lock.close()
    lock.close()
    assert is_free(str(tmp_path / "x"))


def test_tickets_may_be_closed_twice_and_a_number_is_free_with_them(lock):
    first, second = Tickets(str(lock)), Tickets(str(lock))
    first.draw()
    first.close()
    first.close()
    assert second.first() is None
    second.close()


def test_beyond_the_most_that_can_have_numbers_one_waits_without(lock, monkeypatch):
    monkeypatch.setattr(_flocks, "MOST_WAITING", 2)
    tickets = [Tickets(str(lock)) for _ in range(4)]
    assert [one.draw() for one in tickets] == [None, 0, 1, None]
    tickets[1].drop()
    assert tickets[3].draw() is None  # the one that is free now is before one that waits
    tickets[2].drop()
    assert tickets[3].draw() == 0
    for one in tickets:
        one.close()


def no_such_command(fd, command, argument=0):
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.mark.skipif(_flocks.TAKE is None, reason="this system has no such locks anyhow")
@pytest.mark.parametrize("missing", ["in the library", "in the kernel"])
def test_where_there_are_no_tickets_the_lock_is_still_handed_over(lock, stranger, monkeypatch, missing):
    if missing == "in the library":
        for command in ("TAKE", "WAIT", "TEST"):
            monkeypatch.setattr(_flocks, command, None)
    else:
        monkeypatch.setattr(fcntl, "fcntl", no_such_command)
    turnstile = Turnstile(str(lock), ports.current().spawn)
    with pytest.raises(Locked, match=f"pid {stranger.pid}"):
        turnstile.enter(0.05)
    stranger.kill()
    stranger.wait()
    turnstile.enter(5)
    assert not is_free(str(lock))
    turnstile.leave()
    turnstile.close()


def test_another_trouble_with_the_tickets_is_the_journals(turnstile, monkeypatch):
    def fails(fd, command, argument=0):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "fcntl", fails)
    with pytest.raises(OSError, match="error"):
        turnstile.enter(1)


def test_who_was_told_to_leave_before_it_ever_waited_does_not_wait(turnstile, stranger):
    turnstile.abort()
    began = time.monotonic()
    with pytest.raises(Locked, match=f"pid {stranger.pid}"):
        turnstile.enter(30)
    assert time.monotonic() - began < 5
