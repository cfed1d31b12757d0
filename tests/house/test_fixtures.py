"""The fixtures fail a test when they should, and only then."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import warnings

import pytest

from bgruntime.testing import FakeClock
from tests.quiet import Disturbance

# ── run ──


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that were not told to end are not waited for."""
    monkeypatch.setattr("tests.quiet.PATIENCE", 0.05)


def test_run_gives_the_value_of_main(run):
    async def main():
        await asyncio.sleep(0)
        return 42

    assert run(main) == 42


def test_run_gives_each_main_a_new_loop_of_its_kind(run):
    async def main():
        return asyncio.get_running_loop()

    first, second = run(main), run(main)
    assert first is not second
    assert first.is_closed()
    assert type(first).__module__.startswith("uvloop") == (run.loop_name == "uvloop")


def test_run_raises_what_main_raised(run):
    async def main():
        raise LookupError("this one")

    with pytest.raises(LookupError, match="this one"):
        run(main)


def test_run_leaves_an_exception_group_and_a_cancellation_as_they_are(run):
    async def cancelled():
        raise asyncio.CancelledError

    async def grouped():
        raise ExceptionGroup("two", [ValueError(1), KeyError(2)])

    with pytest.raises(asyncio.CancelledError):
        run(cancelled)
    with pytest.raises(ExceptionGroup, match="two"):
        run(grouped)


def test_run_fails_when_a_task_is_left_over(run):
    kept: list[asyncio.Task] = []

    async def main():
        kept.append(asyncio.create_task(asyncio.Event().wait(), name="forgotten"))
        await asyncio.sleep(0)

    with pytest.raises(Disturbance, match=r"left over: .*forgotten"):
        run(main)
    assert kept[0].cancelled()


def test_run_fails_and_comes_back_when_a_left_over_task_cannot_be_cancelled(run):
    kept: list[asyncio.Task] = []

    async def stubborn():
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def main():
        kept.append(asyncio.create_task(stubborn(), name="stubborn"))
        await asyncio.sleep(0)

    with pytest.raises(Disturbance, match="cannot be cancelled: .*stubborn"):
        run(main)
    kept[0].get_coro().close()


def test_run_fails_when_a_callback_raised(run):
    async def main():
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    with pytest.raises(Disturbance, match="ZeroDivisionError"):
        run(main)


def test_run_fails_when_a_coroutine_was_never_awaited(run):
    async def main():
        asyncio.sleep(1)  # type: ignore[unused-coroutine]

    with pytest.raises(Disturbance, match="never awaited"):
        run(main)


def test_run_fails_when_the_exception_of_a_task_was_never_retrieved(run):
    async def fail():
        raise LookupError("nobody looked")

    async def main():
        asyncio.create_task(fail())
        await asyncio.sleep(0.001)

    with pytest.raises(Disturbance, match=r"(?s)never retrieved.*nobody looked"):
        run(main)


def test_run_fails_when_a_destructor_raised(run):
    class Fragile:
        def __del__(self) -> None:
            raise LookupError("in a destructor")

    async def main():
        Fragile()

    with pytest.raises(Disturbance, match="in a destructor"):
        run(main)


def test_run_fails_when_something_that_should_be_closed_was_dropped_in_a_cycle(run, tmp_path):
    path = tmp_path / "file"
    path.touch()

    async def main():
        circle = [path.open()]
        circle.append(circle)

    with pytest.raises(Disturbance, match="unclosed file"):
        run(main)


def test_run_fails_when_a_warning_appeared(run):
    async def main():
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    with pytest.raises(DeprecationWarning, match="old"):
        run(main)


def test_run_fails_when_a_thread_is_left_over(run, impatient):
    stop = threading.Event()

    async def main():
        threading.Thread(target=stop.wait, name="forgotten", daemon=True).start()

    try:
        with pytest.raises(Disturbance, match="left over: .*forgotten"):
            run(main)
    finally:
        stop.set()


def test_run_fails_when_a_thread_died_of_an_exception(run):
    def die():
        raise LookupError("in a thread")

    async def main():
        threading.Thread(target=die).start()

    with pytest.raises(Disturbance, match="in a thread"):
        run(main)


def test_run_waits_for_threads_that_are_about_to_end(run):
    async def main():
        await asyncio.to_thread(int)
        timer = threading.Timer(0.05, int)
        timer.start()

    run(main)


def test_run_lets_an_idle_thread_of_the_runtime_wait_for_work(run):
    stop = threading.Event()

    async def main():
        threading.Thread(target=stop.wait, name="bgruntime-1", daemon=True).start()

    run(main)
    stop.set()


def test_run_fails_when_a_thread_of_the_runtime_still_runs_a_function(run, impatient):
    stop = threading.Event()

    def busy():
        stop.wait()

    async def main():
        threading.Thread(target=busy, name="bgruntime-1", daemon=True).start()

    try:
        with pytest.raises(Disturbance, match="bgruntime-1"):
            run(main)
    finally:
        stop.set()


def test_run_tells_a_failed_assertion_first_and_what_was_left_over_beside_it(run):
    kept: list[asyncio.Task] = []

    async def main():
        kept.append(asyncio.create_task(asyncio.Event().wait(), name="forgotten"))
        raise AssertionError("the point")

    with pytest.raises(AssertionError, match="the point") as failed:
        run(main)
    assert "forgotten" in failed.value.__notes__[0]


