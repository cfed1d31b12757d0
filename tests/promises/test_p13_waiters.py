"""P13: the cancellation of whoever waits is never lost, and cancels no job it does not own."""

from __future__ import annotations

import asyncio
import random

import pytest

from bgruntime import Runtime, task

from .steps import Gate, turns, until, word


async def cancelled(waiting: asyncio.Task) -> None:
    """Cancel `waiting` and see that the cancellation comes out of it."""
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert waiting.cancelled()


@pytest.mark.parametrize("how", ["await", "wait"])
def test_p13_cancelling_a_waiter_cancels_the_wait_and_not_the_job(run, how):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.hold, "value")

            async def wait():
                return await (job if how == "await" else job.wait())

            leaver, stayer = asyncio.ensure_future(wait()), asyncio.ensure_future(wait())
            await turns()
            await cancelled(leaver)
            await turns()
            assert word(job.state) == "running"
            gate.open()
            assert await stayer == ("value" if how == "await" else None)
            assert await job == "value"

    run(main)


def test_p13_a_waiter_cancelled_in_the_turn_the_job_ends_is_still_cancelled(run):
    async def main():
        for turn in range(5):
            gate = Gate()
            async with Runtime() as rt:
                job = await rt.submit(gate.hold, "value")

                async def wait(job=job):
                    await job
                    await asyncio.sleep(0)
                    await asyncio.Event().wait()

                waiting = asyncio.ensure_future(wait())
                await until(lambda gate=gate: gate.started)
                gate.open()
                await turns(turn)
                await cancelled(waiting)
                assert await job == "value"

    run(main)


@pytest.mark.parametrize("turn", range(7))
def test_p13_cancelling_at_any_turn_comes_out_of_await_job(run, turn):
    async def main():
        @task
        async def work():
            await turns(3)

        async with Runtime() as rt:
            job = await rt.submit(work)
            after = []

            async def wait():
                await job
                after.append(asyncio.current_task().cancelling())
                await asyncio.Event().wait()

            waiting = asyncio.ensure_future(wait())
            await turns(turn)
            await cancelled(waiting)
            await job
            assert after in ([], [0])

    run(main)


def test_p13_cancelling_drain_cancels_the_wait_and_no_job(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.hold, "value")
            draining = asyncio.ensure_future(rt.drain())
            await turns()
            await cancelled(draining)
            assert word(job.state) == "running"
            gate.open()
            assert await job == "value"

    run(main)


def test_p13_drain_past_its_limit_is_a_timeouterror_and_changes_nothing(run, clock):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.hold, "value")
            draining = asyncio.ensure_future(rt.drain(timeout=5.0))
            await clock.advance(4.9)
            assert not draining.done()
            await clock.advance(0.1)
            with pytest.raises(TimeoutError):
                await draining
            assert word(job.state) == "running"
            other = await rt.submit(gate.note, "still open")
            assert await other == "still open"
            gate.open()
            assert await job == "value"

    run(main)


def test_p13_drain_waits_for_jobs_submitted_meanwhile_and_for_retries(run, clock):
    async def main():
        gate, calls = Gate(), []

        @task(max_attempts=2, backoff=lambda _: 5.0)
        async def flaky():
            calls.append(1)
            if len(calls) == 1:
                raise ValueError
            return "second"

        async with Runtime() as rt:
            await rt.submit(flaky)
            draining = asyncio.ensure_future(rt.drain())
            await turns()
            late = await rt.submit(gate.hold, "late")
            await clock.advance(5.0)
            assert len(calls) == 2
            assert not draining.done()
            gate.open()
            await draining
            assert late.result() == "late"

    run(main)


def test_p13_drain_does_not_wait_for_scheduled_jobs_nor_paused_queues(run, clock):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            later = await rt.submit(task(gate.note).with_options(delay=1000.0), "later")
            await rt.drain()
            rt.pause()
            held = await rt.submit(gate.note, "held")
            await rt.drain()
            assert gate.started == []
            rt.resume()
            assert await held == "held"
            later.cancel()

    run(main)


