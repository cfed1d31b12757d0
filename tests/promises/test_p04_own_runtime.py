"""P04: a job that submits to, or waits for jobs of, its own runtime never deadlocks."""

from __future__ import annotations

import asyncio

import pytest

from bgruntime import JobTimedOut, Queue, QueueFull, Runtime, task

from .steps import Gate, turns, until, word


def test_p04_submit_inside_a_job_on_a_full_queue_is_queuefull_at_once(run):
    async def main():
        gate = Gate()
        seen = []
        async with Runtime(concurrency=1, queue_size=1, overflow="wait") as rt:

            @task
            async def parent():
                await rt.submit(gate.note, "child")
                try:
                    # Runs to its end in one step, or it waited.
                    rt.submit(gate.note, "too many").__await__().send(None)
                except QueueFull:
                    seen.append("full")
                except StopIteration:
                    seen.append("accepted")
                else:
                    seen.append("waited")
                return "done"

            assert await (await rt.submit(parent)) == "done"
        assert seen == ["full"]
        assert gate.started == ["child"]

    run(main)


def test_p04_submit_many_inside_a_job_on_a_full_queue_is_queuefull(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=2) as rt:

            @task
            async def parent():
                with pytest.raises(QueueFull):
                    await rt.submit_many(gate.note, [(1,), (2,), (3,)])
                return len(await rt.submit_many(gate.note, [(1,), (2,)]))

            assert await (await rt.submit(parent)) == 2
        assert gate.started == [1, 2]

    run(main)


def test_p04_submit_from_a_child_task_of_a_job_counts_as_inside(run):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1) as rt:

            @task
            async def parent():
                await rt.submit(gate.note, "child")
                with pytest.raises(QueueFull):
                    await asyncio.ensure_future(rt.submit(gate.note, "grandchild"))

            await (await rt.submit(parent))

    run(main)


def test_p04_submit_from_a_task_that_outlives_its_job_is_outside_and_waits(run):
    async def main():
        gate, left = Gate(), []
        ended = asyncio.Event()
        async with Runtime(concurrency=1, queue_size=1) as rt:

            async def afterwards():
                await ended.wait()
                return await rt.submit(gate.hold, "later")

            @task
            async def parent():
                left.append(asyncio.ensure_future(afterwards()))

            await (await rt.submit(parent))
            await rt.submit(gate.hold, "running")
            await rt.submit(gate.hold, "queued")
            ended.set()
            await turns()
            assert not left[0].done(), "it should wait for room, for its job has ended"
            gate.open()
            assert await (await left[0]) == "later"

    run(main)


@pytest.mark.parametrize("how", ["await", "wait"])
def test_p04_a_job_that_waits_for_a_child_at_limit_one_finishes(run, how):
    async def main():
        gate = Gate()
        async with Runtime(concurrency=1) as rt:

            @task
            async def parent():
                child = await rt.submit(gate.note, "child")
                if how == "await":
                    return await child
                await child.wait()
                return child.result()

            assert await (await rt.submit(parent)) == "child"

    run(main)


def test_p04_nested_fan_out_three_deep_at_limit_one_finishes(run):
    async def main():
        async with Runtime(concurrency=1, queue_size=1) as rt:

            @task
            async def node(depth):
                if depth == 0:
                    return 1
                return sum(await rt.map(node, [depth - 1] * 3))

            assert await rt.map(node, [3, 3]) == [27, 27]

    run(main)


def test_p04_nested_gather_three_deep_at_limit_one_finishes(run):
    async def main():
        async with Runtime(concurrency=1, queue_size=1) as rt:

            @task
            async def node(depth):
                if depth == 0:
                    return 1
                return sum(await rt.gather(node.bind(depth - 1), node.bind(depth - 1)))

            assert await rt.gather(node.bind(3)) == [8]

    run(main)


def test_p04_nested_groups_three_deep_at_limit_one_finish(run):
    async def main():
        leaves = []
        async with Runtime(concurrency=1, queue_size=1) as rt:

            @task
            async def node(depth):
                if depth == 0:
                    leaves.append(1)
                    return
                async with rt.group() as group:
                    for _ in range(3):
                        await group.submit(node, depth - 1)

            await (await rt.submit(node, 3))
        assert len(leaves) == 27

    run(main)


