"""The same coroutine work, one after another and in bounded batches.

1,000 jobs that each wait 10 ms run four ways on one event loop: one after another, all at
once with `asyncio.gather`, with `gather` and a `Semaphore`, and with `rt.map`, the last two
at several limits. A round warms each way up and then runs all of them forwards and backwards
(A B B A), so that a machine that slows down or speeds up favours none. Ratios are taken
within a round; the table gives medians and ranges over the rounds. The ideal is jobs x 10 ms
/ limit. The time of the runtime includes opening and closing it.

    python benchmarks/sequential_vs_batched.py                  about three minutes
    python benchmarks/sequential_vs_batched.py --quick          ten seconds, no bars
    python benchmarks/sequential_vs_batched.py --check --json FILE --plot FILE
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import json
import math
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from bgruntime import Runtime

WAIT = 0.010  # seconds each job waits
SEQUENTIAL, GATHER, SEMAPHORE, RUNTIME = "sequential", "gather", "gather + Semaphore", "bgruntime"
BAR_JOBS, BAR_LIMIT, BAR_SPEEDUP, BAR_SHARE = 1000, 100, 90.0, 0.95


# ── the work, and the four ways to run it ────────────────────────────────────────────


class Work:
    """The job: it waits, and counts how many wait at once."""

    def __init__(self) -> None:
        self.active = self.peak = 0

    async def run(self, number: int) -> int:
        self.active += 1
        self.peak = max(self.peak, self.active)
        await asyncio.sleep(WAIT)
        self.active -= 1
        return number


async def sequential(work: Work, jobs: int, limit: int) -> list[int]:
    return [await work.run(number) for number in range(jobs)]


async def gather(work: Work, jobs: int, limit: int) -> list[int]:
    return await asyncio.gather(*(work.run(number) for number in range(jobs)))


async def gather_semaphore(work: Work, jobs: int, limit: int) -> list[int]:
    semaphore = asyncio.Semaphore(limit)

    async def one(number: int) -> int:
        async with semaphore:
            return await work.run(number)

    return await asyncio.gather(*(one(number) for number in range(jobs)))


async def runtime(work: Work, jobs: int, limit: int) -> list[int]:
    async with Runtime(concurrency=limit) as rt:
        return await rt.map(work.run, range(jobs), limit=limit)


WAYS: dict[str, Callable[[Work, int, int], Awaitable[list[int]]]] = {
    SEQUENTIAL: sequential,
    GATHER: gather,
    SEMAPHORE: gather_semaphore,
    RUNTIME: runtime,
}


# ── measuring ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Case:
    """One way at one limit; `limit` is what the way allows at once."""

    way: str
    limit: int

    def ideal(self, jobs: int) -> float:
        """Seconds of waiting alone, with every slot in use all the time."""
        return math.ceil(jobs / self.limit) * WAIT

    async def seconds(self, jobs: int) -> float:
        """Wall seconds of one run, whose results and bound have been checked."""
        work = Work()
        gc.collect()
        start = time.perf_counter()
        results = await WAYS[self.way](work, jobs, self.limit)
        elapsed = time.perf_counter() - start
        if results != list(range(jobs)):
            raise SystemExit(f"{self.way}: wrong results")
        if work.peak > self.limit:
            raise SystemExit(f"{self.way}: {work.peak} at once, the limit is {self.limit}")
        return elapsed


@dataclass(frozen=True)
class Row:
    """What the rounds said about one case on one loop."""

    loop: str
    way: str
    limit: int
    ideal: float
    seconds: list[float]
    speedup: list[float]
    share: list[float]


def cases(jobs: int, limits: Sequence[int]) -> list[Case]:
    bounded = [Case(way, limit) for limit in limits for way in (SEMAPHORE, RUNTIME)]
    return [Case(SEQUENTIAL, 1), Case(GATHER, jobs), *bounded]


def loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    found: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if importlib.util.find_spec("uvloop"):
        import uvloop

        found["uvloop"] = uvloop.new_event_loop
    return found


def one_round(loop: str, jobs: int, limits: Sequence[int]) -> dict[Case, float]:
    """Mean seconds of each case, run forwards and then backwards."""
    order = cases(jobs, limits)
    times: dict[Case, list[float]] = {case: [] for case in order}
    with asyncio.Runner(loop_factory=loops()[loop]) as runner:
        for case in order[1:]:
            runner.run(case.seconds(jobs))  # the first run of each pays for late imports and caches
        for case in [*order, *reversed(order)]:
            times[case].append(runner.run(case.seconds(jobs)))
    return {case: mean(values) for case, values in times.items()}


def rows(loop: str, jobs: int, rounds: list[dict[Case, float]]) -> Iterator[Row]:
    for case in rounds[0]:
        ideal = case.ideal(jobs)
        seconds = [times[case] for times in rounds]
        yield Row(
            loop,
            case.way,
            case.limit,
            ideal,
            seconds,
            speedup=[times[Case(SEQUENTIAL, 1)] / times[case] for times in rounds],
            share=[ideal / value for value in seconds],
        )


def measure(chosen: Sequence[str], jobs: int, limits: Sequence[int], count: int) -> list[Row]:
    rounds: dict[str, list[dict[Case, float]]] = {loop: [] for loop in chosen}
    for number in range(count):
        for loop in chosen:
            print(f"round {number + 1} of {count} on {loop} …", file=sys.stderr)
            rounds[loop].append(one_round(loop, jobs, limits))
    return [row for loop in chosen for row in rows(loop, jobs, rounds[loop])]


def machine() -> dict[str, Any]:
    """The facts a reader needs to compare figures with their own."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu_model(),
        "cpus": cpus,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "?")