def test_p13_cancelling_the_owner_of_map_cancels_its_jobs_and_waits_for_them(run):
    async def main():
        gate, alone = Gate(), Gate()
        async with Runtime() as rt:
            mine = await rt.submit(alone.hold, "alone")

            async def owner():
                return await rt.map(gate.hold, range(10), limit=3)

            owning = asyncio.ensure_future(owner())
            await until(lambda: len(gate.started) == 3)
            await cancelled(owning)
            assert gate.running == 0
            assert sorted(gate.cancelled) == [0, 1, 2]
            await turns()
            assert len(gate.started) == 3, "nothing more starts"
            assert word(mine.state) == "running"
            alone.open()

    run(main)


def test_p13_cancelling_the_owner_of_gather_cancels_its_jobs_and_waits_for_them(run):
    async def main():
        cleaned = []

        @task
        async def work(number):
            try:
                await asyncio.Event().wait()
            finally:
                await turns(3)
                cleaned.append(number)

        async with Runtime() as rt:

            async def owner():
                return await rt.gather(*(work.bind(number) for number in range(4)))

            owning = asyncio.ensure_future(owner())
            await until(lambda: rt.stats().running == 4)
            await turns()
            owning.cancel()
            with pytest.raises(asyncio.CancelledError):
                await owning
            assert sorted(cleaned) == [0, 1, 2, 3]

    run(main)


def test_p13_gather_closes_coroutine_objects_that_never_ran(run):
    async def main():
        gate, ran = Gate(), []

        async def work(number):
            ran.append(number)
            await gate.hold(number)

        async with Runtime() as rt:
            coroutines = [work(number) for number in range(5)]

            async def owner():
                return await rt.gather(*coroutines, limit=2)

            owning = asyncio.ensure_future(owner())
            await until(lambda: len(gate.started) == 2)
            await cancelled(owning)
            assert ran == [0, 1]
            assert all(coroutine.cr_frame is None for coroutine in coroutines)

    run(main)


def test_p13_map_told_to_raise_cancels_the_others_waits_and_raises_the_first(run):
    async def main():
        cleaned, started = [], []

        @task
        async def work(number):
            started.append(number)
            if number == 2:
                await until(lambda: len(started) >= 4)
                raise ValueError("number two")
            try:
                await asyncio.Event().wait()
            finally:
                await turns(2)
                cleaned.append(number)

        async with Runtime() as rt:
            with pytest.raises(ValueError, match="number two"):
                await rt.map(work, range(20), limit=4)
            assert sorted(cleaned) == [0, 1, 3]
            await turns()
            assert len(started) == 4

    run(main)


def test_p13_map_on_error_return_gives_the_exceptions_in_place(run):
    async def main():
        @task
        async def work(number):
            if number % 2:
                raise ValueError(number)
            return number

        async with Runtime() as rt:
            results = await rt.map(work, range(4), on_error="return")
            assert results[0::2] == [0, 2]
            assert [type(result) for result in results[1::2]] == [ValueError, ValueError]

    run(main)


def test_p13_gather_gives_results_in_order_and_with_return_exceptions_what_awaiting_would_raise(run):
    async def main():
        problem = ValueError("b")

        async def plain(value):
            return value

        async def fail():
            raise problem

        async with Runtime() as rt:
            assert await rt.gather(task(plain).bind("a"), plain("c"), limit=1) == ["a", "c"]
            first, second = await rt.gather(plain("a"), task(fail).bind(), return_exceptions=True)
            assert first == "a"
            assert second is problem
            with pytest.raises(ValueError, match="b"):
                await rt.gather(plain("a"), fail())
            assert await rt.gather() == []

    run(main)


