"""What a journal refuses, and what it makes of damage."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from bgruntime import Runtime
from bgruntime.journal import Journal
from bgruntime.journal._failures import attempts_of, options_of, parsed
from bgruntime.journal._flocks import Flock, _close_in_child, _opened, holder
from bgruntime.journal._leader import Leader
from bgruntime.journal._line import finish

from .steps import durable, until


def test_values_that_mean_nothing_are_refused_by_name(path: Path) -> None:
    with pytest.raises(ValueError, match="synchronous is FULL or NORMAL, got 'OFF'"):
        Journal(path, synchronous="OFF")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="keep is in seconds and at least 0, got -1"):
        Journal(path, keep=-1)


def test_a_journal_is_open_for_one_runtime_at_a_time_and_closed_once(run: Any, path: Path) -> None:
    async def main() -> None:
        journal = Journal(path)
        async with Runtime(journal=journal):  # type: ignore[arg-type]
            with pytest.raises(RuntimeError, match="is open already"):
                async with Runtime(journal=journal):  # type: ignore[arg-type]
                    raise AssertionError
        await journal.close()

    run(main)


def test_a_durable_submit_that_the_stop_overtakes_leaves_nothing_to_run(
    run: Any, path: Path, rows: Any
) -> None:
    started: list[int] = []

    async def work() -> None:
        started.append(1)

    async def main() -> None:
        from bgruntime import RuntimeClosed

        async with Runtime(journal=path) as rt:
            submit = asyncio.ensure_future(rt.submit(durable(work)))
            stop = asyncio.ensure_future(rt.stop())
            with pytest.raises(RuntimeClosed):
                await submit
            await stop

    run(main)
    assert started == []
    assert rows("SELECT count(*) FROM job") == [(0,)]


def test_what_is_damaged_in_a_row_does_not_hide_the_rest_of_it() -> None:
    assert attempts_of("{not json") == ()
    assert attempts_of('[{"attempt": 1}]') == ()
    assert attempts_of(None) == ()
    assert parsed('{"cut": "in the mid') == '{"cut": "in the mid'
    assert options_of("[1]") == {}


def test_a_forked_child_closes_its_copies_of_the_locks_and_no_other_descriptor(tmp_path: Path) -> None:
    before = list(_opened)
    lock = Flock(str(tmp_path / "lock"))
    assert lock.try_lock()
    assert holder(lock.path) in (os.getpid(), None)  # where the system tells
    try:
        _opened.clear()
        _opened.add(lock)
        _close_in_child()
        assert lock._fd == -1
        _close_in_child()
    finally:
        _opened.update(before)
    again = Flock(lock.path)
    assert again.try_lock()
    again.close()


def test_the_holder_of_a_lock_that_is_gone_is_not_known(tmp_path: Path) -> None:
    assert holder(str(tmp_path / "nowhere")) is None


# -- who leads --------------------------------------------------------------------------------------


async def nobody() -> bool:
    raise AssertionError("there are locks here")


def test_a_leader_whose_lock_was_taken_out_of_its_place_lets_go_and_leads_again(
    run: Any, clock: Any, tmp_path: Path
) -> None:
    async def main() -> None:
        path = tmp_path / "leader"
        served: list[str] = []

        def serves(name: str) -> Any:
            async def service() -> None:
                served.append(name)

            return service

        leader = Leader(str(path), nobody, lambda name, error: None)
        leader.add("early", serves("early"), 100)
        leader.start()
        await until(lambda: served == ["early"])
        leader.add("late", serves("late"), 100)
        await until(lambda: served == ["early", "late"])
        path.unlink()
        await clock.advance(2)
        assert leader.leads
        assert path.exists()
        assert sorted(served) == ["early", "early", "late", "late"]
        await leader.close()

    run(main)


def test_a_service_that_is_given_again_takes_the_place_of_the_one_of_its_name(
    run: Any, clock: Any, tmp_path: Path
) -> None:
    async def main() -> None:
        served: list[str] = []

        def serves(name: str) -> Any:
            async def service() -> None:
                served.append(name)

            return service

        leader = Leader(str(tmp_path / "leader"), nobody, lambda name, error: None)
        leader.start()
        await until(lambda: leader.leads)
        leader.add("one", serves("first"), 100)
        await until(lambda: served == ["first"])
        leader.add("one", serves("second"), 100)
        await clock.advance(101)
        assert served == ["first", "second"]
        await leader.close()

    run(main)


def test_where_there_can_be_no_lock_file_nobody_leads_and_it_is_tried_again(
    run: Any, clock: Any, tmp_path: Path
) -> None:
    async def main() -> None:
        folder = tmp_path / "not yet"
        leader = Leader(str(folder / "leader"), nobody, lambda name, error: None)
        leader.start()
        await clock.advance(2)
        assert not leader.leads
        folder.mkdir()
        await clock.advance(2)
        assert leader.leads
        await leader.close()

    run(main)


@pytest.mark.parametrize("fails", [False, True])
def test_who_is_cancelled_while_the_file_is_at_work_is_cancelled_when_that_has_ended(
    run: Any, fails: bool
) -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def work() -> None:
            await ended.wait()
            if fails:
                raise OSError("heard by nobody")

        working = asyncio.ensure_future(work())
        waiting = asyncio.ensure_future(finish(working))
        await asyncio.sleep(0)
        for _ in range(2):
            waiting.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not waiting.done()
        ended.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert working.done()

    run(main)
