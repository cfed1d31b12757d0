"""Events, and who is told which of them, when, and with what consequences."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

import bgruntime
from bgruntime import Runtime, extend, task
from bgruntime.extend import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptStarted,
    JobAccepted,
    JobRejected,
    JobSettled,
    JobState,
    RetryScheduled,
    ShutdownProgress,
)
from tests.door.turns import Gate, hold, turns, until, word


class Ear:
    """Hears the kinds of event it was made for."""

    def __init__(self, *kinds: type[Any]) -> None:
        self.listens_to = kinds
        self.heard: list[Any] = []

    def on_event(self, event: Any) -> None:
        self.heard.append(event)

    @property
    def names(self) -> list[str]:
        return [name_of(event) for event in self.heard]


def name_of(event: Any) -> str:
    """The name of its kind as documented: a JobUncompleted is a JobSettled."""
    return "JobSettled" if isinstance(event, JobSettled) else type(event).__name__


def of_jobs() -> Ear:
    return Ear(
        JobAccepted,
        JobRejected,
        AttemptStarted,
        AttemptEnded,
        AttemptAbandoned,
        RetryScheduled,
        JobSettled,
    )


@task
async def double(n: int) -> int:
    return n * 2


@task
async def fail() -> None:
    raise LookupError("failed")


def test_an_observer_is_what_has_on_event() -> None:
    assert isinstance(Ear(JobSettled), extend.Observer)


def test_a_job_that_completes_is_told_from_acceptance_to_the_end(run: Any) -> None:
    ear = of_jobs()

    async def main() -> None:
        async with Runtime(observers=[ear]) as rt:
            job = await rt.submit(double, 2)
            assert ear.names == ["JobAccepted"]
            assert await job == 4
            assert all(event.job is job for event in ear.heard)

    run(main)
    assert ear.names == ["JobAccepted", "AttemptStarted", "AttemptEnded", "JobSettled"]


def test_a_job_that_fails_is_told_with_its_error(run: Any) -> None:
    ear = of_jobs()

    async def main() -> None:
        async with Runtime(observers=[ear]) as rt:
            job = await rt.submit(fail)
            await job.wait()
            settled = ear.heard[-1]
            assert isinstance(settled, JobSettled)
            assert word(settled.state) == "discarded"
            assert settled.error is job.exception()
            ended = ear.heard[-2]
            assert isinstance(ended, AttemptEnded)
            assert word(ended.outcome) == "failed"

    run(main)


def test_a_retry_is_told_with_its_delay_before_the_next_attempt(run: Any, clock: Any) -> None:
    ear = of_jobs()

    @task(max_attempts=2, backoff=lambda state: 7)
    async def work() -> None:
        if bgruntime.current_job().attempt == 1:
            raise OSError("down")

    async def main() -> None:
        async with Runtime(observers=[ear]) as rt:
            job = await rt.submit(work)
            await clock.advance(8)
            await job

    run(main)
    assert ear.names == [
        "JobAccepted",
        "AttemptStarted",
        "AttemptEnded",
        "RetryScheduled",
        "AttemptStarted",
        "AttemptEnded",
        "JobSettled",
    ]
    assert ear.heard[3].delay == 7
    assert [event.attempt for event in ear.heard if isinstance(event, AttemptStarted)] == [1, 2]


@pytest.mark.parametrize(
    ("ending", "outcome", "state"),
    [
        ("return", "succeeded", "completed"),
        ("raise", "failed", "discarded"),
        ("exit", "exited", "discarded"),
        ("discard", "discarded", "discarded"),
        ("cancel itself", "cancelled", "cancelled"),
        ("cancel", "cancelled", "cancelled"),
        ("timeout", "timed_out", "discarded"),
        ("stop", "interrupted", "cancelled"),
    ],
)
def test_the_outcome_of_the_attempt_and_the_state_of_the_job_are_told(
    run: Any, clock: Any, ending: str, outcome: str, state: str
) -> None:
    ear = Ear(AttemptEnded, JobSettled)

    @task(timeout=30)
    async def work(started: asyncio.Event) -> None:
        started.set()
        match ending:
            case "return":
                return
            case "raise":
                raise LookupError("failed")
            case "exit":
                raise SystemExit(1)
            case "discard":
                raise bgruntime.Discard("poison")
            case "cancel itself":
                raise bgruntime.Cancel("enough")
        await asyncio.Event().wait()

    async def main() -> None:
        started = asyncio.Event()
        async with Runtime(observers=[ear]) as rt:
            job = await rt.submit(work, started)
            await started.wait()
            match ending:
                case "cancel":
                    job.cancel()
                case "timeout":
                    await clock.advance(31)
                case "stop":
                    await rt.stop(drain=0)
            await job.wait()

    run(main)
    ended, settled = ear.heard
    assert (word(ended.outcome), word(settled.state)) == (outcome, state)


def test_a_refused_submission_is_told_with_its_reason(run: Any) -> None:
    ear = Ear(JobRejected)

    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1, queue_size=1, observers=[ear]) as rt:
            rt.submit_nowait(hold, gate)
            rt.submit_nowait(hold, gate)
            with pytest.raises(bgruntime.QueueFull):
                rt.submit_nowait(hold, gate)
            gate.open()

    run(main)
    [event] = ear.heard
    assert event.task == hold.name
    assert "full" in event.reason


def test_a_queued_job_that_is_cancelled_is_settled_without_an_attempt(run: Any) -> None:
    ear = of_jobs()

    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=1, observers=[ear]) as rt:
            rt.pause()
            (await rt.submit(hold, gate)).cancel("not needed")

    run(main)
    assert ear.names == ["JobAccepted", "JobSettled"]
    assert ear.heard[-1].reason == "not needed"


def test_an_attempt_that_is_abandoned_is_told_with_where_it_was(run: Any, clock: Any) -> None:
    ear = Ear(AttemptAbandoned)

    async def main() -> None:
        let_go = asyncio.Event()

        @task(timeout=1)
        async def stubborn() -> None:
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    pass

        async with Runtime(observers=[ear]) as rt:
            await rt.submit(stubborn)
            await clock.advance(20)
            let_go.set()
            await turns()

    run(main)
    [event] = ear.heard
    assert "stubborn" in event.stack


def test_the_phases_of_the_stop_are_told_in_their_order(run: Any) -> None:
    ear = Ear(ShutdownProgress)

    async def main() -> None:
        gate = Gate()
        async with Runtime(observers=[ear]) as rt:
            await rt.submit(hold, gate)
            await until(lambda: gate.started)
            await rt.stop(drain=0)

    run(main)
    phases = list(dict.fromkeys(event.phase for event in ear.heard))
    known = ["draining", "cancelling", "closing", "closed"]
    assert phases == [phase for phase in known if phase in phases]
    assert {"cancelling", "closed"} <= set(phases)


def test_an_event_cannot_be_changed(run: Any) -> None:
    ear = Ear(JobAccepted)

    async def main() -> None:
        async with Runtime(observers=[ear]) as rt:
            await (await rt.submit(double, 1))

    run(main)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ear.heard[0].job = None


def test_an_observer_hears_only_what_it_listens_to(run: Any) -> None:
    settled, started = Ear(JobSettled), Ear(AttemptStarted)

    async def main() -> None:
        async with Runtime(observers=[settled, started]) as rt:
            await (await rt.submit(double, 1))

    run(main)
    assert settled.names == ["JobSettled"]
    assert started.names == ["AttemptStarted"]


def test_observers_are_called_in_the_order_in_which_they_were_given(run: Any) -> None:
    said: list[str] = []

    class Named(Ear):
        def __init__(self, name: str) -> None:
            super().__init__(AttemptStarted, JobSettled)
            self.name = name

        def on_event(self, event: Any) -> None:
            said.append(f"{self.name} {type(event).__name__}")

    async def main() -> None:
        async with Runtime(observers=[Named("a"), Named("b"), Named("c")]) as rt:
            await (await rt.submit(double, 1))

    run(main)
    assert said == [f"{name} {kind}" for kind in ("AttemptStarted", "JobSettled") for name in ("a", "b", "c")]


def test_the_state_is_consistent_when_an_observer_hears_of_it(run: Any) -> None:
    seen: list[Any] = []

    class Look(Ear):
        def on_event(self, event: Any) -> None:
            seen.append((word(event.job.state), event.job.exception() if seen else None))

    async def main() -> None:
        async with Runtime(observers=[Look(AttemptStarted, JobSettled)]) as rt:
            await (await rt.submit(double, 1))

    run(main)
    assert seen == [("running", None), ("completed", None)]


def test_an_observer_may_call_the_runtime_back(run: Any) -> None:
    class Follow(Ear):
        def __init__(self) -> None:
            super().__init__(JobSettled)
            self.jobs: list[Any] = []

        def on_event(self, event: Any) -> None:
            if len(self.jobs) < 3:
                self.jobs.append(rt.submit_nowait(double, len(self.jobs)))

    follow = Follow()
    rt = Runtime(concurrency=1, observers=[follow])

    async def main() -> None:
        async with rt:
            await (await rt.submit(double, 5))
            await rt.drain()
            assert [job.result() for job in follow.jobs] == [0, 2, 4]

    run(main)


def test_an_observer_that_fails_harms_no_job_and_no_other_observer(run: Any) -> None:
    class Broken(Ear):
        def on_event(self, event: Any) -> None:
            super().on_event(event)
            raise LookupError("broken observer")

    broken, fine = Broken(AttemptStarted, JobSettled), Ear(AttemptStarted, JobSettled)

    async def main() -> None:
        async with Runtime(observers=[broken, fine]) as rt:
            for n in range(5):
                assert await (await rt.submit(double, n)) == n * 2

    run(main)
    assert broken.heard
    assert fine.names == ["AttemptStarted", "JobSettled"] * 5


def test_an_observer_that_raises_a_base_exception_harms_no_job(run: Any) -> None:
    class Exits(Ear):
        def on_event(self, event: Any) -> None:
            raise SystemExit(1)

    async def main() -> None:
        async with Runtime(observers=[Exits(JobAccepted, AttemptEnded, JobSettled)]) as rt:
            for n in range(3):
                assert await (await rt.submit(double, n)) == n * 2

    run(main)


def test_an_observer_that_is_a_context_manager_encloses_the_runtime(run: Any) -> None:
    said: list[str] = []

    class Around(Ear):
        def __init__(self, name: str) -> None:
            super().__init__(JobSettled)
            self.name = name

        async def __aenter__(self) -> None:
            said.append(f"enter {self.name}")

        async def __aexit__(self, *error: object) -> None:
            await asyncio.sleep(0)
            said.append(f"leave {self.name}")

        def on_event(self, event: Any) -> None:
            said.append(f"{self.name} hears")

    async def main() -> None:
        async with Runtime(observers=[Around("a"), Around("b")]) as rt:
            await rt.submit(double, 1)

    run(main)
    assert said == ["enter a", "enter b", "a hears", "b hears", "leave b", "leave a"]


def test_an_observer_that_cannot_be_entered_stops_the_start_and_leaves_nothing(run: Any) -> None:
    said: list[str] = []

    class Around(Ear):
        def __init__(self, fails: bool) -> None:
            super().__init__(JobSettled)
            self.fails = fails

        async def __aenter__(self) -> None:
            if self.fails:
                raise ConnectionError("no sink")
            said.append("enter")

        async def __aexit__(self, *error: object) -> None:
            said.append("leave")

    async def main() -> None:
        rt = Runtime(observers=[Around(fails=False), Around(fails=True)])
        with pytest.raises(ConnectionError, match="no sink"):
            async with rt:
                raise AssertionError("the body must not run")
        with pytest.raises(bgruntime.RuntimeClosed):
            await rt.submit(double, 1)

    run(main)
    assert said == ["enter", "leave"]


def test_what_is_no_observer_is_refused_at_construction() -> None:
    with pytest.raises((TypeError, ValueError), match="on_event|observer"):
        Runtime(observers=[object()])  # type: ignore[list-item]


def test_a_job_that_is_cancelled_while_it_waits_for_a_retry_has_no_duration(run, clock):
    heard = []

    class Listener:
        listens_to = (JobSettled,)

        def on_event(self, event):
            heard.append(event)

    @task(max_attempts=2, backoff=60.0)
    async def fail():
        raise ValueError

    async def main():
        async with Runtime(observers=[Listener()]) as rt:
            job = await rt.submit(fail)
            while job.state is not JobState.RETRYABLE:
                await asyncio.sleep(0)
            await clock.advance(30)
            job.cancel()
            await job.wait()

    run(main)
    [event] = heard
    assert (event.state, event.outcome, event.duration) == (JobState.CANCELLED, None, 0.0)


def test_whoever_measures_is_handed_each_end_once_in_batches_that_are_worth_it(run: Any) -> None:
    """Many attempts that end in one turn ask for the batch once."""

    class Measures:
        def __init__(self) -> None:
            self.sizes: list[int] = []

        def on_event(self, event: object) -> None:
            """The ends come in batches."""

        def on_batch(self, batch: list[Any]) -> None:
            self.sizes.append(len(batch))

    measures = Measures()

    @task
    async def suspends() -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        async with Runtime(concurrency=50, queue_size=3_000, observers=[measures]) as rt:
            await (await rt.submit_many(suspends, [()] * 3_000))[-1]
            await rt.drain()
            assert rt.stats().completed == 3_000

    run(main)
    assert sum(measures.sizes) == 3_000
    assert min(measures.sizes[:-1]) >= 500, "the last one comes when it is asked for"
