"""P06: attempts that hold a slot never exceed any limit; a free slot never idles beside an eligible job."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest

from bgruntime import JobTimedOut, Queue, Runtime, Snooze, current_job, task

from .steps import Gate, turns, until, word


class Tally:
    """How many bodies run at once, now and at most."""

    def __init__(self):
        self.now = self.most = self.total = 0
        self._lock = threading.Lock()

    def __enter__(self):
        with self._lock:
            self.now += 1
            self.total += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *exc_info):
        with self._lock:
            self.now -= 1


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_p06_running_jobs_never_exceed_the_concurrency_and_reach_it(run, limit):
    async def main():
        tally = Tally()

        @task
        async def work(number):
            with tally:
                await turns(1 + number % 5)

        async with Runtime(concurrency=limit) as rt:
            await asyncio.gather(*[await rt.submit(work, number) for number in range(100)])
        assert tally.most == limit
        assert tally.total == 100

    run(main)


def test_p06_named_queues_keep_their_own_limit_under_the_common_one(run):
    async def main():
        tallies = {"a": Tally(), "b": Tally(), "default": Tally()}
        everyone = Tally()

        async def work(name, number):
            with tallies[name], everyone:
                await turns(1 + number % 5)

        queues = [Queue("a", concurrency=2), Queue("b", concurrency=3)]
        async with Runtime(concurrency=4, queues=queues) as rt:
            for number in range(60):
                for name in tallies:
                    await rt.submit(task(queue=name)(work), name, number)
        assert tallies["a"].most == 2
        assert tallies["b"].most <= 3
        assert everyone.most == 4
        assert everyone.total == 180

    run(main)


@pytest.mark.parametrize("seed", range(4))
def test_p06_limits_hold_under_a_storm_of_cancellations(run, seed):
    async def main():
        rng = random.Random(seed)
        tally = Tally()

        @task
        async def work(cleanup):
            with tally:
                try:
                    await turns(rng.randrange(6))
                finally:
                    await turns(cleanup)

        async with Runtime(concurrency=5, queue_size=10_000) as rt:
            jobs = []
            for _ in range(400):
                jobs.append(await rt.submit(work, rng.randrange(4)))
                for _ in range(rng.randrange(3)):
                    rng.choice(jobs).cancel()
                if rng.random() < 0.4:
                    await turns(rng.randrange(3))
            await rt.drain()
            assert tally.most <= 5
            assert tally.now == 0
            # No slot was lost: five jobs can still be held at once.
            gate = Gate()
            after = [await rt.submit(gate.hold, number) for number in range(6)]
            await until(lambda: len(gate.started) == 5)
            await turns()
            assert len(gate.started) == 5
            gate.open()
            assert [await job for job in after] == list(range(6))

    run(main)


@pytest.mark.parametrize("turn", range(7))
@pytest.mark.parametrize("suspends", [False, True], ids=["at once", "suspends"])
def test_p06_cancelling_at_any_turn_after_submit_never_leaks_a_slot(run, turn, suspends):
    async def main():
        @task
        async def work():
            if suspends:
                await turns(3)

        async with Runtime(concurrency=2) as rt:
            for _ in range(20):
                job = await rt.submit(work)
                await turns(turn)
                job.cancel()
                await job.wait()
            await rt.drain()
            gate = Gate()
            jobs = [await rt.submit(gate.hold, number) for number in range(3)]
            await until(lambda: len(gate.started) == 2, "both slots being there")
            await turns()
            assert len(gate.started) == 2
            gate.open()
            await asyncio.gather(*jobs)

    run(main)


@pytest.mark.parametrize("turn", range(7))
def test_p06_cancelling_a_thread_job_at_any_turn_never_leaks_a_thread_slot(run, turn):
    async def main():
        ran = []

        @task
        def work():
            ran.append(1)

        async with Runtime(threads=1) as rt:
            for _ in range(10):
                job = await rt.submit(work)
                await turns(turn)
                job.cancel()
                await job.wait()
            assert await (await rt.submit(task(lambda: "still there", name="p06-last"))) == "still there"

    run(main)


def test_p06_a_job_that_waits_for_its_next_attempt_holds_no_slot(run, clock):
    async def main():
        gate = Gate()

        @task(max_attempts=3, backoff=lambda _: 10.0)
        async def flaky():
            raise ValueError

        @task
        async def sleepy():
            raise Snooze(10.0)

        async with Runtime(concurrency=1) as rt:
            one, two = await rt.submit(flaky), await rt.submit(sleepy)
            await until(lambda: word(one.state) == word(two.state) == "retryable")
            assert await (await rt.submit(gate.note, "through")) == "through"
            one.cancel()
            two.cancel()

    run(main)


def test_p06_a_scheduled_job_holds_no_slot(run, clock):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            later = await rt.submit(task(gate.note).with_options(delay=10.0), "later")
            assert await (await rt.submit(gate.note, "now")) == "now"
            later.cancel()

    run(main)


def test_p06_a_freed_slot_is_reused_within_a_turn(run):
    async def main():
        gate = Gate()
        done = asyncio.Event()

        @task
        async def first():
            await done.wait()

        async with Runtime(concurrency=1) as rt:
            job = await rt.submit(first)
            await rt.submit(gate.hold, "second")
            await turns()
            assert gate.started == []
            done.set()
            await job
            # The waiter of the first job was woken; one turn later the second runs.
            await turns(2)
            assert gate.started == ["second"]
            gate.open()

    run(main)


def test_p06_no_slot_is_free_at_rest_while_a_job_is_eligible(run):
    async def main():
        rng = random.Random(3)
        async with Runtime(concurrency=4, queues=[Queue("q", concurrency=2)]) as rt:
            for _ in range(30):
                gate = Gate()
                jobs = []
                for number in range(12):
                    queue = rng.choice(["default", "q"])
                    jobs.append((queue, await rt.submit(task(queue=queue)(gate.hold), number)))
                for _, job in rng.sample(jobs, 5):
                    await turns(rng.randrange(3))
                    job.cancel()
                await turns(30)

                def count(state, queue, among=jobs):
                    return sum(word(job.state) == state and lane == queue for lane, job in among)

                narrow, wide = count("running", "q"), count("running", "default")
                assert narrow <= 2
                assert narrow + wide <= 4
                if narrow + wide < 4:
                    assert count("available", "default") == 0
                    assert narrow == 2 or count("available", "q") == 0
                gate.open()
                await rt.drain()

    run(main)


def test_p06_resize_takes_effect_at_run_time(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=10, queues=[Queue("q", concurrency=1)]) as rt:
            jobs = [await rt.submit(task(queue="q")(gate.hold), number) for number in range(8)]
            await until(lambda: gate.started)
            await turns()
            assert len(gate.started) == 1
            rt.resize("q", 4)
            await until(lambda: len(gate.started) == 4)
            await turns()
            assert len(gate.started) == 4
            rt.resize("q", 2)
            jobs[0].cancel()
            await jobs[0].wait()
            await turns()
            assert len(gate.started) == 4, "three still hold a slot of two"
            gate.open()
            await rt.drain()
            with pytest.raises(ValueError, match="concurrency"):
                rt.resize("q", 0)

    run(main)


def test_p06_threads_never_exceed_their_limit(run):
    async def main():
        tally, hold = Tally(), threading.Event()

        @task
        def work():
            with tally:
                hold.wait(10)

        async with Runtime(concurrency=50, threads=3) as rt:
            jobs = [await rt.submit(work) for _ in range(10)]
            await until(lambda: tally.now == 3)
            await turns(20)
            assert tally.now == 3
            hold.set()
            await asyncio.gather(*jobs)
        assert tally.most == 3
        assert tally.total == 10

    run(main)


def test_p06_threads_never_exceed_their_limit_under_timeouts_and_cancellations(run, clock):
    async def main():
        rng = random.Random(11)
        tally, hold = Tally(), threading.Event()

        @task(timeout=1.0)
        def stubborn():
            with tally:
                hold.wait(10)

        async with Runtime(concurrency=50, threads=2, cancel_grace=1, cancel_hard=1) as rt:
            jobs = []
            for _ in range(40):
                jobs.append(await rt.submit(stubborn))
                if rng.random() < 0.5:
                    rng.choice(jobs).cancel()
                await clock.advance(0.3)
                await turns(3)
                assert tally.now <= 2
            await until(lambda: tally.now == 2)
            for _ in range(20):
                await clock.advance(0.5)
                await turns(3)
                assert tally.now <= 2
            hold.set()
            while not all(word(job.state) in {"completed", "cancelled", "discarded"} for job in jobs):
                await turns(1)
            await until(lambda: tally.now == 0)
        assert tally.most <= 2

    run(main)


def test_p06_an_async_job_needs_no_thread_and_passes_thread_jobs_that_wait(run):
    async def main():
        hold, gate = threading.Event(), Gate()

        @task
        def work():
            hold.wait(10)

        async with Runtime(concurrency=3, threads=1) as rt:
            jobs = [await rt.submit(work) for _ in range(5)]
            assert await (await rt.submit(gate.note, "async")) == "async"
            hold.set()
            await asyncio.gather(*jobs)

    run(main)


def test_p06_a_plain_function_runs_off_the_loop_in_a_daemon_thread(run):
    async def main():
        @task
        def where():
            return threading.current_thread()

        async with Runtime() as rt:
            thread = await (await rt.submit(where))
            assert thread is not threading.main_thread()
            assert thread.daemon

    run(main)


def test_p06_the_timeout_of_a_plain_function_starts_when_the_function_does(run, clock):
    async def main():
        hold, started = threading.Event(), []

        @task(timeout=10.0)
        def work(label):
            started.append(label)
            if label == "first":
                hold.wait(10)
            return current_job().remaining()

        async with Runtime(threads=1) as rt:
            first, second = await rt.submit(work, "first"), await rt.submit(work, "second")
            await until(lambda: started)
            await clock.advance(9.0)
            hold.set()
            assert await first == pytest.approx(1.0)
            assert await second == pytest.approx(10.0)

    run(main)


def test_p06_a_timed_out_thread_gives_its_slot_back_only_when_it_really_ends(run, clock):
    async def main():
        hold, started = threading.Event(), []

        @task(timeout=1.0)
        def work(label):
            started.append(label)
            hold.wait(10)
            return label

        async with Runtime(threads=1, cancel_grace=1, cancel_hard=1) as rt:
            first, second = await rt.submit(work, "first"), await rt.submit(work, "second")
            await until(lambda: started == ["first"])
            await clock.advance(1.0)
            with pytest.raises(JobTimedOut):
                await first
            await clock.advance(60.0)
            await turns(20)
            assert started == ["first"]
            hold.set()
            assert await second == "second"

    run(main)


def test_p06_map_pulls_at_most_twice_its_limit_ahead(run):
    async def main():
        pulled, taken = [0], 0

        def source():
            for number in range(50):
                pulled[0] += 1
                yield number

        @task
        async def work(number):
            return number

        async with Runtime() as rt, rt.map(work, source(), limit=3) as results:
            async for _ in results:
                taken += 1
                await turns()
                assert pulled[0] - taken <= 6
        assert taken == 50

    run(main)


def test_p06_map_runs_at_most_limit_jobs_at_once(run):
    async def main():
        tally = Tally()

        @task
        async def work(number):
            with tally:
                await turns(1 + number % 4)
            return number

        async with Runtime(concurrency=50) as rt:
            assert await rt.map(work, range(40), limit=4) == list(range(40))
            assert tally.most == 4
            unordered = [number async for number in rt.map(work, range(40), limit=4, ordered=False)]
            assert sorted(unordered) == list(range(40))
            assert tally.most == 4
            assert await rt.gather(*(work.bind(number) for number in range(20)), limit=4) == list(range(20))
        assert tally.most == 4

    run(main)


def test_p06_a_limit_below_one_is_a_valueerror(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            with pytest.raises(ValueError, match="limit"):
                rt.map(gate.note, [1], limit=0)
            with pytest.raises(ValueError, match="limit"):
                await rt.gather(task(gate.note).bind(1), limit=0)
        assert gate.started == []

    run(main)


def test_p06_five_hundred_free_slots_are_filled_within_a_few_turns(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=500) as rt:
            await rt.submit_many(gate.hold, [(number,) for number in range(500)])
            await turns(40)
            assert len(gate.started) == 500
            gate.open()

    run(main)


def test_p06_plain_functions_start_when_a_thread_that_had_given_its_slot_back_ends(run, clock):
    async def main():
        holds = [threading.Event() for _ in range(3)]
        started = []

        @task(timeout=1.0)
        def work(number):
            started.append(number)
            holds[number].wait(10)

        # Each is stuck at its timeout and its slot comes back, but only the end of its thread lets the
        # next one go.
        async with Runtime(concurrency=3, threads=1) as rt:
            jobs = [await rt.submit(work, number) for number in range(3)]
            for number, job in enumerate(jobs):
                await until(lambda number=number: len(started) == number + 1, f"job {number} starts")
                await clock.advance(1.0)
                with pytest.raises(JobTimedOut):
                    await job
                holds[number].set()
        assert started == [0, 1, 2]

    run(main)


def test_p06_a_job_that_has_waited_goes_on_within_the_limit_of_its_paused_queue(run):
    async def main():
        gate, running = Gate(), []

        @task(queue="one")
        async def parent(rt):
            child = rt.submit_nowait(task(queue="one")(gate.hold), "child")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await child.wait()
            running.append(gate.running)

        async with Runtime(concurrency=4, queues=[Queue("one", concurrency=1)]) as rt:
            job = await rt.submit(parent, rt)
            await until(lambda: gate.running == 1, "the child has the slot")
            rt.pause("one")
            await asyncio.wait([asyncio.ensure_future(job.wait())], timeout=0.05)
            assert running == []
            gate.open()
            await job
            assert running == [0]

    run(main)