def test_p13_leaving_async_with_map_cancels_what_is_in_flight(run):
    async def main():
        gate = Gate()

        @task
        async def work(number):
            return number if number == 0 else await gate.hold(number)

        async with Runtime() as rt:
            async with rt.map(work, range(10), limit=3) as results:
                async for result in results:
                    assert result == 0
                    await until(lambda: len(gate.started) >= 2)
                    break
            assert gate.running == 0
            assert len(gate.cancelled) == len(gate.started)
            count = len(gate.started)
            await turns()
            assert len(gate.started) == count

    run(main)


def test_p13_aclose_of_a_fanout_cancels_what_is_in_flight(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            fanout = rt.map(gate.hold, range(10), limit=3)

            async def read():
                async for _ in fanout:
                    pass

            reading = asyncio.ensure_future(read())
            await until(lambda: len(gate.started) == 3)
            await fanout.aclose()
            assert gate.running == 0
            reading.cancel()
            await asyncio.wait([reading])

    run(main)


def test_p13_after_a_bare_break_nothing_more_starts(run):
    async def main():
        gate = Gate()

        @task
        async def work(number):
            gate.started.append(number)
            await turns(2)
            return number

        async with Runtime() as rt:
            async for _ in rt.map(work, range(100), limit=2):
                break
            count = len(gate.started)
            await turns(30)
            assert len(gate.started) <= count + 1
            await rt.drain()
            assert len(gate.started) <= count + 1

    run(main)


def test_p13_a_fanout_starts_at_its_first_iteration_and_is_used_once(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            fanout = rt.map(gate.note, range(3))
            await turns()
            assert gate.started == []
            assert await fanout == [0, 1, 2]
            with pytest.raises(RuntimeError):
                await fanout
            with pytest.raises(RuntimeError):
                async for _ in fanout:
                    pass
            assert len(gate.started) == 3

    run(main)


def test_p13_map_reads_sync_and_async_input_and_several_at_once(run):
    async def main():
        async def numbers():
            for number in range(3):
                await asyncio.sleep(0)
                yield number

        @task
        async def add(one, two=0):
            return one + two

        async with Runtime() as rt:
            assert await rt.map(add, numbers()) == [0, 1, 2]
            assert await rt.map(add, [1, 2], [10, 20]) == [11, 22]
            assert await rt.starmap(add, [(1, 2), (3, 4)]) == [3, 7]

    run(main)


def test_p13_an_input_that_raises_ends_the_map_with_its_exception(run):
    async def main():
        gate = Gate()

        def source():
            yield 1
            yield 2
            raise LookupError("input")

        async with Runtime() as rt:
            with pytest.raises(LookupError, match="input"):
                await rt.map(gate.hold, source(), limit=5)
            assert gate.running == 0

    run(main)


def test_p13_cancellations_of_waiters_at_random_are_each_seen_once(run):
    async def main():
        rng = random.Random(2)

        @task
        async def leaf(steps):
            await turns(steps)
            if steps == 3:
                raise ValueError

        async with Runtime(concurrency=3) as rt:

            async def client(how):
                await asyncio.sleep(0)
                match how:
                    case 0:
                        await (await rt.submit(leaf, rng.randrange(5)))
                    case 1:
                        await rt.map(leaf, [rng.randrange(5) for _ in range(4)])
                    case 2:
                        await rt.gather(leaf.bind(1), leaf.bind(rng.randrange(5)))
                    case 3:
                        async with rt.group() as group:
                            await group.submit(leaf, rng.randrange(5))
                            await group.submit(leaf, rng.randrange(5))
                await asyncio.Event().wait()

            for _ in range(150):
                waiting = asyncio.ensure_future(client(rng.randrange(4)))
                await turns(rng.randrange(12))
                ended = waiting.done()
                waiting.cancel()
                await asyncio.wait([waiting])
                if not ended and not waiting.cancelled():
                    # A failure came first, or both met: then the group raises and keeps the count.
                    assert isinstance(waiting.exception(), (ValueError, ExceptionGroup))
                    assert waiting.cancelling() == 1
                elif waiting.cancelled():
                    assert waiting.cancelling() >= 1
                else:
                    waiting.exception()
            await rt.drain()
            assert rt.stats().running == 0

    run(main)
