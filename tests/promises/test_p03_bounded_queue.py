"""P03: the queue never exceeds its size; each overflow policy does what it says."""

from __future__ import annotations

import asyncio

import pytest

from bgruntime import JobCancelled, Queue, QueueFull, Runtime, RuntimeClosed, task
from bgruntime._engine import admit
from bgruntime.extend import JobAccepted, JobSettled

from .steps import Gate, turns, until, word


async def collect(results):
    return await results


def waiting(rt):
    return [job for job in rt.jobs() if word(job.state) in {"available", "retryable", "scheduled"}]


async def filled(rt, gate, *, running=1, queued=1):
    """Take `running` slots and put `queued` more jobs behind them."""
    jobs = [await rt.submit(gate.hold, f"running-{n}") for n in range(running)]
    await until(lambda: len(gate.started) == running)
    return jobs + [await rt.submit(gate.hold, f"queued-{n}") for n in range(queued)]


def test_p03_queue_size_counts_the_jobs_that_wait_beyond_the_free_slots(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=3, queue_size=2, overflow="reject") as rt:
            jobs = [rt.submit_nowait(gate.hold, n) for n in range(5)]
            with pytest.raises(QueueFull):
                rt.submit_nowait(gate.hold, 5)
            await until(lambda: len(gate.started) == 3)
            assert len(waiting(rt)) == 2
            with pytest.raises(QueueFull):
                rt.submit_nowait(gate.hold, 5)
            gate.open()
            assert [await job for job in jobs] == [0, 1, 2, 3, 4]

    run(main)


def test_p03_queuefull_is_never_raised_while_a_slot_is_free(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=50, queue_size=1, overflow="reject") as rt:
            for number in range(50):
                rt.submit_nowait(gate.hold, number)
                await turns(number % 3)
            await until(lambda: len(gate.started) == 50)
            gate.open()

    run(main)


def test_p03_a_freed_slot_makes_room_at_once(run):
    async def main():
        async with Runtime(concurrency=1, queue_size=1, overflow="reject") as rt:
            for number in range(20):
                gate = Gate()
                await filled(rt, gate)
                with pytest.raises(QueueFull):
                    await rt.submit(gate.hold, number)
                gate.open()
                await rt.drain()

    run(main)


def test_p03_queuefull_names_the_queue_and_the_limit(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, overflow="reject", queues=[Queue("mail", size=3)]) as rt:
            mail = task(queue="mail")(gate.hold)
            for number in range(4):
                await rt.submit(mail, number)
            with pytest.raises(QueueFull) as raised:
                await rt.submit(mail)
            assert "mail" in str(raised.value)
            assert "3" in str(raised.value)
            gate.open()

    run(main)


def test_p03_wait_lets_submit_wait_until_there_is_room(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1, overflow="wait") as rt:
            jobs = await filled(rt, gate)
            third = asyncio.ensure_future(rt.submit(gate.hold, "third"))
            await turns()
            assert not third.done()
            jobs[1].cancel()
            await until(third.done, "the waiter getting room")
            gate.open()
            assert await third.result() == "third"

    run(main)


def test_p03_waiters_are_first_come_first_served(run):
    async def main():
        gate, accepted = Gate(), []
        async with Runtime(concurrency=1, queue_size=1) as rt:
            jobs = await filled(rt, gate)

            async def submit(number):
                job = await rt.submit(gate.hold, number)
                accepted.append(number)
                return job

            waiters = []
            for number in range(6):
                waiters.append(asyncio.ensure_future(submit(number)))
                await turns(2)
            last = jobs[1]
            for number in range(6):
                last.cancel()
                await until(lambda n=number: len(accepted) == n + 1, "one more waiter accepted")
                await turns()
                assert accepted == list(range(number + 1))
                last = waiters[number].result()
            gate.open()

    run(main)


