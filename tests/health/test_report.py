"""`rt.health()` says whether the runtime is well, and names each thing that is not."""

from __future__ import annotations

import asyncio

from bgruntime import Queue, Runtime, task
from bgruntime.extend import Check


@task
async def good() -> None:
    return


@task
async def bad() -> None:
    raise LookupError


def named(health, name: str) -> Check:
    [check] = [check for check in health.checks if check.name == name]
    return check


def test_a_runtime_that_was_not_entered_is_not_ready():
    health = Runtime().health()
    assert (health.status, health.live, health.ready) == ("fail", True, False)
    assert health.reasons == ("the runtime is new",)


def test_a_well_runtime_passes_with_every_check_and_the_totals(run):
    async def main():
        async with Runtime() as rt:
            await (await rt.submit(good))
            await (await rt.submit(bad)).wait()
            return rt.health()

    health = run(main)
    assert (health.status, health.live, health.ready, health.reasons) == ("pass", True, True, ())
    assert {check.status for check in health.checks} == {"pass"}
    assert {"phase", "stuck", "queue:default"} <= {check.name for check in health.checks}
    wanted = {"submitted": 2, "completed": 1, "failed": 1, "cancelled": 0, "running": 0, "waiting": 0}
    assert wanted.items() <= health.totals.items()
    assert health.totals["success_rate"] == 0.5


def test_from_the_first_moment_of_the_stop_it_is_not_ready(run):
    async def main():
        async with Runtime() as rt:
            gate = asyncio.Event()
            await rt.submit(gate.wait)
            stopping = asyncio.get_running_loop().create_task(rt.stop(drain=5))
            await asyncio.sleep(0)
            during = rt.health()
            gate.set()
            await stopping
            return during, rt.health()

    during, after = run(main)
    assert (during.status, during.ready, during.live) == ("fail", False, True)
    assert during.reasons == ("the runtime is draining",)
    assert after.reasons == ("the runtime is closed",)


def test_a_full_queue_and_a_paused_one_are_warnings_that_name_them(run):
    async def main():
        async with Runtime(queues=[Queue("mail", size=1)]) as rt:
            rt.pause("mail")
            paused = rt.health()
            await rt.submit(good)
            rt.resume("mail")
            return paused, rt.health()

    paused, after = run(main)
    assert (paused.status, paused.ready) == ("warn", True)
    assert paused.reasons == ("queue mail is paused, 0 jobs wait in it",)
    assert after.status == "pass"


def test_a_queue_without_room_is_a_warning(run):
    async def main():
        async with Runtime(concurrency=1, queue_size=1) as rt:
            gate = asyncio.Event()
            await rt.submit(gate.wait)
            await asyncio.sleep(0)
            await rt.submit(good)
            health = rt.health()
            gate.set()
            return health

    assert run(main).reasons == ("queue default is full: 1 jobs wait, its size is 1",)


def test_a_stuck_attempt_is_a_reason(run, clock):
    released = asyncio.Event()

    @task(timeout=1)
    async def deaf() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                pass

    async def main():
        async with Runtime(concurrency=1) as rt:
            one = await rt.submit(deaf)
            await clock.advance(20)
            first = rt.health()
            two = await rt.submit(deaf)
            await clock.advance(20)
            second = rt.health()
            released.set()
            await one.wait()
            await two.wait()
            await clock.settle()
            return first, second

    first, second = run(main)
    assert (named(first, "stuck").status, named(second, "stuck").status) == ("warn", "fail")
    assert "1 attempts are stuck, 0 of them hold their slots" in first.reasons
    assert second.totals["stuck"] == 2


def test_observers_add_their_checks_and_one_that_fails_adds_nothing(run):
    class Disk:
        listens_to = (type(None),)

        def on_event(self, event):
            raise AssertionError

        def checks(self):
            return [Check("disk", "fail", "the disk is full"), Check("cpu", "pass")]

    class Broken(Disk):
        def checks(self):
            raise RuntimeError

    async def main():
        async with Runtime(observers=[Broken(), Disk()]) as rt:
            return rt.health(), rt.stats().faults

    health, faults = run(main)
    assert (health.status, health.ready, health.reasons) == ("fail", True, ("the disk is full",))
    assert faults == {"observer Broken failed on health": 1}


def test_a_sick_journal_is_a_reason(run, tmp_path):
    async def main():
        async with Runtime(journal=tmp_path / "is-a-directory") as rt:
            return rt.health()

    (tmp_path / "is-a-directory").mkdir()
    health = run(main)
    assert health.status == "fail"
    assert any("journal" in reason for reason in health.reasons)
