"""Instructions of the processor per job: the same figure on a busy machine as on an idle one.

Counted by valgrind's cachegrind on the stock loop, over jobs submitted 500 at a time: the count of
a long run less that of a short one, divided by the jobs between them. One process imports and warms
up, and each run is a fork of it, so that what is counted is the jobs and nothing else. The clock of the
runtime goes on by a microsecond each time it is read, for under valgrind the real one runs fifty times
too fast and no run is like another; and the garbage collector is off, for one collection more or less
would be all that is seen. Of two processes the lower count is taken. Two counts agree within half
a percent, so a change that adds 3 % shows.

    python -m benchmarks.instructions                 bgruntime and bare tasks, beside the baseline
    python -m benchmarks.instructions --peers         everybody
    python -m benchmarks.instructions --parts         bgruntime without one thing or another
    python -m benchmarks.instructions --check         exit 1 if bgruntime is above the baseline by 3 %
    python -m benchmarks.instructions --update        keep what was counted as the baseline
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count as count_up
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import bare, ours
from benchmarks.harness import LIMIT, Job, Way, note, run
from benchmarks.work import JOBS
from bgruntime import stack
from bgruntime.extend import ports

PORTION = 500
SHORT, LONG = 2 * PORTION, 6 * PORTION
ALLOWED = 1.03
BASELINE = Path(__file__).parent / "instructions.json"
KINDS = ("no-op", "suspends once")

Counted = dict[str, dict[str, float]]  # kind of job → way → instructions per job
Case = tuple[str, str, int]  # way, kind of job, how many
Counts = dict[Case, int]
TWICE = 2  # where things happen to lie in memory can make all of a process slower, by 3 % on 3.11

MINE = (
    Way("bgruntime, submit_nowait", partial(ours.submit_nowait, portion=PORTION)),
    Way("bgruntime, await submit", partial(ours.submit, portion=PORTION)),
    ours.MAP,
    bare.RAW,
)
BARE = (
    Way(bare.GATHER.name, partial(bare.in_portions, bare.gather_semaphore, PORTION)),
    Way(bare.GATHER_TIMEOUT.name, partial(bare.in_portions, bare.gather_semaphore_timeout, PORTION)),
)


def others() -> tuple[Way, ...]:
    """What the rest of the world does. They are imported only where they are counted, which takes long."""
    from benchmarks import peers

    return (
        *BARE,
        Way(peers.AIOJOBS.name, partial(peers.aiojobs_portions, portion=PORTION)),
        Way(peers.ANYIO.name, partial(bare.in_portions, peers.anyio_limiter, PORTION)),
        Way(peers.AIOMETER.name, partial(bare.in_portions, peers.aiometer_all, PORTION)),
        Way(peers.TASKIQ.name, partial(bare.in_portions, peers.taskiq_in_memory, PORTION)),
    )


async def eager_tasks(jobs: int, limit: int, job: Job) -> int:
    """Tasks that take their first step at once, which Python can from 3.12 on."""
    loop = asyncio.get_running_loop()
    make: Any = asyncio.Task
    for begin in range(0, jobs, limit):
        for one in [make(job(), loop=loop, eager_start=True) for _ in range(min(limit, jobs - begin))]:
            await one
    return jobs


async def left_out(what: str, jobs: int, limit: int, job: Job) -> int:
    """`ours.submit_nowait` without one thing that it promises."""
    work = ours.a_task(job, None if what == "timeout" else ours.TIMEOUT)
    found = stack.observers
    if what == "listeners":
        stack.observers = lambda given: tuple(given)
    async with ours.runtime(limit, PORTION) as rt:
        for _ in range(0, jobs, PORTION):
            handles = [rt.submit_nowait(work) for _ in range(PORTION)]
            for handle in handles[-1:] if what == "await" else handles:
                await handle
    stack.observers = found
    return jobs


def parts() -> tuple[Way, ...]:
    """What each promise costs: the whole, and the whole without it."""
    eager = (Way("create_task, eager, batches of the limit", eager_tasks),) * (sys.version_info >= (3, 12))
    return (
        Way("bgruntime, no timeout", partial(left_out, "timeout")),
        Way("bgruntime, no metrics, log or watch", partial(left_out, "listeners")),
        Way("bgruntime, only the last result awaited", partial(left_out, "await")),
        *eager,
    )


# Each in a process of its own: what else is in memory moves a count by up to one percent.
GROUPS: dict[str, Callable[[], tuple[Way, ...]]] = {
    "mine": lambda: MINE,
    "others": others,
    "parts": parts,
}


def main() -> int:
    """Count, tell, compare; the status is 1 when a count is too high."""
    options = arguments()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed (Debian: apt-get install valgrind)")
    began = time.monotonic()
    counted = count("mine")
    for group in ["others"] * options.peers + ["parts"] * options.parts:
        more = count(group)
        counted = {kind: by_way | more[kind] for kind, by_way in counted.items()}
    known: dict[str, Counted] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    before = known.get(version(), {})
    print("\n".join(table(counted, before)))
    note(f"counted in {time.monotonic() - began:.0f} s")
    if options.update:
        merged = {kind: {**before.get(kind, {}), **by_way} for kind, by_way in counted.items()}
        BASELINE.write_text(json.dumps({**known, version(): merged}, indent=1, sort_keys=True) + "\n")
    return 1 if options.check and not held(counted, before) else 0


def version() -> str:
    """What the counts belong to: another build of Python has others."""
    return f"{platform.python_implementation()} {platform.python_version()} {platform.machine()}"


# -- the process that is counted ----------------------------------------------------------------------


def count(group: str) -> Counted:
    """Instructions per job of each way of a group: the fewest that one of two processes needed."""
    note(f"{group}: starting {TWICE} × Python under valgrind, which takes some seconds")
    with ThreadPoolExecutor(TWICE) as both:
        found = [per_job(counts) for counts in both.map(count_once, [group] * TWICE)]
    return {kind: {way: min(one[kind][way] for one in found) for way in found[0][kind]} for kind in KINDS}


def count_once(group: str) -> Counts:
    """Instructions of each run of a group, from its start to its end and everything before it."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        command += [f"--log-file={folder}/%p", sys.executable, "-W", "ignore"]
        command += ["-m", "benchmarks.instructions", "--inside", group]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
        if ran.returncode:
            sys.exit(f"failed under valgrind: {' '.join(command)}")
        return {
            (way, kind, jobs): instructions(Path(folder, process))
            for process, way, kind, jobs in map(json.loads, ran.stdout.splitlines())
        }


