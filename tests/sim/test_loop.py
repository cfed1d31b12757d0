"""What a SimLoop promises of itself: time, order, ends, threads, signals, refusals."""

from __future__ import annotations

import asyncio
import contextvars
import random
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bgruntime.testing import (
    SimCrash,
    SimDeadlock,
    SimLivelock,
    SimLoop,
    SimTask,
    SimUnhandled,
    SimUnsupported,
    run_seed,
    simulate,
)


def here() -> SimLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    return loop


# Time -------------------------------------------------------------------------------------


def test_time_jumps_to_the_next_timer() -> None:
    async def main() -> float:
        await asyncio.sleep(86_400)
        return here().time()

    began = time.perf_counter()
    assert run_seed(main, 0).value == 86_400
    assert time.perf_counter() - began < 5


def test_a_year_of_cancelled_timers_is_forgotten() -> None:
    async def main() -> int:
        for _ in range(1_000):
            here().call_later(365 * 86_400, print).cancel()
        await asyncio.sleep(1)
        return len(here()._scheduled)

    assert run_seed(main, 0).value < 200


def test_a_stall_makes_timers_late_and_never_early() -> None:
    async def main() -> float:
        here().call_later(1, here().stall, 10)
        await asyncio.sleep(2)
        return here().time()

    assert run_seed(main, 0).value == 11


def test_early_timers_fire_within_what_was_asked_for() -> None:
    async def main() -> float:
        await asyncio.sleep(1)
        return here().time()

    ends = [run_seed(main, seed, early=0.001).value for seed in range(50)]
    assert all(0.999 <= end <= 1 for end in ends)
    assert min(ends) < 0.9995


def test_steps_cost_what_was_asked_for() -> None:
    async def main() -> None:
        async with asyncio.timeout(1):
            while True:
                await asyncio.sleep(0)

    run = run_seed(main, 0, step_time=0.01)
    assert isinstance(run.failure, TimeoutError)
    assert 100 <= run.steps <= 110


def test_the_wall_clock_steps_alone() -> None:
    async def main() -> None:
        clock = here().wall_time()
        here().step_wall_clock(-3600)
        await asyncio.sleep(5)
        assert here().wall_time() == clock - 3595
        assert here().time() == 5

    simulate(main, 1)


# Order ------------------------------------------------------------------------------------


async def who_comes_first() -> str:
    order: list[str] = []

    async def say(name: str) -> None:
        order.append(name)

    tasks = [asyncio.create_task(say(name)) for name in "abc"]
    await asyncio.wait(tasks)
    return "".join(order)


def test_fifo_runs_in_the_stock_order() -> None:
    assert {run_seed(who_comes_first, s, policy="fifo").value for s in range(30)} == {"abc"}


@pytest.mark.parametrize("policy", ["soft", "tasks"])
def test_tasks_that_are_ready_together_run_in_any_order(policy: str) -> None:
    seen = {run_seed(who_comes_first, seed, policy=policy).value for seed in range(100)}
    assert len(seen) == 6


async def a_step_between_callbacks() -> str:
    order: list[str] = []

    async def step() -> None:
        order.append("step")

    here().call_soon(order.append, "before")
    task = asyncio.create_task(step())
    here().call_soon(order.append, "after")
    await task
    return " ".join(order)


def test_soft_lets_no_step_overtake_a_callback_or_the_reverse() -> None:
    seen = {run_seed(a_step_between_callbacks, seed).value for seed in range(50)}
    assert seen == {"before step after"}


def test_tasks_lets_steps_overtake_callbacks_and_keeps_callbacks_in_order() -> None:
    seen = {run_seed(a_step_between_callbacks, s, policy="tasks").value for s in range(50)}
    assert "step before after" in seen or "before step" in seen
    assert not any(
        "after" in order and order.index("after") < order.index("before")
        for order in seen
        if "before" in order
    )


def test_equal_deadlines_come_in_any_order() -> None:
    async def main() -> str:
        order: list[str] = []
        for name in "abc":
            here().call_at(1, order.append, name)
        await asyncio.sleep(2)
        return "".join(order)

    assert len({run_seed(main, seed).value for seed in range(100)}) == 6


def test_a_policy_may_be_a_function() -> None:
    def newest(ready: Any, chance: random.Random) -> int:
        return len(ready) - 1

    assert run_seed(who_comes_first, 0, policy=newest).value == "cba"


def test_an_unknown_policy_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'lifo'.*fifo, soft, tasks"):
        SimLoop(0, policy="lifo")


# Ends -------------------------------------------------------------------------------------


