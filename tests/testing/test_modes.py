"""The modes for users' tests: what was submitted, run at submit, run when told."""

from __future__ import annotations

import asyncio

import pytest

from bgruntime import Retry, Runtime, task
from bgruntime.testing import assert_not_submitted, assert_submitted, inline, manual, recorded
from tests.door.turns import until

sent = []


@task
async def send(to, subject="Welcome"):
    sent.append((to, subject))
    return to


@task
async def forward(rt, to):
    await rt.submit(send, to, subject="Fwd")


@pytest.fixture(autouse=True)
def _nothing_sent():
    sent.clear()


def test_recorded_jobs_run_as_always_and_are_noted(run):
    async def main():
        async with Runtime() as rt:
            with recorded() as submitted:
                assert await (await rt.submit(send, "a")) == "a"
                await rt.submit_nowait(send, "b", subject="Hi")
                await rt.submit_many(send, [("c",), ("d", "Yo")])
                assert [str(one.arguments["to"]) for one in submitted.all] == ["a", "b", "c", "d"]
                assert assert_submitted(send, "b")[0].job.result() == "b"
            await rt.submit(send, "after the with")
            assert len(submitted.all) == 4
        assert len(sent) == 5

    run(main)


def test_assert_submitted_matches_some_arguments_by_position_or_name(run):
    async def main():
        async with Runtime() as rt:
            with recorded():
                await rt.submit(send, to="a", subject="Hi")
                await rt.submit(send, "b")
                assert len(assert_submitted(send)) == 2
                assert_submitted(send, "a")
                assert_submitted(send, subject="Hi")
                assert_submitted(send, "b", subject="Welcome")  # a default counts as given
                assert_not_submitted(send, "b", subject="Hi")
                assert_not_submitted(forward)
                with pytest.raises(AssertionError, match="was submitted:\n.*to='a'"):
                    assert_not_submitted(send, "a")
                with pytest.raises(AssertionError) as failed:
                    assert_submitted(send, "c")
                assert "send('c') was not submitted; what was:" in str(failed.value)
                assert "send(to='a', subject='Hi')" in str(failed.value)

    run(main)


def test_outside_of_the_modes_nothing_is_noted():
    with pytest.raises(RuntimeError, match=r"outside of recorded\(\), inline\(\) and manual\(\)"):
        assert_submitted(send)


def test_plain_functions_and_coroutines_are_noted_too(run):
    async def main():
        def plain(number):
            return number + 1

        async def coroutine():
            return 1

        async with Runtime() as rt:
            with recorded() as submitted:
                assert await (await rt.submit(plain, 1)) == 2
                assert await (await rt.submit(coroutine())) == 1
            assert submitted.of(plain, number=1)
            assert [one.arguments for one in submitted.all] == [{"number": 1}, {}]

    run(main)


def test_inline_jobs_have_run_when_submit_returns(run):
    async def main():
        async with Runtime(concurrency=1) as rt:
            with inline():
                job = await rt.submit(send.with_options(delay=3600), "a")
                assert (job.done(), sent) == (True, [("a", "Welcome")])
                await rt.submit(forward, rt, "b")
                assert sent[1:] == [("b", "Fwd")], "what a job submits has run as well"
                await rt.submit_many(send, [("c",), ("d",)])
                assert [to for to, _ in sent] == ["a", "b", "c", "d"]
                assert_submitted(send, "b")

    run(main)


def test_an_inline_job_that_fails_leaves_its_error_in_the_job(run):
    async def main():
        @task(max_attempts=2, backoff=lambda _: 3600)
        async def fail():
            raise ValueError("down")

        async with Runtime() as rt:
            with inline():
                job = await rt.submit(fail)
                assert str(job.state) == "retryable", "it has run once, and waits for its next time"
                assert job.attempt == 1
                job.cancel()
                failed = await rt.submit(task(raises))
                assert isinstance(failed.exception(), ValueError)

    async def raises():
        raise ValueError("down")

    run(main)


def test_manual_jobs_run_when_they_are_drained(run):
    async def main():
        async with Runtime() as rt:
            with manual() as submitted:
                first = await rt.submit(send, "a")
                second = rt.submit_nowait(forward, rt, "b")
                await rt.submit_many(send, [("c",)])
                await asyncio.sleep(0)
                assert sent == []
                assert_submitted(send, "a")
                ran = await submitted.drain()
                assert ran[:2] == [first, second]
                assert sorted(to for to, _ in sent) == ["a", "b", "c"], "what they submit runs too"
                await rt.submit(send, "d")
                assert len(sent) == 3, "after a drain jobs wait again"
                assert len(await submitted.drain()) == 1
                await rt.submit(send, "late")
            await until(lambda: ("late", "Welcome") in sent)

    run(main)


def test_a_manual_drain_leaves_a_job_that_waits_for_its_next_attempt(run):
    async def main():
        @task(max_attempts=2)
        async def flaky():
            raise Retry(after=3600)

        async with Runtime() as rt:
            with manual() as submitted:
                job = await rt.submit(flaky)
                assert await submitted.drain() == [job]
                assert str(job.state) == "retryable"
                job.cancel()

    run(main)


def test_the_innermost_mode_notes(run):
    async def main():
        async with Runtime() as rt:
            with recorded() as outer:
                await rt.submit(send, "a")
                with inline() as inner:
                    await rt.submit(send, "b")
                    assert_not_submitted(send, "a")
                assert len(inner.all) == 1
                assert [one.arguments["to"] for one in outer.all] == ["a", "b"]

    run(main)


@pytest.mark.parametrize("mode", [recorded, inline, manual])
def test_jobs_from_other_threads_and_of_reservations_are_noted(run, mode):
    async def main():
        async with Runtime() as rt:
            with mode() as submitted:
                future = await asyncio.to_thread(rt.submit_threadsafe, send, "a", subject="Hi")
                job = rt.reserve(send, to="b").submit()
                await until(lambda: len(submitted.all) == 2)
                assert len(assert_submitted(send, "a", subject="Hi")) == 1
                assert assert_submitted(send, "b", "Welcome")[0].job is job
                with pytest.raises(AssertionError, match="was submitted"):
                    assert_not_submitted(send, "a")
                with pytest.raises(AssertionError, match="was submitted"):
                    assert_not_submitted(send, "b")
                if mode is manual:
                    assert sent == []
                    assert len(await submitted.drain()) == 2
                assert await asyncio.wrap_future(future) == "a"
                assert await job == "b"

    run(main)


def test_jobs_of_a_group_are_not_noted(run):
    async def main():
        async with Runtime() as rt:
            with recorded() as submitted:
                async with rt.group() as group:
                    await group.submit(send, "a")
            assert submitted.all == []
            assert len(sent) == 1

    run(main)


def test_a_runtime_may_be_left_inside_of_manual(run):
    async def main():
        with manual() as submitted:
            async with Runtime() as rt:
                await rt.submit(send, "a")
                assert len(await submitted.drain()) == 1
        assert len(sent) == 1

    run(main)