def test_p03_submit_nowait_never_overtakes_a_waiter(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            jobs = await filled(rt, gate)
            waiter = asyncio.ensure_future(rt.submit(gate.hold, "waiter"))
            await turns()
            jobs[1].cancel()
            # The room belongs to the waiter, though its task has not run yet.
            with pytest.raises(QueueFull):
                rt.submit_nowait(gate.hold, "nowait")
            await until(waiter.done)
            gate.open()
            await waiter.result()
        assert "nowait" not in gate.started
        assert "waiter" in gate.ended

    run(main)


def test_p03_a_later_submit_does_not_overtake_an_earlier_one_that_waits(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            jobs = await filled(rt, gate)
            early = asyncio.ensure_future(rt.submit(gate.hold, "early"))
            await turns()
            jobs[1].cancel()
            late = asyncio.ensure_future(rt.submit(gate.hold, "late"))
            await until(early.done)
            await turns()
            assert not late.done()
            gate.open()
            await early.result()
            await (await late)
        assert gate.started == ["running-0", "early", "late"]

    run(main)


def test_p03_wait_limit_ends_the_wait_with_queuefull_and_no_effect(run, clock):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1, wait_limit=3.0) as rt:
            await filled(rt, gate)
            late = asyncio.ensure_future(rt.submit(gate.hold, "late"))
            await turns()
            await clock.advance(2.9)
            await turns()
            assert not late.done()
            await clock.advance(0.2)
            with pytest.raises(QueueFull):
                await late
            gate.open()
            await rt.drain()
        assert gate.started == ["running-0", "queued-0"]

    run(main)


def test_p03_room_before_the_wait_limit_accepts_and_the_limit_never_fires_later(run, clock):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1, wait_limit=3.0) as rt:
            jobs = await filled(rt, gate)
            waiter = asyncio.ensure_future(rt.submit(gate.hold, "waiter"))
            await turns()
            await clock.advance(2.0)
            jobs[1].cancel()
            job = await waiter
            await clock.advance(100.0)
            gate.open()
            assert await job == "waiter"

    run(main)


def test_p03_reject_raises_queuefull_at_once_from_submit(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1, overflow="reject") as rt:
            await filled(rt, gate)
            attempt = rt.submit(gate.hold, "late")
            with pytest.raises(QueueFull):
                # One step is enough: it never suspends.
                attempt.__await__().send(None)
            gate.open()

    run(main)


def test_p03_submit_nowait_never_waits_whatever_the_policy(run):
    async def main():
        for overflow in ("wait", "reject"):
            gate = Gate()
            async with Runtime(concurrency=1, queue_size=1, overflow=overflow) as rt:
                await filled(rt, gate)
                with pytest.raises(QueueFull):
                    rt.submit_nowait(gate.hold)
                gate.open()

    run(main)


def test_p03_drop_oldest_takes_the_oldest_waiting_job_of_the_lowest_priority(run):
    async def main():
        gate = Gate()
        high, low = task(priority=1)(gate.note), task(priority=8)(gate.note)
        async with Runtime(concurrency=1, queue_size=4, overflow="drop_oldest") as rt:
            await rt.submit(gate.hold, "running")
            await until(lambda: gate.started)
            oldest_high = await rt.submit(high, "high-1")
            oldest_low = await rt.submit(low, "low-1")
            younger_low = await rt.submit(low, "low-2")
            younger_high = await rt.submit(high, "high-2")
            dropped = []
            for number in range(4):
                await rt.submit(task(priority=5)(gate.note), f"new-{number}")
                dropped = [
                    name
                    for name, job in [
                        ("high-1", oldest_high),
                        ("low-1", oldest_low),
                        ("low-2", younger_low),
                        ("high-2", younger_high),
                    ]
                    if word(job.state) == "cancelled"
                ]
                if number == 0:
                    assert dropped == ["low-1"]
            # Priority 5 is now the lowest of those that wait: the new ones go before the high ones.
            assert dropped == ["low-1", "low-2"]
            assert len(waiting(rt)) == 4
            gate.open()
            await rt.drain()
        assert gate.started == ["running", "high-1", "high-2", "new-2", "new-3"]

    run(main)


def test_p03_drop_oldest_works_for_submit_nowait_and_keeps_the_size(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=2, overflow="drop_oldest") as rt:
            rt.submit_nowait(gate.hold, "running")
            await until(lambda: gate.started)
            jobs = [rt.submit_nowait(gate.note, number) for number in range(10)]
            assert len(waiting(rt)) == 2
            gate.open()
            for job in jobs[:8]:
                with pytest.raises(JobCancelled):
                    await job
            assert [await job for job in jobs[8:]] == [8, 9]
        assert gate.started == ["running", 8, 9]

    run(main)


def test_p03_the_next_item_of_a_map_does_not_slip_into_the_place_of_the_one_that_was_dropped(run):
    async def main():
        gate = Gate()
        most = []

        class Watch:
            listens_to = (JobAccepted,)

            def on_event(self, event):
                most.append(rt.stats().waiting)

        async with Runtime(concurrency=1, queue_size=2, overflow="drop_oldest", observers=[Watch()]) as rt:
            jobs = [rt.submit_nowait(gate.hold, "running")]
            await until(lambda: gate.started)
            mapping = rt.map(task(gate.hold), ["a", "b", "c", "d"], limit=2, on_error="return")
            collecting = asyncio.ensure_future(collect(mapping))
            await until(lambda: len(waiting(rt)) == 2)
            for number in range(4):
                jobs.append(rt.submit_nowait(gate.hold, number))
                await turns()
            gate.open()
            await collecting
            for job in jobs:
                await job.wait()
        assert max(most) == 2

    run(main)


