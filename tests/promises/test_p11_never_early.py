"""P11: nothing fires early, on the stock loop and on uvloop."""

from __future__ import annotations

import asyncio
import itertools
import random
import time

import pytest

from bgruntime import QueueFull, Retry, Runtime, Snooze, current_job, task

from .steps import Gate, turns, until, word


def test_p11_delays_never_fire_early_on_a_real_clock(run):
    async def main():
        rng = random.Random(5)
        early = []

        @task
        async def work(due):
            if time.monotonic() < due:
                early.append(due - time.monotonic())

        async with Runtime(concurrency=100) as rt:
            for _ in range(150):
                delay = rng.choice([0.0002, 0.0004, 0.0014, 0.0104, 0.1004]) + rng.random() / 1000
                due = time.monotonic() + delay
                await rt.submit(work.with_options(delay=delay), due)
        assert early == []

    run(main)


def test_p11_backoff_snooze_and_retry_never_fire_early_on_a_real_clock(run):
    async def main():
        gaps = []

        def steering(how):
            calls = []

            async def work():
                calls.append(time.monotonic())
                if len(calls) == 1:
                    raise how
                gaps.append(calls[1] - calls[0])

            work.__qualname__ = f"steering.{type(how).__name__}"
            return task(max_attempts=2, backoff=lambda _: 0.0204)(work)

        async with Runtime() as rt:
            for how in (ValueError("backoff"), Retry(after=0.0204), Snooze(0.0204)):
                await (await rt.submit(steering(how))).wait()
        assert len(gaps) == 3
        assert min(gaps) >= 0.0204

    run(main)


def test_p11_timeouts_never_fire_early_on_a_real_clock(run):
    async def main():
        lasted = []

        @task(timeout=0.0304)
        async def work():
            begun = time.monotonic()
            try:
                await asyncio.Event().wait()
            finally:
                lasted.append(time.monotonic() - begun)

        async with Runtime() as rt:
            for _ in range(3):
                await asyncio.gather(*[(await rt.submit(work)).wait() for _ in range(5)])
        # The attempt's clock starts no later than its first line.
        assert min(lasted) >= 0.0304 - 0.001

    run(main)


def test_p11_a_delayed_job_starts_at_its_due_time_not_before(run, clock):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(task(gate.note).with_options(delay=10.0), "due")
            for _ in range(99):
                await clock.advance(0.1)
                await turns(2)
            assert gate.started == []
            assert word(job.state) == "scheduled"
            await clock.advance(0.1001)
            assert await job == "due"

    run(main)


def test_p11_a_retry_starts_after_its_backoff_not_before(run, clock):
    async def main():
        calls = []

        @task(max_attempts=2, backoff=lambda _: 7.5)
        async def work():
            calls.append(1)
            raise ValueError

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: word(job.state) == "retryable")
            await clock.advance(7.4)
            await turns()
            assert len(calls) == 1
            await clock.advance(0.1)
            await job.wait()
        assert len(calls) == 2

    run(main)


def test_p11_a_wait_limit_never_ends_early_on_a_real_clock(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1, wait_limit=0.0304) as rt:
            await rt.submit(gate.hold)
            await rt.submit(gate.hold)
            begun = time.monotonic()
            with pytest.raises(QueueFull):
                await rt.submit(gate.hold)
            assert time.monotonic() - begun >= 0.0304
            gate.open()

    run(main)


def test_p11_a_later_timer_does_not_wait_for_an_earlier_one_that_was_cancelled(run, clock):
    async def main():
        gate = Gate()
        note = task(gate.note)
        async with Runtime() as rt:
            first = await rt.submit(note.with_options(delay=5.0), "first")
            second = await rt.submit(note.with_options(delay=6.0), "second")
            first.cancel()
            await clock.advance(5.5)
            await turns()
            assert gate.started == []
            await clock.advance(0.5)
            assert await second == "second"
        assert gate.started == ["second"]

    run(main)


def test_p11_an_earlier_timer_added_later_is_not_late(run, clock):
    async def main():
        gate = Gate()
        note = task(gate.note)
        async with Runtime() as rt:
            later = await rt.submit(note.with_options(delay=100.0), "later")
            sooner = await rt.submit(note.with_options(delay=1.0), "sooner")
            await clock.advance(1.0)
            assert await sooner == "sooner"
            later.cancel()

    run(main)


def test_p11_at_most_256_timers_fire_in_one_turn(run, clock):
    async def main():
        gate, seen = Gate(), []
        later = task(gate.note).with_options(delay=5.0)
        async with Runtime(concurrency=2000) as rt:
            jobs = [await rt.submit(later, number) for number in range(1000)]

            async def watch():
                while True:
                    seen.append(sum(word(job.state) != "scheduled" for job in jobs))
                    await asyncio.sleep(0)

            watching = asyncio.ensure_future(watch())
            await clock.advance(5.0)
            watching.cancel()
            await asyncio.wait([watching])
        assert seen[0] == 0
        assert seen[-1] == 1000
        assert max(later - sooner for sooner, later in itertools.pairwise(seen)) <= 256
        assert gate.started == list(range(1000))

    run(main)


def test_p11_the_default_backoff_is_full_jitter_up_to_its_cap(run, clock):
    async def main():
        waits = []

        @task(max_attempts=12, timeout=None)
        async def work():
            waits.append(clock.now)
            raise ValueError

        async with Runtime() as rt:
            job = await rt.submit(work)
            while word(job.state) != "discarded":
                await clock.settle()
                await clock.advance(clock.next_due)
        gaps = [later - sooner for sooner, later in itertools.pairwise(waits)]
        assert len(gaps) == 11
        for attempt, gap in enumerate(gaps):
            assert 0 <= gap <= min(300.0, 2.0**attempt) + 1e-6
        assert len({round(gap, 2) for gap in gaps}) > 3, "jitter varies"

    run(main)


def test_p11_a_tenacity_wait_serves_as_backoff(run, clock):
    tenacity = pytest.importorskip("tenacity")

    async def main():
        calls = []

        @task(max_attempts=3, backoff=tenacity.wait_exponential(multiplier=4))
        async def work():
            calls.append(current_job().attempt)
            raise ValueError

        async with Runtime() as rt:
            job = await rt.submit(work)
            for wait in (4.0, 8.0):
                await until(lambda: word(job.state) == "retryable")
                seen = len(calls)
                await clock.advance(wait - 0.1)
                await turns()
                assert len(calls) == seen
                await clock.advance(0.1)
                await until(lambda n=seen: len(calls) == n + 1)
            await job.wait()
        assert calls == [1, 2, 3]

    run(main)


def test_p11_a_backoff_callable_is_given_the_state_of_the_attempt(run, clock):
    async def main():
        states = []

        def backoff(state):
            states.append(state)
            return 1.0

        @task(max_attempts=3, backoff=backoff)
        async def work():
            raise ValueError("again")

        async with Runtime() as rt:
            job = await rt.submit(work)
            for _ in range(4):
                await turns()
                await clock.advance(1.0)
            await job.wait()
        assert len(states) == 2
        assert states[0] != states[1] or states[0] is not states[1]

    run(main)