async def waits_for_nothing() -> None:
    async def inner() -> None:
        await here().create_future()

    await asyncio.create_task(inner(), name="patient")


def test_nothing_left_to_wake_anybody_is_a_deadlock_with_every_stack() -> None:
    with pytest.raises(SimDeadlock) as failure:
        simulate(waits_for_nothing, 1)
    told = str(failure.value)
    assert "patient: waits_for_nothing.<locals>.inner" in told
    assert "main: waits_for_nothing" in told
    assert told.count("test_loop.py:") == 2


def test_steps_without_end_are_a_livelock() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(SimLivelock, match=r"more than 1,000 steps(.|\n)*main@0.000000"):
        simulate(main, 1, max_steps=1_000)


def test_a_call_of_the_exception_handler_is_a_failure() -> None:
    async def main() -> None:
        here().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    with pytest.raises(SimUnhandled) as failure:
        simulate(main, 1)
    assert isinstance(failure.value.__cause__, ZeroDivisionError)


def test_an_exception_nobody_retrieved_is_a_failure() -> None:
    async def fail() -> None:
        raise LookupError("lost")

    async def main() -> None:
        _task = asyncio.create_task(fail())
        del _task
        await asyncio.sleep(1)

    with pytest.raises(SimUnhandled, match="never retrieved"):
        simulate(main, 1)


def test_tasks_left_over_are_cancelled_as_asyncio_run_does() -> None:
    ends: list[str] = []

    async def stay() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            await asyncio.sleep(1)
            ends.append("cleaned")

    async def main() -> None:
        here().create_task(stay())
        await asyncio.sleep(0)

    simulate(main, 3)
    assert ends == 3 * ["cleaned"]


def test_a_crash_runs_no_clean_up_in_the_loop() -> None:
    ends: list[str] = []

    async def stay() -> None:
        try:
            await asyncio.sleep(1_000)
        except asyncio.CancelledError:
            ends.append("cancelled")

    def crash(loop: SimLoop) -> None:
        if loop.time() > 5:
            raise SimCrash

    async def main() -> None:
        here().create_task(stay())
        await asyncio.sleep(10)

    assert isinstance(run_seed(main, 0, on_step=crash).failure, SimCrash)
    assert ends == []


def test_a_failed_seed_leaves_nothing_for_the_next(recwarn: pytest.WarningsRecorder) -> None:
    async def unstarted() -> None:
        """Never gets to run."""

    async def main() -> None:
        here().create_task(unstarted())
        raise LookupError

    for seed in range(5):
        assert isinstance(run_seed(main, seed).failure, LookupError)
    assert not recwarn.list
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_generators_left_open_are_closed_in_the_order_they_began() -> None:
    closed: list[int] = []

    async def numbers(i: int) -> AsyncIterator[int]:
        try:
            yield i
        finally:
            closed.append(i)

    async def main() -> None:
        here().keep = [numbers(i) for i in range(20)]  # type: ignore[attr-defined]
        for agen in here().keep:  # type: ignore[attr-defined]
            await anext(agen)

    run = run_seed(main, 0, policy="fifo")
    assert run.failure is None
    assert closed == list(range(20))


# Hooks ------------------------------------------------------------------------------------


def test_on_step_sees_every_step_and_may_cancel_anything() -> None:
    steps: list[int] = []

    async def main() -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return "cancelled"
        return "slept"

    def cancel(loop: SimLoop) -> None:
        steps.append(loop.steps)
        if loop.steps == 2:
            (task,) = asyncio.all_tasks(loop)
            task.cancel()

    run = run_seed(main, 0, on_step=cancel)
    assert run.value == "cancelled"
    assert steps == list(range(1, run.steps + 1))


def test_what_on_step_raises_fails_the_seed() -> None:
    def check(loop: SimLoop) -> None:
        assert loop.time() < 3, "three o'clock"

    with pytest.raises(AssertionError, match="three o'clock"):
        simulate(lambda: asyncio.sleep(5), 1, on_step=check)


def test_on_rest_is_called_when_nothing_is_ready_and_before_time_jumps() -> None:
    rests: list[float] = []

    async def main() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        await asyncio.sleep(1)
        here().stall(5)
        await asyncio.sleep(1)

    run_seed(main, 0, on_rest=lambda loop: rests.append(loop.time()))
    assert rests == [0, 6]


def test_on_rest_may_make_something_ready() -> None:
    async def main() -> float:
        woken = here().create_future()

        def wake(loop: SimLoop) -> None:
            if not woken.done():
                woken.set_result(None)

        here().on_rest = wake
        await woken
        return here().time()

    assert run_seed(main, 0).value == 0


