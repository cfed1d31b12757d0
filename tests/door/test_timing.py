"""Delays, `run_at`, expiry, priorities and default timeouts."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import pytest

import bgruntime
from bgruntime import Runtime, current_job, task
from tests.door.turns import Gate, hold, until, word


@task
async def note(where: list[Any], value: Any = 1) -> Any:
    where.append(value)
    return value


def test_a_delayed_job_starts_when_it_is_due_and_not_before(run: Any, clock: Any) -> None:
    async def main() -> None:
        ran: list[Any] = []
        async with Runtime() as rt:
            job = await rt.submit(note.with_options(delay=30), ran)
            assert word(job.state) == "scheduled"
            await clock.advance(29.9)
            assert ran == []
            await clock.advance(0.2)
            assert await job == 1

    run(main)


def test_a_delay_of_nought_is_no_delay(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            assert await (await rt.submit(note.with_options(delay=0), [])) == 1

    run(main)


def test_a_delay_may_be_a_timedelta_or_is_refused_clearly(run: Any, clock: Any) -> None:
    try:
        later = note.with_options(delay=datetime.timedelta(seconds=30))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        assert "delay" in str(error)
        return

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(later, [])
            await clock.advance(31)
            await job

    run(main)


def test_run_at_is_a_time_on_the_wall(run: Any, clock: Any) -> None:
    async def main() -> None:
        ran: list[Any] = []
        when = datetime.datetime.fromtimestamp(clock.time() + 60, datetime.UTC)
        async with Runtime() as rt:
            job = await rt.submit(note.with_options(run_at=when), ran)
            assert word(job.state) == "scheduled"
            await clock.advance(59)
            assert ran == []
            await clock.advance(2)
            assert await job == 1

    run(main)


def test_run_at_in_another_time_zone_is_the_same_moment(run: Any, clock: Any) -> None:
    async def main() -> None:
        zone = datetime.timezone(datetime.timedelta(hours=8))
        when = datetime.datetime.fromtimestamp(clock.time() + 60, zone)
        async with Runtime() as rt:
            job = await rt.submit(note.with_options(run_at=when), [])
            await clock.advance(59)
            assert word(job.state) == "scheduled"
            await clock.advance(2)
            assert await job == 1

    run(main)


def test_run_at_in_the_past_runs_now(run: Any, clock: Any) -> None:
    async def main() -> None:
        when = datetime.datetime.fromtimestamp(clock.time() - 3600, datetime.UTC)
        async with Runtime() as rt:
            job = await rt.submit(note.with_options(run_at=when), [])
            await clock.advance(0)
            assert await job == 1

    run(main)


def test_a_run_at_that_is_no_time_is_refused() -> None:
    with pytest.raises((TypeError, ValueError), match="run_at"):
        note.with_options(run_at="tomorrow")  # type: ignore[arg-type]


def test_jobs_due_at_the_same_time_start_in_the_order_of_their_times(run: Any, clock: Any) -> None:
    async def main() -> None:
        ran: list[Any] = []
        async with Runtime(concurrency=1) as rt:
            jobs = [await rt.submit(note.with_options(delay=d), ran, d) for d in (3, 1, 2)]
            await clock.advance(4)
            for job in jobs:
                await job
        assert ran == [1, 2, 3]

    run(main)


def test_expiry_concerns_only_the_wait_for_the_first_start(run: Any, clock: Any) -> None:
    async def main() -> None:
        runs: list[int] = []

        @task(expires_in=5, max_attempts=2, backoff=lambda state: 60)
        async def work() -> str:
            runs.append(current_job().attempt)
            if len(runs) == 1:
                raise OSError("down")
            return "late but welcome"

        async with Runtime() as rt:
            job = await rt.submit(work)
            await clock.advance(61)
            assert await job == "late but welcome"

    run(main)


def test_expiry_counts_from_when_the_job_first_becomes_available(run: Any, clock: Any) -> None:
    async def main() -> None:
        gate = Gate()
        late = hold.with_options(delay=100, expires_in=5)
        async with Runtime(concurrency=1) as rt:
            fine = await rt.submit(late, gate, "in time")
            await clock.advance(101)
            assert gate.started == ["in time"]
            expired = await rt.submit(late, gate, "too late")
            await clock.advance(104)
            assert word(expired.state) == "available"
            await clock.advance(2)
            gate.open()
            assert await fine == "in time"
            with pytest.raises(bgruntime.JobCancelled) as caught:
                await expired
            assert word(caught.value.reason) == "expired"
        assert gate.started == ["in time"]

    run(main)


def test_a_job_that_starts_within_its_expiry_may_run_past_it(run: Any, clock: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold.with_options(expires_in=5), gate, "slow")
            await until(lambda: gate.started)
            await clock.advance(50)
            gate.open()
            assert await job == "slow"

    run(main)


def test_the_default_timeout_is_three_hundred_seconds(run: Any, clock: Any) -> None:
    @task
    async def work() -> float | None:
        return current_job().remaining()

    async def main() -> None:
        gate = Gate()
        limited = task(hold.__wrapped__, name="door.default-timeout")
        async with Runtime() as rt:
            assert await (await rt.submit(work)) == pytest.approx(300)
            job = await rt.submit(limited, gate)
            await clock.advance(299)
            assert word(job.state) == "running"
            await clock.advance(2)
            with pytest.raises(bgruntime.JobTimedOut):
                await job

    run(main)


def test_a_timeout_of_none_is_unlimited(run: Any, clock: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold, gate, "at last")
            await until(lambda: gate.started)
            await clock.advance(10**7)
            assert word(job.state) == "running"
            gate.open()
            assert await job == "at last"

    run(main)


def test_waiting_in_the_queue_does_not_use_up_the_timeout(run: Any, clock: Any) -> None:
    async def main() -> None:
        gate, second = Gate(), Gate()
        async with Runtime(concurrency=1) as rt:
            await rt.submit(hold, gate)
            queued = await rt.submit(hold.with_options(timeout=5), second, "fresh")
            await clock.advance(60)
            gate.open()
            await until(lambda: second.started)
            await clock.advance(4)
            second.open()
            assert await queued == "fresh"

    run(main)


def test_a_lower_number_goes_first_and_five_is_the_default(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            await rt.submit(hold, gate, "first")
            await until(lambda: gate.started)
            for priority in (9, 5, 0, 4, 6):
                await rt.submit(hold.with_options(priority=priority), gate, priority)
            await rt.submit(hold, gate, "default")
            gate.open()
        assert gate.started == ["first", 0, 4, 5, "default", 6, 9]

    run(main)


def test_jobs_of_one_priority_start_in_the_order_of_acceptance(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            await rt.submit_many(hold, [(gate, n) for n in range(30)])
            gate.open()
        assert gate.started == list(range(30))

    run(main)


def test_the_runtimes_clock_is_not_the_clock_on_the_wall(run: Any, clock: Any) -> None:
    async def main() -> None:
        ran: list[Any] = []
        async with Runtime() as rt:
            job = await rt.submit(note.with_options(delay=60), ran)
            clock.set_wall(clock.time() + 10**6)
            await clock.advance(1)
            assert ran == []
            await clock.advance(60)
            assert await job == 1
            await asyncio.sleep(0)

    run(main)