@pytest.mark.parametrize("room", [1, 2])
def test_p03_a_map_that_ends_because_one_of_its_jobs_is_dropped_takes_each_away_once(run, room):
    async def main():
        gate, settled = Gate(), []

        class Watch:
            listens_to = (JobSettled,)

            def on_event(self, event):
                settled.append(event.job)

        async with Runtime(concurrency=1, queue_size=2, overflow="drop_oldest", observers=[Watch()]) as rt:
            first = rt.submit_nowait(gate.hold, "running")
            await until(lambda: gate.started)
            collecting = asyncio.ensure_future(collect(rt.map(task(gate.hold), ["a", "b"], limit=2)))
            await until(lambda: len(waiting(rt)) == 2)
            new = await rt.submit_many(gate.hold, [(number,) for number in range(room)])
            with pytest.raises(JobCancelled, match="dropped"):
                await collecting
            gate.open()
            for job in (first, *new):
                await job
            stats = rt.stats()
            assert (stats.waiting, stats.scheduled, stats.retryable) == (0, 0, 0)
        assert len(settled) == len(set(settled)) == 3 + room

    run(main)


def test_p03_drop_oldest_never_takes_a_retryable_job(run, clock):
    async def main():
        gate, calls = Gate(), []

        @task(max_attempts=2, backoff=lambda _: 10.0, priority=9)
        async def flaky():
            calls.append(1)
            if len(calls) == 1:
                raise ValueError("once")
            return "second"

        async with Runtime(concurrency=1, queue_size=1, overflow="drop_oldest") as rt:
            retrying = await rt.submit(flaky)
            await until(lambda: word(retrying.state) == "retryable")
            await rt.submit(gate.hold, "running")
            await until(lambda: gate.started)
            # The only one that waits is retryable, and keeps its place: nothing may be dropped.
            with pytest.raises(QueueFull):
                await rt.submit(gate.hold, "new")
            assert word(retrying.state) == "retryable"
            gate.open()
            await clock.advance(10.0)
            assert await retrying == "second"

    run(main)


def test_p03_a_retry_keeps_its_place_and_never_pushes_the_queue_over_its_size(run, clock):
    async def main():
        gate = Gate()

        @task(max_attempts=2, backoff=lambda _: 10.0)
        async def flaky():
            raise ValueError("always")

        async with Runtime(concurrency=1, queue_size=2, overflow="reject") as rt:
            retrying = await rt.submit(flaky)
            await until(lambda: word(retrying.state) == "retryable")
            await filled(rt, gate, running=1, queued=1)
            with pytest.raises(QueueFull):
                rt.submit_nowait(gate.hold, "over")
            gate.open()
            await clock.advance(10.0)
            await retrying.wait()

    run(main)


def test_p03_a_scheduled_job_counts_against_the_size(run, clock):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=2, overflow="reject") as rt:
            later = [await rt.submit(task(gate.note).with_options(delay=60.0), n) for n in range(2)]
            await rt.submit(gate.hold, "running")
            await until(lambda: gate.started)
            with pytest.raises(QueueFull):
                rt.submit_nowait(gate.note, "over")
            gate.open()
            await clock.advance(60.0)
            assert [await job for job in later] == [0, 1]

    run(main)


def test_p03_submit_many_is_one_admission_all_or_nothing(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=3, overflow="reject") as rt:
            await filled(rt, gate, running=1, queued=1)
            with pytest.raises(QueueFull):
                await rt.submit_many(gate.hold, [("a",), ("b",), ("c",)])
            assert len(waiting(rt)) == 1
            jobs = await rt.submit_many(gate.hold, [("a",), ("b",)])
            assert len(waiting(rt)) == 3
            gate.open()
            assert [await job for job in jobs] == ["a", "b"]
        assert "c" not in gate.started

    run(main)


def test_p03_submit_many_waits_until_all_fit(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=3) as rt:
            first = await filled(rt, gate, running=1, queued=2)
            many = asyncio.ensure_future(rt.submit_many(gate.hold, [("a",), ("b",), ("c",)]))
            await turns()
            first[1].cancel()
            await turns()
            assert not many.done()
            first[2].cancel()
            jobs = await many
            assert len(waiting(rt)) == 3
            gate.open()
            assert [await job for job in jobs] == ["a", "b", "c"]

    run(main)


def test_p03_submit_many_that_can_never_fit_is_queuefull_at_once(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=2, queue_size=3) as rt:
            with pytest.raises(QueueFull):
                await rt.submit_many(gate.note, [(n,) for n in range(6)])
            await turns()
            assert gate.started == []
            jobs = await rt.submit_many(gate.note, [(n,) for n in range(5)])
            assert [await job for job in jobs] == [0, 1, 2, 3, 4]

    run(main)


