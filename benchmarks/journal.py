"""Durable jobs beside other queues in SQLite, and what the journal costs, keeps and survives.

All on the disk that this repository is on, every job with 199 bytes of arguments, WAL and FULL: an
accepted job outlives a power cut. Wall time, for an fsync is what it is; ratios within a round.

    python -m benchmarks.journal
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import journal_large, journal_peers
from benchmarks.harness import CPU, Figure, Plan, command, note, ratio, run
from benchmarks.journal_peers import DBOS as DBOS_PEER
from benchmarks.journal_peers import HUEY, PERSIST, TEXT, Peer, Took
from benchmarks.work import no_op
from bgruntime import Runtime, task
from bgruntime.logs import JobLog

PLACE = Path(__file__).parent / "results" / "local"
PRODUCERS = {1: 300, 10: 3_000, 100: 15_000}  # submitters at once, and jobs in all
QUICK = 5  # such a part of the jobs
MANY = 100  # jobs in one submit_many


@task(durable=True, name="bench.journal.work")
async def work(number: int, text: str) -> None:
    """The job."""


@task(name="bench.journal.fail")
async def fail(number: int) -> None:
    raise ValueError(f"number {number}")


def runtime(folder: Path, queue_size: int = 1_000_000) -> Runtime:
    return Runtime(concurrency=100, queue_size=queue_size, journal=folder / "jobs.db")


# -- accept, and run --------------------------------------------------------------------------------------


async def produce(rt: Runtime, producers: int, jobs: int) -> None:
    """Submit *jobs* from so many tasks at once, each waiting for its acknowledgement."""

    async def one() -> None:
        for number in range(jobs // producers):
            _ = await rt.submit(work, number, TEXT)

    await asyncio.gather(*(one() for _ in range(producers)))


async def produce_many(rt: Runtime, jobs: int) -> None:
    for first in range(0, jobs, MANY):
        _ = await rt.submit_many(work, [(number, TEXT) for number in range(first, first + MANY)])


async def accept(folder: Path, jobs: int, producers: int, commits: dict[str, float]) -> Took:
    """Accept with nothing running, then let all of it run."""
    async with runtime(folder) as rt:
        rt.pause()
        before = (await rt.journal.stats()).commits
        began = time.perf_counter()
        if producers:
            await produce(rt, producers, jobs)
        else:
            await produce_many(rt, jobs)
        accepted = time.perf_counter() - began
        stats = await rt.journal.stats()
        commits["accept"] = (stats.commits - before - 1) / jobs
        if stats.jobs.get("available") != jobs:
            raise SystemExit(f"{jobs} jobs accepted, the file has {stats.jobs}")
        rt.resume()
    return Took(accepted, 0.0)


async def complete(folder: Path, jobs: int, producers: int, commits: dict[str, float]) -> Took:
    """Accept while what was accepted runs, until every row is gone."""
    async with runtime(folder) as rt:
        before = (await rt.journal.stats()).commits
        began = time.perf_counter()
        await produce(rt, producers, jobs)
        await rt.drain()
        stats = await rt.journal.stats()
        completed = time.perf_counter() - began
        commits["complete"] = (stats.commits - before - 1) / jobs
        if stats.jobs:
            raise SystemExit(f"not all jobs are gone: {stats.jobs}")
    return Took(0.0, completed)


def once(peer: Peer, jobs: int) -> Took:
    """Seconds per job of one run, in a folder of its own."""
    count = min(jobs, peer.most)
    PLACE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        took = peer.run(Path(folder), count)
    return Took(took.accepted / count, took.completed / count)


def our_peers(producers: int, plan: Plan, commits: dict[str, float]) -> tuple[Peer, Peer]:
    def on_a_loop(function: Any, folder: Path, jobs: int) -> Took:
        took: Took = run(plan.loop, lambda: function(folder, jobs, producers, commits))
        return took

    return Peer("accept", partial(on_a_loop, accept)), Peer("complete", partial(on_a_loop, complete))


def beside_peers(plan: Plan) -> Iterator[Figure]:
    """Durable jobs for 1, 10 and 100 submitters, and for submit_many, beside every peer and bare rows."""
    scale = QUICK if plan.quick else 1
    peers = {peer.name: peer for peer in journal_peers.peers()}
    theirs: dict[str, list[Took]] = {name: [] for name in peers}
    ours: dict[int, list[Took]] = {count: [] for count in (*PRODUCERS, 0)}
    bare: dict[int, list[float]] = {count: [] for count in PRODUCERS}
    commits: dict[int, list[dict[str, float]]] = {count: [] for count in (*PRODUCERS, 0)}
    for _ in range(plan.rounds):
        for name, peer in peers.items():
            theirs[name].append(once(peer, PRODUCERS[1] // scale))
        for count, jobs in (*PRODUCERS.items(), (0, PRODUCERS[100])):
            told: dict[str, float] = {}
            accepting, completing = our_peers(count, plan, told)
            accepted = once(accepting, jobs // scale).accepted
            if count:
                bare[count].append(
                    once(Peer("", partial(journal_peers.raw, rows=count)), jobs // scale).accepted
                )
            accepted = mean((accepted, once(accepting, jobs // scale).accepted))
            completed = once(completing, jobs // scale).completed if count else 0.0
            ours[count].append(Took(accepted, completed))
            commits[count].append(told)
        for name, peer in reversed(peers.items()):
            again, before = once(peer, PRODUCERS[1] // scale), theirs[name].pop()
            theirs[name].append(Took(*(mean(pair) for pair in zip(before, again, strict=True))))
    yield from their_figures(theirs)
    for count in PRODUCERS:
        yield from our_figures(count, ours[count], theirs, bare[count], commits[count])
    yield Figure("accept: submit_many of 100", "1/s", [1 / took.accepted for took in ours[0]])


def their_figures(theirs: dict[str, list[Took]]) -> Iterator[Figure]:
    for name, rounds in theirs.items():
        yield Figure(f"accept: {name}", "1/s", [1 / took.accepted for took in rounds])
        yield Figure(f"accept, run, complete: {name}", "1/s", [1 / took.completed for took in rounds])


def our_figures(
    count: int,
    ours: Sequence[Took],
    theirs: dict[str, list[Took]],
    bare: Sequence[float],
    commits: Sequence[dict[str, float]],
) -> Iterator[Figure]:
    who = f"{count} submitter{'s' * (count > 1)}"
    accepted, completed = [took.accepted for took in ours], [took.completed for took in ours]
    yield Figure(f"accept: {who}", "1/s", [1 / seconds for seconds in accepted])
    yield Figure(f"accept: executemany of {count}", "1/s", [1 / seconds for seconds in bare])
    yield Figure(f"accept, run, complete: {who}", "1/s", [1 / seconds for seconds in completed])
    yield Figure(f"accept, {who} ÷ executemany of {count}", "×", ratio(bare, accepted))
    huey = theirs[HUEY.name]
    yield Figure(f"accept, {who} ÷ huey", "×", ratio([took.accepted for took in huey], accepted))
    yield Figure(
        f"accept, run, complete, {who} ÷ huey", "×", ratio([took.completed for took in huey], completed)
    )
    if count == 10:
        for peer, short in ((PERSIST, "persist-queue"), (DBOS_PEER, "DBOS")):
            if peer.name not in theirs:
                continue
            rounds = [took.completed for took in theirs[peer.name]]
            yield Figure(f"accept, run, complete, {who} ÷ {short}", "×", ratio(rounds, completed))
    for kind, name in (("accept", "commits per accepted job"), ("complete", "commits per completed job")):
        yield Figure(f"{name}, {who}", "", [told[kind] for told in commits])


# -- what it costs the others -----------------------------------------------------------------------------


async def ordinary(folder: Path | None, jobs: int) -> float:
    """CPU nanoseconds of a job that is not durable, in a runtime with a journal or without."""
    light = task(no_op, timeout=30.0, name="bench.journal.light")
    async with Runtime(queue_size=jobs, journal=folder and folder / "jobs.db") as rt:
        await asyncio.sleep(0.3)  # a journal has its first look at the file behind it
        began = CPU()
        handles = [rt.submit_nowait(light) for _ in range(jobs)]
        for handle in handles:
            await handle
        return (CPU() - began) / jobs * 1e9


def overhead(plan: Plan) -> Iterator[Figure]:
    without: list[float] = []
    beside: list[float] = []
    for _ in range(plan.rounds):
        with tempfile.TemporaryDirectory(dir=PLACE) as folder:
            for place in (None, Path(folder), Path(folder), None):
                took: float = run(plan.loop, partial(ordinary, place, 20_000))
                (without if place is None else beside).append(took)
    yield Figure("ordinary jobs, no journal", "ns/job", without)
    yield Figure("ordinary jobs beside a journal", "ns/job", beside)
    yield Figure("ordinary jobs: cost with a journal ÷ without", "×", ratio(beside, without))


class Nobody:
    """A logger that writes nothing: it is the journal that is measured, not a terminal."""

    def warning(self, event: str, **fields: Any) -> None: ...

    def error(self, event: str, **fields: Any) -> None: ...


async def storm(folder: Path, jobs: int) -> tuple[float, float]:
    """So many ordinary jobs fail at once: failures kept a second, and the longest hold of the loop in ms."""
    async with Runtime(queue_size=jobs, journal=folder / "jobs.db", observers=[JobLog(Nobody())]) as rt:
        gaps = Gaps()
        began = time.perf_counter()
        async with gaps:
            for number in range(jobs):
                _ = rt.submit_nowait(fail, number)
            await rt.drain()
            kept = (await rt.journal.stats()).failures.get("discarded")
        seconds = time.perf_counter() - began
        if kept != jobs:
            raise SystemExit(f"{jobs} jobs failed, {kept} failures are kept")
    return jobs / seconds, gaps.longest * 1e3


async def held(folder: Path, jobs: int) -> float:
    """The longest hold of the loop in ms while 100 submitters are served."""
    async with runtime(folder) as rt:
        gaps = Gaps()
        async with gaps:
            await produce(rt, 100, jobs)
        await rt.drain()
    return gaps.longest * 1e3


class Gaps:
    """Watches the loop: `longest` is the longest time in seconds between two of its turns."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._tick())
        await asyncio.sleep(0)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _tick(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)  # a tick each turn would hold the interpreter against the writer
            now = time.perf_counter()
            self.longest = max(self.longest, now - last - 0.001)
            last = now