# ── telling ──────────────────────────────────────────────────────────────────────────


def spread(values: Sequence[float], digits: int) -> str:
    middle, low, high = (f"{value:.{digits}f}" for value in (median(values), min(values), max(values)))
    return middle if low == high else f"{middle} [{low}–{high}]"


def table(measured: Sequence[Row], jobs: int) -> Iterator[str]:
    """The result as a Markdown table."""
    work = f"{jobs:,} × {WAIT * 1000:.0f} ms"
    yield f"| loop | {work} | at once | seconds | ideal | share of ideal | × sequential |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for row in measured:
        yield (
            f"| {row.loop} | {row.way} | {row.limit:,} | {spread(row.seconds, 3)} | {row.ideal:.3f} "
            f"| {spread(row.share, 2)} | {spread(row.speedup, 1)} |"
        )


def verdicts(measured: Sequence[Row], jobs: int) -> Iterator[tuple[bool, str]]:
    """Each bar and whether it was met; fewer jobs than the bars are set for are not judged."""
    if jobs < BAR_JOBS:
        return
    for row in measured:
        if (row.way, row.limit) == (RUNTIME, BAR_LIMIT):
            speedup, share = median(row.speedup), median(row.share)
            yield (
                speedup >= BAR_SPEEDUP,
                f"{row.loop}: {speedup:.1f}× sequential at limit {BAR_LIMIT}, the bar is {BAR_SPEEDUP:.0f}×",
            )
            yield (
                share >= BAR_SHARE,
                f"{row.loop}: {share:.3f} of the ideal at limit {BAR_LIMIT}, the bar is {BAR_SHARE}",
            )


