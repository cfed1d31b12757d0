"""The fixtures `runtime` and `clock`, used as their users use them: in a project of their own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import anyio.to_thread
import pytest

from bgruntime import Runtime, current_job, task
from bgruntime.testing import FakeClock, LeftBehind, WatchedRuntime, _watched
from tests.door.turns import turns, until

ROOT = Path(__file__).parents[2]
SUITE = """
import asyncio, threading
import pytest
from bgruntime import current_job, task

stop = threading.Event()

@task
async def note(n):
    return n

@task
async def hang():
    await asyncio.Event().wait()

def test_fine(runtime):
    async def main():
        async with runtime:
            assert await (await runtime.submit(note, 1)) == 1
            await runtime.submit(note, 2)  # it ends while the runtime is left
    asyncio.run(main())

def test_job(runtime):
    async def main():
        async with runtime:
            await runtime.submit(note.with_options(delay=3600), 1)
    asyncio.run(main())

def test_task(runtime):
    async def main():
        async with runtime:
            main.task = asyncio.create_task(asyncio.sleep(3600), name="the forgotten one")
    asyncio.run(main())

def test_thread(runtime):
    threading.Thread(target=stop.wait, name="the eternal one", daemon=True).start()

def test_open(runtime):
    async def main():
        await runtime.__aenter__()
        runtime.submit_nowait(note, 1)
    with asyncio.Runner() as runner:
        runner.run(main())

def test_own_failure(runtime):
    async def main():
        async with runtime:
            await runtime.submit(hang)
            raise ValueError("of the test itself")
    asyncio.run(main())

@pytest.mark.bgruntime(concurrency=3)
def test_options(runtime):
    async def main():
        async with runtime:
            assert runtime.stats().concurrency == 3
    asyncio.run(main())

@pytest.fixture
def served(runtime):
    with asyncio.Runner() as runner:
        runner.run(runtime.__aenter__())
        yield runner
        runner.run(runtime.__aexit__(None, None, None))

def test_left_in_a_fixture(served, runtime):
    async def main():
        assert await (await runtime.submit(note, 1)) == 1
    served.run(main())

def test_clock(runtime, clock):
    @task(max_attempts=2, backoff=lambda _: 3600.0)
    async def flaky():
        if current_job().attempt == 1:
            raise ValueError
        return "at last"
    async def main():
        async with runtime:
            job = await runtime.submit(flaky)
            await clock.advance(3600)
            assert await job == "at last"
    asyncio.run(main())
