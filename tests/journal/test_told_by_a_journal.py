"""What the runtime makes of what a journal of any kind tells it, and of one that takes its time."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from bgruntime import (
    JobCancelled,
    JobInterrupted,
    JobTimedOut,
    Queue,
    Runtime,
    RuntimeClosed,
    current_job,
)
from bgruntime.extend import Adopted
from tests.door.turns import Gate, faults_of, hold, turns, until

from .notebook import Notebook
from .steps import durable


async def answer(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


def test_a_durable_submit_that_the_stop_overtakes_is_taken_back(run: Any) -> None:
    started: list[int] = []

    async def work() -> None:
        started.append(1)

    async def main() -> None:
        notebook, written = Notebook(), asyncio.Event()
        notebook.on_accept = written.wait  # type: ignore[assignment]
        async with Runtime(journal=notebook) as rt:  # type: ignore[arg-type]
            submit = asyncio.ensure_future(rt.submit(durable(work)))
            await turns()
            stop = asyncio.ensure_future(rt.stop())
            await turns()
            written.set()
            with pytest.raises(RuntimeClosed, match="draining|closed"):
                await submit
            assert notebook.withdrawn == ["page-1"]
            await stop
            assert rt.stats().submitted == 0
        assert started == []

    run(main)


def test_a_start_that_cannot_be_written_is_tried_again_and_costs_no_attempt(run: Any, clock: Any) -> None:
    async def work() -> int:
        return current_job().attempt

    async def main() -> None:
        notebook = Notebook()
        notebook.on_begin = lambda: answer(None)
        async with Runtime(journal=notebook) as rt:  # type: ignore[arg-type]
            job = await rt.submit(durable(work, timeout=None))
            await until(lambda: job.state == "retryable")
            notebook.on_begin = lambda: answer(True)
            await clock.advance(0.9)
            assert job.state == "retryable"
            await clock.advance(0.2)
            assert await job == 1

    run(main)


def test_a_job_that_another_process_has_by_now_is_over_here_and_nothing_of_it_runs(run: Any) -> None:
    started: list[int] = []

    async def work() -> None:
        started.append(1)

    async def main() -> None:
        notebook = Notebook()
        notebook.on_begin = lambda: answer(False)
        async with Runtime(journal=notebook) as rt:  # type: ignore[arg-type]
            job = await rt.submit(durable(work))
            with pytest.raises(JobInterrupted) as caught:
                await job
            assert caught.value.requeued
            assert (started, notebook.ends) == ([], [])

    run(main)


def test_a_job_cancelled_while_its_start_is_written_does_not_run(run: Any) -> None:
    started: list[int] = []

    async def work() -> None:
        started.append(1)

    async def main() -> None:
        notebook, written = Notebook(), asyncio.Event()

        async def slowly() -> bool:
            while not written.is_set():
                try:
                    await written.wait()
                except asyncio.CancelledError:  # a writer that finishes what it has begun
                    continue
            return True

        notebook.on_begin = slowly
        async with Runtime(journal=notebook) as rt:  # type: ignore[arg-type]
            job = await rt.submit(durable(work))
            await until(lambda: job.state == "running")
            await turns()
            job.cancel("no longer wanted")
            await turns()
            written.set()
            with pytest.raises(JobCancelled, match="no longer wanted"):
                await job

    run(main)


def test_an_end_that_the_journal_cannot_write_is_told_and_whoever_waits_is_woken(run: Any) -> None:
    async def work() -> int:
        return 5

    async def broken() -> None:
        await asyncio.sleep(0)
        raise OSError("disk full")

    async def main() -> None:
        notebook = Notebook()
        notebook.on_settled = broken
        async with Runtime(journal=notebook) as rt:  # type: ignore[arg-type]
            marked = durable(work)
            assert await (await rt.submit(marked)) == 5
            await turns()
            assert faults_of(rt) == {f"bgruntime journal {marked.name} failed": 1}

    run(main)


@pytest.mark.parametrize("plain", [False, True])
def test_a_stuck_attempt_ends_its_job_once_while_the_timeout_is_still_being_written(
    run: Any, clock: Any, plain: bool
) -> None:
    async def main() -> None:
        gate, written, released = Gate(), asyncio.Event(), threading.Event()
        begun: list[int] = []

        async def stubborn() -> None:
            begun.append(1)
            while not gate.opened.is_set():
                try:
                    await gate.opened.wait()
                except asyncio.CancelledError:
                    continue

        def blocks() -> None:
            begun.append(1)
            released.wait(10)

        notebook = Notebook()
        notebook.on_settled = written.wait  # type: ignore[assignment]
        async with Runtime(journal=notebook, cancel_grace=1, cancel_hard=1) as rt:  # type: ignore[arg-type]
            job = await rt.submit(durable(blocks if plain else stubborn, timeout=1))
            await until(lambda: begun)
            await clock.advance(10)
            assert rt.stats().stuck == 1
            assert not job.done()
            written.set()
            with pytest.raises(JobTimedOut) as caught:
                await job
            assert caught.value.stuck
            assert notebook.ends == [("discarded", "timed_out")]
            assert rt.stats().failed == 1
            gate.open()
            released.set()
            await until(lambda: rt.stats().stuck == 0)

    run(main)


def test_no_room_is_reserved_in_a_queue_that_is_paused_or_full_and_not_one_to_wait_for(run: Any) -> None:
    async def work() -> None: ...

    async def main() -> None:
        notebook, gate = Notebook(), Gate()
        queues = [Queue("strict", size=1, concurrency=1, overflow="reject")]
        async with Runtime(journal=notebook, queues=queues) as rt:  # type: ignore[arg-type]
            marked = durable(work, queue="strict")
            host = notebook.host
            rt.pause("strict")
            assert await host.reserve(marked.definition, 2) == 0
            rt.resume("strict")
            assert await host.reserve(marked.definition, 4) == 2  # one slot and one place
            assert await host.reserve(marked.definition, 1) == 0
            host.adopt(marked.definition, [], 2)
            for _ in range(2):
                await rt.submit(hold.with_options(queue="strict"), gate)
            assert await host.reserve(marked.definition, 1) == 0
            gate.open()
            await rt.drain()
            assert await host.reserve(marked.definition, 1) == 1
            host.adopt(marked.definition, [], 1)

    run(main)


def test_a_job_adopted_again_while_its_old_handle_is_held_leaves_the_id_with_that_handle(run: Any) -> None:
    ran: list[int] = []

    async def work() -> None:
        ran.append(1)

    async def main() -> None:
        notebook = Notebook()
        notebook.on_begin = lambda: answer(False)
        async with Runtime(journal=notebook) as rt:  # type: ignore[arg-type]
            marked = durable(work)
            old = await rt.submit(marked)
            await old.wait()
            notebook.on_begin = lambda: None
            again = Adopted(old.id, marked.definition, (), {}, attempt=0, due_at=0.0)
            reserved = await notebook.host.reserve(marked.definition, 1)
            notebook.host.adopt(marked.definition, [again], reserved)
            assert rt.job(old.id) is old
            await rt.drain()
            assert ran == [1]

    run(main)


@pytest.mark.parametrize("lazy", [False, True], ids=["any Task", "lazy Tasks"])
def test_the_timeout_of_a_durable_job_begins_with_its_function(run: Any, clock: Any, lazy: bool) -> None:
    """While the journal still writes that it starts, its time does not run."""
    ran: list[str] = []

    def make(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coroutine, loop=loop, **options)

    async def work() -> None:
        ran.append("begun")
        await asyncio.sleep(1000)

    async def main() -> None:
        notebook, written = Notebook(), asyncio.Event()
        if lazy:
            asyncio.get_running_loop().set_task_factory(make)

        async def slowly() -> bool:
            await written.wait()
            return True

        notebook.on_begin = slowly
        async with Runtime(journal=notebook) as rt:  # type: ignore[arg-type]
            job = await rt.submit(durable(work, timeout=5))
            await turns()
            await clock.advance(60)
            assert (job.done(), ran) == (False, [])
            written.set()
            await until(lambda: ran)
            await clock.advance(4.9)
            assert not job.done()
            await clock.advance(0.2)
            await job.wait()
            assert isinstance(job.exception(), JobTimedOut)

    run(main)


def test_the_timeout_of_its_second_attempt_does_too(run: Any, clock: Any) -> None:
    ran: list[str] = []

    async def work() -> str:
        ran.append("begun")
        if len(ran) == 1:
            raise LookupError
        return "done"

    async def main() -> None:
        notebook, written, writing = Notebook(), asyncio.Event(), asyncio.Event()

        async def slowly() -> bool:
            writing.set()
            await written.wait()
            return True

        async with Runtime(journal=notebook) as rt:  # type: ignore[arg-type]
            job = await rt.submit(durable(work, timeout=5, max_attempts=2, backoff=lambda _: 1.0))
            await until(lambda: ran)
            notebook.on_begin = slowly
            await clock.advance(1)
            await writing.wait()
            await clock.advance(60)
            assert (job.done(), ran) == (False, ["begun"])
            written.set()
            assert await job == "done"

    run(main)


def test_a_job_that_is_cancelled_while_its_start_is_written_is_given_up_though_the_journal_will_not_stop(
    run: Any, clock: Any
) -> None:
    async def work() -> None:
        raise AssertionError("not a line of it may run")

    async def main() -> None:
        notebook, free = Notebook(), asyncio.Event()

        async def stubborn() -> bool:
            while not free.is_set():
                try:
                    await free.wait()
                except asyncio.CancelledError:
                    continue
            return True

        notebook.on_begin = stubborn
        async with Runtime(journal=notebook, cancel_grace=1, cancel_hard=1) as rt:  # type: ignore[arg-type]
            job = await rt.submit(durable(work, timeout=5))
            await turns()
            assert job.cancel("no")
            await clock.advance(1.1)
            await clock.advance(1.1)
            assert rt.stats().stuck == 1
            assert job.done()
            free.set()
            await until(lambda: rt.stats().stuck == 0)

    run(main)
