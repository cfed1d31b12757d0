"""Durable jobs from acceptance to completion, in one process."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from datetime import UTC, datetime

import pytest

from bgruntime import (
    JobCancelled,
    JobInterrupted,
    JobState,
    JournalUnavailable,
    PayloadError,
    Retry,
    Runtime,
    RuntimeClosed,
    Snooze,
    current_job,
)
from bgruntime.journal import _session

from .steps import Switch, durable, until


def test_a_durable_job_is_on_disk_when_submit_returns_and_gone_when_it_is_over(run, path, rows):
    async def main():
        gate = asyncio.Event()

        async def wait(word: str) -> str:
            await gate.wait()
            return word

        async with Runtime(journal=path) as rt:
            job = await rt.submit(durable(wait, name="on-disk"), "hello")
            assert rows("SELECT id, task, args FROM job") == [(job.id, "on-disk", '{"word":"hello"}')]
            gate.set()
            assert await job == "hello"
            await until(lambda: not rows("SELECT * FROM job"))

    run(main)


def test_a_durable_job_runs_on_copies_that_came_out_of_the_journal_the_first_time_too(run, path):
    async def main():
        given = {"list": [1, 2]}
        seen = []

        async def look(value: dict[str, list[int]]) -> None:
            seen.append(value)

        async with Runtime(journal=path) as rt:
            job = await rt.submit(durable(look), given)
            await job
        assert seen == [given]
        assert seen[0] is not given
        assert seen[0]["list"] is not given["list"]

    run(main)


def test_arguments_that_do_not_survive_are_refused_at_submit_and_nothing_is_written(run, path, rows):
    async def main():
        async def never(value) -> None: ...

        task = durable(never)
        async with Runtime(journal=path) as rt:
            for value in ((1, 2), object(), "\ud800", {1: 2}, datetime.now(UTC)):
                with pytest.raises(PayloadError, match="argument 'value'"):
                    await rt.submit(task, value)
            assert rows("SELECT count(*) FROM job") == [(0,)]
            assert rt.stats().waiting == rt.stats().running == 0

    run(main)


def test_without_a_journal_a_durable_submit_says_what_is_missing(run):
    async def main():
        async def never() -> None: ...

        async with Runtime() as rt:
            with pytest.raises(JournalUnavailable, match=r"Runtime\(journal="):
                await rt.submit(durable(never))

    run(main)


def test_submit_many_is_one_commit_and_all_or_nothing(run, path, rows):
    async def main():
        gate = asyncio.Event()

        async def wait(n: int) -> int:
            await gate.wait()
            return n

        task = durable(wait)
        async with Runtime(journal=path) as rt:
            before = (await rt.journal.stats()).commits
            jobs = await rt.submit_many(task, [(n,) for n in range(500)])
            assert rows("SELECT count(*) FROM job") == [(500,)]
            assert (await rt.journal.stats()).commits - before <= 10
            with pytest.raises(PayloadError):
                await rt.submit_many(task, [(1,), ("no number",), (3,)])
            assert rows("SELECT count(*) FROM job") == [(500,)]
            gate.set()
            assert [await job for job in jobs] == list(range(500))

    run(main)


def test_a_given_id_is_refused_while_a_job_in_the_file_has_it(run, path, tmp_path):
    async def main():
        gate = asyncio.Event()

        async def wait() -> None:
            await gate.wait()

        task = durable(wait).with_options(id="order-1")
        async with Runtime(journal=path) as rt, Runtime(journal=path) as other:
            await rt.submit(task)
            assert (await rt.journal.get("order-1")).state in ("available", "running")
            with pytest.raises(ValueError, match="order-1"):
                await other.submit(task)
            gate.set()
            await rt.drain()
            await until(lambda: _is_gone(rt, "order-1"))
            again = await other.submit(task)
            await again

    run(main)


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_a_given_id_is_free_again_as_soon_as_its_job_is_over(run, path, end):
    async def main():
        async def finish(word: str) -> str:
            if word == "failed":
                raise ValueError(word)
            if word == "cancelled":
                await asyncio.Event().wait()
            return word

        task = durable(finish).with_options(id="order-1")
        async with Runtime(journal=path) as rt:
            for _ in range(20):
                job = await rt.submit(task, end)
                if end == "cancelled":
                    job.cancel()
                await job.wait()
                assert job.state == {"failed": "discarded"}.get(end, end)

    run(main)


def test_the_id_of_a_submit_that_was_given_up_in_its_commit_may_be_given_again_at_once(
    run, path, monkeypatch
):
    async def main():
        begun, go_on = asyncio.Event(), threading.Event()
        commit = _session._commit

        def wait(connection: sqlite3.Connection) -> None:
            if connection.execute("SELECT count(*) FROM job").fetchone() != (0,) and not go_on.is_set():
                loop.call_soon_threadsafe(begun.set)
                go_on.wait(10)
            commit(connection)

        async def answer(n: int) -> int:
            return n

        task = durable(answer).with_options(id="order-1")
        loop = asyncio.get_running_loop()
        async with Runtime(journal=path) as rt:
            monkeypatch.setattr(_session, "_commit", wait)
            first = asyncio.ensure_future(rt.submit(task, 1))
            await begun.wait()
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            second = asyncio.ensure_future(rt.submit(task, 2))
            await asyncio.sleep(0)
            go_on.set()
            assert first.cancelled()
            assert await (await second) == 2

    run(main)


def test_many_whose_arguments_are_still_being_written_down_when_the_stop_begins_are_refused(run, path, rows):
    async def main():
        async def take(words: list[str]) -> None: ...

        async with Runtime(journal=path) as rt:
            encode, begun = rt.journal.encode, []
            rt.journal.encode = lambda *given: begun.append(1) or encode(*given)
            submitting = asyncio.ensure_future(rt.submit_many(durable(take), [(["word"] * 10_000,)] * 300))
            await until(lambda: begun)
            assert len(begun) < 300
            await rt.stop(drain=0)
            with pytest.raises(RuntimeClosed):
                await submitting
        assert rows("SELECT * FROM job") == []

    run(main)


async def _is_gone(rt, id):
    return await rt.journal.get(id) is None


def test_a_job_is_found_by_the_id_its_handle_has(run, path):
    async def main():
        gate = asyncio.Event()

        async def wait(n: int) -> None:
            await gate.wait()

        async with Runtime(journal=path) as rt:
            jobs = await rt.submit_many(durable(wait), [(n,) for n in range(5)])
            for n, job in enumerate(jobs):
                assert (await rt.journal.get(job.id)).args == {"n": n}
            assert await rt.journal.get("0" * 32) is None
            gate.set()

    run(main)


def test_the_start_of_a_long_job_is_noted_before_long(run, path, rows):
    async def main():
        gate = asyncio.Event()

        async def wait() -> None:
            await gate.wait()

        async with Runtime(journal=path) as rt:
            await rt.submit(durable(wait))
            await until(lambda: rows("SELECT state, started FROM job") == [(2, 1)])
            gate.set()

    run(main)


def test_the_waiting_of_a_retry_is_on_disk_with_what_went_wrong(run, path, rows):
    async def main():
        switch = Switch()

        async def call(n: int) -> None:
            switch.use(n)

        async with Runtime(journal=path) as rt:
            job = await rt.submit(durable(call, max_attempts=3, backoff=lambda _: 30), 7)
            await until(lambda: job.state is JobState.RETRYABLE)
            await until(lambda: rows("SELECT state, attempt FROM job") == [(3, 1)])
            kept = await rt.journal.get(job.id)
            assert (kept.state, kept.attempt, kept.error) == ("retryable", 1, "ConnectionError")
            assert [one.message for one in kept.attempts] == ["no answer for 7"]
            job.cancel()
            await job.wait()

    run(main)


def test_a_snooze_costs_no_attempt_on_disk_either(run, path, rows):
    async def main():
        async def later() -> None:
            raise Snooze(60)

        async with Runtime(journal=path) as rt:
            job = await rt.submit(durable(later))
            await until(lambda: rows("SELECT state, attempt FROM job") == [(3, 0)])
            job.cancel()
            await job.wait()

    run(main)


def test_a_cancelled_durable_job_is_off_the_disk_when_its_waiters_wake(run, path, rows):
    async def main():
        gate = asyncio.Event()

        async def wait() -> None:
            await gate.wait()

        async with Runtime(journal=path) as rt:
            running = await rt.submit(durable(wait))
            scheduled = await rt.submit(durable(wait).with_options(delay=100))
            for job in (running, scheduled):
                assert job.cancel("enough")
                await job.wait()
                assert not rows(f"SELECT * FROM job WHERE id = '{job.id}'")
                with pytest.raises(JobCancelled, match="enough"):
                    await job
                kept = await rt.journal.get(job.id)
                assert (kept.state, kept.reason) == ("cancelled", "enough")
            assert await rt.journal.failures() == []
            assert len(await rt.journal.failures(state="cancelled")) == 2

    run(main)


def test_a_shutdown_puts_back_what_it_interrupts_and_a_later_runtime_runs_it(run, path, rows):
    async def main():
        started, seen = asyncio.Event(), []

        async def work(n: int) -> None:
            started.set()
            if not seen:
                await asyncio.Event().wait()

        async def note(n: int) -> None:
            seen.append(n)

        work_task, note_task = durable(work, name="put-back"), durable(note)
        async with Runtime(concurrency=1, journal=path) as rt:
            running = await rt.submit(work_task, 1)
            queued = await rt.submit(note_task, 2)
            scheduled = await rt.submit(note_task.with_options(delay=0.2), 3)
            await started.wait()
            report = await rt.stop(drain=0, cancel=1)
            assert set(report.requeued) == {running.id, queued.id, scheduled.id}
            assert report.lost == ()
            for job in (running, queued, scheduled):
                with pytest.raises(JobInterrupted) as caught:
                    await job
                assert caught.value.requeued
        assert rows("SELECT count(*), count(owner), max(attempt), max(crashes) FROM job") == [(3, 0, 0, 0)]
        seen.append("the cause is gone")
        async with Runtime(concurrency=1, journal=path) as rt:
            await until(lambda: len(seen) == 3)
            await rt.drain()
        assert seen == ["the cause is gone", 2, 3]
        assert rows("SELECT count(*) FROM job") == [(0,)]

    run(main)


def test_what_a_restart_brings_back_keeps_its_attempts_its_time_and_its_options(run, path):
    async def main():
        attempts = []

        async def flaky() -> None:
            attempts.append(current_job().attempt)
            if current_job().attempt < 3:
                raise Retry(after=0.3)

        task = durable(flaky, max_attempts=3)
        async with Runtime(journal=path) as rt:
            job = await rt.submit(task.with_options(tags=["a", "b"], timeout=17, priority=2))
            await until(lambda: job.state is JobState.RETRYABLE)
            await rt.stop(drain=0)
        async with Runtime(journal=path) as rt:
            again = await until(lambda: rt.job(job.id))
            assert again is not job
            assert again.tags == ("a", "b")
            assert again.attempt >= 1
            await again
        assert attempts == [1, 2, 3]

    run(main)


def test_drain_waits_for_what_is_still_in_the_journal(run, path):
    async def main():
        done = []

        async def work(n: int) -> None:
            done.append(n)

        task = durable(work)
        async with Runtime(journal=path) as rt:
            rt.pause()
            await rt.submit_many(task, [(n,) for n in range(50)])
            await rt.stop(drain=0)
        async with Runtime(concurrency=5, queue_size=5, journal=path) as rt:
            await rt.drain()
            assert sorted(done) == list(range(50))

    run(main)


def test_a_completed_job_stays_for_as_long_as_it_is_kept(run, path):
    from bgruntime.journal import Journal

    async def main():
        async def work() -> None: ...

        async with Runtime(journal=Journal(path, keep=3600)) as rt:
            job = await rt.submit(durable(work))
            await job
            kept = await rt.journal.get(job.id)
            assert (kept.state, kept.error) == ("completed", "")
            assert await rt.journal.failures() == []

    run(main)


def test_a_runtime_can_be_entered_again_with_the_same_journal(run, path):
    async def main():
        async def work(n: int) -> int:
            return n

        task = durable(work)
        rt = Runtime(journal=path)
        for n in range(3):
            async with rt:
                assert await (await rt.submit(task, n)) == n

    run(main)