"""


def test_a_test_that_leaves_something_behind_fails_and_says_what(tmp_path):
    (tmp_path / "test_it.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-p", "bgruntime.testing.plugin", "--strict-markers", "-rA"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-p", "no:unraisableexception"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    told = done.stdout
    for name in ("fine", "options", "left_in_a_fixture", "clock"):
        assert f"PASSED test_it.py::test_{name}" in told, told
    for name, what in {
        "job": "a job (cancelled by the stop): <Job test_it:note",
        "task": "a task: <Task pending name='the forgotten one'",
        "thread": "a thread: <Thread(the eternal one",
        "own_failure": "of the test itself",
    }.items():
        assert f"FAILED test_it.py::test_{name} - " in told, told
        assert what in told, told
    assert "ERROR test_it.py::test_open" in told, told
    assert "was entered and not left" in told, told
    assert "5 passed, 4 failed, 1 error" in told or "4 failed, 5 passed, 1 error" in told, told


def test_a_watched_runtime_waits_for_what_is_about_to_end(run):
    async def main():
        watched = WatchedRuntime()
        over = threading.Event()
        async with watched:
            ending = asyncio.ensure_future(asyncio.sleep(0.01))
            thread = threading.Thread(target=over.wait)
            thread.start()
        assert ending.done()
        asyncio.get_running_loop().call_soon(over.set)
        await asyncio.sleep(0)
        watched.check()

    run(main)


def test_what_is_left_is_told_once(run):
    async def main():
        watched = WatchedRuntime()
        async with watched:
            await watched.submit(task(asyncio.sleep).with_options(delay=3600), 0)
        with pytest.raises(LeftBehind, match="cancelled by the stop"):
            watched.check()
        watched.check()

    run(main)


def test_a_test_that_stops_its_runtime_itself_leaves_nothing(run):
    async def main():
        watched = WatchedRuntime()
        async with watched:
            await watched.submit(task(asyncio.sleep).with_options(delay=3600), 0)
            await watched.stop(drain=0)
        watched.check()

    run(main)


def test_a_job_that_the_tests_own_stop_could_not_end_is_left_behind(run):
    async def main():
        over = asyncio.Event()

        @task(timeout=None)
        async def stubborn():
            while not over.is_set():
                try:
                    await over.wait()
                except asyncio.CancelledError:
                    pass

        watched = WatchedRuntime()
        async with watched:
            await watched.submit(stubborn)
            await turns()
            report = await watched.stop(drain=0, cancel=0.01, close=0.01)
            assert len(report.stuck) == 1
            over.set()
            await turns()
        with pytest.raises(LeftBehind, match=r"a job \(stuck by the stop\)"):
            watched.check()

    run(main)


def in_the_pool_of_a_runtime(wait, waits):
    async def main():
        async with Runtime() as rt:
            await rt.submit(task(timeout=None)(wait))
            await until(waits.is_set)
            await rt.stop(drain=0, cancel=0.01, close=0.01)

    asyncio.run(main())


def in_the_pool_of_a_loop(wait, waits):
    loop = asyncio.new_event_loop()
    loop.run_in_executor(None, wait)
    assert waits.wait(10)
    loop._default_executor.shutdown(wait=False)
    loop._default_executor = None
    loop.close()


def in_the_pool_of_anyio(wait, waits):
    async def main():
        ended = asyncio.ensure_future(anyio.to_thread.run_sync(wait, abandon_on_cancel=True))
        await until(waits.is_set)
        ended.cancel()

    asyncio.run(main())


@pytest.mark.parametrize("keep_busy", [in_the_pool_of_a_runtime, in_the_pool_of_a_loop, in_the_pool_of_anyio])
def test_a_thread_of_a_pool_is_left_behind_if_it_is_busy(monkeypatch, keep_busy):
    monkeypatch.setattr(_watched, "PATIENCE", 0.05)
    waits, over = threading.Event(), threading.Event()

    def wait():
        waits.set()
        over.wait()

    watched = WatchedRuntime()
    try:
        keep_busy(wait, waits)
        with pytest.raises(LeftBehind, match="a thread: <.*(bgruntime-|asyncio_|AnyIO worker)"):
            watched.check()
    finally:
        over.set()


def test_an_idle_thread_of_a_pool_is_not_left_behind():
    async def main():
        watched = WatchedRuntime()
        async with watched:
            assert await (await watched.submit(task(int))) == 0
        await asyncio.to_thread(int)
        await anyio.to_thread.run_sync(int)
        watched.check()

    asyncio.run(main())


def test_a_fake_clock_holds_inside_its_with_and_not_after(run):
    async def main():
        @task(timeout=10)
        async def hang():
            await asyncio.Event().wait()

        with FakeClock() as clock:
            async with Runtime() as rt:
                job = await rt.submit(hang)
                await clock.advance(10)
                assert isinstance(job.exception(), TimeoutError)
        async with Runtime() as rt:
            assert await (await rt.submit(task(remaining))) > 200

    async def remaining():
        return current_job().remaining()

    run(main)


def test_a_process_that_was_stopped_while_it_looked_still_lets_its_threads_end(monkeypatch):
    monkeypatch.setattr(_watched, "PATIENCE_WITH_THREADS", 0.1)
    is_idle, stopped = _watched._is_idle, []

    def look(thread: threading.Thread) -> bool:
        if thread.name == "about to end" and not stopped:
            stopped.append(threading.Event().wait(0.2))  # nothing of the process moves for so long
            ends.set()
        return is_idle(thread)

    watched, ends = WatchedRuntime(), threading.Event()
    monkeypatch.setattr(_watched, "_is_idle", look)
    threading.Thread(target=ends.wait, name="about to end").start()
    watched.check()
    assert stopped == [False]
