"""P23: submitting from a thread works or raises; it never waits for ever."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading

import pytest

from bgruntime import JobCancelled, QueueFull, Runtime, RuntimeClosed, WrongLoop, current_job, task

from .steps import Gate, turns, until, word


@task
async def double(number):
    return number * 2


@task
async def fail():
    raise ValueError("in the job")


async def in_thread(function):
    """Run `function` in a thread of its own, away from every pool, and give what it gives."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def work():
        try:
            outcome, value = done.set_result, function()
        except BaseException as error:
            outcome, value = done.set_exception, error
        loop.call_soon_threadsafe(outcome, value)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    async with asyncio.timeout(10):
        try:
            return await done
        finally:
            thread.join(5)


def answer(submit):
    """What `submit()` raises, or what its future comes to; a hang is a failure of the test."""
    try:
        future = submit()
        assert isinstance(future, concurrent.futures.Future)
        return future.result(timeout=5)
    except concurrent.futures.TimeoutError as error:
        if type(error) is TimeoutError:
            raise AssertionError("nobody answered within 5 s") from None
        return error
    except Exception as error:
        return error


def test_p23_submit_threadsafe_gives_the_result_in_any_thread(run):
    async def main():
        async with Runtime() as rt:
            assert await in_thread(lambda: answer(lambda: rt.submit_threadsafe(double, 21))) == 42
            assert isinstance(await in_thread(lambda: answer(lambda: rt.submit_threadsafe(fail))), ValueError)

    run(main)


def test_p23_submit_threadsafe_works_in_the_loops_own_thread_too(run):
    async def main():
        async with Runtime() as rt:
            future = rt.submit_threadsafe(double, 4)
            assert await asyncio.wrap_future(future) == 8

    run(main)


def test_p23_many_threads_submit_many_jobs_and_each_is_answered(run):
    async def main():
        async with Runtime(concurrency=5, queue_size=10, threads=8) as rt:

            def work():
                return [rt.submit_threadsafe(double, number).result(timeout=10) for number in range(40)]

            results = await asyncio.gather(*(in_thread(work) for _ in range(6)))
        assert results == [[number * 2 for number in range(40)]] * 6

    run(main)


def test_p23_submit_threadsafe_waits_for_room_when_the_queue_is_full(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1, overflow="wait") as rt:
            await rt.submit(gate.hold)
            await rt.submit(gate.hold)
            future = rt.submit_threadsafe(double, 1)
            await turns(20)
            assert not future.done()
            gate.open()
            assert await asyncio.wrap_future(future) == 2

    run(main)


def test_p23_submit_threadsafe_is_refused_as_submit_is(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1, overflow="reject") as rt:
            await rt.submit(gate.hold)
            await rt.submit(gate.hold)
            assert isinstance(
                await in_thread(lambda: answer(lambda: rt.submit_threadsafe(double, 1))), QueueFull
            )
            gate.open()

    run(main)


def test_p23_before_entering_it_is_runtimeclosed_at_once(run):
    async def main():
        rt = Runtime()
        assert isinstance(
            await in_thread(lambda: answer(lambda: rt.submit_threadsafe(double, 1))), RuntimeClosed
        )

    run(main)


def test_p23_without_any_loop_it_is_runtimeclosed_at_once():
    assert isinstance(answer(lambda: Runtime().submit_threadsafe(double, 1)), RuntimeClosed)


def test_p23_after_the_stop_it_is_runtimeclosed_at_once(run):
    async def main():
        async with Runtime() as rt:
            pass
        assert isinstance(
            await in_thread(lambda: answer(lambda: rt.submit_threadsafe(double, 1))), RuntimeClosed
        )

    run(main)


def test_p23_after_its_loop_closed_it_is_runtimeclosed_at_once(run):
    runtimes = []

    async def main():
        async with Runtime() as rt:
            runtimes.append(rt)

    run(main)
    assert isinstance(answer(lambda: runtimes[0].submit_threadsafe(double, 1)), RuntimeClosed)


def test_p23_a_loop_closed_under_a_running_runtime_answers_too():
    loop = asyncio.new_event_loop()
    rt = Runtime()
    loop.run_until_complete(rt.__aenter__())
    loop.close()
    assert isinstance(answer(lambda: rt.submit_threadsafe(double, 1)), RuntimeClosed)