# Threads ----------------------------------------------------------------------------------


def test_a_thread_has_no_running_loop_and_its_news_come_later() -> None:
    heard: list[str] = []

    async def main() -> None:
        loop = here()

        def work() -> None:
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            for name in "abc":
                loop.call_soon_threadsafe(heard.append, name)
            assert heard == []

        loop.spawn(work)
        await asyncio.sleep(1)
        assert heard == list("abc")
        heard.clear()

    simulate(main, 30)


def test_work_cancelled_before_its_thread_started_never_runs() -> None:
    async def main() -> tuple[bool, bool]:
        ran: list[int] = []
        future = here().run_in_executor(None, ran.append, 1)
        await asyncio.sleep(0.03)
        future.cancel()
        await asyncio.sleep(1)
        return bool(ran), future.cancelled()

    seen = {run_seed(main, seed).value for seed in range(200)}
    assert seen == {(False, True), (True, True), (True, False)}


def test_a_thread_keeps_its_context() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")

    async def main() -> str:
        name.set("me")
        return await asyncio.to_thread(name.get)

    assert run_seed(main, 0).value == "me"


def test_sleeping_on_the_loop_stalls_it() -> None:
    async def main() -> float:
        time.sleep(30)
        return here().time()

    assert run_seed(main, 0).value == 30


def test_a_limited_wait_in_a_thread_takes_its_time_and_an_endless_one_is_refused() -> None:
    event = threading.Event()

    async def main() -> float:
        assert not await asyncio.to_thread(event.wait, 20)
        with pytest.raises(SimUnsupported, match="without a limit"):
            await asyncio.to_thread(event.wait)
        return here().time()

    assert 20 < run_seed(main, 0).value < 21


def test_a_thread_that_polls_for_ever_is_told_so() -> None:
    def poll() -> None:
        while True:
            time.sleep(0.1)

    async def main() -> None:
        await asyncio.to_thread(poll)

    with pytest.raises(SimUnsupported, match="slept 100,000 times"):
        simulate(main, 1)


def test_nothing_is_replaced_outside_a_simulation() -> None:
    before = (time.sleep, threading.Condition.wait)
    simulate(who_comes_first, 1)
    assert (time.sleep, threading.Condition.wait) == before


def test_real_threads_are_refused() -> None:
    refusals: list[str] = []

    async def main() -> None:
        loop = here()

        def knock() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except SimUnsupported as exc:
                refusals.append(str(exc))

        thread = threading.Thread(target=knock)
        thread.start()
        thread.join()

    simulate(main, 1)
    assert len(refusals) == 1
    assert "a real thread" in refusals[0]


# Signals, sockets, tasks ------------------------------------------------------------------


def test_signals_reach_their_handlers() -> None:
    async def main() -> list[int]:
        heard: list[int] = []
        here().add_signal_handler(signal.SIGTERM, heard.append, 15)
        here().raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)
        assert here().remove_signal_handler(signal.SIGTERM)
        assert not here().remove_signal_handler(signal.SIGTERM)
        return heard

    assert run_seed(main, 0).value == [15]


def test_sockets_and_processes_are_refused() -> None:
    async def main() -> None:
        with pytest.raises(SimUnsupported, match="a socket"):
            await asyncio.open_connection("localhost", 80)
        with pytest.raises(SimUnsupported, match="a process"):
            await asyncio.create_subprocess_exec("true")
        with pytest.raises(SimUnsupported, match="a name look-up"):
            await here().getaddrinfo("localhost", 80)
        with pytest.raises(SimUnsupported, match="a file descriptor"):
            here().add_reader(0, print)

    simulate(main, 1)


def test_tasks_are_numbered_per_loop_and_named_so() -> None:
    async def main() -> list[str]:
        tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(3)]
        await asyncio.wait(tasks)
        return [task.get_name() for task in tasks]

    assert run_seed(main, 0).value == run_seed(main, 1).value


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_eager_tasks_are_simulated_too() -> None:
    async def main() -> None:
        here().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        task = asyncio.create_task(asyncio.sleep(0, "late"))
        assert isinstance(task, SimTask)
        assert await task == "late"

        async def at_once() -> int:
            return 1

        assert asyncio.create_task(at_once()).done()
        direct = SimTask(at_once(), loop=here(), eager_start=True)
        assert direct.done()

    simulate(main, 5)


def test_a_loop_serves_asyncio_runner_too() -> None:
    with asyncio.Runner(loop_factory=lambda: SimLoop(3)) as runner:
        assert runner.run(asyncio.sleep(1_000, "done")) == "done"
