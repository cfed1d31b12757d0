"""Inside a job: `current_job()` and everything it offers."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

import bgruntime
from bgruntime import JobCancelled, JobContext, Runtime, current_job, task
from tests.door.turns import turns, until


def test_outside_a_job_there_is_no_current_job(run: Any) -> None:
    with pytest.raises((RuntimeError, LookupError, bgruntime.BgRuntimeError), match="job"):
        current_job()

    async def main() -> None:
        async with Runtime():
            with pytest.raises((RuntimeError, LookupError, bgruntime.BgRuntimeError)):
                current_job()

    run(main)


@pytest.mark.parametrize("plain", [False, True])
def test_the_current_job_knows_its_id_attempt_and_task(run: Any, plain: bool) -> None:
    def look() -> tuple[Any, ...]:
        context = current_job()
        assert isinstance(context, JobContext)
        return context.id, context.attempt, context.task

    async def look_async() -> tuple[Any, ...]:
        return look()

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(look if plain else look_async)
            assert await job == (job.id, 1, job.task)

    run(main)


def test_a_child_task_and_a_called_coroutine_see_the_same_job(run: Any) -> None:
    async def deeper() -> str:
        return current_job().id

    @task
    async def work() -> list[str]:
        child = asyncio.create_task(deeper())
        return [current_job().id, await deeper(), await child]

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            assert await job == [job.id] * 3

    run(main)


def test_a_thread_started_with_to_thread_sees_the_job(run: Any) -> None:
    @task
    async def work() -> str:
        return await asyncio.to_thread(lambda: current_job().id)

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            assert await job == job.id

    run(main)


def test_the_job_does_not_leak_into_the_submitter(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            await (await rt.submit(lambda: None))
            with pytest.raises((RuntimeError, LookupError, bgruntime.BgRuntimeError)):
                current_job()

    run(main)


def test_a_job_submitted_from_a_job_is_its_own_current_job(run: Any) -> None:
    async def inner() -> str:
        return current_job().id

    async def main() -> None:
        async with Runtime() as rt:

            async def outer() -> tuple[str, str, str]:
                job = await rt.submit(inner)
                return current_job().id, job.id, await job

            mine, others, seen = await (await rt.submit(outer))
            assert seen == others != mine

    run(main)


@pytest.mark.parametrize("plain", [False, True])
def test_remaining_counts_down_to_the_timeout_of_the_attempt(run: Any, clock: Any, plain: bool) -> None:
    seen: list[float | None] = []
    look_now, looked = threading.Event(), threading.Event()

    @task(timeout=30)
    def work() -> None:
        seen.append(current_job().remaining())
        looked.set()
        look_now.wait(30)
        seen.append(current_job().remaining())

    @task(timeout=30)
    async def work_async() -> None:
        seen.append(current_job().remaining())
        looked.set()
        await until(look_now.is_set)
        seen.append(current_job().remaining())

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work if plain else work_async)
            await until(looked.is_set)
            await clock.advance(12)
            look_now.set()
            await job

    run(main)
    assert seen == [pytest.approx(30), pytest.approx(18)]


def test_remaining_of_an_unlimited_job_has_no_end(run: Any) -> None:
    @task(timeout=None)
    async def work() -> float | None:
        return current_job().remaining()

    async def main() -> None:
        async with Runtime() as rt:
            assert await (await rt.submit(work)) in (None, float("inf"))

    run(main)


def test_stopping_is_set_before_the_cancellation_arrives(run: Any) -> None:
    seen: list[bool] = []

    async def main() -> None:
        started = asyncio.Event()

        @task
        async def work() -> None:
            seen.append(current_job().stopping.is_set())
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append(current_job().stopping.is_set())
                raise

        async with Runtime() as rt:
            job = await rt.submit(work)
            await started.wait()
            job.cancel()
            with pytest.raises(JobCancelled):
                await job

    run(main)
    assert seen == [False, True]


def test_stopping_wakes_a_thread_whose_job_is_cancelled(run: Any) -> None:
    started = threading.Event()
    seen: list[bool] = []

    @task
    def work() -> None:
        started.set()
        seen.append(current_job().stopping.wait(30))

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(started.is_set)
            job.cancel()
            with pytest.raises(JobCancelled):
                await job
            await until(lambda: seen)

    run(main)
    assert seen == [True]


def test_stopping_wakes_a_thread_whose_time_is_up(run: Any, clock: Any) -> None:
    started = threading.Event()
    seen: list[bool] = []

    @task(timeout=5)
    def work() -> None:
        started.set()
        seen.append(current_job().stopping.wait(30))

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(started.is_set)
            await clock.advance(6)
            with pytest.raises(bgruntime.JobTimedOut):
                await job
            await until(lambda: seen)

    run(main)
    assert seen == [True]


def test_stopping_wait_gives_up_at_its_timeout(run: Any) -> None:
    @task
    def work() -> bool:
        return current_job().stopping.wait(0.01)

    async def main() -> None:
        async with Runtime() as rt:
            assert await (await rt.submit(work)) is False

    run(main)


@pytest.mark.parametrize("timeout", [None, 30, 0])
def test_waiting_for_stopping_where_the_loop_runs_is_an_error_that_says_what_to_await(
    run: Any, timeout: float | None
) -> None:
    @task
    async def work() -> None:
        current_job().stopping.wait(timeout)

    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(RuntimeError, match=r"await current_job\(\)\.stopping instead"):
                await (await rt.submit(work))

    run(main)


def test_an_async_job_awaits_stopping_and_ends_its_work_when_the_drain_begins(run: Any) -> None:
    started = asyncio.Event()

    @task
    async def work() -> str:
        started.set()
        await current_job().stopping
        await current_job().stopping  # it is set, and stays so
        return "saved its work"

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            await started.wait()
            await turns()
            assert not job.done()
            await rt.stop(drain=30)
            assert await job == "saved its work"

    run(main)


def test_a_child_task_that_awaits_stopping_hears_of_the_timeout_of_its_job(run: Any, clock: Any) -> None:
    heard: list[str] = []

    async def watch() -> None:
        await current_job().stopping
        heard.append("time is up")

    @task(timeout=5)
    async def work() -> None:
        child = asyncio.create_task(watch())
        try:
            await asyncio.Event().wait()
        finally:
            await child

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            await clock.advance(4)
            assert heard == []
            await clock.advance(2)
            with pytest.raises(bgruntime.JobTimedOut):
                await job
            await until(lambda: heard)

    run(main)
    assert heard == ["time is up"]


def test_whoever_gives_up_awaiting_stopping_leaves_nothing_behind(run: Any) -> None:
    @task
    async def work() -> int:
        stopping = current_job().stopping
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await stopping
        return len(stopping._flag._futures)

    async def main() -> None:
        async with Runtime() as rt:
            assert await (await rt.submit(work)) == 0

    run(main)


def test_a_loop_of_its_own_in_the_thread_of_a_job_awaits_stopping_too(run: Any) -> None:
    started = threading.Event()

    async def inner() -> str:
        started.set()
        await current_job().stopping
        return "heard"

    @task
    def work() -> str:
        return asyncio.run(inner())

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(started.is_set)
            await rt.stop(drain=30)
            assert await job == "heard"

    run(main)


@pytest.mark.parametrize("plain", [False, True])
def test_stopping_is_set_when_the_drain_of_the_shutdown_begins(run: Any, plain: bool) -> None:
    started = threading.Event()

    @task
    def work() -> str:
        started.set()
        return "looked up" if current_job().stopping.wait(30) else "missed it"

    @task
    async def work_async() -> str:
        started.set()
        await until(current_job().stopping.is_set)
        return "looked up"

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work if plain else work_async)
            await until(started.is_set)
            await rt.stop(drain=30)
            assert await job == "looked up"
            assert job.id in [*(await rt.stop()).completed]

    run(main)


@pytest.mark.parametrize("plain", [False, True])
def test_progress_is_reported_with_and_without_a_note(run: Any, plain: bool) -> None:
    def work() -> None:
        current_job().progress(0.0)
        current_job().progress(0.5, "half")
        current_job().progress(1, note="done")

    async def work_async() -> None:
        work()

    async def main() -> None:
        async with Runtime() as rt:
            await (await rt.submit(work if plain else work_async))

    run(main)


@pytest.mark.parametrize("plain", [False, True])
def test_the_log_of_a_job_carries_its_fields(run: Any, plain: bool) -> None:
    def work() -> None:
        current_job().log.warning("work.half_done", rows=3)

    async def work_async() -> None:
        work()

    async def main() -> Any:
        async with Runtime() as rt:
            job = await rt.submit(work if plain else work_async)
            await job
            return job

    with structlog.testing.capture_logs() as lines:
        job = run(main)
    [line] = [line for line in lines if line["event"] == "work.half_done"]
    assert line["rows"] == 3
    assert (line["job_id"], line["task"], line["attempt"]) == (job.id, job.task, 1)


class Opened:
    """An async context manager that says when it was entered and left."""

    def __init__(self, said: list[str], name: str = "it") -> None:
        self.said = said
        self.name = name

    async def __aenter__(self) -> str:
        self.said.append(f"open {self.name}")
        return self.name

    async def __aexit__(self, *error: object) -> None:
        await asyncio.sleep(0)
        self.said.append(f"close {self.name}")


@pytest.mark.parametrize("ending", ["return", "raise", "exit", "cancel", "timeout", "stop"])
def test_what_a_job_entered_is_closed_however_it_ends(run: Any, clock: Any, ending: str) -> None:
    said: list[str] = []

    async def main() -> None:
        started = asyncio.Event()

        @task(timeout=30)
        async def work() -> None:
            assert await current_job().enter(Opened(said, "a")) == "a"
            assert await current_job().enter(Opened(said, "b")) == "b"
            started.set()
            match ending:
                case "return":
                    return
                case "raise":
                    raise LookupError("failed")
                case "exit":
                    raise SystemExit(1)
            await asyncio.Event().wait()

        async with Runtime() as rt:
            job = await rt.submit(work)
            await started.wait()
            match ending:
                case "cancel":
                    job.cancel()
                case "timeout":
                    await clock.advance(31)
                case "stop":
                    await rt.stop(drain=0)
            await job.wait()
            await until(lambda: len(said) == 4)

    run(main)
    assert said == ["open a", "open b", "close b", "close a"]


def test_what_an_attempt_entered_is_closed_before_the_next(run: Any, clock: Any) -> None:
    said: list[str] = []

    @task(max_attempts=2, backoff=lambda state: 1)
    async def work() -> None:
        attempt = current_job().attempt
        await current_job().enter(Opened(said, str(attempt)))
        if attempt == 1:
            raise OSError("down")

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            await clock.advance(2)
            await job

    run(main)
    assert said == ["open 1", "close 1", "open 2", "close 2"]


def test_a_failing_close_is_the_failure_of_the_attempt(run: Any) -> None:
    @contextlib.asynccontextmanager
    async def breaks() -> AsyncIterator[None]:
        yield
        raise OSError("while closing")

    @task
    async def work() -> str:
        await current_job().enter(breaks())
        return "fine"

    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(OSError, match="while closing"):
                await (await rt.submit(work))

    run(main)


@pytest.mark.parametrize("ending", ["return", "raise", "cancel", "timeout", "stop"])
def test_the_temporary_directory_is_private_and_goes_with_the_attempt(
    run: Any, clock: Any, ending: str
) -> None:
    made: list[Path] = []

    async def main() -> None:
        started = asyncio.Event()

        @task(timeout=30)
        async def work() -> None:
            folder = await current_job().tempdir()
            assert isinstance(folder, Path)
            assert folder.is_dir()
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            (folder / "file").write_text("content")
            made.append(folder)
            started.set()
            if ending == "return":
                return
            if ending == "raise":
                raise LookupError("failed")
            await asyncio.Event().wait()

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: started.is_set() or word_of(job))
            match ending:
                case "cancel":
                    job.cancel()
                case "timeout":
                    await clock.advance(31)
                case "stop":
                    await rt.stop(drain=0)
            await job.wait()
            await until(lambda: not made[0].exists())

    run(main)


def word_of(job: Any) -> bool:
    """Has the job ended too early? Then its failure is shown."""
    return str(job.state) in ("discarded", "cancelled") and bool(job.result())


def test_what_is_no_context_manager_is_refused_by_enter(run: Any) -> None:
    @task
    async def work() -> None:
        await current_job().enter(3)  # type: ignore[arg-type]

    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(TypeError, match="context manager"):
                await (await rt.submit(work))

    run(main)