def test_p23_a_coroutine_object_refused_from_a_thread_is_closed(run):
    async def main():
        ran = []

        async def work():
            ran.append(1)

        rt = Runtime()
        coroutine = work()
        await in_thread(lambda: answer(lambda: rt.submit_threadsafe(coroutine)))
        assert coroutine.cr_frame is None
        assert ran == []

    run(main)


def test_p23_during_the_drain_it_is_runtimeclosed(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            await rt.submit(gate.hold)
            await until(lambda: gate.started)
            stopping = asyncio.ensure_future(rt.stop(drain=30, cancel=1, close=1))
            await turns()
            assert isinstance(
                await in_thread(lambda: answer(lambda: rt.submit_threadsafe(double, 1))), RuntimeClosed
            )
            gate.open()
            await stopping

    run(main)


def test_p23_those_who_wait_for_room_are_answered_when_the_runtime_stops(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:
            await rt.submit(gate.hold)
            await rt.submit(gate.hold)
            future = rt.submit_threadsafe(double, 1)
            await turns(10)
            await rt.stop(drain=0, cancel=5, close=1)
            with pytest.raises(RuntimeClosed):
                await asyncio.wrap_future(future)

    run(main)


def test_p23_a_job_interrupted_by_the_stop_answers_its_future(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            future = rt.submit_threadsafe(gate.hold)
            await until(lambda: gate.started)
            await rt.stop(drain=0, cancel=5, close=1)
            with pytest.raises(JobCancelled):
                await asyncio.wrap_future(future)

    run(main)


def test_p23_a_submission_in_the_air_when_the_runtime_stops_is_answered(run):
    async def main():
        for turn in range(4):
            async with Runtime() as rt:
                future = rt.submit_threadsafe(double, 1)
                await turns(turn)
                await rt.stop(drain=5, cancel=1, close=1)
            await until(future.done, "an answer")
            assert isinstance(future.exception(), (RuntimeClosed, type(None)))

    run(main)


def test_p23_submit_in_a_foreign_thread_is_wrongloop(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:

            def with_a_loop():
                with pytest.raises(WrongLoop):
                    asyncio.run(rt.submit(gate.note, 1))

            def without_a_loop():
                with pytest.raises(WrongLoop):
                    rt.submit_nowait(gate.note, 2)

            def many():
                with pytest.raises(WrongLoop):
                    asyncio.run(rt.submit_many(gate.note, [(3,)]))

            for function in (with_a_loop, without_a_loop, many):
                await in_thread(function)
            await turns(20)
            assert gate.started == []
            assert list(rt.jobs()) == []

    run(main)


def test_p23_awaiting_draining_and_stopping_in_a_foreign_loop_is_wrongloop(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.hold, "value")

            async def waits():
                with pytest.raises(WrongLoop):
                    await job

            async def drains():
                with pytest.raises(WrongLoop):
                    await rt.drain()

            async def stops():
                with pytest.raises(WrongLoop):
                    await rt.stop(drain=0, cancel=0, close=0)

            for function in (waits, drains, stops):
                await in_thread(lambda function=function: asyncio.run(function()))
            assert word(job.state) in {"available", "running"}
            gate.open()
            assert await job == "value"

    run(main)


def test_p23_entering_in_a_second_loop_while_running_is_an_error(run):
    async def main():
        async with Runtime() as rt:

            async def enter():
                async with rt:
                    pass

            with pytest.raises((WrongLoop, RuntimeError)):
                await in_thread(lambda: asyncio.run(enter()))
            with pytest.raises(RuntimeError):
                await enter()
            assert await (await rt.submit(double, 2)) == 4

    run(main)


def test_p23_a_plain_job_uses_submit_threadsafe_to_start_more_work(run):
    async def main():
        async with Runtime(threads=2) as rt:

            @task
            def parent():
                assert current_job().attempt == 1
                return rt.submit_threadsafe(double, 5).result(timeout=10)

            assert await (await rt.submit(parent)) == 10

    run(main)


def test_p23_submit_in_the_thread_of_a_plain_job_is_wrongloop(run):
    async def main():
        async with Runtime() as rt:

            @task
            def work():
                with pytest.raises(WrongLoop):
                    rt.submit_nowait(double, 1)
                return "ok"

            assert await (await rt.submit(work)) == "ok"

    run(main)


def test_p23_a_runtime_may_be_entered_again_on_another_loop(run):
    rt = Runtime()

    async def main():
        async with rt:
            return await (await rt.submit(double, 2))

    assert run(main) == 4
    assert run(main) == 4
