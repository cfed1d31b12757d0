from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import bgruntime
from bgruntime import Fanout, JobCancelled, Runtime, task
from tests.door.turns import Gate, hold, turns, until


@task
async def double(n: int) -> int:
    await asyncio.sleep(0)
    return n * 2


@task
def plain_double(n: int) -> int:
    return n * 2


@task
async def odd_fails(n: int) -> int:
    await asyncio.sleep(0)
    if n % 2:
        raise LookupError(n)
    return n


class Source:
    """An input that counts what was pulled from it."""

    def __init__(self, items: Any) -> None:
        self.items = iter(items)
        self.pulled = 0
        self.closed = False

    def __iter__(self) -> Iterator[Any]:
        try:
            for item in self.items:
                self.pulled += 1
                yield item
        finally:
            self.closed = True

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            for item in self.items:
                self.pulled += 1
                yield item
                await asyncio.sleep(0)
        finally:
            self.closed = True


class OnlyAsync:
    def __init__(self, source: Source) -> None:
        self.source = source

    def __aiter__(self) -> AsyncIterator[Any]:
        return self.source.__aiter__()


class OnlySync:
    def __init__(self, source: Source) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Any]:
        return self.source.__iter__()


INPUTS = {"sync": OnlySync, "async": OnlyAsync}


@pytest.fixture(params=INPUTS)
def given(request: pytest.FixtureRequest) -> Any:
    """Makes an input, sync or async, of a source."""
    return INPUTS[request.param]