def plot(measured: Sequence[Row], jobs: int, facts: dict[str, Any], file: Path) -> None:
    """Two pictures for each loop: the seconds by limit, and the share of the ideal."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    chosen = list(dict.fromkeys(row.loop for row in measured))
    figure, axes = pyplot.subplots(
        len(chosen), 2, figsize=(12, 4.6 * len(chosen) + 0.6), squeeze=False, layout="constrained"
    )
    figure.suptitle(
        f"{jobs:,} jobs that wait {WAIT * 1000:.0f} ms each: one after another or in bounded batches\n",
        fontsize=14,
        fontweight="bold",
    )
    figure.supxlabel(
        f"Python {facts['python']} · {facts['cpus']} CPUs, {facts['cpu']} · "
        f"{rounds_told(len(measured[0].seconds))}, each forwards and backwards",
        fontsize=9,
        color="#555555",
    )
    for (left, right), loop in zip(axes, chosen, strict=True):
        of_loop = [row for row in measured if row.loop == loop]
        draw_seconds(left, of_loop, loop)
        draw_share(right, of_loop, loop)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def rounds_told(count: int) -> str:
    return "one round" if count == 1 else f"median and range of {count} rounds"


NAMES = {"asyncio": "the stock loop", "uvloop": "uvloop"}
COLOURS = {SEQUENTIAL: "#b3261e", GATHER: "#7a5195", SEMAPHORE: "#ef8a17", RUNTIME: "#00639a"}
MARKERS = {SEMAPHORE: "s", RUNTIME: "o"}


def draw_seconds(axes: Any, measured: Sequence[Row], loop: str) -> None:
    bounded = [row for row in measured if row.way == RUNTIME]
    limits = [row.limit for row in bounded]
    ideal = [row.ideal for row in bounded]
    axes.plot(limits, ideal, color="#333333", linestyle=":", label="ideal: jobs × 10 ms ÷ limit")
    for way in (SEMAPHORE, RUNTIME):
        line(axes, [row for row in measured if row.way == way], "seconds")
    for way, note in ((SEQUENTIAL, "one at a time"), (GATHER, "all at once, no limit")):
        level(axes, way, note, median(next(row.seconds for row in measured if row.way == way)))
    for row in bounded:
        label(
            axes, f"{median(row.speedup):.0f}×", (row.limit, median(row.seconds)), COLOURS[RUNTIME], (0, 10)
        )
    axes.set(
        xscale="log", yscale="log", title=f"Wall time on {NAMES[loop]} (N×: N times faster than sequential)"
    )
    axes.set(xlabel="limit (jobs at once)", ylabel="seconds for all jobs")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.08, y=0.12)
    finish(axes, limits, "center right")


def draw_share(axes: Any, measured: Sequence[Row], loop: str) -> None:
    shown = [row for row in measured if row.way in MARKERS]
    limits = sorted({row.limit for row in shown})
    axes.axhline(1.0, color="#333333", linestyle=":", label="ideal")
    for way in (SEMAPHORE, RUNTIME):
        line(axes, [row for row in shown if row.way == way], "share")
    for row in shown:
        # The lines fall to the right: above on the right and below on the left there is room.
        best = max(shown, key=lambda one: (one.limit == row.limit, median(one.share), one.way == RUNTIME))
        place = (22, 5) if row is best else (-22, -13)
        label(axes, f"{median(row.share):.2f}", (row.limit, median(row.share)), COLOURS[row.way], place)
    lowest = min(min(row.share) for row in shown)
    axes.set(xscale="log", ylim=(math.floor(lowest * 10) / 10 - 0.1, 1.05))
    axes.set(title=f"Share of the ideal on {NAMES[loop]} (1 is the most there can be)")
    axes.set(xlabel="limit (jobs at once)", ylabel="ideal time ÷ measured time")
    axes.margins(x=0.16)
    finish(axes, limits, "lower left")


def level(axes: Any, way: str, note: str, seconds: float) -> None:
    axes.axhline(seconds, color=COLOURS[way], linestyle="--")
    text = f"{way}, {note}: {seconds:.3g} s"
    axes.text(
        0.03, seconds, text, transform=axes.get_yaxis_transform(), color=COLOURS[way], va="bottom", fontsize=9
    )


def label(axes: Any, text: str, point: tuple[float, float], colour: str, offset: tuple[int, int]) -> None:
    axes.annotate(
        text, point, textcoords="offset points", xytext=offset, color=colour, ha="center", fontsize=9
    )


def line(axes: Any, measured: Sequence[Row], what: str) -> None:
    values: list[list[float]] = [getattr(row, what) for row in measured]
    middle = [median(value) for value in values]
    below = [centre - min(value) for centre, value in zip(middle, values, strict=True)]
    above = [max(value) - centre for centre, value in zip(middle, values, strict=True)]
    way = measured[0].way
    axes.errorbar(
        [row.limit for row in measured],
        middle,
        yerr=[below, above],
        color=COLOURS[way],
        marker=MARKERS[way],
        capsize=3,
        label=way,
    )


def finish(axes: Any, limits: Sequence[int], legend: str) -> None:
    axes.set_xticks(limits, [str(limit) for limit in limits])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(fontsize=9, loc=legend)


# ── the command ──────────────────────────────────────────────────────────────────────


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Sequential against batched coroutine work.")
    parser.add_argument("--jobs", type=int, default=1000, help="how many jobs (default 1000)")
    parser.add_argument("--limits", type=int, nargs="+", default=[10, 50, 100, 200, 500])
    parser.add_argument("--rounds", type=int, default=3, help="rounds on each loop (default 3)")
    parser.add_argument("--loop", choices=["all", *loops()], default="all")
    parser.add_argument("--quick", action="store_true", help="200 jobs, one round, a first impression")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw FILE as a PNG (matplotlib)")
    options = parser.parse_args()
    if options.quick:
        options.jobs, options.rounds = min(options.jobs, 200), 1
    options.limits = [limit for limit in options.limits if 1 <= limit <= options.jobs]
    return options


def main() -> int:
    options = arguments()
    chosen = list(loops()) if options.loop == "all" else [options.loop]
    facts = machine()
    measured = measure(chosen, options.jobs, options.limits, options.rounds)
    print("\n".join(table(measured, options.jobs)), end="\n\n")
    print("machine: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    bars = list(verdicts(measured, options.jobs))
    for held, text in bars:
        print(f"{'met   ' if held else 'MISSED'} {text}")
    if options.json:
        document = {
            "machine": facts,
            "jobs": options.jobs,
            "wait": WAIT,
            "rows": [asdict(row) for row in measured],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.plot:
        plot(measured, options.jobs, facts, options.plot)
    return 1 if options.check and not all(held for held, _ in bars) else 0


if __name__ == "__main__":
    sys.exit(main())
