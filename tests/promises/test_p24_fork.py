"""P24: a forked child cannot use or corrupt the parent's runtime."""

from __future__ import annotations

import os

import pytest

from .steps import python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

SCRIPT = """
import asyncio, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of any fork beside threads
from bgruntime import ForkedRuntime, Runtime, task
{uvloop}

ran = []

@task
async def work(label):
    ran.append(label)
    return label

@task
def plain(label):
    return label

def refused(call):
    try:
        call()
    except ForkedRuntime:
        return True
    except BaseException as error:
        sys.stderr.write(f"{{call}}: {{error!r}}\\n")
        return False
    sys.stderr.write(f"{{call}}: not refused\\n")
    return False

def step(coroutine):
    try:
        coroutine.send(None)
    finally:
        coroutine.close()

def child(rt, job):
    calls = [
        lambda: rt.submit_nowait(work, "child"),
        lambda: rt.submit_threadsafe(work, "child").result(timeout=5),
        lambda: step(rt.submit(work, "child")),
        lambda: step(rt.submit_many(work, [("child",)])),
        lambda: step(rt.drain()),
        lambda: step(rt.stop(drain=0, cancel=0, close=0)),
        lambda: asyncio.run(rt.submit(work, "child")),
    ]
    return sum(not refused(call) for call in calls)

async def main():
    async with Runtime(concurrency=2) as rt:
        assert await (await rt.submit(plain, "thread")) == "thread"
        job = await rt.submit(work, "parent")
        pid = os.fork()
        if pid == 0:
            os._exit(child(rt, job))
        _, status = os.waitpid(pid, 0)
        assert await job == "parent"
        assert await (await rt.submit(work, "after")) == "after"
        assert await (await rt.submit(plain, "thread")) == "thread"
        print(os.waitstatus_to_exitcode(status), ran, rt.stats().submitted)

{start}
"""

LOOPS = {
    "stock": ("", "asyncio.run(main())"),
    "uvloop": ("import uvloop", "asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main())"),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_p24_a_forked_child_is_refused_and_the_parent_goes_on(loop):
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    imports, start = LOOPS[loop]
    done = python(SCRIPT.format(uvloop=imports, start=start))
    assert "Traceback" not in done.stderr, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    assert done.stdout == "0 ['parent', 'after'] 4\n"


def test_p24_a_forked_child_may_have_a_runtime_of_its_own():
    done = python(
        """
        import asyncio, os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from bgruntime import Runtime, task

        @task
        async def work(number):
            return number * 2

        @task
        def plain(number):
            return number * 3

        async def use():
            async with Runtime() as rt:
                return await (await rt.submit(work, 2)) + await (await rt.submit(plain, 2))

        assert asyncio.run(use()) == 10
        pid = os.fork()
        if pid == 0:
            os._exit(asyncio.run(use()))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    )
    assert (done.stdout, done.stderr) == ("10\n", "")


def test_p24_a_runtime_made_but_not_entered_before_the_fork_serves_the_child():
    done = python(
        """
        import asyncio, os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from bgruntime import Runtime, task

        rt = Runtime()

        @task
        async def work(number):
            return number

        async def use():
            async with rt:
                return await (await rt.submit(work, 7))

        pid = os.fork()
        if pid == 0:
            os._exit(asyncio.run(use()))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(code, asyncio.run(use()))
        """
    )
    assert (done.stdout, done.stderr) == ("7 7\n", "")


def test_p24_a_multiprocessing_child_of_a_job_starts_and_ends():
    done = python(
        """
        import asyncio, multiprocessing, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from bgruntime import Runtime, task

        def child(queue):
            queue.put("from the child")

        @task
        def work():
            context = multiprocessing.get_context("fork")
            queue = context.SimpleQueue()
            process = context.Process(target=child, args=(queue,))
            process.start()
            process.join(10)
            return queue.get(), process.exitcode

        async def main():
            async with Runtime() as rt:
                print(await (await rt.submit(work)))

        asyncio.run(main())
        """
    )
    assert (done.stdout, done.stderr) == ("('from the child', 0)\n", "")
