"""What comes together in one turn of the loop, or late, because something held it: one of them is first."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from bgruntime import JobCancelled, JobTimedOut, Queue, QueueFull, Runtime, RuntimeClosed, task
from tests.door.turns import Gate, hold, turns, until


def tasks_not_eager() -> None:
    """Have a Task take its first step in the turn after it was made, on every Python."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options))


def test_room_that_comes_in_the_turn_of_a_stop_is_given_back_and_the_submit_refused(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            running, waiting = await rt.submit(hold, gate), await rt.submit(hold, gate)
            submit = asyncio.ensure_future(rt.submit(hold, gate))
            await turns()
            stop = asyncio.ensure_future(rt.stop())  # begins in the next turn,
            waiting.cancel()  # and the submit, which is called by this, goes on after it
            with pytest.raises(RuntimeClosed):
                await submit
            gate.open()
            await running
            report = await stop
            assert report.completed == (running.id,)
            assert rt.stats().waiting == 0

    run(main)


def test_room_that_comes_at_the_very_end_of_the_wait_for_it_is_taken(run: Any, clock: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1, wait_limit=5) as rt:
            await rt.submit(hold, gate)
            expires = await rt.submit(hold.with_options(expires_in=5), gate)
            submit = asyncio.ensure_future(rt.submit(hold, gate, "in time"))
            await clock.advance(5)
            assert expires.state == "cancelled"
            gate.open()
            assert await (await submit) == "in time"

    run(main)


def test_a_job_whose_time_to_start_ran_out_while_the_loop_was_held_does_not_start(
    run: Any, clock: Any
) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            await rt.submit(hold, gate)
            late = await rt.submit(hold.with_options(expires_in=5), gate, "late")
            await turns()
            clock.now += 10  # nobody's timer had a chance to run
            gate.open()
            await until(lambda: gate.finished)
            with pytest.raises(JobCancelled, match="expired"):
                await late
            assert gate.started == [None]

    run(main)


def test_a_task_that_somebody_cancels_before_its_first_step_ends_its_job(run: Any, clock: Any) -> None:
    async def main() -> None:
        tasks_not_eager()
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            job = await rt.submit(hold, gate)
            while job.state != "running":
                await asyncio.sleep(0)
            [ours] = [one for one in asyncio.all_tasks() if one.get_name() == job.task]
            ours.cancel()
            await clock.advance(1)
            with pytest.raises(JobCancelled):
                await job
            assert gate.started == []
            gate.open()
            assert await (await rt.submit(hold, gate, "the slot is free")) == "the slot is free"

    run(main)


def test_an_attempt_that_could_not_begin_while_the_loop_was_held_is_given_time(run: Any, clock: Any) -> None:
    async def main() -> None:
        tasks_not_eager()
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            job = await rt.submit(hold.with_options(timeout=1), gate)

            def held() -> None:
                assert job.state == "running"
                clock.now += 10
                rt._engine.check_deadlines()  # type: ignore[union-attr]  # some loops run timers first

            asyncio.get_running_loop().call_soon(held)
            await until(lambda: gate.started)
            await clock.advance(0.5)
            gate.open()
            await job

    run(main)


def test_of_two_that_run_out_of_time_together_the_first_may_be_the_end_of_the_other(
    run: Any, clock: Any
) -> None:
    async def main() -> None:
        gate = Gate()
        timed = hold.with_options(timeout=5)
        async with Runtime() as rt:
            gathered = asyncio.ensure_future(rt.gather(timed.bind(gate, 1), timed.bind(gate, 2)))
            await until(lambda: len(gate.started) == 2)
            await clock.advance(5)
            with pytest.raises(JobTimedOut):
                await gathered
            assert sorted(gate.cancelled) == [1, 2]
            assert (rt.stats().timed_out, rt.stats().cancelled) == (1, 1)

    run(main)


def test_what_waits_in_a_paused_queue_takes_no_room_from_others(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=2, queue_size=1, queues=[Queue("mail", size=5)]) as rt:
            rt.pause("mail")
            for _ in range(3):
                rt.submit_nowait(hold.with_options(queue="mail"), gate)
            for n in range(3):  # two slots and one that waits
                rt.submit_nowait(hold, gate, n)
            with pytest.raises(QueueFull):
                rt.submit_nowait(hold, gate)
            gate.open()
            rt.resume("mail")

    run(main)


@pytest.mark.parametrize("many", [5, 300])
def test_plain_functions_beyond_the_size_of_a_queue_wait_for_threads_however_many(
    run: Any, many: int
) -> None:
    def work(n: int) -> int:
        return n

    async def main() -> None:
        async with Runtime(concurrency=400, threads=1, queue_size=1) as rt:
            plain = task(work, name="plain")
            jobs = [rt.submit_nowait(plain, n) for n in range(many)]
            assert [await job for job in jobs] == list(range(many))

    run(main)


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="eager tasks came with 3.12")
def test_a_job_in_whose_first_step_a_stop_by_another_hand_begins_is_interrupted(run: Any, clock: Any) -> None:
    from contextvars import Context

    async def main() -> None:
        gate, stops = Gate(), []
        async with Runtime(cancel_grace=1) as rt:
            loop = asyncio.get_running_loop()
            make = functools.partial(asyncio.Task, loop=loop, context=Context(), eager_start=True)

            @task
            async def work() -> None:
                stops.append(make(rt.stop(drain=0)))
                await gate.wait()

            job = await rt.submit(work)
            await until(lambda: stops)
            await clock.advance(5)
            await asyncio.wait(stops)
            with pytest.raises(JobCancelled):
                await job
            assert gate.cancelled

    run(main)
