"""P03 where several queues, delayed jobs and waiting submitters look at the same free slots."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from bgruntime import Queue, QueueFull, Runtime, task

from .steps import Gate, turns, until, word


def refused_after(submit, most=50):
    """How many `submit()` accepts before it raises QueueFull."""
    for number in range(most):
        try:
            submit()
        except QueueFull:
            return number
    raise AssertionError(f"{most} were accepted")


def test_p03_two_queues_do_not_both_count_on_the_same_free_slots(run):
    async def main():
        gate = Gate()
        queues = [Queue("a", size=1, overflow="reject"), Queue("b", size=1, overflow="reject")]
        async with Runtime(concurrency=4, queues=queues) as rt:
            a, b = task(queue="a")(gate.hold), task(queue="b")(gate.hold)
            accepted = [refused_after(partial(rt.submit_nowait, one)) for one in (a, b)]
            assert accepted == [5, 1], "four slots and two places, each counted once"
            await until(lambda: len(gate.started) == 4)
            stats = rt.stats().queues
            assert (stats["a"].waiting, stats["b"].waiting) == (1, 1)
            gate.open()

    run(main)


@pytest.mark.parametrize("first", ["a", "b"])
def test_p03_what_was_let_in_because_a_slot_was_free_gets_it_before_other_queues(run, first):
    async def main():
        gate = Gate()
        queues = [Queue("a", size=1, overflow="reject"), Queue("b", size=9, overflow="reject")]
        async with Runtime(concurrency=2, queues=queues) as rt:
            a, b = task(queue="a")(gate.hold), task(queue="b")(gate.hold)
            if first == "b":
                rt.submit_nowait(b, "b")
            while rt.stats().queues["a"].waiting < 3 - (first == "b"):
                rt.submit_nowait(a, "a")
            for _ in range(3):
                rt.submit_nowait(b, "b")
            await until(lambda: len(gate.started) == 2)
            assert rt.stats().queues["a"].waiting == 1
            gate.open()

    run(main)


@pytest.mark.parametrize("way", ["reserved", "durable", "paused"])
def test_p03_what_counted_on_slots_and_came_too_late_for_them_gets_the_next_ones(run, tmp_path, way):
    async def main():
        gate = Gate()
        options = {"queue": "a", "name": "counts on slots", "durable": way == "durable"}
        a, b = task(**options)(gate.hold), task(queue="b")(gate.hold)
        queues = [Queue("a", size=1), Queue("b", size=99)]
        async with Runtime(concurrency=4, queues=queues, journal=tmp_path / "jobs.db") as rt:
            if way == "reserved":
                reserved = [rt.reserve(a, "a") for _ in range(4)]
            elif way == "durable":
                submits = [asyncio.ensure_future(rt.submit(a, "a")) for _ in range(4)]
                await asyncio.sleep(0)  # their room is taken, and they are on the way to the disk
            else:
                for _ in range(4):
                    rt.submit_nowait(a, "a")
                rt.pause("a")
            for _ in range(12):
                rt.submit_nowait(b, "b")
            await until(lambda: len(gate.started) == 4)
            if way == "reserved":
                for one in reserved:
                    one.submit()
            elif way == "durable":
                await asyncio.gather(*submits)
            else:
                rt.resume("a")
            gate.open()
            await rt.drain()
        assert gate.started[:7] == ["b"] * 4 + ["a"] * 3

    run(main)


def test_p03_room_beyond_the_size_that_is_taken_and_given_back_is_not_kept_each_time(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=3, queues=[Queue("a", size=1)]) as rt:
            hold = task(queue="a")(gate.hold)
            first = rt.reserve(hold)
            for _ in range(100):
                rt.reserve(hold).release()
            first.release()
            assert len(rt._engine.owed) <= 1, "one queue, however many reservations were given back"

    run(main)


def test_p03_threads_that_are_missing_leave_the_free_slots_to_other_queues(run):
    async def main():
        gate, release = Gate(), threading.Event()
        queues = [Queue("plain", size=50), Queue("small", size=1, overflow="reject")]
        async with Runtime(concurrency=4, threads=1, queues=queues) as rt:
            plain, small = task(queue="plain")(release.wait), task(queue="small")(gate.hold)
            for _ in range(10):
                await rt.submit(plain)
            await turns()
            try:
                assert refused_after(lambda: rt.submit_nowait(small)) == 4, "three slots and a place"
            finally:
                release.set()
                gate.open()

    run(main)


def test_p03_a_delayed_job_counts_as_one_that_waits_beyond_the_free_slots(run, clock):
    async def main():
        gate = Gate()
        later = task(gate.hold).with_options(delay=60.0)
        async with Runtime(concurrency=3, queue_size=2, overflow="reject") as rt:
            assert refused_after(lambda: rt.submit_nowait(later)) == 5
            jobs = [rt.submit_nowait(gate.hold, number) for number in range(3)]
            await until(lambda: len(gate.started) == 3)
            with pytest.raises(QueueFull):
                rt.submit_nowait(gate.hold)
            gate.open()
            assert [await job for job in jobs] == [0, 1, 2]
            await clock.advance(60.0)
            await rt.drain()
            assert len(gate.started) == 8

    run(main)


def test_p03_many_delayed_jobs_at_once_may_count_on_free_slots(run, clock):
    async def main():
        gate = Gate()
        later = task(gate.note).with_options(delay=60.0)
        async with Runtime(concurrency=3, queue_size=2) as rt:
            jobs = await rt.submit_many(later, [(number,) for number in range(5)])
            with pytest.raises(QueueFull, match="never fit"):
                await rt.submit_many(later, [(number,) for number in range(6)])
            await clock.advance(60.0)
            assert [await job for job in jobs] == [0, 1, 2, 3, 4]

    run(main)


def test_p03_nobody_overtakes_a_waiter_that_was_called_and_has_not_gone_on_yet(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=2) as rt:
            await rt.submit(gate.hold, "running")
            await until(lambda: gate.started)
            queued = [await rt.submit(gate.hold, "queued") for _ in range(2)]
            waiter = asyncio.ensure_future(rt.submit(gate.hold, "waiter"))
            await turns()
            for job in queued:
                job.cancel()  # two places: one for the waiter, who was called and comes in the next turn
            with pytest.raises(QueueFull):
                rt.submit_nowait(gate.hold, "nowait")
            late = asyncio.ensure_future(rt.submit(gate.hold, "late"))
            await until(lambda: waiter.done() and late.done())
            assert rt.stats().queues["default"].waiting == 2
            gate.open()
            await rt.drain()
        assert gate.started == ["running", "waiter", "late"]

    run(main)


def test_p03_the_room_of_a_called_waiter_that_is_cancelled_goes_to_the_next(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            await rt.submit(gate.hold, "running")
            await until(lambda: gate.started)
            queued = await rt.submit(gate.hold, "queued")
            first, second = (
                asyncio.ensure_future(rt.submit(gate.hold, name)) for name in ("first", "second")
            )
            await turns()
            queued.cancel()
            first.cancel()
            await until(second.done, "the room going on to the second")
            assert first.cancelled()
            with pytest.raises(QueueFull):
                rt.submit_nowait(gate.hold, "third")
            assert word(second.result().state) == "available"
            gate.open()
        assert gate.started == ["running", "second"]

    run(main)


def test_p03_a_thousand_waiters_that_give_up_leave_the_line_and_hold_up_nobody(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            await rt.submit(gate.hold, "running")
            queued = await rt.submit(gate.hold, "queued")
            waiters = [asyncio.ensure_future(rt.submit(gate.hold, number)) for number in range(1_000)]
            await turns(3)
            for waiter in waiters[:-1]:
                waiter.cancel()
            await turns(3)
            queued.cancel()
            await until(waiters[-1].done)
            gate.open()
            assert await waiters[-1].result() == 999

    run(main)
