"""What is done where something is missing that is nearly always there: a listener, a thread, a word."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bgruntime import (
    ForkedRuntime,
    JobCancelled,
    JobTimedOut,
    QueueFull,
    Resource,
    Runtime,
    WrongLoop,
    task,
    tempdir,
)
from bgruntime._engine.look import asked_on_loop
from bgruntime.extend import AttemptEnded, ports, secrets_here
from bgruntime.logs import JobLog
from bgruntime.metrics import Metrics
from tests.door.turns import Gate, faults_of, hold, turns, until


class DeafMetrics(Metrics):
    listens_to = (type(None),)


class DeafLog(JobLog):
    def __init__(self) -> None:
        super().__init__()
        self.listens_to = (type(None),)


@task(timeout=None)
async def stubborn(gate: Gate) -> None:
    """Hears no cancellation."""
    gate.started.append(1)
    while not gate.opened.is_set():
        try:
            await gate.opened.wait()
        except asyncio.CancelledError:
            gate.cancelled.append(1)


def test_where_nobody_listens_refusals_retries_and_stuck_attempts_are_counted_all_the_same(
    run: Any, clock: Any
) -> None:
    @task(max_attempts=2, backoff=lambda _: 0.0)
    async def fails() -> None:
        raise LookupError

    async def main() -> None:
        gate = Gate()
        deaf = [DeafMetrics(), DeafLog()]
        async with Runtime(concurrency=1, queue_size=1, cancel_grace=1, cancel_hard=1, observers=deaf) as rt:
            job = await rt.submit(fails)
            await clock.advance(1)
            await job.wait()
            stuck = await rt.submit(stubborn, gate)
            await until(lambda: gate.started)
            waiting = await rt.submit(hold, gate)
            with pytest.raises(QueueFull):
                rt.submit_nowait(hold, gate)
            stuck.cancel()
            await clock.advance(3)
            stats = rt.stats()
            assert (stats.retried, stats.rejected, stats.stuck) == (1, 1, 1)
            gate.open()
            await waiting

    run(main)


def test_faults_of_more_kinds_than_anybody_reads_are_counted_together(run: Any) -> None:
    def breaks(job: Any) -> None:
        raise LookupError

    async def main() -> None:
        gate = Gate()
        gate.open()
        async with Runtime() as rt:
            for n in range(1002):
                job = await rt.submit(task(gate.wait, name=f"kind-{n}"))
                job.add_done_callback(breaks)
                await job
            await turns()
            faults = faults_of(rt)
            assert len(faults) == 1001
            assert faults["others"] == 2
            assert faults["a done callback of kind-0 failed"] == 1

    run(main)


def test_a_job_whose_id_was_asked_after_its_end_is_found_by_it_among_the_last_thousand(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        gate.open()
        async with Runtime() as rt:
            jobs = [rt.submit_nowait(hold, gate) for _ in range(1001)]
            for job in jobs:
                await job
            ids = [job.id for job in jobs]
            assert len(set(ids)) == 1001
            del jobs, job
            assert rt.job(ids[0]) is None
            for id in (ids[1], ids[-1]):
                found = rt.job(id)
                assert found is not None
                assert found.id == id
                with pytest.raises(asyncio.InvalidStateError, match="record"):
                    found.result()
                with pytest.raises(asyncio.InvalidStateError, match="record"):
                    await found

    run(main)


def test_what_is_left_of_a_task_after_its_jobs_says_so_when_it_is_called(run: Any) -> None:
    from bgruntime._model.jobs import definition_of

    async def work() -> None: ...

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(work)
            await job
            id = job.id
            del job
            found = rt.job(id)
            assert found is not None
            with pytest.raises(RuntimeError, match="its function is gone"):
                definition_of(found).function()

    run(main)


def test_a_job_that_waits_for_itself_is_told_that_it_would_never_end(run: Any) -> None:
    async def main() -> None:
        mine: list[Any] = []

        async def work() -> None:
            await mine[0]

        async with Runtime() as rt:
            mine.append(await rt.submit(work))
            with pytest.raises(RuntimeError, match="waits for itself: it would never end"):
                await mine[0]
            mine.clear()

    run(main)


def test_a_job_is_cancelled_on_its_own_loop_only(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime() as rt:
            job = await rt.submit(hold, gate)
            with pytest.raises(WrongLoop, match="a thread without an event loop"):
                await asyncio.to_thread(job.cancel)
            gate.open()
            await job

    run(main)


def test_the_child_of_a_fork_is_refused_by_the_process_it_is_in(run: Any, monkeypatch: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:

            def as_a_child() -> None:
                parent = os.getpid()
                with monkeypatch.context() as patched:
                    patched.setattr(os, "getpid", lambda: parent + 1)
                    with pytest.raises(ForkedRuntime, match=f"process {parent} .* child {parent + 1}"):
                        rt.submit_nowait(hold, Gate())

            await asyncio.to_thread(as_a_child)

    run(main)


def test_what_a_question_from_another_thread_raises_is_raised_there(run: Any) -> None:
    def question() -> None:
        raise LookupError("no answer")

    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(LookupError, match="no answer"):
                await asyncio.to_thread(asked_on_loop, rt._engine, question, 5.0)

    run(main)


def test_a_cancellation_while_a_timed_out_attempt_cleans_up_is_the_end_of_its_retries(
    run: Any, clock: Any
) -> None:
    async def main() -> None:
        tidy = asyncio.Event()

        @task(timeout=1, max_attempts=3)
        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await tidy.wait()

        async with Runtime() as rt:
            job = await rt.submit(work)
            await turns()
            await clock.advance(1)
            assert job.cancel("no longer wanted")
            assert not job.cancel("twice")
            tidy.set()
            with pytest.raises(JobCancelled, match="no longer wanted"):
                await job
            assert job.attempt == 1

    run(main)


def test_the_temporary_directory_of_a_stuck_attempt_is_removed_without_it(run: Any, clock: Any) -> None:
    async def main() -> None:
        gate, made = Gate(), []

        @task
        async def work(folder: Path = Resource(tempdir)) -> None:
            made.append(folder)
            while not gate.opened.is_set():
                try:
                    await gate.opened.wait()
                except asyncio.CancelledError:
                    continue

        async with Runtime(cancel_grace=1, cancel_hard=1) as rt:
            job = await rt.submit(work)
            await until(lambda: made)
            assert made[0].exists()
            job.cancel()
            await clock.advance(3)
            await until(lambda: not made[0].exists())
            gate.open()

    run(main)


def test_a_fan_out_goes_on_when_a_timed_out_job_of_it_is_given_up(run: Any, clock: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(cancel_grace=1, cancel_hard=1) as rt:
            mapped = asyncio.ensure_future(
                _listed(rt.map(stubborn.with_options(timeout=1), [gate, gate], limit=1, on_error="return"))
            )
            await until(lambda: gate.started == [1])
            await clock.advance(2)
            assert gate.started == [1]  # the first one cleans up, and there may be one at a time
            await clock.advance(1)
            await until(lambda: gate.started == [1, 1])
            gate.open()
            first, second = await mapped
            assert (type(first), second) == (JobTimedOut, None)
            assert first.stuck

    run(main)


async def _listed(fanout: Any) -> list[Any]:
    return list(await fanout)


def test_where_no_thread_is_to_be_had_a_temporary_directory_is_removed_on_the_loop(run: Any) -> None:
    def none(target: Any, name: str) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        with ports.use(replace(ports.current(), spawn=none)):
            async with tempdir() as folder:
                assert folder.exists()
            assert not folder.exists()

    run(main)


def test_a_temporary_directory_that_was_entered_outside_is_left_inside_a_job(run: Any) -> None:
    async def main() -> None:
        stack = AsyncExitStack()
        folder = await stack.enter_async_context(tempdir())

        async def leave() -> None:
            await stack.aclose()

        async with Runtime() as rt:
            await (await rt.submit(leave))
        assert not folder.exists()

    run(main)


@pytest.mark.parametrize("times", [1, 2])
def test_a_cancellation_while_a_directory_is_removed_comes_after_it(run: Any, times: int) -> None:
    async def main() -> None:
        held: list[Any] = []

        async def user() -> None:
            async with tempdir() as folder:
                said.append(folder)

        said: list[Path] = []
        with ports.use(replace(ports.current(), spawn=lambda target, name: held.append(target))):
            using = asyncio.ensure_future(user())
            await turns()
            for _ in range(times):
                using.cancel()
                await turns()
                assert not using.done()
            held.pop()()
            with pytest.raises(asyncio.CancelledError):
                await using
        assert not said[0].exists()

    run(main)


def test_a_plain_function_takes_no_resource_whose_manager_turns_out_to_be_async_only(run: Any) -> None:
    class Async:
        async def __aenter__(self) -> str:
            return "never"

        async def __aexit__(self, *about: object) -> None: ...

    @task
    def work(db: Any = Resource(lambda: Async())) -> None: ...

    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(
                TypeError, match="db: a plain function needs a plain context manager, got Async"
            ):
                await (await rt.submit(work))

    run(main)


def test_middleware_that_raises_what_it_was_told_of_is_at_no_fault(run: Any) -> None:
    class PassesOn:
        def __init__(self, context: Any) -> None: ...

        def __enter__(self) -> None: ...

        def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
            if error is not None:
                raise error

    async def fails() -> None:
        raise LookupError("mine")

    async def main() -> None:
        async with Runtime(middleware=[PassesOn]) as rt:
            with pytest.raises(LookupError, match="mine"):
                await (await rt.submit(fails))
            assert faults_of(rt) == {}

    run(main)


# -- secrets --------------------------------------------------------------------------------------


class NotToBeLookedAt:
    """Its attributes are nobody's to read."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise LookupError("not to be looked at")


