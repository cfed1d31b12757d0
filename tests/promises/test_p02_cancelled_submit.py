"""P02: a cancelled submit withdraws its job."""

from __future__ import annotations

import asyncio

import pytest

from bgruntime import Runtime, task

from .steps import Gate, turns, until


def test_p02_a_submit_cancelled_while_it_waits_for_room_withdraws_its_job(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            await rt.submit(gate.hold, "running")
            await rt.submit(gate.hold, "queued")
            named = task(gate.hold).with_options(id="withdrawn")
            submitting = asyncio.ensure_future(rt.submit(named, "withdrawn"))
            await turns()
            assert not submitting.done()
            submitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submitting
            assert rt.job("withdrawn") is None
            gate.open()
            await rt.drain()
        assert gate.started == ["running", "queued"]

    run(main)


def test_p02_the_place_of_a_cancelled_submit_goes_to_the_next_in_line(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            first = await rt.submit(gate.hold, "running")
            await until(lambda: gate.started)
            queued = await rt.submit(gate.hold, "queued")
            leaver = asyncio.ensure_future(rt.submit(gate.hold, "leaver"))
            stayer = asyncio.ensure_future(rt.submit(gate.hold, "stayer"))
            await turns()
            leaver.cancel()
            queued.cancel()
            await turns()
            assert stayer.done()
            gate.open()
            await first
            await stayer.result()
            with pytest.raises(asyncio.CancelledError):
                await leaver
        assert gate.started == ["running", "stayer"]

    run(main)


def test_p02_room_given_to_a_waiter_that_is_cancelled_in_the_same_turn_is_passed_on(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            await rt.submit(gate.hold, "running")
            await until(lambda: gate.started)
            queued = await rt.submit(gate.note, "queued")
            first = asyncio.ensure_future(rt.submit(gate.note, "first"))
            second = asyncio.ensure_future(rt.submit(gate.note, "second"))
            await turns()
            queued.cancel()
            first.cancel()
            await until(second.done, "the second waiter getting the room")
            assert first.done()
            gate.open()
            await rt.drain()
        expected = ["running", "second"] if first.cancelled() else ["running", "first", "second"]
        assert gate.started == expected

    run(main)


@pytest.mark.parametrize("turn", range(7))
def test_p02_cancelling_submit_at_any_turn_leaves_the_job_accepted_or_withdrawn_never_half(run, turn):
    async def main():
        gate, probe = Gate(), Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            await rt.submit(gate.hold, "running")
            await until(lambda: gate.started)
            queued = await rt.submit(gate.note, "queued")
            submitting = asyncio.ensure_future(rt.submit(gate.note, "doubtful"))
            await turns()
            queued.cancel()
            await turns(turn)
            submitting.cancel()
            await asyncio.wait([submitting])
            accepted = not submitting.cancelled()
            gate.open()
            await rt.drain()
            assert ("doubtful" in gate.started) == accepted
            assert sorted(await rt.map(probe.note, range(5))) == list(range(5))
            assert rt.stats().running == 0

    run(main)


@pytest.mark.parametrize("turn", range(7))
def test_p02_cancelling_submit_with_room_at_any_turn_never_half_accepts(run, turn):
    async def main():
        gate, accepted = Gate(), []
        async with Runtime(concurrency=2) as rt:

            async def submit():
                accepted.append(await rt.submit(gate.note, "job"))

            submitting = asyncio.ensure_future(submit())
            await turns(turn)
            submitting.cancel()
            await asyncio.wait([submitting])
            await rt.drain()
            assert len(gate.started) == len(accepted)

    run(main)


def test_p02_a_cancelled_submit_many_accepts_all_or_none(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=3) as rt:
            await rt.submit(gate.hold, "running")
            await until(lambda: gate.started)
            await rt.submit(gate.note, "queued")
            many = asyncio.ensure_future(rt.submit_many(gate.note, [("a",), ("b",), ("c",)]))
            await turns()
            assert not many.done()
            many.cancel()
            with pytest.raises(asyncio.CancelledError):
                await many
            gate.open()
            await rt.drain()
        assert gate.started == ["running", "queued"]

    run(main)


def test_p02_a_coroutine_object_of_a_cancelled_submit_is_closed(run):
    async def main():
        gate, ran = Gate(), []

        async def work():
            ran.append(1)

        async with Runtime(concurrency=1, queue_size=1) as rt:
            await rt.submit(gate.hold)
            await rt.submit(gate.hold)
            coroutine = work()
            submitting = asyncio.ensure_future(rt.submit(coroutine))
            await turns()
            submitting.cancel()
            await asyncio.wait([submitting])
            assert submitting.cancelled()
            assert coroutine.cr_frame is None, "the coroutine was not closed"
            gate.open()
        assert ran == []

    run(main)
