"""P25: what concerns very many jobs at once is done in slices, between which the loop turns."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

import pytest

from bgruntime import JobInterrupted, Queue, Runtime, task
from bgruntime.journal._feed import Feed

from .steps import Gate, turns, until


class Turns:
    """Counts how often the loop turns."""

    def __init__(self):
        self.count = 0
        self._task = asyncio.ensure_future(self._turn())

    async def _turn(self):
        while True:
            self.count += 1
            await asyncio.sleep(0)

    async def end(self):
        self._task.cancel()
        await asyncio.wait([self._task])


def test_p25_a_stop_interrupts_many_queued_jobs_in_slices_and_starts_none_of_them(run):
    async def main():
        gate, late = Gate(), Gate()
        async with Runtime(concurrency=1) as rt:
            running = await rt.submit(gate.hold)
            await until(lambda: gate.started)
            jobs = [rt.submit_nowait(late.note, number) for number in range(2_000)]
            seen = Turns()
            await turns(2)
            before = seen.count
            report = await rt.stop(drain=0, cancel=2, close=1)
            turned = seen.count - before
            await seen.end()
            assert turned > 10, f"the loop turned {turned} times while 2,000 jobs were interrupted"
            assert len(report.cancelled) == 2_001
            assert report.lost == report.completed == report.stuck == ()
            assert all(isinstance(job.exception(), JobInterrupted) for job in (running, *jobs))
        assert late.started == []
        assert len(gate.cancelled) == 1

    run(main)


def test_p25_many_jobs_that_need_a_thread_are_set_aside_in_slices(run):
    async def main():
        release, gate = threading.Event(), Gate()
        plain = task(release.wait)
        async with Runtime(concurrency=10, threads=1) as rt:
            first = rt.submit_nowait(plain)
            await until(lambda: rt.stats().threads_in_use == 1)
            jobs = [rt.submit_nowait(plain) for _ in range(2_000)]
            behind = rt.submit_nowait(gate.note, "behind")
            seen = Turns()
            await until(lambda: gate.started)
            await seen.end()
            assert seen.count >= 2_000 // 256
            release.set()
            assert [await job for job in (first, *jobs)] == [True] * 2_001
            assert await behind == "behind"

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a Task's first step is not part of its start")
def test_p25_jobs_beyond_the_size_of_their_queue_start_in_slices(run):
    async def main():
        async with Runtime(concurrency=64, queues=[Queue("a", size=1)]) as rt:

            @task(queue="a")
            async def busy():
                ends = time.perf_counter() + 0.002
                while time.perf_counter() < ends:
                    pass
                return seen.count

            jobs = [rt.submit_nowait(busy) for _ in range(40)]
            seen = Turns()
            ran = [await job for job in jobs]
            await seen.end()
        most = max(map(ran.count, ran))
        assert most <= 2, f"{most} jobs that take longer than a slice started in one turn of the loop"

    run(main)


def test_p25_the_arguments_of_many_durable_jobs_are_written_down_in_slices(run, tmp_path, monkeypatch):
    async def main():
        @task(durable=True, name="p25.written-down")
        async def take(words: list[str]) -> int:
            return len(words)

        async with Runtime(journal=tmp_path / "jobs.db") as rt:
            seen, turned = Turns(), []
            encode = rt.journal.encode
            monkeypatch.setattr(
                rt.journal, "encode", lambda *given: turned.append(seen.count) or encode(*given)
            )
            jobs = await rt.submit_many(take, [(["word"] * 1_000,)] * 200)
            await seen.end()
            assert [await job for job in jobs] == [1_000] * 200
        assert len(set(turned)) > 10, f"200 payloads were written within {len(set(turned))} turns of the loop"

    run(main)


def test_p25_the_arguments_of_jobs_that_are_taken_over_are_read_in_slices(run, tmp_path, monkeypatch):
    async def main():
        @task(durable=True, name="p25.taken-over")
        async def take(words: list[str]) -> int:
            return len(words)

        async with Runtime(journal=tmp_path / "jobs.db") as rt:
            rt.pause()
            await rt.submit_many(take, [(["word"] * 1_000,)] * 200)
            await rt.stop(drain=0)
        seen, turned = Turns(), []
        adopted = Feed._adopted
        monkeypatch.setattr(Feed, "_adopted", lambda *given: turned.append(seen.count) or adopted(*given))
        async with Runtime(journal=tmp_path / "jobs.db") as rt:
            await until(lambda: len(turned) == 200)
            await seen.end()
            await rt.drain()
        assert len(set(turned)) > 10, f"200 payloads were read within {len(set(turned))} turns of the loop"

    run(main)
