"""P20: no fault of a part outside the kernel fails a job, a submitter or the application."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from bgruntime import Runtime, current_job, task
from bgruntime.extend import (
    AttemptEnded,
    AttemptStarted,
    JobAccepted,
    JobSettled,
    RetryScheduled,
)

from .steps import Gate, turns, until, word


class Recorder:
    """Hears what it listens to, and calls `react` with each event."""

    def __init__(self, *kinds, react=None):
        self.listens_to = kinds
        self.react = react
        self.heard = []

    def on_event(self, event):
        self.heard.append(event)
        if self.react is not None:
            self.react(event)

    def kinds(self):
        return [type(event).__name__ for event in self.heard]


class Odd(BaseException):
    """Neither an Exception nor anything asyncio knows."""


def raiser(problem):
    def react(event):
        raise problem

    return react


PROBLEMS = [ValueError("observer"), Odd("observer"), SystemExit(9), asyncio.CancelledError(), StopIteration()]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: type(problem).__name__)
def test_p20_an_observer_that_raises_fails_no_job_and_no_submitter(run, problem):
    async def main():
        bad, good = Recorder(react=raiser(problem)), Recorder(JobSettled)

        @task
        async def work(number):
            await asyncio.sleep(0)
            if number % 3 == 0:
                raise ValueError(number)
            return number

        async with Runtime(concurrency=2, observers=[bad, good]) as rt:
            jobs = [await rt.submit(work, number) for number in range(12)]
            for number, job in enumerate(jobs):
                await job.wait()
                assert word(job.state) == ("completed" if number % 3 else "discarded")
        assert bad.heard
        assert len(good.heard) == 12

    run(main)


def test_p20_an_observer_that_keeps_failing_is_paused_and_tried_again(run, clock):
    async def main():
        healthy = []

        def react(event):
            if not healthy:
                raise ValueError("down")

        moody = Recorder(JobSettled, react=react)

        @task
        async def work():
            pass

        async with Runtime(observers=[moody]) as rt:
            for _ in range(500):
                await (await rt.submit(work))
            heard_while_down = len(moody.heard)
            assert heard_while_down < 500, "it is asked for ever, though it fails each time"
            healthy.append(True)
            await clock.advance(3600.0)
            await (await rt.submit(work))
            assert len(moody.heard) == heard_while_down + 1, "it is tried again"
            for _ in range(5):
                await (await rt.submit(work))
            assert len(moody.heard) == heard_while_down + 6

    run(main)


def test_p20_observer_faults_are_counted(run):
    async def main():
        gate = Gate()
        async with Runtime(observers=[Recorder(JobSettled, react=raiser(ValueError("down")))]) as rt:
            await (await rt.submit(gate.note))
            assert sum(rt.stats().faults.values()) >= 1
            assert any("Recorder" in name for name in rt.stats().faults)

    run(main)


@pytest.mark.parametrize("kind", [JobAccepted, AttemptStarted, AttemptEnded, JobSettled, RetryScheduled])
def test_p20_an_observer_may_call_the_runtime_back_at_any_event(run, clock, kind):
    async def main():
        extra, seen, budget = [], [], []

        @task
        async def note(label):
            seen.append(label)

        @task(max_attempts=2, backoff=lambda _: 1.0)
        async def flaky(label):
            seen.append(label)
            if seen.count(label) == 1:
                raise ValueError

        def react(event):
            assert event.job.id
            assert rt.job(event.job.id) is not None
            rt.stats()
            list(rt.jobs())
            if len(budget) < 3:
                budget.append(1)  # before submitting, which may bring us here again
                extra.append(rt.submit_nowait(note, f"extra-{len(budget)}"))

        watcher = Recorder(kind, react=react)
        rt = Runtime(concurrency=1, observers=[watcher])
        async with rt:
            jobs = [await rt.submit(flaky, f"job-{number}") for number in range(4)]
            for _ in range(10):
                await turns()
                await clock.advance(1.0)
            for job in [*jobs, *extra]:
                await job
        assert watcher.heard
        assert len(extra) == 3
        assert sum(1 for label in seen if label.startswith("extra")) == 3
        assert sum(1 for label in seen if label.startswith("job")) == 8

    run(main)


def test_p20_an_observer_may_cancel_the_job_it_hears_of(run):
    async def main():
        gate, ran = Gate(), []

        @task
        async def work():
            ran.append(1)

        accepted = Recorder(JobAccepted, react=lambda event: event.job.cancel("by the observer"))
        async with Runtime(observers=[accepted]) as rt:
            job = await rt.submit(work)
            await job.wait()
            assert word(job.state) == "cancelled"
        assert ran == []

        started = Recorder(AttemptStarted, react=lambda event: event.job.cancel("at the start"))
        async with Runtime(observers=[started]) as rt:
            job = await rt.submit(gate.hold)
            await job.wait()
            assert word(job.state) == "cancelled"
            assert rt.stats().running == 0
        assert gate.ended == []

    run(main)


def test_p20_an_observer_sees_the_state_already_consistent(run, clock):
    async def main():
        states = []

        def react(event):
            states.append((type(event).__name__, word(event.job.state)))

        @task(max_attempts=2, backoff=lambda _: 1.0)
        async def flaky():
            if current_job().attempt == 1:
                raise ValueError

        kinds = (JobAccepted, AttemptStarted, RetryScheduled, JobSettled)
        async with Runtime(observers=[Recorder(*kinds, react=react)]) as rt:
            job = await rt.submit(flaky)
            await turns()
            await clock.advance(1.0)
            await job
        assert states == [
            ("JobAccepted", "available"),
            ("AttemptStarted", "running"),
            ("RetryScheduled", "retryable"),
            ("AttemptStarted", "running"),
            ("JobSettled", "completed"),
        ]

    run(main)


def test_p20_each_job_has_exactly_one_settled_event_and_one_end_for_each_start(run):
    async def main():
        recorder = Recorder(JobAccepted, AttemptStarted, AttemptEnded, JobSettled)

        @task
        async def work(number):
            await turns(number % 3)
            if number % 4 == 1:
                raise ValueError
            if number % 4 == 2:
                raise SystemExit
            if number % 4 == 3:
                await asyncio.Event().wait()

        async with Runtime(concurrency=3, observers=[recorder]) as rt:
            jobs = [await rt.submit(work, number) for number in range(40)]
            for number, job in enumerate(jobs):
                if number % 4 == 3 or number % 7 == 0:
                    job.cancel()
                await job.wait()
        settled = [event.job.id for event in recorder.heard if isinstance(event, JobSettled)]
        accepted = [event.job.id for event in recorder.heard if isinstance(event, JobAccepted)]
        assert sorted(settled) == sorted(accepted) == sorted(job.id for job in jobs)
        starts = [event.job.id for event in recorder.heard if isinstance(event, AttemptStarted)]
        ends = [event.job.id for event in recorder.heard if isinstance(event, AttemptEnded)]
        assert sorted(starts) == sorted(ends)

    run(main)


def test_p20_an_observer_hears_only_the_kinds_it_listens_to(run):
    async def main():
        gate = Gate()
        some, everything = Recorder(JobSettled), Recorder()
        async with Runtime(observers=[some, everything]) as rt:
            await (await rt.submit(gate.note))
        assert some.kinds() == ["JobSettled"]
        assert {"JobAccepted", "AttemptStarted", "AttemptEnded", "JobSettled"} <= set(everything.kinds())

    run(main)


def test_p20_an_observer_that_is_a_context_manager_is_entered_before_and_left_after(run):
    async def main():
        order, gate = [], Gate()

        class Entered:
            listens_to = (JobSettled,)

            def __init__(self, name):
                self.name = name

            async def __aenter__(self):
                order.append(f"enter {self.name}")
                return self

            async def __aexit__(self, *exc_info):
                order.append(f"leave {self.name}")

            def on_event(self, event):
                order.append(f"hear {self.name}")

        async with Runtime(observers=[Entered("a"), Entered("b")]) as rt:
            await rt.submit(gate.note)
        assert order == ["enter a", "enter b", "hear a", "hear b", "leave b", "leave a"]

    run(main)


def test_p20_an_observer_that_cannot_be_entered_undoes_the_start(run):
    async def main():
        order, gate = [], Gate()

        class Entered:
            async def __aenter__(self):
                order.append("enter")
                return self

            async def __aexit__(self, *exc_info):
                order.append("leave")

            def on_event(self, event):
                pass

        class Broken(Entered):
            async def __aenter__(self):
                raise OSError("no such host")

        broken = Runtime(observers=[Entered(), Broken()])
        with pytest.raises(OSError, match="no such host"):
            async with broken:
                pass
        assert order == ["enter", "leave"]
        async with Runtime() as rt:
            assert await (await rt.submit(gate.note, "fine")) == "fine"

    run(main)


class Wrapping:
    """A middleware that notes what it wraps, and does what it is told."""

    def __init__(self, *, on_call=None, on_enter=None, on_exit=None, swallow=False, asynchronous=False):
        self.log = []
        self.on_call, self.on_enter, self.on_exit = on_call, on_enter, on_exit
        self.swallow, self.asynchronous = swallow, asynchronous

    def __call__(self, context):
        if self.on_call is not None:
            raise self.on_call
        return self.wrapped_async(context) if self.asynchronous else self.wrapped(context)

    @contextlib.contextmanager
    def wrapped(self, context):
        self.before(context)
        try:
            yield
        except BaseException as error:
            self.after(context, error)
            if not self.swallow:
                raise
        else:
            self.after(context, None)

    @contextlib.asynccontextmanager
    async def wrapped_async(self, context):
        with self.wrapped(context):
            await asyncio.sleep(0)
            yield

    def before(self, context):
        self.log.append(("before", context.task.rpartition(".")[2], context.attempt))
        if self.on_enter is not None:
            raise self.on_enter

    def after(self, context, error):
        self.log.append(("after", context.task.rpartition(".")[2], type(error).__name__))
        if self.on_exit is not None:
            raise self.on_exit


@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "async"])
def test_p20_a_middleware_wraps_each_attempt_of_both_kinds_of_function(run, asynchronous):
    async def main():
        wrapping = Wrapping(asynchronous=asynchronous)

        @task
        async def coroutine():
            return "c"

        @task
        def plain():
            return "p"

        @task
        async def fail():
            raise ValueError

        async with Runtime(middleware=[wrapping]) as rt:
            assert await (await rt.submit(coroutine)) == "c"
            assert await (await rt.submit(plain)) == "p"
            await (await rt.submit(fail)).wait()
        assert [entry[0] for entry in wrapping.log] == ["before", "after"] * 3
        assert [entry[2] for entry in wrapping.log if entry[0] == "after"] == [
            "NoneType",
            "NoneType",
            "ValueError",
        ]

    run(main)


@pytest.mark.parametrize("problem", PROBLEMS[:4], ids=lambda problem: type(problem).__name__)
@pytest.mark.parametrize("where", ["on_call", "on_enter", "on_exit"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "async"])
def test_p20_a_middleware_that_raises_fails_no_job(run, problem, where, asynchronous):
    async def main():
        wrapping = Wrapping(asynchronous=asynchronous, **{where: problem})

        @task
        async def work():
            await asyncio.sleep(0)
            return "value"

        @task
        async def fail():
            raise LookupError("its own")

        async with Runtime(middleware=[wrapping]) as rt:
            assert await (await rt.submit(work)) == "value"
            with pytest.raises(LookupError, match="its own"):
                await (await rt.submit(fail))
            assert sum(rt.stats().faults.values()) >= 1

    run(main)


def test_p20_a_middleware_cannot_swallow_what_the_job_raised(run):
    async def main():
        @task
        async def fail():
            raise ValueError("seen")

        async with Runtime(middleware=[Wrapping(swallow=True)]) as rt:
            job = await rt.submit(fail)
            with pytest.raises(ValueError, match="seen"):
                await job
            gate = Gate()
            job = await rt.submit(gate.hold)
            await until(lambda: gate.started)
            job.cancel()
            await job.wait()
            assert word(job.state) == "cancelled"

    run(main)


def test_p20_what_happens_in_one_job_fails_no_other(run):
    async def main():
        problems = [
            ValueError(),
            SystemExit(),
            Odd(),
            asyncio.CancelledError(),
            GeneratorExit(),
            StopIteration(),
            RecursionError(),
            MemoryError(),
            BaseExceptionGroup("both", [SystemExit(), ValueError()]),
        ]

        @task
        async def fail(problem):
            await asyncio.sleep(0)
            raise problem

        gate = Gate()
        async with Runtime() as rt:
            bystander = await rt.submit(gate.hold, "unharmed")
            bad = [await rt.submit(fail, problem) for problem in problems]
            for job in bad:
                await job.wait()
                assert word(job.state) in {"discarded", "cancelled"}
            gate.open()
            assert await bystander == "unharmed"

    run(main)


def test_p20_an_exception_with_a_broken_repr_ends_its_job_like_any_other(run):
    async def main():
        class Broken(Exception):
            def __str__(self):
                raise ValueError("no str")

            __repr__ = __str__

        @task(max_attempts=2, backoff=lambda _: 0.0)
        async def fail():
            raise Broken

        async with Runtime() as rt:
            with pytest.raises(Broken):
                await (await rt.submit(fail))

    run(main)


def test_p20_a_backoff_that_raises_or_returns_nonsense_still_ends_the_job(run):
    async def main():
        for backoff in (
            lambda _: 1 / 0,
            lambda _: None,
            lambda _: float("nan"),
            lambda _: -5.0,
            lambda _: "soon",
        ):

            @task(max_attempts=2, backoff=backoff)
            async def fail():
                raise LookupError("its own")

            async with Runtime() as rt:
                job = await rt.submit(fail)
                await turns(20)
                if word(job.state) == "retryable":
                    job.cancel()
                await job.wait()
                assert word(job.state) in {"discarded", "cancelled"}

    run(main)


def test_p20_an_observer_that_blocks_is_counted_and_named(run):
    async def main():
        gate = Gate()

        class Slowpoke(Recorder):
            pass

        slow = Slowpoke(JobSettled, react=lambda event: time.sleep(0.02))
        async with Runtime(observers=[slow]) as rt:
            assert await (await rt.submit(gate.note, "fine")) == "fine"
            assert any("Slowpoke" in name for name in rt.stats().faults)

    run(main)
