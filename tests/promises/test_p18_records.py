"""P18: the records of finished jobs are few, small, and keep nothing of the jobs alive."""

from __future__ import annotations

import gc
import weakref
from functools import partial

import pytest

from bgruntime import Runtime, _task, task
from bgruntime._task import registry

from .steps import Gate, until


class Heavy:
    pass


async def use(heavy, *, fails=False):
    if fails:
        raise ValueError("heavy")


def use_in_thread(heavy, *, fails=False):
    if fails:
        raise ValueError("heavy")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("redacted", [False, True])
@pytest.mark.parametrize("function", [use, use_in_thread])
def test_p18_the_record_of_a_job_keeps_no_argument_of_a_partial_alive(run, function, fails, redacted):
    async def main():
        heavy = Heavy()
        gone = weakref.ref(heavy)
        call = partial(function, heavy, fails=fails)
        if redacted:
            call = task(name="partial", redact=["fails"])(call).with_options(timeout=5)
        async with Runtime() as rt:
            job = await rt.submit(call)
            await job.wait()
            id, name = job.id, job.task
            del heavy, call, job
            registry._tasks.pop("partial", None)
            found = rt.job(id)
            assert found.task == name
            assert found.done()

            def let_go():  # a thread does so with its frame, a moment later
                gc.collect()
                return gone() is None

            await until(let_go)

    run(main)


def test_p18_failures_are_not_pushed_out_by_the_jobs_that_complete(run):
    @task
    async def fails(number):
        raise LookupError(f"number {number}")

    async def main():
        gate = Gate()
        async with Runtime(queue_size=5_000) as rt:
            first = rt.submit_nowait(fails, 0).id
            for number in range(1, 1_200):
                rt.submit_nowait(fails, number)
            for number in range(3_000):
                rt.submit_nowait(gate.note, number)
            await rt.drain()
            kept = rt.jobs(state="discarded")
            assert [len(kept), len(rt.jobs(state="completed"))] == [1_000, 1_000]
            assert repr(kept[0]).endswith("(failed: LookupError: number 1199)>")
            assert rt.job(first) is None, "its share is bounded too"

    run(main)


def test_p18_finished_jobs_are_listed_newest_first_whatever_became_of_them(run):
    @task
    async def maybe(number):
        if number % 2:
            raise LookupError(number)

    async def main():
        async with Runtime(concurrency=1) as rt:
            jobs = [await rt.submit(maybe, number) for number in range(6)]
            ids = [job.id for job in jobs]
            await rt.drain()
            assert [job.id for job in rt.jobs()] == ids[::-1]

    run(main)


def test_p18_a_failure_after_a_success_of_the_same_name_keeps_no_argument_of_a_partial_alive(run):
    async def main():
        async with Runtime() as rt:
            await (await rt.submit(partial(use, 1)))
            heavy = Heavy()
            gone = weakref.ref(heavy)
            call = partial(use, heavy, fails=True)
            job = await rt.submit(call)
            await job.wait()
            del heavy, call, job
            assert rt.stats().failed == 1
            gc.collect()
            assert gone() is None

    run(main)


def test_p18_functions_beyond_those_that_are_remembered_do_not_pile_up_in_a_runtime(run, monkeypatch):
    monkeypatch.setattr(_task, "_remembered", {})
    monkeypatch.setattr(_task, "_MOST_REMEMBERED", 0)

    async def main():
        async with Runtime() as rt:
            for number in range(20):
                await (await rt.submit(use, number))
            assert len(rt._engine.entries) == 0
            assert rt.stats().completed == 20

    run(main)
