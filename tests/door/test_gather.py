from __future__ import annotations

import asyncio
from typing import Any

import pytest

import bgruntime
from bgruntime import Runtime, task
from tests.door.turns import Gate, hold, turns, until


@task
async def double(n: int) -> int:
    await asyncio.sleep(0)
    return n * 2


@task
def shout(text: str) -> str:
    return text.upper()


@task
async def fail(text: str) -> None:
    raise LookupError(text)


def test_gather_gives_a_list_of_results_in_order(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            got = await rt.gather(double.bind(1), shout.bind("a"), double.bind(2))
            assert got == [2, "A", 4]
            assert isinstance(got, list)

    run(main)


def test_gather_takes_calls_and_coroutine_objects(run: Any) -> None:
    async def plain(n: int) -> int:
        return n

    async def main() -> None:
        async with Runtime() as rt:
            assert await rt.gather(double.bind(1), plain(5)) == [2, 5]

    run(main)


def test_gather_of_nothing_is_an_empty_list(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            assert await rt.gather() == []

    run(main)


def test_gather_takes_one_call_twice(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            call = double.bind(4)
            assert await rt.gather(call, call) == [8, 8]

    run(main)


def test_one_coroutine_object_twice_in_a_gather_is_refused_and_runs_at_most_once(run: Any) -> None:
    ran: list[int] = []

    async def note() -> None:
        ran.append(1)

    async def main() -> None:
        async with Runtime() as rt:
            coroutine = note()
            with pytest.raises((ValueError, TypeError, RuntimeError, bgruntime.BgRuntimeError)):
                await rt.gather(coroutine, coroutine)
            coroutine.close()
            await rt.drain()

    run(main)
    assert len(ran) <= 1


def test_gather_never_runs_more_than_its_limit_at_once(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            calls = [hold.bind(gate, n) for n in range(6)]

            async def all_of_them() -> list[Any]:
                return list(await rt.gather(*calls, limit=2))

            running = asyncio.create_task(all_of_them())
            await until(lambda: len(gate.started) == 2)
            await turns()
            assert gate.started == [0, 1]
            gate.open()
            assert await running == [0, 1, 2, 3, 4, 5]
            assert gate.most == 2

    run(main)


@pytest.mark.parametrize("limit", [0, -2])
def test_a_limit_below_one_is_a_value_error_and_runs_nothing(run: Any, limit: int) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            with pytest.raises(ValueError, match=rf"(?s)limit.*{limit}"):
                await rt.gather(hold.bind(gate), limit=limit)
            await turns()
        assert gate.started == []

    run(main)


def test_the_first_failure_cancels_the_others_waits_for_them_and_is_raised(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:

            async def fail_late() -> None:
                await until(lambda: len(gate.started) == 2)
                raise LookupError("late")

            with pytest.raises(LookupError, match="late"):
                await rt.gather(hold.bind(gate, 1), fail_late(), hold.bind(gate, 2))
            assert sorted(gate.cancelled) == [1, 2]
            assert gate.now == 0

    run(main)


def test_return_exceptions_gives_what_awaiting_each_would_raise(run: Any) -> None:
    error = LookupError("that one")

    @task
    async def steer(what: BaseException) -> None:
        raise what

    async def main() -> None:
        async with Runtime() as rt:
            got = await rt.gather(
                double.bind(1),
                steer.bind(error),
                steer.bind(bgruntime.Cancel("enough")),
                steer.bind(bgruntime.Discard("poison")),
                steer.bind(SystemExit(1)),
                steer.bind(asyncio.CancelledError()),
                return_exceptions=True,
            )
            assert got[:2] == [2, error]
            assert [type(each) for each in got[2:]] == [
                bgruntime.JobCancelled,
                bgruntime.JobDiscarded,
                bgruntime.JobExited,
                bgruntime.JobCancelled,
            ]

    run(main)


def test_a_cancelled_gather_cancels_its_jobs_and_waits_for_them(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            coroutine = gate.wait("never")

            async def all_of_them() -> Any:
                return await rt.gather(hold.bind(gate, 1), hold.bind(gate, 2), coroutine, limit=2)

            running = asyncio.create_task(all_of_them())
            await until(lambda: len(gate.started) == 2)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert sorted(gate.cancelled) == [1, 2]
            assert len(gate.started) == 2

    run(main)


@pytest.mark.parametrize("thing", [3, "text", double, None])
def test_what_is_no_call_is_refused_before_anything_runs(run: Any, thing: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            with pytest.raises((TypeError, ValueError)):
                await rt.gather(hold.bind(gate), thing)
            await turns()
        assert gate.started == []

    run(main)


def test_gather_inside_a_job_holds_no_slot_meanwhile(run: Any) -> None:
    async def main() -> None:
        async with Runtime(concurrency=1) as rt:

            async def parent() -> list[int]:
                return list(await rt.gather(double.bind(1), double.bind(2)))

            assert await (await rt.submit(parent)) == [2, 4]

    run(main)
