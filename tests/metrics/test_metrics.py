"""`rt.stats()` has the numbers: how many, how long, how often, and why not."""

from __future__ import annotations

import asyncio
import functools
import pickle
import sys
import weakref
from copy import deepcopy
from dataclasses import asdict, replace
from types import FunctionType

import pytest

from bgruntime import QueueFull, Runtime, task
from bgruntime.extend import BOUNDS, JobState, Outcome, Record, Sketch, Spread, TaskStats
from bgruntime.metrics import Metrics


@task
async def fine() -> None:
    return


@task
async def pick(error: type[Exception] | None, text: str = "") -> None:
    if error is not None:
        raise error(text)


@task(timeout=5)
async def slow() -> None:
    await asyncio.Event().wait()


@task(max_attempts=3, backoff=lambda state: 1)
async def flaky() -> None:
    raise ConnectionError("refused")


def test_percentiles_are_those_of_known_durations(run, clock):
    """Jobs of known length: 1 to 100 seconds of the runtime's own clock."""

    @task(timeout=None)
    async def last(opened: asyncio.Event) -> None:
        await opened.wait()

    async def main():
        async with Runtime(concurrency=100) as rt:
            gates = [asyncio.Event() for _ in range(100)]
            for gate in gates:
                await rt.submit(last, gate)
            for gate in gates:
                await clock.advance(1)
                gate.set()
                await clock.settle()
            return rt.stats()

    stats = run(main)
    spread = stats.tasks[last.name].run_time
    assert spread.count == 100
    assert spread.mean == pytest.approx(50.5)
    assert spread.p50 == pytest.approx(50, rel=0.01)
    assert spread.p95 == pytest.approx(95, rel=0.01)
    assert spread.p99 == pytest.approx(99, rel=0.01)
    assert spread.max == pytest.approx(100)
    assert stats.run_time == spread
    assert stats.tasks[last.name].queue_wait.max == 0


def test_a_snapshot_keeps_the_numbers_of_its_time(run, clock):
    """Its percentiles are worked out when they are read, which may be long after."""

    async def main():
        async with Runtime() as rt:
            await (await rt.submit(fine))
            first = rt.stats()
            await clock.advance(61)
            await (await rt.submit(fine))
            second = rt.stats()
            await clock.advance(400)
            await (await rt.submit(fine))
            await clock.advance(61)
            return first, second, rt.stats()

    snapshots = run(main)
    counts = [
        (one.run_time.count, one.recent.run_time.count)
        for stats in snapshots
        for one in (stats, stats.tasks[fine.name])
    ]
    assert counts == [(1, 1)] * 2 + [(2, 2)] * 2 + [(3, 1)] * 2


@pytest.mark.parametrize("told", [asdict, lambda stats: replace(stats), pickle.dumps, deepcopy, repr, hash])
def test_numbers_that_are_worked_out_late_are_like_any_other(told):
    spread = Spread.of(Sketch([1.0, 2.0]), BOUNDS)
    late = Spread.later(lambda: Spread.of(Sketch([1.0, 2.0]), BOUNDS))
    if told is hash:
        with pytest.raises(TypeError):  # of the mapping in it
            hash(late)
    else:
        assert told(late) == told(spread)
    assert late == spread
    assert not hasattr(late, "p42")


def test_numbers_are_worked_out_once_and_what_they_came_from_is_let_go():
    def make() -> Spread:
        return Spread(count=3)

    source = weakref.ref(make)
    late = Spread.later(make)
    del make
    assert source() is not None
    assert (late.count, late.max) == (3, 0.0)
    assert source() is None
    assert late.count == 3


def test_numbers_that_two_threads_read_at_once_are_there_for_both():
    late = Spread.later(lambda: Spread(count=3))
    second = functools.partial(late.__getattr__, "count")  # it has found the number missing
    assert late.count == 3
    assert second() == 3


def test_the_queue_wait_is_the_time_until_the_slot(run, clock):
    async def main():
        async with Runtime(concurrency=1) as rt:
            gate = asyncio.Event()

            async def hold() -> None:
                await gate.wait()

            await rt.submit(hold)
            job = await rt.submit(fine)
            await clock.advance(7)
            gate.set()
            await job
            return rt.stats()

    stats = run(main)
    assert stats.tasks[fine.name].queue_wait.max == pytest.approx(7)
    assert stats.queue_wait.max == pytest.approx(7)


def test_each_attempt_has_its_run_time(run, clock):
    async def main():
        async with Runtime() as rt:
            job = await rt.submit(flaky)
            await clock.advance(5)
            await job.wait()
            return rt.stats().tasks[flaky.name]

    stats = run(main)
    assert stats.run_time.count == 3
    assert (stats.failed, stats.retried, stats.success_rate) == (1, 2, 0.0)
    assert (stats.recent.failed, stats.recent.retried) == (1, 2)


