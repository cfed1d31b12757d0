"""
What an observer, a middleware, a channel or a journal of your own must do, as tests that pytest runs.

>>> class TestMyObserver(contracts.ObserverContract):
...     def make(self):
...         return MyObserver()

Each test runs a real `Runtime` on a new event loop; no plugin is needed. The suites find what would
become a fault of the part in production. They cannot know what the part is for: test that beside them.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bgruntime import (
    Job,
    JobCancelled,
    JobInterrupted,
    PayloadError,
    Runtime,
    RuntimeStats,
    current_job,
    task,
)
from bgruntime.extend import Channel, Check, Observer

T = TypeVar("T")

PATIENCE = 10.0  # seconds for anything that must come true
SOON = 1.0  # seconds in which a cancelled send must be over

__all__ = ["ChannelContract", "JournalContract", "MiddlewareContract", "ObserverContract"]


# The jobs ---------------------------------------------------------------------------------


@task(name="bgruntime.contracts:value")
async def value(number: int) -> int:
    await asyncio.sleep(0)
    return number


@task(name="bgruntime.contracts:fail")
async def fail() -> None:
    raise LookupError("as it should")


@task(name="bgruntime.contracts:flaky", max_attempts=2, backoff=lambda _: 0.0)
async def flaky() -> str:
    if current_job().attempt == 1:
        raise ConnectionError("the first time")
    return "at last"


@task(name="bgruntime.contracts:hang", timeout=0.02)
async def hang() -> None:
    await asyncio.Event().wait()


@task(name="bgruntime.contracts:leave")
async def leave() -> None:
    raise SystemExit(3)


@task(name="bgruntime.contracts:in_thread")
def in_thread(number: int) -> int:
    return number


async def of_every_kind(rt: Runtime) -> list[Job[Any]]:
    """Jobs that end in every way there is; they are over on return."""
    cancelled = await rt.submit(value.with_options(delay=3600.0), 0)
    cancelled.cancel("not needed")
    jobs: list[Job[Any]] = [
        await rt.submit(value.with_options(tags=("tagged",)), 1),
        await rt.submit(in_thread, 2),
        await rt.submit(flaky),
        await rt.submit(fail),
        await rt.submit(hang),
        await rt.submit(leave),
        cancelled,
    ]
    for job in jobs:
        await job.wait()
    states = [str(job.state) for job in jobs]
    assert states == [*3 * ["completed"], *3 * ["discarded"], "cancelled"]
    return jobs


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What ``await main()`` gives, on a new event loop and within the patience of these tests."""

    async def in_time() -> T:
        async with asyncio.timeout(3 * PATIENCE):
            return await main()

    return asyncio.run(in_time())


def no_complaints(rt: Runtime, about: str) -> None:
    """Fail if the runtime has counted a fault with this name; being slow on a busy machine is none."""
    said = [fault for fault in rt.stats().faults if about in fault and "held the loop" not in fault]
    assert not said, f"the runtime complains: {', '.join(said)}"


# Observers --------------------------------------------------------------------------------


class ObserverContract:
    """For `extend.Observer`. Give `make`."""

    def make(self) -> Any:
        """A new observer."""
        raise NotImplementedError(f"{type(self).__name__}.make: returns a new observer")

    def test_it_has_the_methods_of_an_observer(self) -> None:
        observer = self.make()
        assert isinstance(observer, Observer), "it needs on_event(event)"
        assert all(isinstance(kind, type) for kind in getattr(observer, "listens_to", None) or ())

    def test_no_event_of_any_kind_of_job_makes_it_fail(self) -> None:
        observer = self.make()

        async def main() -> None:
            async with Runtime(observers=[observer]) as rt:
                await of_every_kind(rt)
                no_complaints(rt, type(observer).__name__)

        run(main)

    def test_it_works_when_its_runtime_is_entered_again(self) -> None:
        observer = self.make()

        async def main() -> None:
            rt = Runtime(observers=[observer])
            for _ in range(2):
                async with rt:
                    await of_every_kind(rt)
                    no_complaints(rt, type(observer).__name__)

        run(main)

    def test_what_it_adds_to_statistics_and_health_can_be_read(self) -> None:
        observer = self.make()

        async def main() -> None:
            async with Runtime(observers=[observer]) as rt:
                await of_every_kind(rt)
                stats = rt.stats()
                assert isinstance(stats, RuntimeStats), "complete(stats) returns the statistics"
                assert stats.submitted == 7
                rt.health()
                if hasattr(observer, "checks"):
                    found: Sequence[Any] = observer.checks()
                    assert all(isinstance(check, Check) for check in found)
                no_complaints(rt, type(observer).__name__)

        run(main)

    def test_a_stop_in_the_middle_of_work_does_not_make_it_fail(self) -> None:
        observer = self.make()

        async def main() -> None:
            async with Runtime(observers=[observer]) as rt:
                job = await rt.submit(hang.with_options(timeout=None))
                await rt.stop(drain=0)
                assert isinstance(job.exception(), JobInterrupted)
                no_complaints(rt, type(observer).__name__)

        run(main)