class Ear:
    listens_to = (AttemptEnded,)

    def __init__(self) -> None:
        self.heard: list[AttemptEnded] = []

    def on_event(self, event: AttemptEnded) -> None:
        self.heard.append(event)


@pytest.mark.parametrize("speaks", [False, True])
def test_of_a_job_whose_arguments_cannot_be_looked_at_nothing_is_said(run: Any, speaks: bool) -> None:
    said: list[str] = []
    ear = Ear()

    @task
    async def fails(value: Any) -> None:
        if speaks:
            said.append(secrets_here().scrub("anything at all"))
        raise LookupError("geheim")

    async def main() -> None:
        async with Runtime(observers=[ear]) as rt:
            await (await rt.submit(fails, NotToBeLookedAt())).wait()

    run(main)
    assert said == [""] * speaks
    [event] = ear.heard
    assert "geheim" not in event.message
    assert event.scrub("geheim") == ""


def test_a_secret_given_beside_an_argument_that_the_function_does_not_have_is_taken_out(run: Any) -> None:
    ear = Ear()

    @task(redact=("password",))
    async def work(password: str) -> None: ...

    async def main() -> None:
        async with Runtime(observers=[ear]) as rt:
            job = await rt.submit(work, password="correct horse", colour="red")  # type: ignore[call-arg]
            with pytest.raises(TypeError, match="colour"):
                await job

    run(main)
    assert ear.heard[0].scrub("it is correct horse, in red") == "it is [redacted], in red"