def test_failures_are_counted_by_type_with_the_newest_message(run):
    async def main():
        async with Runtime() as rt:
            for error, text in [(LookupError, "a"), (LookupError, "b"), (OSError, "c"), (None, "")]:
                await (await rt.submit(pick, error, text)).wait()
            return rt.stats()

    stats = run(main)
    failures = stats.tasks[pick.name].failures
    assert {name: (one.count, one.message) for name, one in failures.items()} == {
        "LookupError": (2, "b"),
        "OSError": (1, "c"),
    }
    assert stats.failures == failures
    assert sum(one.count for one in failures.values()) == stats.failed == 3
    assert stats.success_rate == 0.25


def test_only_final_failures_are_reasons(run, clock):
    async def main():
        async with Runtime() as rt:
            job = await rt.submit(flaky)
            await clock.advance(5)
            await job.wait()
            return rt.stats()

    assert [(one.error, one.count) for one in run(main).failures.values()] == [("ConnectionError", 1)]


def test_a_timeout_is_a_reason_of_its_own(run, clock):
    async def main():
        async with Runtime() as rt:
            job = await rt.submit(slow)
            await clock.advance(6)
            await job.wait()
            return rt.stats()

    stats = run(main)
    assert (stats.timed_out, stats.recent.timed_out) == (1, 1)
    assert [(one.error, one.count) for one in stats.failures.values()] == [("JobTimedOut", 1)]


def test_a_job_that_never_ran_has_no_run_time(run):
    async def main():
        async with Runtime() as rt:
            rt.pause()
            job = await rt.submit(fine)
            job.cancel()
            await job.wait()
            return rt.stats()

    stats = run(main)
    assert (stats.cancelled, stats.recent.cancelled) == (1, 1)
    assert stats.run_time.count == 0
    assert stats.success_rate is None


def test_rejections_are_counted_by_reason(run):
    async def main():
        async with Runtime(concurrency=1, queue_size=1, overflow="reject") as rt:
            rt.pause()
            await rt.submit(fine)
            with pytest.raises(QueueFull):
                await rt.submit(fine)
            stats = rt.stats()
            rt.resume()
            return stats

    stats = run(main)
    assert stats.rejections == {"queue_full": 1}
    assert stats.tasks[fine.name].rejected == stats.rejected == 1


def test_what_is_older_than_five_minutes_is_not_recent_but_stays_since_the_start(run, clock):
    async def main():
        async with Runtime() as rt:
            for error in (LookupError, None, None):
                await (await rt.submit(pick, error)).wait()
            first = rt.stats()
            await clock.advance(300)
            in_time = rt.stats()
            await clock.advance(120)
            late = rt.stats()
            await (await rt.submit(pick, None)).wait()
            return first, in_time, late, rt.stats()

    first, in_time, late, last = run(main)
    assert first.recent == in_time.recent
    assert (first.recent.completed, first.recent.failed) == (2, 1)
    assert first.recent.success_rate == pytest.approx(2 / 3)
    assert (late.recent.completed, late.recent.failed, late.recent.success_rate) == (0, 0, None)
    assert (late.completed, late.failed, late.run_time.count) == (2, 1, 3)
    assert (last.recent.completed, last.completed, last.run_time.count) == (1, 3, 4)


def test_jobs_count_for_the_minute_in_which_they_ended_not_for_that_of_the_look(run, clock):
    async def main():
        async with Runtime() as rt:
            await (await rt.submit(pick, LookupError)).wait()
            await clock.advance(3600)  # nobody looks for an hour
            await (await rt.submit(pick, None)).wait()
            return rt.stats()

    recent = run(main).recent
    assert (recent.completed, recent.failed) == (1, 0)


def test_the_oldest_wait_is_that_of_the_job_that_has_waited_longest(run, clock):
    async def main():
        async with Runtime() as rt:
            rt.pause()
            await rt.submit(fine)
            await clock.advance(30)
            await rt.submit(fine)
            await clock.advance(10)
            stats = rt.stats()
            rt.resume()
            return stats

    assert run(main).oldest_wait == pytest.approx(40)


def test_the_process_is_measured(run):
    async def main():
        async with Runtime() as rt:
            return rt.stats().process

    process = run(main)
    assert process.cpu_seconds > 0
    assert process.threads >= 1
    if sys.platform == "linux":
        assert process.rss_bytes > 1_000_000
        assert process.open_files >= 3


def test_a_runtime_without_metrics_still_counts(run):
    async def main():
        async with Runtime(observers=[Metrics(on=False)]) as rt:
            await (await rt.submit(pick, LookupError)).wait()
            return rt.stats()

    stats = run(main)
    assert stats.failed == 1
    assert (stats.run_time.count, stats.failures, stats.process) == (0, {}, None)