def test_run_tells_both_what_main_raised_and_what_was_left_over(run):
    kept: list[asyncio.Task] = []

    async def main():
        kept.append(asyncio.create_task(asyncio.Event().wait(), name="forgotten"))
        raise LookupError("this one")

    with pytest.raises(Disturbance, match="forgotten") as failed:
        run(main)
    assert isinstance(failed.value.__cause__, LookupError)


# ── clock ──


def schedule(clock: FakeClock, fired: list, *delays: float) -> list:
    loop = asyncio.get_running_loop()
    return [
        clock.ports.call_later(loop, delay, lambda delay=delay: fired.append((delay, clock.monotonic())))
        for delay in delays
    ]


def test_the_clock_stands_until_it_is_advanced(run, clock):
    async def main():
        began = clock.ports.monotonic()
        fired: list = []
        schedule(clock, fired, 0.0)
        await asyncio.sleep(0.01)
        assert (clock.ports.monotonic(), fired) == (began, [])

    run(main)


def test_the_clock_runs_what_is_due_at_its_own_time_in_the_order_of_due_and_of_making(run, clock):
    async def main():
        began, order = clock.monotonic(), []
        loop = asyncio.get_running_loop()
        for name, delay in [("c", 2.0), ("a", 1.0), ("d", 2.0), ("b", 1.5), ("late", 3.5)]:
            clock.call_later(loop, delay, lambda name=name: order.append((name, clock.monotonic() - began)))
        await clock.advance(3)
        assert order == [("a", 1.0), ("b", 1.5), ("c", 2.0), ("d", 2.0)]
        assert clock.monotonic() - began == 3
        assert clock.pending == 1
        assert clock.next_due == 0.5

    run(main)


def test_the_clock_runs_what_callbacks_set_within_the_time_that_passes(run, clock):
    async def main():
        ticks: list[float] = []

        def tick():
            ticks.append(clock.monotonic())
            clock.call_later(asyncio.get_running_loop(), 1.0, tick)

        tick()
        await clock.advance(3.5)
        assert [t - ticks[0] for t in ticks] == [0, 1, 2, 3]

    run(main)


def test_the_clock_lets_the_loop_settle_before_and_after(run, clock):
    async def main():
        seen: list[str] = []

        async def sleeper(name: str) -> None:
            woken = asyncio.Event()
            for _ in range(10):
                await asyncio.sleep(0)
            clock.call_later(asyncio.get_running_loop(), 1.0, woken.set)
            await woken.wait()
            for _ in range(10):
                await asyncio.sleep(0)
            seen.append(name)

        tasks = [asyncio.create_task(sleeper(name)) for name in "ab"]
        await clock.advance(1)
        assert seen == ["a", "b"]
        await asyncio.gather(*tasks)

    run(main)


def test_the_clock_never_runs_what_was_cancelled_even_at_the_same_instant(run, clock):
    async def main():
        fired: list = []
        later: list = []
        clock.call_later(asyncio.get_running_loop(), 1.0, lambda: later[0].cancel())
        later.extend(schedule(clock, fired, 1.0))
        (third,) = schedule(clock, fired, 2.0)
        third.cancel()
        await clock.advance(5)
        assert fired == []
        assert clock.pending == 0
        assert clock.next_due is None

    run(main)


def test_the_clock_makes_progress_when_a_delay_is_too_short_to_count(run, clock):
    async def main():
        goal, fired = clock.monotonic() + 0.1 + 0.2, []

        def due():
            if clock.monotonic() < goal:
                clock.call_later(asyncio.get_running_loop(), goal - clock.monotonic(), due)
            else:
                fired.append(clock.monotonic())

        clock.call_later(asyncio.get_running_loop(), 0.3 - 1e-14, due)
        await clock.advance(0.3)
        assert fired == [clock.monotonic()]
        assert fired[0] >= goal

    run(main)


def test_the_clock_reaches_what_is_due_at_the_very_end_whatever_floats_add_up_to(run, clock):
    async def main():
        fired: list = []
        for _ in range(10):
            await clock.advance(0.1)
        schedule(clock, fired, 0.7)
        for _ in range(7):
            await clock.advance(0.1)
        assert len(fired) == 1

    run(main)


def test_the_wall_clock_goes_along_and_can_be_set_without_time_passing(run, clock):
    async def main():
        wall, steady = clock.ports.time(), clock.ports.monotonic()
        await clock.advance(10)
        assert clock.ports.time() == wall + 10
        clock.set_wall(wall - 3600)
        assert clock.ports.time() == wall - 3600
        assert clock.ports.monotonic() == steady + 10

    run(main)


def test_the_clock_refuses_to_go_back(run, clock):
    async def main():
        with pytest.raises(ValueError, match=r"time does not go back: advance\(-1\)"):
            await clock.advance(-1)
        with pytest.raises(ValueError, match=r"advance\(nan\)"):
            await clock.advance(float("nan"))

    run(main)


def test_the_clock_is_the_one_a_runtime_would_find(run, clock):
    from bgruntime.extend import ports

    async def main():
        assert ports.current() is clock.ports

    run(main)
    assert ports.current() is clock.ports


def test_the_clock_goes_when_the_test_does():
    from bgruntime.extend import ports

    assert not isinstance(getattr(ports.current().monotonic, "__self__", None), FakeClock)


def test_chance_is_the_same_in_every_test_with_a_clock(clock):
    assert clock.ports.random.random() == FakeClock().ports.random.random()