def test_p04_a_chain_of_awaiting_jobs_a_hundred_deep_at_limit_one_finishes(run):
    async def main():
        async with Runtime(concurrency=1, queue_size=1) as rt:

            @task
            async def link(depth):
                return 0 if depth == 0 else 1 + await (await rt.submit(link, depth - 1))

            assert await (await rt.submit(link, 100)) == 100

    run(main)


WAYS = ["await", "wait", "map", "iterate", "gather", "group", "child task"]


async def wait_inside(rt, how, gate):
    """Wait, in the way named, for one job of `rt` that holds the gate."""
    match how:
        case "await":
            await (await rt.submit(gate.hold, "child"))
        case "wait":
            await (await rt.submit(gate.hold, "child")).wait()
        case "map":
            await rt.map(gate.hold, ["child"])
        case "iterate":
            async for _ in rt.map(gate.hold, ["child"]):
                pass
        case "gather":
            await rt.gather(task(gate.hold).bind("child"))
        case "group":
            async with rt.group() as group:
                await group.submit(gate.hold, "child")
        case "child task":
            job = await rt.submit(gate.hold, "child")

            async def waiter():
                await job

            await asyncio.ensure_future(waiter())


@pytest.mark.parametrize("how", WAYS)
def test_p04_an_attempt_that_waits_for_jobs_of_its_runtime_holds_no_slot(run, how):
    async def main():
        child, other = Gate(), Gate()
        async with Runtime(concurrency=2) as rt:

            @task
            async def parent():
                await wait_inside(rt, how, child)
                return "parent"

            waiting = await rt.submit(parent)
            await until(lambda: child.started, "the child's start")
            # One slot is the child's; the parent's is free for another.
            await rt.submit(other.hold, "other")
            await until(lambda: other.started, "the other job's start")
            child.open()
            other.open()
            assert await waiting == "parent"

    run(main)


@pytest.mark.parametrize("how", WAYS)
def test_p04_an_attempt_takes_the_next_free_slot_before_it_goes_on(run, how):
    async def main():
        child, other, after = Gate(), Gate(), []
        async with Runtime(concurrency=1) as rt:

            @task
            async def parent():
                await wait_inside(rt, how, child)
                after.append(1)

            waiting = await rt.submit(parent)
            await until(lambda: child.started, "the child's start")
            rt.submit_nowait(other.hold, "first")
            rt.submit_nowait(other.hold, "second")
            child.open()
            await until(lambda: after or other.started, "someone taking the slot")
            await turns()
            # "The next free one": it goes before the two that wait in the queue.
            assert after == [1]
            other.open()
            await waiting

    run(main)


def test_p04_an_attempt_never_goes_on_while_every_slot_is_taken(run):
    async def main():
        other, after = Gate(), []
        async with Runtime(concurrency=1, queues=[Queue("paused")]) as rt:
            rt.pause("paused")
            children = []

            @task
            async def parent():
                child = await rt.submit(task(queue="paused")(other.note), "child")
                children.append(child)
                await child.wait()
                after.append(1)

            waiting = await rt.submit(parent)
            await until(lambda: children)
            holder = await rt.submit(other.hold, "other")
            await until(lambda: other.started, "the slot of the waiting parent being free")
            children[0].cancel()
            await turns(20)
            assert after == [], "the wait has ended, but the only slot is taken"
            other.open()
            await holder
            await waiting
            assert after == [1]

    run(main)


def test_p04_the_slot_is_retaken_only_when_the_last_wait_ends(run):
    async def main():
        short, long, other, seen = Gate(), Gate(), Gate(), []
        async with Runtime(concurrency=3) as rt:

            @task
            async def parent():
                one, two = await rt.submit(short.hold), await rt.submit(long.hold)

                async def wait(job, name):
                    await job
                    seen.append(name)

                await asyncio.gather(wait(one, "short"), wait(two, "long"))
                seen.append("parent")

            waiting = await rt.submit(parent)
            await until(lambda: short.started and long.started)
            await rt.submit(other.hold, 1)
            await until(lambda: other.started)
            # All three slots taken: short, long, other. The parent holds none.
            short.open()
            # The long wait goes on, so the parent's slot is still free for another job.
            await rt.submit(other.hold, 2)
            await until(lambda: len(other.started) == 2, "the slot being free while a wait goes on")
            long.open()
            other.open()
            await waiting
        assert seen[-1] == "parent"
        assert sorted(seen[:2]) == ["long", "short"]

    run(main)