def beside_the_loop(plan: Plan) -> Iterator[Figure]:
    jobs = 2_000 if plan.quick else 10_000
    storms: list[tuple[float, float]] = []
    holds: list[float] = []
    for _ in range(plan.rounds):
        with tempfile.TemporaryDirectory(dir=PLACE) as folder:
            storms.append(run(plan.loop, partial(storm, Path(folder), jobs)))
        with tempfile.TemporaryDirectory(dir=PLACE) as folder:
            holds.append(run(plan.loop, partial(held, Path(folder), jobs)))
    yield Figure("a storm of failures: kept", "1/s", [rate for rate, _ in storms])
    yield Figure("a storm of failures: longest hold of the loop", "ms", [hold for _, hold in storms])
    yield Figure("100 submitters: longest hold of the loop", "ms", holds)


def figures(plan: Plan) -> list[Figure]:
    PLACE.mkdir(parents=True, exist_ok=True)
    found: list[Figure] = []
    for about, part in (
        ("beside peers", beside_peers),
        ("ordinary jobs", overhead),
        ("the loop", beside_the_loop),
        ("several processes", journal_large.several_processes),
        ("large files", journal_large.large_files),
    ):
        note(f"journal, {about}, {plan.loop}")
        found += part(plan)
    return found


if __name__ == "__main__":
    command("journal", figures, rounds=5, quick=1)
