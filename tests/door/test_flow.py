"""pause, resume, resize and drain: steering a runtime while it runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import bgruntime
from bgruntime import Queue, Runtime, task
from tests.door.turns import Gate, hold, turns, until, word

mail = task(hold.__wrapped__, name="door.mail", queue="mail", timeout=None)


def test_a_paused_runtime_accepts_and_starts_nothing_until_it_is_resumed(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        gate.open()
        async with Runtime(queues=[Queue("mail")]) as rt:
            rt.pause()
            jobs = [await rt.submit(hold, gate, 1), await rt.submit(mail, gate, 2)]
            await turns()
            assert gate.started == []
            assert [word(job.state) for job in jobs] == ["available", "available"]
            rt.resume()
            assert [await job for job in jobs] == [1, 2]

    run(main)


def test_one_queue_is_paused_and_the_others_go_on(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        gate.open()
        async with Runtime(queues=[Queue("mail")]) as rt:
            rt.pause("mail")
            waiting = await rt.submit(mail, gate, "mail")
            assert await (await rt.submit(hold, gate, "default")) == "default"
            await turns()
            assert word(waiting.state) == "available"
            rt.resume("mail")
            assert await waiting == "mail"

    run(main)


def test_pausing_leaves_running_jobs_alone(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold, gate, 1)
            await until(lambda: gate.started)
            rt.pause()
            gate.open()
            assert await job == 1

    run(main)


def test_resuming_all_resumes_what_was_paused_by_name(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        gate.open()
        async with Runtime(queues=[Queue("mail")]) as rt:
            rt.pause("mail")
            job = await rt.submit(mail, gate, 1)
            rt.resume()
            assert await job == 1

    run(main)


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_queue_nobody_knows_is_refused_by_name(run: Any, verb: str) -> None:
    async def main() -> None:
        async with Runtime(queues=[Queue("mail")]) as rt:
            with pytest.raises((ValueError, LookupError, bgruntime.BgRuntimeError), match="mial"):
                getattr(rt, verb)("mial")
            with pytest.raises((ValueError, LookupError, bgruntime.BgRuntimeError), match="mial"):
                rt.resize("mial", 3)

    run(main)


def test_resize_lets_more_jobs_run_at_once(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(queues=[Queue("mail", concurrency=1)]) as rt:
            jobs = await rt.submit_many(mail, [(gate, n) for n in range(6)])
            await until(lambda: gate.started)
            await turns()
            assert gate.started == [0]
            rt.resize("mail", 4)
            await until(lambda: len(gate.started) == 4)
            gate.open()
            for job in jobs:
                await job
            assert gate.most == 4

    run(main)


def test_resize_downwards_stops_nobody_and_starts_fewer(run: Any) -> None:
    async def main() -> None:
        gates = [Gate() for _ in range(6)]
        async with Runtime(queues=[Queue("mail", concurrency=3)]) as rt:
            jobs = await rt.submit_many(mail, [(gate, n) for n, gate in enumerate(gates)])
            await until(lambda: all(gate.started for gate in gates[:3]))
            rt.resize("mail", 1)
            gates[0].open()
            gates[1].open()
            await jobs[0]
            await jobs[1]
            await turns()
            assert not gates[3].started
            assert not gates[2].cancelled
            gates[2].open()
            await until(lambda: gates[3].started)
            await turns()
            assert not gates[4].started
            for gate in gates:
                gate.open()

    run(main)


def test_resize_of_the_default_queue_is_possible(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=10) as rt:
            rt.resize("default", 2)
            await rt.submit_many(hold, [(gate, n) for n in range(5)])
            await until(lambda: len(gate.started) == 2)
            await turns()
            assert gate.started == [0, 1]
            gate.open()

    run(main)


@pytest.mark.parametrize("concurrency", [0, -1])
def test_resize_below_one_is_a_value_error(run: Any, concurrency: int) -> None:
    async def main() -> None:
        async with Runtime(queues=[Queue("mail")]) as rt:
            with pytest.raises(ValueError, match=rf"(?s)concurrency.*{concurrency}"):
                rt.resize("mail", concurrency)

    run(main)


def test_drain_returns_at_once_when_nothing_is_to_do(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            await rt.drain()
            await rt.drain(timeout=0)

    run(main)


def test_drain_waits_for_running_and_available_jobs_and_those_submitted_meanwhile(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1) as rt:

            async def more() -> None:
                await rt.submit(hold, gate, "later")

            await rt.submit(hold, gate, "running")
            await rt.submit(hold, gate, "available")
            await rt.submit(more)
            draining = asyncio.create_task(rt.drain())
            await turns()
            assert not draining.done()
            gate.open()
            await draining
            assert gate.finished == ["running", "available", "later"]
            assert await (await rt.submit(hold, gate, "accepts again")) == "accepts again"

    run(main)


def test_drain_waits_for_retryable_jobs(run: Any, clock: Any) -> None:
    @task(max_attempts=2, backoff=lambda state: 10)
    async def second_time() -> None:
        if bgruntime.current_job().attempt == 1:
            raise OSError("down")

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(second_time)
            draining = asyncio.create_task(rt.drain())
            await clock.advance(9)
            assert not draining.done()
            await clock.advance(2)
            await draining
            assert word(job.state) == "completed"

    run(main)


def test_drain_does_not_wait_for_scheduled_jobs_or_paused_queues(run: Any, clock: Any) -> None:
    async def main() -> None:
        gate = Gate()
        gate.open()
        async with Runtime(queues=[Queue("mail")]) as rt:
            rt.pause("mail")
            paused = await rt.submit(mail, gate, "paused")
            scheduled = await rt.submit(hold.with_options(delay=60), gate, "scheduled")
            await rt.drain()
            assert word(paused.state) == "available"
            assert word(scheduled.state) == "scheduled"
            rt.resume()
            await clock.advance(61)
            assert (await paused, await scheduled) == ("paused", "scheduled")

    run(main)


def test_a_drain_that_takes_too_long_is_a_timeout_error_and_changes_nothing(run: Any, clock: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold, gate, 1)
            draining = asyncio.create_task(rt.drain(timeout=5))
            await clock.advance(4)
            assert not draining.done()
            await clock.advance(2)
            with pytest.raises(TimeoutError):
                await draining
            assert word(job.state) == "running"
            gate.open()
            assert await job == 1

    run(main)


def test_a_cancelled_drain_cancels_no_job(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold, gate, 1)
            draining = asyncio.create_task(rt.drain())
            await turns()
            draining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await draining
            gate.open()
            assert await job == 1

    run(main)


def test_drain_inside_a_job_is_a_runtime_error(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:

            async def work() -> None:
                await rt.drain()

            with pytest.raises(RuntimeError, match="job"):
                await (await rt.submit(work))

    run(main)


def test_drain_of_a_negative_time_is_a_value_error(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(ValueError, match="-1"):
                await rt.drain(timeout=-1)

    run(main)
