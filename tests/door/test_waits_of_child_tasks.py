"""Child tasks of one attempt wait for other jobs: the attempt has one slot, and takes it when one is free."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bgruntime import Job, JobCancelled, Runtime, task
from tests.door.turns import Gate, hold, turns, until


class Parent:
    """A job with child tasks that wait for other jobs; `said` is what they say, in order.

    It waits for `first` in a child task, and from `go` on for `second` in another. `holder` has the only
    slot meanwhile, for as long as its gate is closed, so that whoever comes back to the parent has to
    wait for that slot.
    """

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt
        self.said: list[str] = []
        self.inner, self.go = asyncio.Event(), asyncio.Event()
        self.stubborn = False
        self.children: dict[str, asyncio.Task[Any]] = {}

    async def start(self) -> None:
        self.gate, self.idle = Gate(), Gate()
        self.ready = asyncio.Event()
        self.job = await self.rt.submit(task(self.body, name="parent"))
        self.holder = await self.rt.submit(hold, self.gate)
        self.first = await self.rt.submit(hold, self.idle)
        self.second = await self.rt.submit(hold, self.idle)
        self.ready.set()
        await until(lambda: self.gate.started)
        assert self.first.state == "available"

    async def body(self) -> str:
        await self.ready.wait()
        self.child("first", self.waits_for("first"))
        self.child("second", self.waits_later())
        while True:
            try:
                await self.inner.wait()
                return "done"
            except asyncio.CancelledError:
                if not self.stubborn:
                    raise

    def child(self, name: str, coroutine: Any) -> None:
        self.children[name] = asyncio.ensure_future(coroutine)

    async def waits_later(self) -> None:
        await self.go.wait()
        await self.waits_for("second")

    async def waits_for(self, name: str) -> None:
        job: Job[Any] = getattr(self, name)
        try:
            await job.wait()
        finally:
            self.said.append(name)

    async def comes_back(self) -> None:
        """`first` is over, and who waited for it needs the slot that `holder` has."""
        self.first.cancel()
        await turns()
        assert self.said == []

    async def end(self) -> None:
        self.gate.open()
        self.idle.open()
        self.inner.set()
        self.go.set()
        await asyncio.wait(list(self.children.values()))
        await self.job.wait()
        await self.rt.drain()


async def _one_slot_is_one_slot(rt: Runtime) -> None:
    """Nothing was counted wrong: the slot is free, there is one, and who waits gives it to others."""
    assert rt.stats().running == 0
    gate = Gate()
    jobs = await rt.submit_many(hold, [(gate, n) for n in range(3)])
    await turns()
    assert len(gate.started) == 1
    gate.open()
    for job in jobs:
        await job


def with_parent(run: Any, story: Any) -> None:
    async def main() -> None:
        async with Runtime(concurrency=1, cancel_grace=1, cancel_hard=1) as rt:
            parent = Parent(rt)
            await parent.start()
            await story(parent)
            await parent.end()
            await _one_slot_is_one_slot(rt)

    run(main)


def test_a_child_that_came_back_takes_the_next_free_slot(run: Any) -> None:
    async def story(parent: Parent) -> None:
        await parent.comes_back()
        parent.gate.open()
        await until(lambda: parent.said == ["first"])
        assert parent.gate.finished

    with_parent(run, story)


def test_a_child_that_came_back_goes_on_without_a_slot_when_another_one_begins_to_wait(run: Any) -> None:
    async def story(parent: Parent) -> None:
        await parent.comes_back()
        parent.go.set()
        await until(lambda: parent.said == ["first"])
        assert not parent.gate.finished
        assert not parent.children["second"].done()

    with_parent(run, story)


def test_a_child_whose_attempt_is_over_needs_no_slot(run: Any) -> None:
    async def story(parent: Parent) -> None:
        await parent.comes_back()
        parent.inner.set()
        await parent.job.wait()
        await until(lambda: parent.said == ["first"])
        assert not parent.gate.finished

    with_parent(run, story)


def test_a_child_that_is_cancelled_while_it_comes_back_still_waits_for_the_slot(run: Any) -> None:
    async def story(parent: Parent) -> None:
        await parent.comes_back()
        for _ in range(3):
            parent.children["first"].cancel()
            await turns()
            assert parent.said == []
        parent.gate.open()
        await until(lambda: parent.said == ["first"])
        await turns()
        assert parent.children["first"].cancelled()

    with_parent(run, story)


def test_a_child_that_is_cancelled_in_the_turn_in_which_its_job_ends_waits_for_the_slot(run: Any) -> None:
    async def story(parent: Parent) -> None:
        await turns()
        parent.children["first"].cancel()
        await parent.comes_back()
        parent.gate.open()
        await until(lambda: parent.said == ["first"])
        await turns()
        assert parent.children["first"].cancelled()

    with_parent(run, story)


def test_a_child_that_is_cancelled_when_it_has_its_slot_and_has_not_gone_on_keeps_it(run: Any) -> None:
    async def story(parent: Parent) -> None:
        parent.gate.open()
        parent.first.add_done_callback(lambda _: parent.children["first"].cancel())
        parent.idle.open()
        await until(lambda: parent.said == ["first"])
        assert parent.job.state == "running"
        await turns()
        assert parent.children["first"].cancelled()

    with_parent(run, story)


def test_a_child_that_is_cancelled_in_the_turn_in_which_another_one_begins_to_wait(run: Any) -> None:
    async def story(parent: Parent) -> None:
        await parent.comes_back()
        parent.go.set()
        parent.children["first"].cancel()
        await turns()
        parent.second.cancel()  # now the parent waits for nothing, and yet its slot is taken
        await turns()
        assert "second" not in parent.said
        parent.gate.open()
        await until(lambda: sorted(parent.said) == ["first", "second"])

    with_parent(run, story)


def test_a_child_of_a_stuck_attempt_goes_on_without_a_slot(run: Any, clock: Any) -> None:
    async def story(parent: Parent) -> None:
        parent.stubborn = True
        await parent.comes_back()
        parent.job.cancel("enough")
        await clock.advance(3)
        assert parent.rt.stats().stuck == 1
        await until(lambda: parent.said == ["first"])
        assert not parent.gate.finished
        with pytest.raises(JobCancelled, match="enough"):
            await parent.job

    with_parent(run, story)


@pytest.mark.parametrize("first", ["the attempt", "the cancellation"])
@pytest.mark.parametrize("before", [False, True])
def test_a_child_that_is_cancelled_in_the_turn_in_which_its_attempt_is_over(
    run: Any, first: str, before: bool
) -> None:
    async def story(parent: Parent) -> None:
        await parent.comes_back()
        if before:  # for the second time, then
            parent.children["first"].cancel()
            await turns()
        parent.inner.set()  # the attempt ends in the next turn
        if first == "the attempt":
            await asyncio.sleep(0)
        parent.children["first"].cancel()
        await until(lambda: parent.said == ["first"])
        assert not parent.gate.finished

    with_parent(run, story)


def test_a_child_that_is_cancelled_in_the_turn_in_which_its_attempt_is_given_up(run: Any, clock: Any) -> None:
    async def story(parent: Parent) -> None:
        parent.stubborn = True
        await parent.comes_back()
        parent.job.cancel()
        await clock.advance(1.5)
        clock.now += 1
        parent.children["first"].cancel()
        parent.rt._engine.check_deadlines()  # type: ignore[union-attr]
        await until(lambda: parent.said == ["first"])
        assert not parent.gate.finished

    with_parent(run, story)


def test_an_attempt_told_to_stop_while_it_comes_back_from_a_cancelled_wait_goes_on_at_once(run: Any) -> None:
    async def main() -> None:
        async with Runtime(concurrency=1) as rt:
            gate, ready, said = Gate(), asyncio.Event(), []

            async def waits() -> None:
                await ready.wait()
                waiting = await rt.submit(hold, gate, "never")
                try:
                    await waiting
                finally:
                    said.append("cleaned up")

            job = await rt.submit(waits)
            await turns()
            holder = await rt.submit(hold, gate, "holder")
            ready.set()
            await until(lambda: gate.started == ["holder"])
            job._task.cancel()  # type: ignore[union-attr]  # as a scope of its own would
            await turns()
            assert said == []
            job.cancel("enough")
            await until(lambda: said)
            assert not holder.done()
            with pytest.raises(JobCancelled, match="enough"):
                await job
            gate.open()
            await rt.drain()
            await _one_slot_is_one_slot(rt)

    run(main)