def test_map_awaited_is_a_list_in_order(run: Any, given: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            fanout = rt.map(double, given(Source(range(50))), limit=7)
            assert isinstance(fanout, Fanout)
            assert await fanout == [n * 2 for n in range(50)]

    run(main)


def test_map_iterated_yields_in_order(run: Any, given: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            seen = [n async for n in rt.map(double, given(Source(range(50))), limit=7)]
            assert seen == [n * 2 for n in range(50)]

    run(main)


def test_map_unordered_yields_as_they_end(run: Any) -> None:
    async def main() -> None:
        slow = Gate()

        @task
        async def first_is_slow(n: int) -> int:
            if n == 0:
                await slow.wait()
            return n

        async with Runtime() as rt:
            seen: list[int] = []
            async for n in rt.map(first_is_slow, range(5), limit=3, ordered=False):
                seen.append(n)
                if len(seen) == 4:
                    slow.open()
            assert sorted(seen) == [0, 1, 2, 3, 4]
            assert seen[-1] == 0

    run(main)


def test_map_of_plain_functions_runs_in_threads(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            assert await rt.map(plain_double, range(20), limit=4) == [n * 2 for n in range(20)]

    run(main)


def test_map_takes_a_function_never_decorated(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            assert await rt.map(lambda n: n + 1, [1, 2]) == [2, 3]

    run(main)


def test_map_zips_its_inputs_and_ends_with_the_shortest(run: Any) -> None:
    @task
    async def add(a: int, b: int) -> int:
        return a + b

    async def main() -> None:
        async with Runtime() as rt:
            assert await rt.map(add, [1, 2, 3], [10, 20]) == [11, 22]
            mixed = rt.map(add, OnlyAsync(Source([1, 2])), [10, 20, 30])
            assert await mixed == [11, 22]

    run(main)


def test_starmap_spreads_each_item_over_the_parameters(run: Any, given: Any) -> None:
    @task
    async def add(a: int, b: int) -> int:
        return a + b

    async def main() -> None:
        async with Runtime() as rt:
            fanout = rt.starmap(add, given(Source([(1, 2), (3, 4)])), limit=2)
            assert isinstance(fanout, Fanout)
            assert await fanout == [3, 7]

    run(main)


def test_starmap_has_the_options_of_map(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            got = await rt.starmap(odd_fails, [(0,), (1,)], ordered=False, on_error="return")
            assert {type(each) for each in got} == {int, LookupError}
            with pytest.raises(ValueError, match="limit"):
                await rt.starmap(double, [(1,)], limit=0)

    run(main)


def test_map_of_nothing_is_an_empty_list(run: Any, given: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            assert await rt.map(double, given(Source([]))) == []
            assert [n async for n in rt.map(double, given(Source([])))] == []

    run(main)


def test_map_never_runs_more_than_its_limit_at_once(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=20) as rt:
            running = asyncio.create_task(collect(rt.map(hold, [gate] * 30, range(30), limit=4)))
            await until(lambda: len(gate.started) == 4)
            await turns()
            assert len(gate.started) == 4
            gate.open()
            assert await running == list(range(30))
            assert gate.most == 4

    run(main)


async def collect(fanout: Any) -> list[Any]:
    return list(await fanout)


def test_map_without_a_limit_uses_the_concurrency_of_the_runtime(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=3) as rt:
            source = Source(range(30))
            running = asyncio.create_task(collect(rt.map(hold, [gate] * 30, OnlySync(source))))
            await until(lambda: len(gate.started) == 3)
            await turns()
            assert source.pulled <= 6
            gate.open()
            assert await running == list(range(30))
            assert gate.most == 3

    run(main)


@pytest.mark.parametrize("ordered", [True, False])
def test_map_pulls_at_most_twice_its_limit_ahead(run: Any, given: Any, ordered: bool) -> None:
    async def main() -> None:
        source = Source(range(60))
        yielded = 0
        async with Runtime() as rt:
            async for _ in rt.map(double, given(source), limit=3, ordered=ordered):
                yielded += 1
                assert source.pulled - yielded <= 6
                await turns(8)
                assert source.pulled - yielded <= 6
        assert yielded == source.pulled == 60

    run(main)


def test_a_slow_first_item_does_not_let_an_ordered_map_run_away(run: Any) -> None:
    async def main() -> None:
        slow = Gate()
        source = Source(range(60))

        @task
        async def first_is_slow(n: int) -> int:
            if n == 0:
                await slow.wait()
            return n

        async def iterate(fanout: Any) -> list[int]:
            return [n async for n in fanout]

        async with Runtime() as rt:
            fanout = rt.map(first_is_slow, OnlySync(source), limit=3)
            running = asyncio.create_task(iterate(fanout))
            await until(lambda: slow.started)
            await turns(50)
            assert source.pulled <= 6
            slow.open()
            assert await running == list(range(60))

    run(main)


def test_map_goes_on_for_ever_over_an_endless_input(run: Any) -> None:
    async def main() -> None:
        source = Source(itertools.count())
        async with Runtime() as rt, rt.map(double, OnlySync(source), limit=2) as fanout:
            seen = []
            async for n in fanout:
                seen.append(n)
                if len(seen) == 20:
                    break
            assert seen == [n * 2 for n in range(20)]
        assert source.pulled <= 24

    run(main)


def test_a_fanout_starts_nothing_before_it_is_used(run: Any) -> None:
    async def main() -> None:
        source = Source(range(5))
        async with Runtime() as rt:
            fanout = rt.map(double, OnlySync(source))
            await turns()
            assert source.pulled == 0
            assert await fanout == [0, 2, 4, 6, 8]

    run(main)


def test_a_fanout_that_is_never_used_leaves_nothing_behind(run: Any) -> None:
    async def main() -> None:
        source = Source(range(5))
        async with Runtime() as rt:
            rt.map(double, OnlyAsync(source))
            gc.collect()
            await turns()
        assert source.pulled == 0

    run(main)


def test_a_fanout_is_used_once(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            awaited = rt.map(double, [1])
            assert await awaited == [2]
            with pytest.raises((RuntimeError, bgruntime.BgRuntimeError), match="once"):
                await awaited
            with pytest.raises((RuntimeError, bgruntime.BgRuntimeError), match="once"):
                async for _ in awaited:
                    pass
            iterated = rt.map(double, [1])
            assert [n async for n in iterated] == [2]
            with pytest.raises((RuntimeError, bgruntime.BgRuntimeError), match="once"):
                await iterated

    run(main)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_a_value_error_and_pulls_nothing(run: Any, limit: int) -> None:
    async def main() -> None:
        source = Source(range(5))
        async with Runtime() as rt:
            with pytest.raises(ValueError, match=rf"(?s)limit.*{limit}"):
                await rt.map(double, OnlySync(source), limit=limit)
        assert source.pulled == 0

    run(main)


def test_an_on_error_that_does_not_exist_is_a_value_error(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(ValueError, match="(?s)on_error.*ignore"):
                await rt.map(double, [1], on_error="ignore")  # type: ignore[call-overload]

    run(main)


def test_an_unknown_option_of_map_is_a_type_error(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises((TypeError, ValueError), match="limt"):
                await rt.map(double, [1], limt=2)  # type: ignore[call-overload]

    run(main)


def test_map_needs_an_input(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises((TypeError, ValueError)):
                await rt.map(double)
            with pytest.raises(TypeError):
                await rt.map(double, 3)  # type: ignore[call-overload]

    run(main)


def test_the_first_failure_cancels_the_other_jobs_waits_for_them_and_is_raised(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        ended: list[int] = []

        @task
        async def second_fails(n: int) -> int:
            if n == 1:
                await until(lambda: len(gate.started) == 2)
                raise LookupError("second")
            try:
                await gate.wait(n)
            finally:
                await turns(3)
                ended.append(n)
            return n

        async with Runtime() as rt:
            source = Source(range(30))
            with pytest.raises(LookupError, match="second"):
                await rt.map(second_fails, OnlySync(source), limit=3)
            assert sorted(gate.cancelled) == sorted(ended) == [0, 2]
            assert source.pulled <= 6
            await turns()
            assert len(gate.started) == 2

    run(main)


def test_a_failure_met_while_iterating_is_raised_there(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            seen: list[int] = []
            with pytest.raises(LookupError):
                async for n in rt.map(odd_fails, [0, 2, 1, 4, 6], limit=1):
                    seen.append(n)
            assert seen == [0, 2]

    run(main)


def test_on_error_return_yields_the_exceptions_in_their_places(run: Any, given: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            got = await rt.map(odd_fails, given(Source(range(5))), limit=2, on_error="return")
            assert [each if isinstance(each, int) else type(each) for each in got] == [
                0,
                LookupError,
                2,
                LookupError,
                4,
            ]

    run(main)


def test_on_error_return_gives_what_awaiting_each_would_raise(run: Any) -> None:
    @task
    async def steer(n: int) -> int:
        match n:
            case 0:
                raise bgruntime.Cancel("enough")
            case 1:
                raise bgruntime.Discard("poison")
            case 2:
                raise SystemExit(3)
            case _:
                return n

    async def main() -> None:
        async with Runtime() as rt:
            got = await rt.map(steer, range(4), on_error="return")
            assert [type(each) for each in got] == [
                bgruntime.JobCancelled,
                bgruntime.JobDiscarded,
                bgruntime.JobExited,
                int,
            ]

    run(main)


def test_a_job_is_retried_before_its_failure_reaches_the_map(run: Any, clock: Any) -> None:
    @task(max_attempts=2, backoff=lambda state: 5)
    async def second_time(n: int) -> int:
        if bgruntime.current_job().attempt == 1:
            raise OSError("down")
        return n

    async def main() -> None:
        async with Runtime() as rt:
            running = asyncio.create_task(collect(rt.map(second_time, range(4), limit=2)))
            for _ in range(4):
                await clock.advance(5)
            assert await running == [0, 1, 2, 3]

    run(main)


def test_a_failing_input_is_raised_after_the_jobs_were_cancelled(run: Any, given: Any) -> None:
    def broken() -> Iterator[int]:
        yield 0
        yield 1
        raise OSError("the file ended early")

    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            with pytest.raises(OSError, match="ended early"):
                await rt.starmap(hold, given(Source((gate, n) for n in broken())), limit=5)
            assert sorted(gate.cancelled) == sorted(gate.started)

    run(main)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_input_that_leaves_is_a_failure_of_the_map_like_any_other(
    run: Any, kind: type[BaseException]
) -> None:
    def numbers() -> Any:
        yield 1
        raise kind

    async def more_numbers() -> Any:
        yield 1
        raise kind

    async def main() -> None:
        async with Runtime() as rt:
            for made in (numbers, more_numbers):
                with pytest.raises(kind):
                    await rt.map(double, made(), limit=1)
                with pytest.raises(kind):
                    async for _ in rt.map(double, made(), limit=1):
                        pass
            assert await rt.map(double, [2]) == [4]

    run(main)


def test_what_reads_the_input_is_collected_without_a_word_when_the_loop_is_gone() -> None:
    @types.coroutine
    def suspend() -> Any:
        yield

    class Silent:
        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Any:
            await suspend()

    with asyncio.Runner() as runner:
        rt = Runtime()
        runner.run(rt.__aenter__())
        flow = rt.map(double, [])._flow
        reading = flow._feed(Silent())  # type: ignore[arg-type]
        reading.send(None)
        reading.close()
        assert flow._failure is None
        runner.run(rt.__aexit__(None, None, None))


def test_leaving_async_with_cancels_what_is_in_flight_and_waits_for_it(run: Any) -> None:
    async def main() -> None:
        gate = Gate()

        @task
        async def only_first(n: int) -> int:
            if n:
                await gate.wait(n)
            return n

        async with Runtime() as rt:
            async with rt.map(only_first, range(10), limit=3) as fanout:
                async for n in fanout:
                    assert n == 0
                    await until(lambda: len(gate.started) >= 2)
                    break
            assert gate.now == 0
            assert gate.cancelled == gate.started
            count = len(gate.started)
            await turns()
            assert len(gate.started) == count

    run(main)


def test_aclose_cancels_what_is_in_flight_and_closes_the_input(run: Any, given: Any) -> None:
    async def main() -> None:
        gate = Gate()
        source = Source((gate, n) for n in range(10))
        async with Runtime() as rt:
            fanout = rt.starmap(hold, given(source), limit=3)
            first = asyncio.create_task(anext(aiter(fanout)))  # type: ignore[arg-type]
            await until(lambda: len(gate.started) == 3)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            await fanout.aclose()
            assert sorted(gate.cancelled) == [0, 1, 2]
            assert source.closed
            await fanout.aclose()

    run(main)


def test_the_input_of_a_map_is_let_go_when_it_is_closed(run: Any) -> None:
    closed: list[str] = []

    def numbers() -> Any:
        try:
            yield from range(10)
        finally:
            closed.append("sync")

    async def more_numbers() -> Any:
        try:
            for number in range(10):
                yield number
        finally:
            closed.append("async")

    async def main() -> None:
        async with Runtime() as rt:
            for made in (numbers, more_numbers):
                async with rt.map(double, made(), limit=2) as fanout:
                    async for _ in fanout:
                        break
            assert closed == ["sync", "async"]

    run(main)


def test_aclose_of_a_fanout_never_started_starts_nothing(run: Any) -> None:
    async def main() -> None:
        source = Source(range(3))
        async with Runtime() as rt:
            fanout = rt.map(double, OnlySync(source))
            await fanout.aclose()
            with pytest.raises((RuntimeError, bgruntime.BgRuntimeError)):
                await fanout
        assert source.pulled == 0

    run(main)


def test_a_cancelled_await_of_a_map_cancels_its_jobs(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            running = asyncio.create_task(collect(rt.map(hold, [gate] * 9, range(9), limit=3)))
            await until(lambda: len(gate.started) == 3)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert sorted(gate.cancelled) == [0, 1, 2]
            assert len(gate.started) == 3

    run(main)


def test_after_a_bare_break_nothing_more_starts(run: Any) -> None:
    async def main() -> None:
        source = Source(range(1000))
        started: list[int] = []

        @task
        async def note(n: int) -> int:
            started.append(n)
            await asyncio.sleep(0)
            return n

        async with Runtime() as rt:
            fanout = rt.map(note, OnlySync(source), limit=2)
            async for _ in fanout:
                break
            count = len(started)
            await turns(50)
            assert len(started) <= max(count, 4)
            assert source.pulled <= 5
            await fanout.aclose()

    run(main)


def test_a_fanout_that_is_collected_cancels_what_is_in_flight(run: Any) -> None:
    async def main() -> None:
        gate = Gate()

        @task
        async def only_first(n: int) -> int:
            if n:
                await gate.wait(n)
            return n

        async with Runtime() as rt:
            async for _ in rt.map(only_first, range(10), limit=3):
                await until(lambda: len(gate.started) >= 2)
                break
            gc.collect()
            await until(lambda: gate.now == 0)
            assert gate.cancelled == gate.started
            assert gate.finished == []

    run(main)


def test_the_jobs_of_a_map_inside_a_job_do_not_need_a_slot_more(run: Any) -> None:
    @task
    async def outer(rt: Runtime, depth: int) -> int:
        if depth == 0:
            return 1
        return sum(await rt.map(outer, [rt] * 2, [depth - 1] * 2, limit=1))

    async def main() -> None:
        async with Runtime(concurrency=1) as rt:
            assert await (await rt.submit(outer, rt, 3)) == 8

    run(main)


def test_a_job_of_the_map_that_somebody_cancels_is_a_failure_of_the_map(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            running = asyncio.create_task(collect(rt.map(hold, [gate], [0])))
            await until(lambda: gate.started)
            [job] = rt.jobs(state="running")
            assert rt.job(job.id) is not None
            found = rt.job(job.id)
            assert found is not None
            found.cancel("by hand")
            with pytest.raises(JobCancelled) as caught:
                await running
            assert caught.value.reason == "by hand"

    run(main)


def test_options_of_the_task_hold_for_the_jobs_of_its_map(run: Any, clock: Any) -> None:
    forever = hold.with_options(timeout=3)

    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            running = asyncio.create_task(collect(rt.map(forever, [gate], [0], on_error="return")))
            await until(lambda: gate.started)
            await clock.advance(4)
            [error] = await running
            assert isinstance(error, bgruntime.JobTimedOut)

    run(main)


def test_a_blocking_input_is_pulled_in_the_loop_of_the_caller(run: Any) -> None:
    async def main() -> None:
        seen: set[int] = set()

        def items() -> Iterator[int]:
            for n in range(5):
                seen.add(threading.get_ident())
                yield n

        async with Runtime() as rt:
            await rt.map(double, items())
        assert seen == {threading.get_ident()}

    run(main)
