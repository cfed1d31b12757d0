"""P05: eligible jobs of one queue and priority start in the order of acceptance; no starvation."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta

import pytest

from bgruntime import Queue, Runtime, Snooze, task

from .steps import Gate, turns, until, word


async def blocked(rt, gate):
    """Take the only slot, so that what is submitted now waits together."""
    await rt.submit(task(priority=0)(gate.hold), "block")
    await until(lambda: gate.started)


@pytest.mark.parametrize("concurrency", [1, 3, 100])
def test_p05_jobs_of_one_priority_start_in_the_order_of_acceptance(run, concurrency):
    async def main():
        started = []

        @task
        async def work(number):
            started.append(number)
            await turns(number % 4)

        async with Runtime(concurrency=concurrency) as rt:
            for number in range(200):
                await rt.submit(work, number)
        assert started == list(range(200))

    run(main)


def test_p05_submit_many_and_nowait_keep_the_order_of_acceptance(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            await blocked(rt, gate)
            await rt.submit(gate.note, 0)
            await rt.submit_many(gate.note, [(1,), (2,)])
            rt.submit_nowait(gate.note, 3)
            await rt.submit(gate.note, 4)
            gate.open()
            await rt.drain()
        assert gate.started == ["block", 0, 1, 2, 3, 4]

    run(main)


def test_p05_priority_zero_starts_first_and_nine_last(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            await blocked(rt, gate)
            for priority in (5, 9, 0, 7, 2):
                await rt.submit(task(priority=priority)(gate.note), priority)
            gate.open()
            await rt.drain()
        assert gate.started == ["block", 0, 2, 5, 7, 9]

    run(main)


def test_p05_the_default_priority_is_five(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            await blocked(rt, gate)
            await rt.submit(task(priority=6)(gate.note), "six")
            await rt.submit(gate.note, "default")
            await rt.submit(task(priority=4)(gate.note), "four")
            gate.open()
            await rt.drain()
        assert gate.started == ["block", "four", "default", "six"]

    run(main)


def test_p05_with_options_sets_the_priority_of_one_submission(run):
    async def main():
        gate = Gate()
        note = task(gate.note)
        async with Runtime(concurrency=1) as rt:
            await blocked(rt, gate)
            await rt.submit(note, "plain")
            await rt.submit(note.with_options(priority=1), "urgent")
            gate.open()
            await rt.drain()
        assert gate.started == ["block", "urgent", "plain"]

    run(main)


@pytest.mark.parametrize("priority", [-1, 10, 2.5, "high"])
def test_p05_a_priority_outside_zero_to_nine_is_an_error(priority):
    with pytest.raises((ValueError, TypeError), match="priority"):

        @task(priority=priority)
        async def work():
            pass


def test_p05_every_eighth_start_takes_the_job_that_has_waited_longest(run):
    async def main():
        gate = Gate()
        low, high = task(priority=9)(gate.note), task(priority=0)(gate.note)
        async with Runtime(concurrency=1) as rt:
            await blocked(rt, gate)
            for number in range(5):
                await rt.submit(low, f"low-{number}")
            for number in range(60):
                await rt.submit(high, f"high-{number}")
            gate.open()
            await rt.drain()
        lows = [place for place, label in enumerate(gate.started) if str(label).startswith("low")]
        assert lows[0] <= 8
        assert [later - sooner for sooner, later in itertools.pairwise(lows)] == [8, 8, 8, 8]
        assert [gate.started[place] for place in lows] == [f"low-{number}" for number in range(5)]

    run(main)


def test_p05_a_stream_of_urgent_jobs_starves_no_one(run):
    async def main():
        gate, starts = Gate(), []
        async with Runtime(concurrency=2) as rt:

            @task(priority=0)
            async def urgent(number):
                starts.append("urgent")
                await asyncio.sleep(0)
                if number < 300:
                    rt.submit_nowait(urgent, number + 2)

            @task(priority=9)
            async def humble():
                starts.append("humble")

            await blocked(rt, gate)
            for number in (0, 1, 0, 1):
                rt.submit_nowait(urgent, number)
            job = await rt.submit(humble)
            gate.open()
            await job
            assert len(starts) <= 60, "the humble job waited for the whole stream"

    run(main)


def test_p05_queues_with_room_take_turns(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queues=[Queue("a"), Queue("b"), Queue("c")]) as rt:
            await blocked(rt, gate)
            for name in "abc":
                for number in range(10):
                    await rt.submit(task(queue=name)(gate.note), f"{name}{number}")
            gate.open()
            await rt.drain()
        order = gate.started[1:]
        for start in range(0, 30, 3):
            assert {label[0] for label in order[start : start + 3]} == {"a", "b", "c"}, order
        for name in "abc":
            assert [label for label in order if label[0] == name] == [
                f"{name}{number}" for number in range(10)
            ]

    run(main)


def test_p05_a_full_queue_does_not_hold_up_another(run):
    async def main():
        gate, other = Gate(), Gate()
        async with Runtime(concurrency=5, queues=[Queue("narrow", concurrency=1)]) as rt:
            narrow = task(queue="narrow")(gate.hold)
            jobs = [await rt.submit(narrow, number) for number in range(10)]
            assert await (await rt.submit(other.note, "through")) == "through"
            assert gate.started == [0]
            gate.open()
            assert [await job for job in jobs] == list(range(10))
        assert gate.most == 1

    run(main)


def test_p05_delayed_jobs_enter_in_the_order_of_their_due_times(run, clock):
    async def main():
        gate = Gate()
        note = task(gate.note)
        async with Runtime(concurrency=1) as rt:
            for delay in (3.0, 1.0, 2.0, 1.0, 5.0):
                await rt.submit(note.with_options(delay=delay), delay)
            await turns()
            assert gate.started == []
            await blocked(rt, gate)
            await clock.advance(10.0)
            await turns()
            gate.open()
            await rt.drain()
        assert gate.started == ["block", 1.0, 1.0, 2.0, 3.0, 5.0]

    run(main)


def test_p05_equal_due_times_keep_the_order_of_acceptance(run, clock):
    async def main():
        gate = Gate()
        later = task(gate.note).with_options(delay=7.0)
        async with Runtime(concurrency=1) as rt:
            jobs = [await rt.submit(later, number) for number in range(50)]
            await turns()
            await clock.advance(7.0)
            for job in jobs:
                await job
        assert gate.started == list(range(50))

    run(main)


def test_p05_a_delayed_job_queues_behind_those_accepted_before_it_was_due(run, clock):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            await blocked(rt, gate)
            delayed = await rt.submit(task(gate.note).with_options(delay=5.0), "delayed")
            await rt.submit(gate.note, "before")
            await clock.advance(5.0)
            await until(lambda: word(delayed.state) == "available")
            await rt.submit(gate.note, "after")
            gate.open()
            await rt.drain()
        assert gate.started == ["block", "before", "delayed", "after"]

    run(main)


def test_p05_a_retry_re_enters_at_its_due_time(run, clock):
    async def main():
        gate, calls = Gate(), []

        @task(max_attempts=2, backoff=lambda _: 5.0)
        async def flaky():
            calls.append(1)
            if len(calls) == 1:
                raise ValueError
            gate.started.append("retry")

        async with Runtime(concurrency=1) as rt:
            job = await rt.submit(flaky)
            await until(lambda: word(job.state) == "retryable")
            await blocked(rt, gate)
            await rt.submit(gate.note, "before")
            await clock.advance(5.0)
            await until(lambda: word(job.state) == "available")
            await rt.submit(gate.note, "after")
            gate.open()
            await rt.drain()
        assert gate.started == ["block", "before", "retry", "after"]

    run(main)


def test_p05_a_snoozed_job_is_retryable_and_re_enters_when_due(run, clock):
    async def main():
        gate, calls = Gate(), []

        @task
        async def sleepy():
            calls.append(1)
            if len(calls) == 1:
                raise Snooze(5.0)
            gate.started.append("snoozed")

        async with Runtime(concurrency=1) as rt:
            job = await rt.submit(sleepy)
            await until(lambda: word(job.state) == "retryable")
            assert await (await rt.submit(gate.note, "between")) == "between"
            await clock.advance(5.0)
            await job
        assert gate.started == ["between", "snoozed"]

    run(main)


def test_p05_states_of_a_delayed_job_are_scheduled_then_available_then_running(run, clock):
    async def main():
        gate, block = Gate(), Gate()
        async with Runtime(concurrency=1) as rt:
            await blocked(rt, block)
            job = await rt.submit(task(gate.hold).with_options(delay=5.0))
            assert word(job.state) == "scheduled"
            await clock.advance(5.0)
            await until(lambda: word(job.state) == "available")
            block.open()
            await until(lambda: word(job.state) == "running")
            gate.open()
            await job
            assert word(job.state) == "completed"

    run(main)


def test_p05_run_at_orders_like_a_delay(run, clock):
    async def main():
        from bgruntime.extend import ports

        gate = Gate()
        now = datetime.fromtimestamp(ports.current().time(), UTC)
        note = task(gate.note)
        async with Runtime(concurrency=1) as rt:
            later = await rt.submit(note.with_options(run_at=now + timedelta(seconds=20)), "at 20")
            sooner = await rt.submit(note.with_options(delay=10.0), "in 10")
            await clock.advance(10.0)
            await sooner
            assert not gate.started[1:]
            await clock.advance(10.0)
            await later
        assert gate.started == ["in 10", "at 20"]

    run(main)


def test_p05_no_line_of_a_job_runs_before_its_submit_returned(run):
    async def main():
        ran = []

        @task
        async def work(number):
            ran.append(number)

        async with Runtime() as rt:
            for number in range(20):
                job = await rt.submit(work, number)
                assert number not in ran
                if number % 3 == 0:
                    await job
            jobs = await rt.submit_many(work, [(100,), (101,)])
            assert 100 not in ran
            job = rt.submit_nowait(work, 200)
            assert 200 not in ran
            await job
            await jobs[1]

    run(main)


def test_p05_a_paused_queue_starts_nothing_and_keeps_its_order(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=2, queues=[Queue("side")]) as rt:
            rt.pause("side")
            side = task(queue="side")(gate.note)
            jobs = [await rt.submit(side, number) for number in range(4)]
            assert await (await rt.submit(gate.note, "default")) == "default"
            await turns()
            assert gate.started == ["default"]
            rt.resume("side")
            assert [await job for job in jobs] == [0, 1, 2, 3]
            rt.pause()
            job = await rt.submit(gate.note, "held")
            await turns()
            assert "held" not in gate.started
            rt.resume()
            await job
        assert gate.started == ["default", 0, 1, 2, 3, "held"]

    run(main)
