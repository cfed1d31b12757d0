"""P16: any number of waiters get the outcome; a dropped handle leaks nothing and hides nothing."""

from __future__ import annotations

import asyncio
import gc
import traceback
import weakref

import pytest

from bgruntime import JobCancelled, Runtime, task

from .steps import Gate, turns, until, word


class Thing:
    """Something a weak reference can point at."""


def test_p16_any_number_of_waiters_before_and_after_the_end_get_the_value(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(gate.hold, "value")

            async def wait():
                return await job

            early = [asyncio.ensure_future(wait()) for _ in range(100)]
            await turns()
            gate.open()
            assert await asyncio.gather(*early) == ["value"] * 100
            assert [await job for _ in range(10)] == ["value"] * 10
            assert [job.result() for _ in range(10)] == ["value"] * 10

    run(main)


def test_p16_any_number_of_waiters_get_the_exception(run):
    async def main():
        gate, problem = Gate(), ValueError("same")

        @task
        async def work():
            await gate.hold()
            raise problem

        async with Runtime() as rt:
            job = await rt.submit(work)

            async def wait():
                try:
                    await job
                except ValueError as error:
                    return error

            early = [asyncio.ensure_future(wait()) for _ in range(50)]
            await turns()
            gate.open()
            assert all(error is problem for error in await asyncio.gather(*early))
            assert await wait() is problem

    run(main)


def test_p16_a_traceback_does_not_grow_with_each_waiter(run):
    async def main():
        @task
        async def work():
            raise ValueError("once")

        async with Runtime() as rt:
            job = await rt.submit(work)
            lengths = []
            for _ in range(20):
                try:
                    await job
                except ValueError as error:
                    lengths.append(len(traceback.extract_tb(error.__traceback__)))
            assert lengths[-1] == lengths[1]

    run(main)


def test_p16_the_traceback_still_says_where_the_job_failed(run):
    async def main():
        async def deep_inside():
            raise ValueError("here")

        @task
        async def work():
            await deep_inside()

        async with Runtime() as rt:
            job = await rt.submit(work)
            try:
                await job
            except ValueError as error:
                names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
            assert "deep_inside" in names

    run(main)


def test_p16_an_exception_keeps_no_frame_of_its_job_alive(run):
    async def main():
        @task
        async def work(held):
            local = held  # noqa: F841
            raise ValueError("with locals")

        async with Runtime() as rt:
            thing = Thing()
            alive = weakref.ref(thing)
            job = await rt.submit(work, thing)
            del thing
            with pytest.raises(ValueError, match="with locals") as raised:
                await job
            error = raised.value
            del raised
            await turns()
            gc.collect()
            assert alive() is None
            assert error is job.exception()

    run(main)


def test_p16_a_dropped_handle_of_a_failed_job_makes_no_noise(run):
    async def main():
        @task
        async def fail():
            raise ValueError("nobody looks")

        async with Runtime() as rt:
            for _ in range(10):
                await rt.submit(fail)
            await rt.drain()
            gc.collect()
            await turns()
            assert all(word(job.state) == "discarded" for job in rt.jobs())

    run(main)


def test_p16_a_dropped_handle_does_not_drop_its_job(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=2) as rt:
            for number in range(6):
                await rt.submit(gate.hold, number)
            for _ in range(5):
                gc.collect()
                await turns()
            gate.open()
        assert sorted(gate.ended) == list(range(6))

    run(main)


def test_p16_a_job_awaiting_something_only_it_knows_is_not_collected(run):
    async def main():
        futures = []

        @task
        async def work():
            future = asyncio.get_running_loop().create_future()
            futures.append(weakref.ref(future))
            return await future

        async with Runtime() as rt:
            await rt.submit(work)
            await until(lambda: futures)
            for _ in range(3):
                gc.collect()
                await turns()
            assert futures[0]() is not None
            futures[0]().set_result("late")

    run(main)


def test_p16_a_dropped_handle_lets_its_value_and_arguments_go(run):
    async def main():
        @task
        async def echo(thing):
            return Thing()

        async with Runtime() as rt:
            argument = Thing()
            job = await rt.submit(echo, argument)
            result = await job
            alive = [weakref.ref(argument), weakref.ref(result)]
            del job, argument, result
            await turns()
            gc.collect()
            assert [reference() for reference in alive] == [None, None]

    run(main)


def test_p16_a_finished_job_holds_its_arguments_no_longer(run):
    async def main():
        @task
        async def work(thing, keyword=None):
            return "value"

        async with Runtime() as rt:
            one, two = Thing(), Thing()
            alive = [weakref.ref(one), weakref.ref(two)]
            job = await rt.submit(work, one, keyword=two)
            del one, two
            assert await job == "value"
            await turns()
            gc.collect()
            assert [reference() for reference in alive] == [None, None]
            assert job.result() == "value"

    run(main)


def test_p16_a_cancelled_queued_job_lets_its_arguments_go(run):
    async def main():
        gate = Gate()

        @task
        async def work(thing):
            pass

        async with Runtime(concurrency=1) as rt:
            await rt.submit(gate.hold)
            thing = Thing()
            alive = weakref.ref(thing)
            job = await rt.submit(work, thing)
            del thing
            job.cancel()
            with pytest.raises(JobCancelled):
                await job
            await turns()
            gc.collect()
            assert alive() is None
            gate.open()

    run(main)


def test_p16_a_cancelled_delayed_job_lets_its_arguments_go_before_it_is_due(run, clock):
    async def main():
        @task
        async def work(thing):
            pass

        async with Runtime() as rt:
            thing = Thing()
            alive = weakref.ref(thing)
            job = await rt.submit(work.with_options(delay=1e6), thing)
            del thing
            job.cancel()
            await job.wait()
            await turns()
            gc.collect()
            assert alive() is None

    run(main)


def test_p16_exception_is_what_awaiting_would_raise(run):
    async def main():
        gate = Gate()

        @task
        async def fail():
            raise ValueError("v")

        async with Runtime() as rt:
            good, bad, gone = (
                await rt.submit(gate.hold, 1),
                await rt.submit(fail),
                await rt.submit(gate.hold, 2),
            )
            await bad.wait()
            gone.cancel()
            await gone.wait()
            gate.open()
            await good
            assert good.exception() is None
            for job in (bad, gone):
                with pytest.raises(type(job.exception())) as raised:
                    await job
                assert type(raised.value) is type(job.exception())

    run(main)


@pytest.mark.parametrize("problem", [StopIteration("x"), StopAsyncIteration("x"), GeneratorExit()], ids=repr)
def test_p16_an_exception_no_future_can_carry_still_ends_the_job(run, problem):
    async def main():
        @task
        def plain():
            raise problem

        @task
        async def asynchronous():
            raise problem

        async with Runtime() as rt:
            for work in (plain, asynchronous):
                job = await rt.submit(work)
                await job.wait()
                assert word(job.state) == "discarded"
                assert job.exception() is not None
                if isinstance(problem, GeneratorExit):
                    continue
                with pytest.raises((RuntimeError, type(problem))):
                    job.result()

    run(main)


def test_p16_wait_never_raises(run):
    async def main():
        gate = Gate()

        @task
        async def fail():
            raise ValueError

        async with Runtime() as rt:
            bad = await rt.submit(fail)
            assert await bad.wait() is None
            gone = await rt.submit(gate.hold)
            gone.cancel()
            assert await gone.wait() is None

    run(main)


def test_p16_ids_are_unique_opaque_strings_and_look_up_their_job(run):
    async def main():
        gate = Gate()
        async with Runtime() as rt:
            jobs = [await rt.submit(gate.hold, number) for number in range(50)]
            ids = {job.id for job in jobs}
            assert len(ids) == 50
            assert all(isinstance(each, str) and len(each) >= 11 for each in ids)
            assert all(rt.job(job.id) is job for job in jobs)
            assert rt.job("no such job") is None
            gate.open()

    run(main)


def test_p16_an_id_is_the_same_whenever_it_is_asked_for(run):
    async def main():
        gate, seen = Gate(), []
        from bgruntime import current_job

        @task
        async def work():
            await gate.hold()
            seen.append(current_job().id)

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: gate.started)
            gate.open()
            await job
            assert job.id == seen[0] == job.id

    run(main)