def test_p03_a_waiting_submit_many_is_not_overtaken_by_smaller_submits(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=2) as rt:
            first = await filled(rt, gate, running=1, queued=2)
            many = asyncio.ensure_future(rt.submit_many(gate.note, [("a",), ("b",)]))
            await turns()
            single = asyncio.ensure_future(rt.submit(gate.note, "single"))
            await turns()
            first[1].cancel()
            await turns()
            assert not single.done()
            with pytest.raises(QueueFull):
                rt.submit_nowait(gate.note, "nowait")
            first[2].cancel()
            await until(many.done)
            gate.open()
            await (await single)
        assert gate.started == ["running-0", "a", "b", "single"]

    run(main)


def test_p03_an_empty_submit_many_is_an_empty_list(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            assert await rt.submit_many(gate.note, []) == []

    run(main)


def test_p03_a_named_queue_has_its_own_size_and_policy(run):
    async def main():
        gate = Gate()
        queues = [Queue("small", size=1, overflow="reject"), Queue("loose", size=1, overflow="drop_oldest")]
        async with Runtime(concurrency=1, queue_size=5, queues=queues) as rt:
            await rt.submit(gate.hold, "running")
            await until(lambda: gate.started)
            small, loose = task(queue="small")(gate.note), task(queue="loose")(gate.note)
            await rt.submit(small, "small-1")
            with pytest.raises(QueueFull):
                await rt.submit(small, "small-2")
            await rt.submit(loose, "loose-1")
            await rt.submit(loose, "loose-2")
            for number in range(5):
                rt.submit_nowait(gate.note, f"default-{number}")
            with pytest.raises(QueueFull):
                rt.submit_nowait(gate.note, "default-5")
            gate.open()
            await rt.drain()
        assert sorted(gate.started) == ["default-0", "default-1", "default-2", "default-3", "default-4",
                                        "loose-2", "running", "small-1"]  # fmt: skip

    run(main)


def test_p03_stop_wakes_those_who_wait_for_room_with_runtimeclosed(run):
    async def main():
        gate, late = Gate(), Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            await filled(rt, gate)
            waiter = asyncio.ensure_future(rt.submit(late.note, "late"))
            await turns()
            stopping = asyncio.ensure_future(rt.stop(drain=5, cancel=1, close=1))
            with pytest.raises(RuntimeClosed):
                await waiter
            gate.open()
            await stopping
        assert late.started == []

    run(main)


def test_p03_a_resize_makes_room_for_those_who_wait(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=8, queues=[Queue("q", concurrency=1, size=1)]) as rt:
            lane = task(queue="q")(gate.hold)
            for number in range(2):
                await rt.submit(lane, number)
            waiter = asyncio.ensure_future(rt.submit(lane, 2))
            await turns()
            assert not waiter.done()
            rt.resize("q", 3)
            await until(waiter.done, "the waiter after the resize")
            await until(lambda: len(gate.started) == 3)
            gate.open()

    run(main)


def test_p03_the_size_holds_at_every_turn_of_a_storm(run):
    async def main():
        over, seen = [], []

        @task
        async def work(number):
            await turns(number % 5)

        async with Runtime(concurrency=3, queue_size=4) as rt:

            async def watch():
                while True:
                    alive = len(waiting(rt)) + len(list(rt.jobs(state="running")))
                    seen.append(alive)
                    if alive > 4 + 3:
                        over.append(alive)
                    await asyncio.sleep(0)

            async def client(number):
                job = await rt.submit(work, number)
                if number % 4 == 0:
                    job.cancel()
                await job.wait()

            watcher = asyncio.ensure_future(watch())
            await asyncio.gather(*(client(number) for number in range(120)))
            watcher.cancel()
            await asyncio.wait([watcher])
        assert over == []
        assert max(seen) == 7, "the storm never filled the queue"

    run(main)


@pytest.mark.parametrize("at_once", [1, 500])
def test_p03_drop_oldest_looks_at_each_job_about_once(run, monkeypatch, at_once):
    looked = 0

    def may_be_dropped(job, really=admit._may_be_dropped):
        nonlocal looked
        looked += 1
        return really(job)

    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=2_000, overflow="drop_oldest") as rt:
            rt.pause()
            old = await rt.submit_many(gate.note, [(number,) for number in range(2_000)])
            monkeypatch.setattr(admit, "_may_be_dropped", may_be_dropped)
            for _ in range(500 // at_once):
                await rt.submit_many(gate.note, [("new",)] * at_once)
            assert [job.done() for job in old] == [True] * 500 + [False] * 1_500
            rt.resume()
            await rt.drain()
        assert gate.started == [*range(500, 2_000), *["new"] * 500]
        assert looked <= 1_000, f"looked at {looked} jobs to drop 500"

    run(main)