# Middleware -------------------------------------------------------------------------------


class MiddlewareContract:
    """For `extend.Middleware`. Give `make`."""

    def make(self) -> Any:
        """A new middleware."""
        raise NotImplementedError(f"{type(self).__name__}.make: returns a new middleware")

    def test_it_gives_a_context_manager_for_an_attempt(self) -> None:
        middleware = self.make()
        assert callable(middleware)
        given: list[Any] = []

        def look(context: Any) -> Any:
            given.append(middleware(context))
            return contextlib.nullcontext()

        async def main() -> None:
            async with Runtime(middleware=[look]) as rt:
                await (await rt.submit(value, 1))

        run(main)
        (manager,) = given
        assert hasattr(manager, "__enter__") or hasattr(manager, "__aenter__")

    def test_jobs_end_with_it_as_they_do_without(self) -> None:
        middleware = self.make()

        async def main() -> None:
            async with Runtime(middleware=[middleware]) as rt:
                await of_every_kind(rt)
                no_complaints(rt, "middleware")

        run(main)

    def test_it_wraps_many_attempts_at_once(self) -> None:
        middleware = self.make()

        async def main() -> None:
            async with Runtime(middleware=[middleware], concurrency=10) as rt:
                assert await rt.map(value, range(50)) == list(range(50))
                no_complaints(rt, "middleware")

        run(main)

    def test_it_lets_a_cancellation_pass(self) -> None:
        middleware = self.make()

        async def main() -> None:
            async with Runtime(middleware=[middleware]) as rt:
                job = await rt.submit(hang.with_options(timeout=None))
                await _until(lambda: str(job.state) == "running")
                await asyncio.sleep(0)
                assert job.cancel()
                await job.wait()
                assert isinstance(job.exception(), JobCancelled)
                no_complaints(rt, "middleware")

        run(main)


# Channels ---------------------------------------------------------------------------------


class ChannelContract:
    """For `extend.Channel`. Give `make` and `make_alert`; *limit* is how many seconds a send may take."""

    limit = 5.0

    def make(self) -> Any:
        """A channel whose other side works."""
        raise NotImplementedError(f"{type(self).__name__}.make: returns a channel whose other side works")

    def make_alert(self) -> Any:
        """An alert to send."""
        raise NotImplementedError(f"{type(self).__name__}.make_alert: returns an alert to send")

    def test_it_delivers_an_alert_in_time(self) -> None:
        channel = self.make()
        assert callable(getattr(channel, "send", None)), "it needs a coroutine function `send`"

        async def main() -> None:
            async with asyncio.timeout(self.limit):
                await _send(channel, self.make_alert())

        run(main)

    def test_it_delivers_several_at_once(self) -> None:
        channel = self.make()

        async def main() -> None:
            async with asyncio.timeout(self.limit), asyncio.TaskGroup() as group:
                for _ in range(2):
                    group.create_task(_send(channel, self.make_alert()))

        run(main)

    def test_it_can_be_given_up(self) -> None:
        """An alert that takes too long is cancelled; the channel can be used after that."""
        channel = self.make()

        async def main() -> None:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(_send(channel, self.make_alert()))
                await asyncio.sleep(0)
                sending.cancel()
                _, late = await asyncio.wait([sending], timeout=SOON)
                assert not late, "a cancelled send goes on"
            async with asyncio.timeout(self.limit):
                await _send(channel, self.make_alert())

        run(main)

    def test_it_works_on_one_loop_after_the_other(self) -> None:
        channel = self.make()
        for _ in range(2):
            run(lambda: _send(channel, self.make_alert()))


async def _send(channel: Channel, alert: Any) -> None:
    sending = channel.send(alert)
    assert inspect.isawaitable(sending), "send is a coroutine function"
    await sending


# Journals ---------------------------------------------------------------------------------

_runs: list[str] = []
_open = [True]  # what `wait_for_it` waits for


@task(name="bgruntime.contracts:note", durable=True)
async def note(label: str) -> str:
    _runs.append(label)
    return label


@task(name="bgruntime.contracts:wait_for_it", durable=True)
async def wait_for_it(label: str) -> str:
    _runs.append(label)
    while not _open[0]:  # noqa: ASYNC110 -- it is to outlive loops, as no event can
        await asyncio.sleep(0.01)
    return label