def test_p04_jobs_of_a_fanout_inside_a_job_go_before_the_queue_and_outside_its_size(run):
    async def main():
        gate, order = Gate(), []

        @task
        async def leaf(label):
            order.append(label)

        async with Runtime(concurrency=1, queue_size=2, overflow="reject") as rt:

            @task
            async def parent():
                await gate.hold()
                await rt.map(leaf, ["child-1", "child-2", "child-3", "child-4"])
                order.append("parent")

            job = await rt.submit(parent)
            await until(lambda: gate.started)
            await rt.submit(leaf, "queued-1")
            await rt.submit(leaf, "queued-2")
            with pytest.raises(QueueFull):
                await rt.submit(leaf, "over")
            gate.open()
            await job
            await rt.drain()
        assert [name for name in order if name.startswith("child")] == [
            "child-1",
            "child-2",
            "child-3",
            "child-4",
        ]
        assert order.index("child-4") < order.index("queued-1")

    run(main)


def test_p04_a_fanout_inside_a_job_runs_at_most_limit_at_a_time(run):
    async def main():
        now, most = [0], [0]

        @task
        async def leaf(_):
            now[0] += 1
            most[0] = max(most[0], now[0])
            await turns(3)
            now[0] -= 1

        async with Runtime(concurrency=20) as rt:

            @task
            async def parent():
                await rt.map(leaf, range(30), limit=3)
                await rt.gather(*(leaf.bind(n) for n in range(30)), limit=3)

            await (await rt.submit(parent))
        assert most[0] == 3

    run(main)


def test_p04_clean_up_after_a_cancellation_needs_no_slot(run):
    async def main():
        child, other, cleaned = Gate(), Gate(), []
        async with Runtime(concurrency=1) as rt:

            @task
            async def parent():
                job = await rt.submit(child.hold, "child")
                try:
                    await job
                finally:
                    await turns(3)
                    cleaned.append(1)

            waiting = await rt.submit(parent)
            await until(lambda: child.started)
            # The only slot is the child's, and stays taken.
            waiting.cancel()
            await until(lambda: cleaned, "the clean-up of the cancelled parent")
            assert child.ended == []
            await waiting.wait()
            child.open()
            other.open()

    run(main)


def test_p04_drain_inside_a_job_is_a_runtimeerror(run):
    async def main():
        async with Runtime() as rt:

            @task
            async def inside():
                with pytest.raises(RuntimeError):
                    await rt.drain()
                with pytest.raises(RuntimeError):
                    await asyncio.ensure_future(rt.drain())
                return "ok"

            assert await (await rt.submit(inside)) == "ok"

    run(main)


def test_p04_submit_threadsafe_inside_a_job_never_waits_for_room(run):
    async def main():
        gate, other, futures = Gate(), Gate(), []
        async with Runtime(concurrency=2, queue_size=1, overflow="wait", threads=1) as rt:

            @task
            def parent():
                future = rt.submit_threadsafe(other.note, "one too many")
                futures.append(future)
                try:
                    return future.result(timeout=10)
                except QueueFull:
                    return "refused"

            holder = task(gate.hold)
            await rt.submit(holder, "running")
            job = await rt.submit(parent)
            # The runtime's other slot is the parent's; fill the queue before the loop turns.
            rt.submit_nowait(holder, "queued")
            await until(lambda: futures, "the thread's submission")
            name = task(other.note).name
            await until(lambda: futures[0].done() or list(rt.jobs(task=name)), "an answer at once")
            assert not gate.ended, "it was answered while there was no room"
            gate.open()
            assert await job in ("refused", "one too many")

    run(main)


def test_p04_a_thread_that_waits_for_itself_is_ended_by_its_timeout(run, clock):
    async def main():
        futures, blocked = [], []
        async with Runtime(threads=1) as rt:

            @task
            def leaf():
                return "leaf"

            @task(timeout=5.0)
            def parent():
                future = rt.submit_threadsafe(leaf)
                futures.append(future)
                blocked.append(1)
                return future.result(timeout=30)

            job = await rt.submit(parent)
            await until(lambda: blocked and rt.stats().running >= 1)
            await turns(50)
            await clock.advance(5.0)
            with pytest.raises(JobTimedOut):
                await job
            assert word(job.state) == "discarded"
            futures[0].cancel()
            await until(lambda: rt.stats().stuck == 0, "the thread's end")

    run(main)