def test_p16_jobs_look_up_by_state_and_task(run):
    async def main():
        gate = Gate()

        @task(name="p16-note")
        async def note():
            pass

        async with Runtime(concurrency=1) as rt:
            done = await rt.submit(note)
            await done
            await rt.submit(task(name="p16-hold")(gate.hold))
            await until(lambda: gate.started)
            waiting = await rt.submit(note)
            assert [job.id for job in rt.jobs(state="available")] == [waiting.id]
            assert [job.id for job in rt.jobs(task="p16-note", state="completed")] == [done.id]
            assert {job.task for job in rt.jobs()} == {"p16-note", "p16-hold"}
            gate.open()

    run(main)


def test_p16_a_job_in_the_list_keeps_its_id_however_often_the_list_is_asked_for(run):
    @task
    async def work() -> None: ...

    async def main():
        async with Runtime() as rt:
            for _ in range(1_200):
                await rt.submit_nowait(work)
            first = [job.id for job in rt.jobs()]
            await rt.submit_nowait(work)
            later = [job.id for job in rt.jobs()]
            assert later[1:] == first[:-1]
            assert [job.id for job in rt.jobs()] == later
            found = rt.job(later[1])
            assert found is not None
            assert found.id == later[1]

    run(main)


def test_p16_however_many_ids_are_asked_for_late_those_of_the_last_jobs_are_known(run):
    @task
    async def work() -> None: ...

    async def main():
        async with Runtime(queue_size=5_000) as rt:
            jobs = [rt.submit_nowait(work) for _ in range(2_500)]
            await rt.drain()
            ids = [job.id for job in reversed(jobs)]  # the oldest is asked last
            del jobs
            gc.collect()
            assert [job.id for job in rt.jobs()] == ids[:1_000]
            assert rt.job(ids[0]) is not None
            assert rt.job(ids[-1]) is None

    run(main)
