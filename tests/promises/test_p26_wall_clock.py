"""P26: steps of the wall clock and DST cause no burst and no lost tick (for `run_at`)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from bgruntime import JobTimedOut, Runtime, task

from .steps import Gate, until, word

HOUR = 3600.0


def at(clock, seconds):
    """The moment `seconds` from now, by the clock on the wall."""
    return datetime.fromtimestamp(clock.time() + seconds, UTC)


def test_p26_run_at_starts_at_its_moment_and_not_before(run, clock):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(task(gate.note).with_options(run_at=at(clock, 90.0)), "ran")
            assert word(job.state) == "scheduled"
            await clock.advance(89.9)
            assert gate.started == []
            await clock.advance(0.11)
            assert await job == "ran"

    run(main)


def test_p26_run_at_in_the_past_is_available_at_once(run, clock):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(task(gate.note).with_options(run_at=at(clock, -HOUR)), "late")
            await clock.advance(0.0)
            assert await job == "late"

    run(main)


@pytest.mark.parametrize("step", [HOUR, -HOUR, 60.0, -60.0, 24 * HOUR, -24 * HOUR])
def test_p26_a_step_of_the_wall_clock_neither_loses_nor_repeats_a_job(run, clock, step):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(task(gate.note).with_options(run_at=at(clock, 600.0)), "once")
            await clock.advance(300.0)
            clock.set_wall(clock.time() + step)
            await clock.advance(300.01)
            if word(job.state) == "scheduled":
                # It goes by the clock on the wall: then it runs when that shows its moment.
                assert step < 0
                await clock.advance(-step)
            assert await job == "once"
            await clock.advance(2 * abs(step))
        assert gate.started == ["once"]

    run(main)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_p26_delays_backoff_timeouts_and_expiry_ignore_the_wall_clock(run, clock, step):
    async def main():
        gate, hung, calls = Gate(), Gate(), []

        @task(max_attempts=2, backoff=lambda _: 100.0)
        async def flaky():
            calls.append(1)
            raise ValueError

        async with Runtime() as rt:
            delayed = await rt.submit(task(gate.note).with_options(delay=100.0))
            retrying = await rt.submit(flaky)
            timed = await rt.submit(task(timeout=100.0)(hung.hold))
            await until(lambda: word(retrying.state) == "retryable" and hung.started)
            clock.set_wall(clock.time() + step)
            await clock.advance(99.0)
            assert gate.started == []
            assert len(calls) == 1
            assert word(timed.state) == "running"
            await clock.advance(1.01)
            await delayed
            await retrying.wait()
            assert len(calls) == 2
            with pytest.raises(JobTimedOut):
                await timed

    run(main)


def test_p26_a_step_back_causes_no_burst(run, clock):
    async def main():
        gate = Gate()
        note = task(gate.note)
        async with Runtime() as rt:
            for minute in range(1, 11):
                await rt.submit(note.with_options(run_at=at(clock, minute * 60.0)), minute)
            await clock.advance(120.01)
            assert gate.started == [1, 2]
            clock.set_wall(clock.time() - 120.0)
            counts = []
            for _ in range(12):
                before = len(gate.started)
                await clock.advance(60.0)
                counts.append(len(gate.started) - before)
            assert max(counts) <= 1
        assert gate.started == list(range(1, 11))

    run(main)


def test_p26_run_at_means_the_moment_whatever_its_zone(run, clock):
    async def main():
        gate = Gate()
        note = task(gate.note)
        moment = clock.time() + 50.0
        zones = [UTC, timezone(timedelta(hours=8)), timezone(timedelta(hours=-5, minutes=-30))]
        async with Runtime() as rt:
            jobs = [
                await rt.submit(note.with_options(run_at=datetime.fromtimestamp(moment, zone)))
                for zone in zones
            ]
            await clock.advance(49.9)
            assert gate.started == []
            await clock.advance(0.11)
            for job in jobs:
                await job

    run(main)


def test_p26_the_repeated_hour_of_dst_is_told_apart_by_fold(run, clock):
    zoneinfo = pytest.importorskip("zoneinfo")
    try:
        paris = zoneinfo.ZoneInfo("Europe/Paris")
    except zoneinfo.ZoneInfoNotFoundError:
        pytest.skip("no time zone data here")

    async def main():
        first = datetime(2023, 10, 29, 2, 30, tzinfo=paris, fold=0)
        second = datetime(2023, 10, 29, 2, 30, tzinfo=paris, fold=1)
        clock.set_wall(first.timestamp() - 60.0)
        gate = Gate()
        note = task(gate.note)
        async with Runtime() as rt:
            later = await rt.submit(note.with_options(run_at=second), "second")
            sooner = await rt.submit(note.with_options(run_at=first), "first")
            await clock.advance(60.01)
            await sooner
            assert gate.started == ["first"]
            await clock.advance(HOUR - 1.0)
            assert gate.started == ["first"]
            await clock.advance(1.0)
            await later

    run(main)


def test_p26_a_run_at_without_a_zone_is_a_valueerror():
    @task
    async def work():
        pass

    with pytest.raises(ValueError, match="run_at"):
        work.with_options(run_at=datetime(2030, 1, 1))
