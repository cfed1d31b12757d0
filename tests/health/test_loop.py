"""Who holds the event loop is named: the job, the file and the line, on both loops."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from bgruntime import Runtime, task
from bgruntime.extend import LoopBlocked
from bgruntime.health import LoopWatch, _stacks

pytestmark = pytest.mark.timing


class Heard:
    listens_to = (LoopBlocked,)

    def __init__(self) -> None:
        self.events: list[LoopBlocked] = []

    def on_event(self, event: LoopBlocked) -> None:
        self.events.append(event)


@task
async def hold(seconds: float) -> None:
    time.sleep(seconds)  # held here


@task
async def hold_deep(seconds: float) -> None:
    await asyncio.sleep(0)
    json.dumps(
        [0], default=None, cls=type("Slow", (json.JSONEncoder,), {"encode": lambda self, o: wait(seconds)})
    )


def wait(seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return ""


def line_of(function, text: str) -> int:
    import inspect

    lines, start = inspect.getsourcelines(function)
    return start + next(number for number, line in enumerate(lines) if text in line)


async def blocked(heard: Heard) -> None:
    """Until the watch has told: it does so with its next beat."""
    while not heard.events:
        await asyncio.sleep(0.005)


@pytest.mark.slow
def test_a_block_of_1_8_seconds_is_told_with_the_job_the_file_and_the_line(run):
    heard = Heard()

    async def main():
        async with Runtime(observers=[heard]) as rt:
            await asyncio.sleep(0.05)
            job = await rt.submit(hold, 1.8)
            await job
            await blocked(heard)
            return job, rt.stats(), rt.health()

    job, stats, health = run(main)
    [event] = heard.events
    assert event.job is job
    assert event.duration == pytest.approx(1.8, abs=0.15)
    line = line_of(hold.function if hasattr(hold, "function") else hold.__wrapped__, "held here")
    assert event.place == f"test_loop.py:{line} in hold"
    assert "time.sleep(seconds)" in event.stack
    block = stats.loop.last_block
    assert (block.job_id, block.task, block.place) == (job.id, hold.name, event.place)
    assert stats.loop.blocks == 1
    assert stats.loop.lag.max == pytest.approx(event.duration)
    assert (health.status, health.ready) == ("warn", True)
    assert (
        f"job {job.id} ({hold.name}) held the loop for 1.8 s at test_loop.py:{line} in hold" in health.reasons
    )


def test_the_line_of_the_application_is_named_not_that_of_a_library(run):
    heard = Heard()

    async def main():
        async with Runtime(observers=[heard]) as rt:
            await asyncio.sleep(0.05)
            await (await rt.submit(hold_deep, 0.3))
            await blocked(heard)

    run(main)
    assert "test_loop.py" in heard.events[0].place
    assert heard.events[0].job.task == hold_deep.name


def test_what_is_no_job_is_named_without_one(run):
    heard = Heard()

    async def main():
        async with Runtime(observers=[heard]):
            await asyncio.sleep(0.05)
            wait(0.3)
            await blocked(heard)

    run(main)
    assert heard.events[0].job is None
    assert heard.events[0].place.endswith(" in wait")


def test_no_local_variable_is_in_what_is_told(run):
    heard = Heard()

    async def main():
        async with Runtime(observers=[heard]) as rt:
            await asyncio.sleep(0.05)
            await (await rt.submit(hold, 0.2500001))
            await blocked(heard)

    run(main)
    assert "0.2500001" not in repr(heard.events[0].stack)


def test_a_loop_that_is_not_held_is_not_accused(run):
    heard = Heard()

    async def main():
        async with Runtime(observers=[heard, LoopWatch(limit=5.0)]) as rt:
            for _ in range(20):
                await asyncio.sleep(0.01)
            return rt.stats().loop, rt.health()

    loop, health = run(main)
    assert heard.events == []
    assert loop.blocks == 0
    assert loop.lag.count >= 3
    assert health.status == "pass"


def test_switched_off_it_measures_nothing_and_starts_no_thread(run):
    async def main():
        names = {thread.name for thread in threading.enumerate()}
        async with Runtime(observers=[LoopWatch(on=False)]) as rt:
            new = {thread.name for thread in threading.enumerate()} - names
            return rt.stats().loop, new

    assert run(main) == (None, set())


def test_a_limit_is_more_than_nothing():
    with pytest.raises(ValueError, match="limit"):
        LoopWatch(limit=0)


def test_a_frame_without_a_line_is_told_by_its_function():
    class Code:
        co_filename, co_firstlineno, co_qualname = __file__, 7, "between_two_lines"

    class Frame:
        f_code, f_lineno, f_back = Code, None, None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_stacks.sys, "_current_frames", lambda: {1: Frame})
        lines = _stacks.lines_of(1)
    assert lines == [(__file__, 7, "between_two_lines")]
    assert "line 7, in between_two_lines" in _stacks.written(lines)
