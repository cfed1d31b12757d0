"""The runtime against a pure model of it: whatever is asked in whatever order, they agree."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bgruntime import Job, QueueFull, Runtime, Snooze, task
from bgruntime.testing import SimLoop
from tests.sim.model import BACKOFF, FOREVER, NEVER_EQUAL, SNOOZE, TIMEOUT, Model, ModelJob, Script

runs = st.tuples(
    st.sampled_from(["value", "value", "fail", "hang", "snooze"]), st.sampled_from([0.0, 0.5, 1.0, 3.0, 9.0])
)


async def perform(script: Script, done: list[int]) -> int:
    """A job that follows its script."""
    end, seconds = script.run(len(done))
    done.append(script.number)
    await asyncio.sleep(FOREVER_IN_EFFECT if end == "hang" else seconds)
    match end:
        case "fail":
            raise LookupError(script.number)
        case "snooze":
            raise Snooze(SNOOZE)
    return script.number


FOREVER_IN_EFFECT = 1e6  # seconds
EARLY = 0.0004  # seconds, what uvloop's timers were seen to take off
AN_INSTANT = 0.001  # longer than a timer may come too early: else no time would pass at all
scripted = task(name="model.scripted", timeout=TIMEOUT, backoff=BACKOFF)(perform)


class RuntimeAndModel(RuleBasedStateMachine):
    """Both are told the same; after each step every job must be in the same state in both."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: SimLoop
        self.rt: Runtime
        self.model: Model
        self.pairs: list[tuple[Job[int], ModelJob]] = []
        self.asked = 0

    @initialize(
        seed=st.integers(0, 2**32),
        concurrency=st.integers(1, 3),
        size=st.integers(1, 3),
        early=st.sampled_from([0.0, EARLY]),
    )
    def enter(self, seed: int, concurrency: int, size: int, early: float) -> None:
        self.loop = SimLoop(seed, early=early)
        self.model = Model(concurrency, size)
        self.rt = Runtime(concurrency=concurrency, queue_size=size, overflow="reject")
        self.do(self.rt.__aenter__())

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run it, and all that becomes ready by it at this instant."""
        asyncio.set_event_loop(self.loop)
        result = self.loop.run_until_complete(coroutine)
        self.loop.run_until_complete(asyncio.sleep(AN_INSTANT))
        self.model.advance(self.loop.time() - self.model.now)
        return result

    @rule(
        runs=st.lists(runs, min_size=1, max_size=3),
        max_attempts=st.integers(1, 3),
        delay=st.sampled_from([0.0, 0.0, 0.0, 2.0]),
        expires_in=st.sampled_from([FOREVER, FOREVER, 1.5]),
    )
    def submit(self, runs: list[Any], max_attempts: int, delay: float, expires_in: float) -> None:
        self.asked += 1
        script = Script(self.asked, tuple(runs), max_attempts, delay, expires_in)
        options: dict[str, Any] = {"max_attempts": max_attempts}
        if delay:
            options["delay"] = delay + script.number * NEVER_EQUAL
        if expires_in < FOREVER:
            options["expires_in"] = expires_in

        async def ask() -> Job[int] | None:
            try:
                return self.rt.submit_nowait(scripted.with_options(**options), script, [])
            except QueueFull:
                return None

        accepted = self.model.submit(script)
        job = self.do(ask())
        assert (job is not None) == accepted, f"accepted: {job is not None}, by the model: {accepted}"
        if job is not None:
            self.pairs.append((job, self.model.jobs[-1]))

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job, modelled = data.draw(st.sampled_from(self.pairs))

        async def ask() -> bool:
            return job.cancel()

        expected = self.model.cancel(modelled)
        assert self.do(ask()) == expected

    @rule(seconds=st.sampled_from([0.1, 0.7, 2.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    @rule()
    def pause(self) -> None:
        self.do(self.steer(self.rt.pause))
        self.model.pause()

    @rule()
    def resume(self) -> None:
        self.model.resume()
        self.do(self.steer(self.rt.resume))

    @staticmethod
    async def steer(method: Any) -> None:
        method()

    @invariant()
    def agree(self) -> None:
        soonest = min((modelled.next_change for _, modelled in self.pairs), default=FOREVER)
        sleeps = 1 + sum(modelled.runs for _, modelled in self.pairs)
        if soonest <= self.model.now + EARLY * sleeps:
            return  # the jobs' own sleeps may have come so much too soon: a later step will tell
        for job, modelled in self.pairs:
            assert str(job.state) == modelled.state, (
                f"{job!r} is {modelled.state} in the model at {self.model.now:.3f} s"
            )
            assert job.attempt == modelled.attempt, f"{job!r} is at attempt {modelled.attempt} in the model"

    def teardown(self) -> None:
        if not hasattr(self, "rt"):
            return
        try:
            self.do(self.rt.stop(drain=0, cancel=1, close=1))
            assert not self.loop.unhandled
            assert all(job.done() for job, _ in self.pairs)
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()


@pytest.mark.parametrize(
    "examples", [pytest.param(60), pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)
def test_the_runtime_and_the_model_agree(examples: int) -> None:
    quiet = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(RuntimeAndModel, settings=quiet)
