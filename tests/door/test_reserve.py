"""Room that is taken first and used later; one runtime under other options; callbacks at a job's end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading

import pytest

from bgruntime import PayloadError, QueueFull, Runtime, RuntimeClosed, WrongLoop, task
from bgruntime.extend import times_of
from tests.door.turns import Gate, hold, turns, until


@task
async def double(n: int) -> int:
    return n * 2


@task(durable=True, name="tests:kept")
async def kept() -> None: ...


def test_reserved_room_is_there_for_its_job_and_for_nobody_else(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            running = await rt.submit(hold, gate, 0)
            await until(lambda: gate.started)
            reserved = rt.reserve(double, 4)
            with pytest.raises(QueueFull):
                rt.submit_nowait(double, 5)
            with pytest.raises(QueueFull):
                rt.reserve(double, 5)
            job = reserved.submit()
            gate.open()
            assert await job == 8
            await running

    run(main)


def test_a_reservation_that_is_released_or_dropped_gives_its_room_to_who_waits(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            await rt.submit(hold, gate, 0)
            await until(lambda: gate.started)
            for give_up in ("release", "drop"):
                reserved = rt.reserve(double, 1)
                waiting = asyncio.ensure_future(rt.submit(double, 2))
                await turns()
                assert not waiting.done()
                if give_up == "release":
                    reserved.release()
                    reserved.release()
                del reserved
                gc.collect()
                await until(waiting.done)
                waiting.result().cancel()
            gate.open()

    run(main)


def test_a_reservation_is_used_once(run):
    async def main():
        async with Runtime() as rt:
            reserved = rt.reserve(double, 1)
            assert "open" in repr(reserved)
            await reserved.submit()
            with pytest.raises(RuntimeError, match="used once"):
                reserved.submit()
            reserved.release()
            assert rt.stats().queues["default"].scheduled == 0
            for _ in range(2):
                assert await rt.reserve(double, 3).submit() == 6

    run(main)


def test_what_cannot_be_reserved_takes_no_room(run):
    async def main():
        class Request: ...

        Request.__module__ = "starlette.requests"

        async with Runtime(concurrency=1, queue_size=1) as rt:
            with pytest.raises(PayloadError, match="Request"):
                rt.reserve(double, Request())  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="durable"):
                rt.reserve(kept)
            with pytest.raises(TypeError, match="coroutine object"):
                rt.reserve(double(1))  # type: ignore[arg-type]
            thread = concurrent.futures.Future()

            def elsewhere():
                try:
                    rt.reserve(double, 1)
                except Exception as error:
                    thread.set_exception(error)

            threading.Thread(target=elsewhere).start()
            with pytest.raises(WrongLoop):
                await asyncio.wrap_future(thread)
            held = [rt.reserve(double, n) for n in range(2)]
            for one in held:
                await one.submit()
        with pytest.raises(RuntimeClosed):
            rt.reserve(double, 1)

    run(main)


def test_what_was_promised_is_taken_while_the_runtime_drains_and_refused_afterwards(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            await rt.submit(hold, gate, 0)
            await until(lambda: gate.started)
            early, late = rt.reserve(double, 1), rt.reserve(double, 2)
            stopping = asyncio.ensure_future(rt.stop())
            await turns()
            with pytest.raises(RuntimeClosed):
                rt.reserve(double, 3)
            job = early.submit()
            gate.open()
            assert await job == 2
            assert not (await stopping).lost
            with pytest.raises(RuntimeClosed):
                late.submit()

    run(main)


def test_the_same_runtime_with_a_wait_limit_of_its_own(run):
    async def main():
        gate = Gate()
        origin = Runtime(concurrency=1, queue_size=1)
        patient = origin.with_options(wait_limit=0.02)
        with pytest.raises(ValueError, match="wait_limit"):
            origin.with_options(wait_limit=-1)
        async with origin as rt:
            await patient.submit(hold, gate, 0)
            await until(lambda: gate.started)
            await patient.submit(double, 1)
            with pytest.raises(QueueFull, match=r"0\.02 s"):
                await patient.submit(double, 2)
            assert patient.stats().waiting == rt.stats().waiting == 1
            gate.open()
            report = await patient.stop()
            assert report is await rt.stop()

    run(main)


def test_a_runtime_can_be_entered_by_its_other_name(run):
    async def main():
        origin = Runtime()
        async with origin.with_options(wait_limit=1) as rt:
            assert await (await rt.submit(double, 1)) == 2
            assert await (await origin.submit(double, 2)) == 4
        with pytest.raises(RuntimeClosed):
            await origin.submit(double, 1)

    run(main)


def test_a_done_callback_is_called_once_with_the_job_however_it_ended(run):
    async def main():
        told = []
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            first = await rt.submit(hold, gate, 0)
            never = await rt.submit(double, 1)
            for job in (first, never):
                job.add_done_callback(told.append)
            never.cancel()
            await until(lambda: told == [never])
            gate.open()
            await until(lambda: told == [never, first])
            first.add_done_callback(told.append)
            assert len(told) == 2
            await until(lambda: told == [never, first, first])

    run(main)


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_a_done_callback_that_fails_disturbs_nobody(run, capsys, kind):
    def fails(job):
        raise kind

    async def main():
        told = []
        async with Runtime() as rt:
            job = await rt.submit(double, 1)
            job.add_done_callback(fails)
            job.add_done_callback(told.append)
            assert await job == 2
            await until(lambda: told)
            assert any("done callback" in fault for fault in rt.stats().faults)

    run(main)
    assert "done callback" in "".join(capsys.readouterr())


def test_a_ctrl_c_in_a_done_callback_starts_the_stop_as_in_a_job(run):
    def interrupts(job):
        raise KeyboardInterrupt

    async def main():
        async with Runtime() as rt:
            job = await rt.submit(double, 1)
            job.add_done_callback(interrupts)
            assert await job == 2
            await turns()
            with pytest.raises(RuntimeClosed):
                await rt.submit(double, 1)

    run(main)


def test_the_times_of_a_job_are_known_while_it_waits_runs_and_is_over(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            running = await rt.submit(hold, gate, 0)
            waiting = await rt.submit(double, 1)
            await until(lambda: gate.started)
            assert times_of(running).started_at is not None
            assert times_of(waiting).started_at is times_of(waiting).ended_at is None
            gate.open()
            assert await waiting == 2
            for job in (running, waiting, rt.job(waiting.id)):
                times = times_of(job)
                assert times.waiting_since <= times.started_at <= times.ended_at
                assert abs(times.ended_at - rt.job(job.id)._entry.engine.ports.time()) < 5

    run(main)
