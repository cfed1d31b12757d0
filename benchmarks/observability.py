"""What each listener costs a job, switched off and on: instructions of the processor, counted by valgrind.

Beside the bare kernel, which tells nobody, each listener alone: 4,500 no-op jobs less 1,500, submitted 500
at a time, on the stock loop. Off, none may add more than 3 %, nor all of them together; the metrics, on,
15 %. What the SDKs of OpenTelemetry and Sentry do is theirs, and shown for the price of it.

    python -m benchmarks.observability           count, print a table; exit 1 where a bar is missed
    python -m benchmarks.observability --off     only what has a bar
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import LIMIT, note
from benchmarks.work import no_op
from bgruntime import Runtime, stack, task
from bgruntime._engine import dispatch
from bgruntime.alerts import Alerts
from bgruntime.health import LoopWatch
from bgruntime.logs import JobLog, configure
from bgruntime.metrics import Metrics

PORTION = 500
SHORT, LONG = 3 * PORTION, 9 * PORTION
KERNEL = "the bare kernel"
OFF, ON = 1.03, 1.15  # of the bare kernel

Observers = Callable[[ExitStack], Sequence[Any]]


def tracing_off(_: ExitStack) -> Sequence[Any]:
    from bgruntime.integrations.otel import Tracing

    return [Tracing()]


def sentry_off(_: ExitStack) -> Sequence[Any]:
    from bgruntime.integrations.sentry import Sentry

    return [Sentry()]


def all_off(open_: ExitStack) -> Sequence[Any]:
    switched = [Metrics(on=False), LoopWatch(on=False), JobLog()]
    return [*switched, *tracing_off(open_), *sentry_off(open_)]


def log_at_debug(open_: ExitStack) -> Sequence[Any]:
    sink = open_.enter_context(Path(os.devnull).open("w"))  # noqa: SIM115
    open_.enter_context(configure(json=True, level="DEBUG", stream=sink))
    return [JobLog()]


def alerts_on(_: ExitStack) -> Sequence[Any]:
    return [Alerts(channels=["log"])]


def tracing_on(_: ExitStack) -> Sequence[Any]:
    from opentelemetry.sdk.trace import TracerProvider

    from bgruntime.integrations.otel import Tracing

    return [Tracing(TracerProvider())]


def sentry_on(_: ExitStack) -> Sequence[Any]:
    import sentry_sdk

    from bgruntime.integrations.sentry import Sentry

    sentry_sdk.init(dsn="https://key@sentry.invalid/1", transport=_thrown_away, traces_sample_rate=1.0)
    return [Sentry()]


def _thrown_away(_: object) -> None:
    return


# name: what listens, and how much it may add
WAYS: dict[str, tuple[Observers, float | None]] = {
    KERNEL: (lambda _: [], None),
    "metrics, off": (lambda _: [Metrics(on=False)], OFF),
    "loop watch, off": (lambda _: [LoopWatch(on=False)], OFF),
    "log from WARNING on": (lambda _: [JobLog()], OFF),
    "tracing without an SDK": (tracing_off, OFF),
    "Sentry that was not set up": (sentry_off, OFF),
    "all of these": (all_off, OFF),
    "metrics, on": (lambda _: [Metrics()], ON),
    "alerts, both default rules": (alerts_on, None),
    "log of every job, JSON": (log_at_debug, None),
    "tracing, SDK without exporter": (tracing_on, None),
    "Sentry, every attempt sampled": (sentry_on, None),
}


@contextmanager
def only(observers: Sequence[Any]) -> Iterator[None]:
    """No listener but these: not even those of a bare runtime."""
    found = stack.observers
    stack.observers = lambda given: tuple(observers)  # the same name, for its type
    try:
        yield
    finally:
        stack.observers = found


async def submit_all(jobs: int) -> None:
    work = task(no_op, timeout=30.0)
    async with Runtime(concurrency=LIMIT, queue_size=PORTION) as rt:
        for _ in range(0, jobs, PORTION):
            for handle in [rt.submit_nowait(work) for _ in range(PORTION)]:
                await handle


def one(name: str, jobs: int) -> None:
    """The work that is counted."""
    gc.disable()  # or one more collection, or one less, would be all that is seen
    dispatch.SLICE_SECONDS = 1e9  # under valgrind all takes fifty times as long: no turn ends for its time
    observers, _ = WAYS[name]
    with ExitStack() as open_, only(observers(open_)), asyncio.Runner() as runner:
        runner.run(submit_all(jobs))


def per_job(name: str) -> float:
    note(f"counting {name}")
    short, long = (instructions(name, jobs) for jobs in (SHORT, LONG))
    return (long - short) / (LONG - SHORT)


def instructions(name: str, jobs: int) -> int:
    """Instructions of one whole process."""
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    command += [sys.executable, "-W", "ignore", "-m", "benchmarks.observability", "--one", name, str(jobs)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    found = re.search(r"I\s+refs:\s+([\d,]+)", ran.stderr)
    if ran.returncode or found is None:
        sys.exit(f"valgrind failed:\n{ran.stderr}")
    return int(found[1].replace(",", ""))


def main() -> int:
    """Count and tell; the status is 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description="What each listener costs a job, under valgrind.")
    parser.add_argument("--off", action="store_true", help="only what has a bar")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed (Debian: apt-get install valgrind)")
    kernel, missed = per_job(KERNEL), 0
    print(f"{KERNEL}: {kernel:,.0f} instructions per job\n")
    print("| listener | instructions | added | bar |\n|---|---:|---:|---|")
    for name, (_, bar) in WAYS.items():
        if name == KERNEL or (options.off and bar is None):
            continue
        count = per_job(name)
        verdict = "" if bar is None else f"{'met' if count <= kernel * bar else 'MISSED'}, ≤ {bar - 1:.0%}"
        missed += "MISSED" in verdict
        print(f"| {name} | {count:,.0f} | {count / kernel - 1:+.1%} | {verdict} |", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(main())
