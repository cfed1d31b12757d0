"""What a batch that was not written leaves behind."""

from __future__ import annotations

import asyncio

from bgruntime.journal import _ledger
from bgruntime.journal._batch import Accept, Ending
from bgruntime.journal._ledger import Entry, Ledger


def test_an_ending_that_somebody_waits_for_is_still_to_outlive_a_power_cut_when_it_is_written_again(run):
    async def main():
        ledger = Ledger()
        future = asyncio.get_running_loop().create_future()
        ledger.end(Entry("a", 1, 1), Ending(future=future))
        for _ in range(3):
            batch = ledger.take()
            assert batch.durable
            ledger.restore(batch)
        ledger.written(ledger.take())
        await future
        ledger.end(Entry("b", 2, 1), Ending())
        assert not ledger.take().durable

    run(main)


def test_what_waited_comes_again_in_its_order_and_without_the_error_it_got_before(run):
    """A given id that is taken in a file that was replaced meanwhile may be free in the new one."""

    async def main():
        ledger = Ledger()
        accepts = [Accept([(n,)], 0.0, asyncio.get_running_loop().create_future()) for n in range(4)]
        for accept in accepts[:3]:
            ledger.add_accept(accept)
        batch = ledger.take()
        ledger.add_accept(accepts[3])
        accepts[0].error = ValueError("taken")
        accepts[1].future.cancel()
        ledger.restore(batch)
        again = ledger.take()
        assert again.accepts == [accepts[0], accepts[2], accepts[3]]
        ledger.written(again)
        for accept in again.accepts:
            await accept.future

    run(main)


def test_who_gave_up_waiting_before_the_commit_began_is_not_in_it(run):
    async def main():
        ledger = Ledger()
        left, stays = (Accept([(n,)], 0.0, asyncio.get_running_loop().create_future()) for n in range(2))
        ledger.add_accept(left)
        ledger.add_accept(stays)
        left.future.cancel()
        assert ledger.take().accepts == [stays]

    run(main)


def test_an_id_that_is_given_again_waits_until_the_rows_that_may_have_it_are_on_their_way_out(
    run, monkeypatch
):
    monkeypatch.setattr(_ledger, "ENDINGS", 2)

    async def main():
        ledger = Ledger()
        for n in range(3):
            ledger.complete(Entry(f"job-{n}", n, 1))
        free, given, behind = (
            Accept([(n, f"job-{n}", n == 6)], 0.0, asyncio.get_running_loop().create_future())
            for n in (5, 6, 7)
        )
        for accept in (free, given, behind):
            ledger.add_accept(accept)
        assert ledger.take().accepts == [free]
        assert ledger.take().accepts == [given, behind]

    run(main)


def test_a_start_is_not_noted_again_of_a_job_that_is_over_by_the_time_its_batch_comes_back():
    ledger = Ledger()
    entries = [Entry(f"job-{key}", key, 1) for key in range(4)]
    for entry in entries:
        ledger.touch(entry)
    batch = ledger.take()
    ledger.complete(entries[0])
    ledger.end(entries[1], Ending())
    entries[2].attempt = 7
    ledger.touch(entries[2])
    ledger.restore(batch)
    again = ledger.take()
    assert {entry.key: entry.attempt for entry in again.marked} == {2: 7, 3: 0}


def test_failures_that_were_not_written_come_before_newer_ones_and_the_oldest_are_dropped(monkeypatch):
    monkeypatch.setattr(_ledger, "RECORDS", 3)
    ledger = Ledger()
    for number in range(3):
        ledger.end(None, Ending(record={"number": number}))
    batch = ledger.take()
    ledger.end(None, Ending(record={"number": 3}))
    ledger.restore(batch)
    assert ledger.dropped == 1
    assert [ending.record for ending in ledger.take().endings] == [{"number": n} for n in (1, 2, 3)]


def test_what_is_given_up_is_counted_and_nobody_waits_for_it_any_longer(run):
    async def main():
        ledger = Ledger()
        future = asyncio.get_running_loop().create_future()
        ledger.end(Entry("a", 1, 1), Ending(future=future))
        ledger.end(Entry("b", 2, 1), Ending())
        ledger.end(None, Ending(resolve=("SELECT 1", {})))
        ledger.complete(Entry("c", 3, 1))
        for _ in range(2):
            ledger.end(None, Ending(record={}))
        assert ledger.give_up() == (2, 3)
        assert ledger.dropped == 2
        await future

    run(main)


def test_who_waits_to_know_whether_a_row_is_still_ours_is_told_that_nobody_could_say(run):
    async def main():
        ledger = Ledger()
        future = asyncio.get_running_loop().create_future()
        ledger.check(Entry("job-1", 1, 2), future)
        ledger.restore(ledger.take())
        assert await future is None
        assert ledger.idle

    run(main)
