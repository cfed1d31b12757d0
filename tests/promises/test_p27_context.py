"""P27: context flows in as documented and nothing leaks back."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from bgruntime import Runtime, current_job, task

from .steps import Gate, turns, until, word

request: ContextVar[str] = ContextVar("request", default="none")
secret: ContextVar[str] = ContextVar("secret", default="none")


@task
async def read():
    return request.get(), secret.get()


@task
def read_in_thread():
    return request.get(), secret.get()


@pytest.mark.parametrize("which", [read, read_in_thread], ids=["async", "plain"])
def test_p27_a_job_runs_in_a_copy_of_the_submitters_context_taken_at_submit(run, which):
    async def main():
        async with Runtime() as rt:
            request.set("one")
            secret.set("hidden")
            job = await rt.submit(which)
            request.set("two")
            other = rt.submit_nowait(which)
            request.set("three")
            assert await job == ("one", "hidden")
            assert await other == ("two", "hidden")

    run(main)


@pytest.mark.parametrize("which", [read, read_in_thread], ids=["async", "plain"])
def test_p27_a_job_that_waited_long_sees_the_context_of_its_submit(run, clock, which):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1) as rt:
            await rt.submit(task(timeout=None)(gate.hold))
            await until(lambda: gate.started)
            request.set("queued")
            queued = await rt.submit(which)
            request.set("delayed")
            delayed = await rt.submit(which.with_options(delay=10.0))
            request.set("later")
            gate.open()
            await clock.advance(10.0)
            assert (await queued)[0] == "queued"
            assert (await delayed)[0] == "delayed"

    run(main)


def test_p27_a_job_does_not_run_in_the_context_of_whichever_job_freed_its_slot(run):
    async def main():
        order = []

        @task
        async def work(label):
            order.append((label, request.get()))
            request.set(f"leaked by {label}")
            await asyncio.sleep(0)
            request.set(f"leaked again by {label}")

        async with Runtime(concurrency=1) as rt:
            request.set("mine")
            for number in range(5):
                await rt.submit(work, number)
            request.set("not mine")
            await rt.drain()
        assert order == [(number, "mine") for number in range(5)]

    run(main)


def test_p27_one_who_waited_for_room_is_not_given_the_context_of_the_job_that_made_it(run):
    async def main():
        gate = Gate()

        @task
        async def first():
            request.set("of the first")
            await gate.hold()

        async with Runtime(concurrency=1, queue_size=1) as rt:
            await rt.submit(first)
            await until(lambda: gate.started)
            await rt.submit(first)

            async def client():
                request.set("of the client")
                job = await rt.submit(read)
                assert request.get() == "of the client"
                return await job

            waiting = asyncio.ensure_future(client())
            await turns()
            gate.open()
            assert (await waiting)[0] == "of the client"

    run(main)


@pytest.mark.parametrize("threaded", [False, True], ids=["async", "plain"])
def test_p27_nothing_leaks_back_to_the_submitter_or_another_job(run, threaded):
    async def main():
        def change():
            request.set("leaked")
            secret.set("leaked")

        async def change_async():
            change()
            await asyncio.sleep(0)
            change()

        async with Runtime(concurrency=1, threads=1) as rt:
            request.set("mine")
            await (await rt.submit(task(change if threaded else change_async)))
            assert (request.get(), secret.get()) == ("mine", "none")
            assert await (await rt.submit(read_in_thread if threaded else read)) == ("mine", "none")

    run(main)


@pytest.mark.parametrize("threaded", [False, True], ids=["async", "plain"])
def test_p27_each_attempt_has_a_fresh_copy(run, clock, threaded):
    async def main():
        seen = []

        def once():
            seen.append(request.get())
            request.set(f"changed by attempt {current_job().attempt}")
            if len(seen) < 3:
                raise ValueError

        async def once_async():
            await asyncio.sleep(0)
            once()

        work = task(max_attempts=3, backoff=lambda _: 1.0)(once if threaded else once_async)
        async with Runtime() as rt:
            request.set("mine")
            job = await rt.submit(work)
            request.set("later")
            for attempt in (1, 2):
                await until(lambda n=attempt: len(seen) == n and word(job.state) == "retryable")
                await clock.advance(1.0)
            await job
        assert seen == ["mine"] * 3

    run(main)


@pytest.mark.parametrize("threaded", [False, True], ids=["async", "plain"])
def test_p27_fresh_carries_only_what_is_named(run, threaded):
    async def main():
        def look():
            return request.get(), secret.get()

        async def look_async():
            await asyncio.sleep(0)
            return look()

        function = look if threaded else look_async
        async with Runtime() as rt:
            request.set("carried")
            secret.set("hidden")
            bare = task(context="fresh")(function)
            carrying = task(context="fresh", carry=(request,))(function)
            jobs = await rt.submit(bare), await rt.submit(carrying)
            request.set("later")
            assert [await job for job in jobs] == [("none", "none"), ("carried", "none")]

    run(main)


def test_p27_fresh_does_not_carry_the_context_of_the_job_that_freed_the_slot(run):
    async def main():
        @task
        async def dirty():
            request.set("dirty")
            secret.set("dirty")

        async def look():
            return request.get(), secret.get()

        clean = task(context="fresh")(look)
        async with Runtime(concurrency=1) as rt:
            await rt.submit(dirty)
            job = await rt.submit(clean)
            await rt.submit(dirty)
            again = await rt.submit(clean)
            assert await job == ("none", "none")
            assert await again == ("none", "none")

    run(main)


def test_p27_a_carried_variable_that_was_never_set_stays_unset(run):
    async def main():
        unset: ContextVar[str] = ContextVar("unset")

        @task(context="fresh", carry=(unset,))
        async def look():
            return unset.get("not set")

        async with Runtime() as rt:
            assert await (await rt.submit(look)) == "not set"

    run(main)


def test_p27_fanouts_groups_many_and_threads_take_the_submitters_context(run):
    async def main():
        async with Runtime(concurrency=2) as rt:
            request.set("mine")
            assert await rt.gather(read.bind(), read.bind()) == [("mine", "none")] * 2
            jobs = await rt.submit_many(read, [(), ()])
            async with rt.group() as group:
                jobs.append(await group.submit(read))
            jobs.append(rt.submit_nowait(read))
            future = rt.submit_threadsafe(read)
            request.set("later")
            assert [(await job)[0] for job in jobs] == ["mine"] * 4
            assert (await asyncio.wrap_future(future))[0] == "mine"

            @task
            async def echo(number):
                return request.get()

            request.set("mapped")
            assert await rt.map(echo, range(5), limit=2) == ["mapped"] * 5

    run(main)


def test_p27_a_coroutine_object_runs_in_the_submitters_context_too(run):
    async def main():
        async def look():
            return request.get()

        async with Runtime() as rt:
            request.set("mine")
            job = await rt.submit(look())
            request.set("later")
            assert await job == "mine"

    run(main)


def test_p27_current_job_is_the_jobs_own_and_gone_outside(run):
    async def main():
        seen = []

        @task
        async def work():
            mine = current_job()

            async def child():
                return current_job()

            assert await asyncio.ensure_future(child()) is mine
            seen.append(mine.id)
            await turns(2)
            assert current_job() is mine
            return mine.id

        @task
        def plain():
            return current_job().id

        async with Runtime(concurrency=3) as rt:
            jobs = [await rt.submit(work) for _ in range(3)] + [await rt.submit(plain)]
            assert [await job for job in jobs] == [job.id for job in jobs]
            assert len(set(seen)) == 3
            try:
                outside = current_job()
            except (LookupError, RuntimeError):
                outside = None
            assert outside is None

    run(main)


def test_p27_a_job_submitted_by_a_job_is_not_taken_for_it(run):
    async def main():
        @task
        async def child():
            return current_job().id

        async with Runtime() as rt:

            @task
            async def parent():
                job = await rt.submit(child)
                return current_job().id, job.id, await job

            job = await rt.submit(parent)
            own, child_id, seen_by_child = await job
            assert own == job.id
            assert child_id == seen_by_child != own

    run(main)
