"""
Many seeds on several processes: ``python -m tests.sim.campaign 20000``.

Prints how many seeds failed, the first failures, seeds per second, and a digest that must be
the same in every process and on every machine. Exits with 1 if a seed failed. With ``--seconds``
it begins no more seeds after so many seconds, and says how many it has run.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from typing import NamedTuple

from tests.sim import scenario

CHUNK = 50
SHOWN = 5


class Chunk(NamedTuple):
    """What became of some seeds in a row."""

    seeds: int
    steps: int
    failures: list[tuple[int, str]]
    hashes: bytes


def run_chunk(policy: str, until: float, first: int, last: int) -> Chunk | None:
    """Run the seeds from *first* up to but not including *last*; nothing if it is later than *until*."""
    if time.monotonic() > until:
        return None
    steps, failures, hashes = 0, [], hashlib.blake2b(digest_size=16)
    for seed in range(first, last):
        run = scenario.run(seed, policy=policy)
        steps += run.steps
        hashes.update(run.trace_hash.encode())
        if run.failure is not None:
            failures.append((seed, told(run.failure)))
            del run
            clear_ruins()
    return Chunk(last - first, steps, failures, hashes.digest())


def clear_ruins() -> None:
    """Let go of what a failed seed has left lying, so that the next one does not hear of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def told(failure: BaseException) -> str:
    lines = str(failure).splitlines() or [""]
    return f"{type(failure).__name__}: {lines[0]}"


def first_failure(seeds: Iterable[int], policy: str = "soft") -> tuple[int, str] | None:
    """The first of *seeds* that fails, and how."""
    for seed in seeds:
        failure = scenario.run(seed, policy=policy).failure
        if failure is not None:
            return seed, told(failure)
    return None


def chunks(first: int, last: int) -> Iterator[tuple[int, int]]:
    for start in range(first, last, CHUNK):
        yield start, min(start + CHUNK, last)


def run_all(seeds: range, policy: str, processes: int, until: float) -> list[Chunk]:
    parts = list(chunks(seeds.start, seeds.stop))
    firsts, lasts = zip(*parts, strict=True)
    with ProcessPoolExecutor(processes) as pool:
        done = pool.map(partial(run_chunk, policy, until), firsts, lasts)
        return [chunk for chunk in done if chunk is not None]


def report(done: list[Chunk], wanted: int, seconds: float) -> int:
    seeds, steps = sum(chunk.seeds for chunk in done), sum(chunk.steps for chunk in done)
    failures = [failure for chunk in done for failure in chunk.failures]
    digest = hashlib.blake2b(b"".join(chunk.hashes for chunk in done), digest_size=16).hexdigest()
    for seed, text in islice(failures, SHOWN):
        print(f"  seed {seed}: {text}")
        print(f"    replay it with: python -m tests.sim.campaign --only {seed}")
    print(
        f"{seeds:,} seeds, {len(failures)} failed, {steps / seeds:.0f} steps a seed,"
        f" {seeds / seconds:.0f} seeds/s, digest {digest}"
    )
    if seeds < wanted:
        print(f"the time was over before the other {wanted - seeds:,} of {wanted:,} seeds")
    return 1 if failures else 0


def replay(seed: int, policy: str) -> int:
    """Run one seed and show its failure in full."""
    run = scenario.run(seed, policy=policy)
    if run.failure is None:
        print(f"seed {seed} holds: {run.steps} steps, {run.seconds:.1f} virtual seconds, {run.trace_hash}")
        return 0
    raise run.failure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, nargs="?", default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--policy", default="soft")
    parser.add_argument("--only", type=int, help="replay this seed")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin none after so long")
    parser.add_argument("--hunt", action="store_true", help="stop at the first failure, in this process")
    parser.add_argument("--suspect", type=int, action="append", default=[], help="hunt with this seed first")
    options = parser.parse_args()
    if options.only is not None:
        return replay(options.only, options.policy)
    if options.hunt:
        found = first_failure([*options.suspect, *range(options.seeds)], options.policy)
        print("none" if found is None else f"{found[0]} {found[1]}")
        return 0
    began = time.monotonic()
    seeds = range(options.first, options.first + options.seeds)
    done = run_all(seeds, options.policy, options.processes, began + options.seconds)
    return report(done, options.seeds, time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