def test_entered_again_a_runtime_counts_from_nothing(run):
    async def main():
        rt = Runtime()
        counts = []
        for _ in range(2):
            async with rt:
                await (await rt.submit(pick, LookupError)).wait()
                counts.append((rt.stats().run_time.count, rt.stats().failures["LookupError"].count))
        return counts

    assert run(main) == [(1, 1), (1, 1)]


def ended(entry, at: float = 1.0) -> tuple:
    return tuple(Record(entry, 1, JobState.COMPLETED, Outcome.SUCCEEDED, 1, 0.0, 0.5, at, None))


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


def test_beyond_a_thousand_tasks_the_rest_is_one():
    metrics = Metrics()
    metrics.on_batch([ended(Named(f"task {number}")) for number in range(1_500)])
    assert len(metrics._windows) == 1_001
    assert metrics._windows["other"].seen(0).run_time().count == 500


async def held(gate: asyncio.Event, error: type[Exception] | None) -> None:
    await gate.wait()
    if error is not None:
        raise error


def work(number: int):
    """A function that is a task of its own."""
    named = FunctionType(held.__code__, globals())
    named.__qualname__ = f"work {number}"
    return named


def test_the_numbers_of_more_than_a_thousand_tasks_sum_up_to_the_totals_whichever_ended_first(run):
    async def main():
        async with Runtime(concurrency=2_000) as rt:
            gates, jobs = [], []
            for number in range(1_200):
                gates.append(asyncio.Event())
                error = (None, LookupError, OSError)[number % 3]
                jobs += [await rt.submit(work(number), gates[-1], error) for _ in range(1 + number % 2)]
            for gate in reversed(gates):
                gate.set()
            for job in jobs:
                await job.wait()
            return rt.stats()

    stats = run(main)
    tasks = stats.tasks.values()
    assert len(tasks) == 1_001
    for name in ("submitted", "completed", "failed"):
        assert sum(getattr(one, name) for one in tasks) == getattr(stats, name) > 0
    for name in ("run_time", "queue_wait"):
        assert sum(getattr(one, name).count for one in tasks) == getattr(stats, name).count == 1_800
        assert max(getattr(one, name).max for one in tasks) == getattr(stats, name).max
    assert sum(one.recent.completed for one in tasks) == stats.recent.completed == stats.completed
    assert sum(one.count for one in stats.failures.values()) == stats.failed
    for one in tasks:
        assert sum(one.finished.values()) == one.completed + one.failed == one.submitted
        assert one.run_time.count == one.submitted
        assert sum(failures.count for failures in one.failures.values()) == one.failed
        assert one.recent.success_rate == one.success_rate
    assert stats.tasks["other"].submitted >= 200  # that many tasks are not told apart


def test_a_task_that_is_called_other_is_counted_with_the_rest():
    metrics = Metrics()
    names = ["other", *(f"task {number}" for number in range(1_100))]
    metrics.on_batch([ended(Named(name)) for name in names])
    counted = TaskStats(1, 0, 1, 0, 0, 0, 0, {"succeeded": 1})
    shown = metrics._bounded(dict.fromkeys(names, counted))
    assert shown["other"].submitted == metrics._windows["other"].seen(0).run_time().count == 102
    assert sum(one.submitted for one in shown.values()) == len(names)


def test_beyond_fifty_types_of_error_the_rest_is_one(run):
    kinds = [type(f"Error{number}", (Exception,), {}) for number in range(80)]

    async def main():
        async with Runtime() as rt:
            for kind in kinds:
                await (await rt.submit(pick, kind)).wait()
            return rt.stats().failures

    failures = run(main)
    assert len(failures) == 51
    assert failures["other"].count == 30


def test_stats_of_many_tasks_sum_up_to_the_totals(run):
    async def main():
        async with Runtime() as rt:
            for _ in range(5):
                await (await rt.submit(fine)).wait()
            await (await rt.submit(pick, OSError)).wait()
            return rt.stats()

    stats = run(main)
    for name in ("submitted", "completed", "failed"):
        assert sum(getattr(one, name) for one in stats.tasks.values()) == getattr(stats, name)
    assert sum(one.run_time.count for one in stats.tasks.values()) == stats.run_time.count == 6


def test_an_observer_that_fails_on_batches_or_stats_changes_neither_jobs_nor_numbers(run):
    class Broken:
        listens_to = (type(None),)

        def on_event(self, event):
            raise AssertionError

        def on_batch(self, records):
            raise RuntimeError("batch")

        def complete(self, stats):
            raise RuntimeError("stats")

        def checks(self):
            raise RuntimeError("health")

    async def main():
        async with Runtime(observers=[Broken()]) as rt:
            await (await rt.submit(fine))
            stats, health = rt.stats(), rt.health()
            return stats, health, rt.stats().faults

    stats, health, faults = run(main)
    assert (stats.completed, stats.run_time.count, health.status) == (1, 1, "pass")
    assert {"on a batch", "on stats", "on health"} == {name.partition("failed ")[2] for name in faults}