def instructions(log: Path) -> int:
    """The count at the end of what valgrind wrote about one process."""
    text = log.read_text()
    found = re.search(r"I\s+refs:\s+([\d,]+)", text)
    if found is None:
        sys.exit(f"valgrind gave no count:\n{text}")
    return int(found[1].replace(",", ""))


def inside(chosen: Sequence[Way]) -> None:
    """Under valgrind: run each case in a fork of this process, and print which process was which."""
    gc.disable()
    for way, kind in product(chosen, KINDS):
        work(way, kind, PORTION)
    for way, kind in product(chosen, KINDS):
        note(f"{way.name}, {kind}")
        for jobs in (SHORT, LONG):
            in_a_fork((way.name, kind, jobs), partial(work, way, kind, jobs))


def in_a_fork(case: Case, run: Callable[[], None]) -> None:
    process = os.fork()
    if not process:
        run()
        os._exit(0)
    _, status = os.waitpid(process, 0)
    if status:
        sys.exit(f"{case} ended with status {status}")
    print(json.dumps([str(process), *case]), flush=True)


def work(way: Way, kind: str, jobs: int) -> None:
    clock = ports.Ports(monotonic=count_up(0.0, 1e-6).__next__)
    with ports.use(clock):
        completed = run("asyncio", lambda: way.run(jobs, LIMIT, JOBS[kind]))
    if completed != jobs:
        sys.exit(f"{way.name}: not all of {jobs} jobs completed")


# -- telling ------------------------------------------------------------------------------------------


def per_job(counts: Counts) -> Counted:
    """Instructions per job: of the long run less the short one."""
    found: Counted = {kind: {} for kind in KINDS}
    for way, kind, jobs in counts:
        if jobs == LONG:
            more = counts[way, kind, LONG] - counts[way, kind, SHORT]
            found[kind][way] = round(more / (LONG - SHORT))
    return found


def table(counted: Counted, before: Counted) -> Iterator[str]:
    yield f"Instructions per job, {version()}, stock loop, no garbage collection"
    yield ""
    yield "| job | way | instructions | ÷ create_task | baseline | change |"
    yield "|---|---|---:|---:|---:|---:|"
    for kind, by_way in counted.items():
        for name, instructions in by_way.items():
            old = before.get(kind, {}).get(name)
            change = "| |" if old is None else f"| {old:,.0f} | {instructions / old - 1:+.1%} |"
            against = f"{instructions / by_way[bare.RAW.name]:.2f}"
            yield f"| {kind} | {name} | {instructions:,.0f} | {against} {change}"


def held(counted: Counted, before: Counted) -> bool:
    """Whether no count of ours is more than 3 % above its baseline."""
    objections = list(above(counted, before))
    for line in objections:
        print(line)
    return not objections


def above(counted: Counted, before: Counted) -> Iterable[str]:
    """What is wrong with the counts of ours, which are all of them but the last."""
    for kind, way in product(KINDS, MINE[:-1]):
        new, old = counted[kind][way.name], before.get(kind, {}).get(way.name)
        if old is None:
            yield f"{kind}, {way.name}: no baseline for {version()}: run with --update"
        elif new > old * ALLOWED:
            yield f"{kind}, {way.name}: {new:,.0f} instructions, more than 3 % above {old:,.0f}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Instructions per job, under valgrind.")
    parser.add_argument("--peers", action="store_true", help="count the other libraries too")
    parser.add_argument("--parts", action="store_true", help="count bgruntime without one thing or another")
    parser.add_argument("--check", action="store_true", help="exit 1 when a count is 3 %% above the baseline")
    parser.add_argument("--update", action="store_true", help="write the baseline")
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(GROUPS[sys.argv[2]]())
    else:
        sys.exit(main())
