"""SystemExit and KeyboardInterrupt inside a Task leave the event loop itself; inside a job they must not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from bgruntime import JobExited, Runtime, task
from tests.promises.steps import ROOT, Gate, complaints, python, said, until, word


@pytest.mark.parametrize("threaded", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("problem", [SystemExit(3), SystemExit(None), GeneratorExit()], ids=repr)
def test_an_exit_in_a_job_ends_that_job_and_nothing_else(run, problem, threaded):
    async def main():
        gate = Gate()

        def leave():
            raise problem

        async def leave_async():
            await asyncio.sleep(0)
            raise problem

        async with Runtime() as rt:
            bystander = await rt.submit(gate.hold, "still here")
            await until(lambda: gate.started)
            job = await rt.submit(leave if threaded else leave_async)
            with pytest.raises(JobExited) as raised:
                await job
            assert raised.value.__cause__ is problem
            gate.open()
            assert await bystander == "still here"
            assert await (await rt.submit(gate.note, "and takes work")) == "and takes work"

    run(main)


def test_sys_exit_in_clean_up_after_a_cancel_ends_only_the_job(run):
    async def main():
        gate = Gate()

        @task
        async def work():
            try:
                await gate.hold()
            finally:
                sys.exit(1)

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: gate.started)
            job.cancel()
            await job.wait()
            assert word(job.state) in {"cancelled", "discarded"}
            other = Gate()
            assert await (await rt.submit(other.note, "fine")) == "fine"

    run(main)


def test_an_exit_among_the_jobs_of_a_group_is_a_failure_of_the_group(run):
    async def main():
        @task
        async def leave():
            raise SystemExit(4)

        async with Runtime() as rt:
            with pytest.raises(ExceptionGroup) as raised:
                async with rt.group() as group:
                    await group.submit(leave)
                    await asyncio.Event().wait()
            assert raised.group_contains(JobExited)

    run(main)


def test_a_keyboardinterrupt_in_a_job_starts_the_stop(run):
    async def main():
        gate, seen = Gate(), []

        @task
        async def interrupted():
            raise KeyboardInterrupt

        async with Runtime() as rt:
            bystander = await rt.submit(gate.hold, "bystander")
            await until(lambda: gate.started)
            job = await rt.submit(interrupted)
            with pytest.raises(JobExited):
                await job
            try:
                await until(lambda: not rt.health().ready, "the stop beginning")
                seen.append("stopping")
            finally:
                gate.open()
            await bystander.wait()
        assert seen == ["stopping"]

    run(main)


KEYBOARD = """
import asyncio, bgruntime
from bgruntime import Runtime, task

@task
async def interrupted():
    raise KeyboardInterrupt

async def main():
    async with Runtime() as rt:
        job = await rt.submit(interrupted)
        try:
            await asyncio.sleep(60)
        finally:
            print("> " + str(job.state))

try:
    bgruntime.run({main})
except KeyboardInterrupt:
    print("> re-raised")
else:
    print("> swallowed")
"""


@pytest.mark.parametrize("argument", ["main()"])
def test_run_re_raises_a_ctrl_c_that_hit_a_job(argument):
    done = python(KEYBOARD.format(main=argument))
    assert complaints(done) == []
    assert said(done) == ["discarded", "re-raised"]


def test_a_real_sigint_under_run_stops_cleanly_and_comes_out_as_keyboardinterrupt():
    source = """
import asyncio, bgruntime, signal
from bgruntime import Runtime, task

# Who starts the tests in the background has it ignored, and that is inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)

@task
async def works():
    try:
        await asyncio.sleep(60)
    finally:
        print("cleaned", flush=True)

async def main():
    async with Runtime() as rt:
        await rt.submit(works)
        await asyncio.sleep(0.05)
        print("ready", flush=True)
        await asyncio.sleep(60)

try:
    bgruntime.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", source],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        os.kill(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=15)
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    assert out == "cleaned\ninterrupted\n"
    assert err == ""


SWALLOWS = """
import asyncio, bgruntime, bgruntime._run
bgruntime._run.LET_GO_SECONDS = 0.2

async def swallow():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def main():
    global task
    task = asyncio.create_task(swallow(), name="stubborn")
    other = asyncio.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0)
    return "done"

print(bgruntime.run(main))
"""


def test_run_does_not_hang_on_a_task_that_swallows_its_cancellation_and_names_it():
    done = python(SWALLOWS, timeout=20)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["done"]
    assert "task stubborn would not end and was left alone" in done.stderr
    assert "Task was destroyed" not in done.stderr