@task(name="bgruntime.contracts:fail_durably", durable=True)
async def fail_durably() -> None:
    _runs.append("failed")
    raise LookupError("as it should")


class JournalContract:
    """For `extend.Journal`. Give `make`."""

    def make(self, folder: Path) -> Any:
        """A new journal on what is in *folder*: a second one finds what the first one has kept."""
        raise NotImplementedError(f"{type(self).__name__}.make: returns a new journal on what is in folder")

    @pytest.fixture(autouse=True)
    def _fresh(self) -> None:
        _runs.clear()
        _open[0] = True

    def test_a_durable_job_gives_its_result_and_does_not_run_again(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with Runtime(journal=self.make(tmp_path)) as rt:
                assert await (await rt.submit(note, "a")) == "a"
                jobs = await rt.submit_many(note, [("b",), ("c",)])
                assert [await job for job in jobs] == ["b", "c"]
            async with Runtime(journal=self.make(tmp_path)) as rt:
                await self._settled(rt)

        run(main)
        assert sorted(_runs) == ["a", "b", "c"]

    def test_a_job_that_was_interrupted_runs_again_in_the_next_runtime(self, tmp_path: Path) -> None:
        _open[0] = False

        async def main() -> None:
            async with Runtime(journal=self.make(tmp_path)) as rt:
                job = await rt.submit(wait_for_it, "a")
                await _until(lambda: bool(_runs))
                await rt.stop(drain=0)
                error = job.exception()
                assert isinstance(error, JobInterrupted)
                assert error.requeued
            _open[0] = True
            async with Runtime(journal=self.make(tmp_path)) as rt:
                await _until(lambda: len(_runs) == 2)
                await self._settled(rt)

        run(main)
        assert _runs == ["a", "a"]

    def test_a_job_that_was_cancelled_does_not_run_again(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with Runtime(journal=self.make(tmp_path)) as rt:
                rt.pause()
                job = await rt.submit(note, "a")
                assert job.cancel()
                await job.wait()
            async with Runtime(journal=self.make(tmp_path)) as rt:
                await self._settled(rt)

        run(main)
        assert _runs == []

    def test_a_job_that_failed_for_good_does_not_run_again(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with Runtime(journal=self.make(tmp_path)) as rt:
                job = await rt.submit(fail_durably)
                with pytest.raises(LookupError):
                    await job
            async with Runtime(journal=self.make(tmp_path)) as rt:
                await self._settled(rt)

        run(main)
        assert _runs == ["failed"]

    def test_one_id_is_accepted_once(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with Runtime(journal=self.make(tmp_path)) as rt:
                rt.pause()
                named = note.with_options(id="contract-1")
                job = await rt.submit(named, "a")
                with pytest.raises(ValueError, match="contract-1"):
                    _ = await rt.submit(named, "b")
                rt.resume()
                assert await job == "a"

        run(main)
        assert _runs == ["a"]

    def test_arguments_that_cannot_be_written_down_are_refused(self, tmp_path: Path) -> None:
        unwritable: Any = object()

        async def main() -> None:
            async with Runtime(journal=self.make(tmp_path)) as rt:
                with pytest.raises(PayloadError):
                    _ = await rt.submit(note, unwritable)
                assert await (await rt.submit(note, "after it")) == "after it"

        run(main)
        assert _runs == ["after it"]

    def test_arguments_are_those_of_the_submit_and_not_of_later(self, tmp_path: Path) -> None:
        given: list[int] = [1]
        seen: list[list[int]] = []

        @task(name="bgruntime.contracts:look", durable=True)
        async def look(numbers: list[int]) -> None:
            seen.append(numbers)

        async def main() -> None:
            async with Runtime(journal=self.make(tmp_path)) as rt:
                rt.pause()
                job = await rt.submit(look, given)
                given.append(2)
                rt.resume()
                await job

        run(main)
        assert seen == [[1]]

    def test_a_journal_that_is_well_has_no_problems(self, tmp_path: Path) -> None:
        async def main() -> None:
            async with Runtime(journal=self.make(tmp_path)) as rt:
                assert await (await rt.submit(note, "a")) == "a"
                assert list(rt.journal.problems()) == []
                assert rt.health().ready

        run(main)

    async def _settled(self, rt: Runtime) -> None:
        """Wait until the journal has nothing to bring and the runtime nothing to do."""
        await asyncio.sleep(0.1)
        await _until(lambda: not rt.journal.waiting())
        await rt.drain(PATIENCE)


async def _until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not fact():  # noqa: ASYNC110 -- no event tells it
            await asyncio.sleep(0.005)
