"""What has been promised of speed and size, for each version of Python and event loop.

3.11 cannot start a Task eagerly, so that it has bars of its own; 3.12 has those of 3.13.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.harness import Figure, Report

Limits = tuple[float, float, float, float]  # 3.13 stock, 3.13 uvloop, 3.11 stock, 3.11 uvloop
CELLS = (("3.13", "asyncio"), ("3.13", "uvloop"), ("3.11", "asyncio"), ("3.11", "uvloop"))


@dataclass(frozen=True)
class Bar:
    """The least, or the most, that the figure of this name may be; `hoped` is how far it might get."""

    figure: str
    at_least: bool
    limits: Limits
    hoped: Limits

    def limit(self, report: Report) -> float:
        """The bar in the cell of *report*."""
        return self.limits[CELLS.index((bars_of(report.python), report.loop))]

    def wish(self, report: Report) -> float:
        """What was hoped for in the cell of *report*."""
        return self.hoped[CELLS.index((bars_of(report.python), report.loop))]

    def is_met(self, figure: Figure, report: Report) -> bool:
        """Whether the median is on the right side."""
        limit = self.limit(report)
        return figure.middle >= limit if self.at_least else figure.middle <= limit

    def margin(self, figure: Figure, report: Report) -> float:
        """1 where the bar is just met, 2 where the figure is twice as good."""
        limit, value = self.limit(report), figure.middle
        if not limit:
            return float(self.is_met(figure, report))
        return value / limit if self.at_least else limit / max(value, limit / 10)

    def sign(self) -> str:
        return "≥" if self.at_least else "≤"


def bars_of(python: str) -> str:
    """Whose bars a version of Python has."""
    major, minor = map(int, python.split(".")[:2])
    return "3.11" if (major, minor) < (3, 12) else "3.13"


def same(limit: float) -> Limits:
    return (limit, limit, limit, limit)


def least(figure: str, limits: Limits | float, hoped: Limits | float) -> Bar:
    return Bar(figure, True, _all(limits), _all(hoped))


def most(figure: str, limits: Limits | float, hoped: Limits | float) -> Bar:
    return Bar(figure, False, _all(limits), _all(hoped))


def _all(limits: Limits | float) -> Limits:
    return limits if isinstance(limits, tuple) else same(limits)


NO_OP, ONCE = "no-op", "suspends once"

BARS: dict[str, Bar] = {
    bar.figure: bar
    for bar in (
        least(f"{NO_OP}: throughput ÷ aiojobs", (2.0, 1.6, 1.25, 1.25), (3.0, 2.5, 2.0, 2.0)),
        least(f"{ONCE}: throughput ÷ aiojobs", (1.3, 1.1, 1.2, 1.2), (1.75, 1.5, 1.5, 1.5)),
        most(f"{NO_OP}: cost ÷ create_task in batches", (1.4, 2.1, 2.7, 3.5), (1.0, 1.5, 2.0, 2.0)),
        most(f"{ONCE}: cost ÷ create_task in batches", (1.75, 2.5, 2.1, 2.8), (1.3, 1.8, 1.5, 1.5)),
        most(f"{NO_OP}: cost ÷ gather + Semaphore", (0.5, 0.5, 0.65, 0.65), 0.35),
        most(f"{ONCE}: cost ÷ gather + Semaphore", (0.5, 0.5, 0.65, 0.65), 0.35),
        most(f"{NO_OP}: cost ÷ gather + Semaphore + timeout", 0.35, 0.2),
        most(f"{ONCE}: cost ÷ gather + Semaphore + timeout", 0.35, 0.2),
        least(f"{NO_OP}: throughput ÷ aiometer", 8.0, 15.0),
        least(f"{NO_OP}: throughput ÷ taskiq, in-memory broker", 8.0, 15.0),
        least(f"{NO_OP}: throughput ÷ anyio group + CapacityLimiter", 8.0, 15.0),
        most(f"{NO_OP}: bgruntime's timeout adds", 60.0, 30.0),
        most(f"{ONCE}: bgruntime's timeout adds", 400.0, 200.0),
        most("1,000,000 pending: bgruntime", 330.0, 250.0),
        most("1,000,000-item map, ordered: growth", 5.0, 0.0),
        least("10 ms jobs, limit 100: ideal ÷ wall, bgruntime, submit_nowait", 0.9, 0.95),
        least("10 ms jobs, limit 1,000: ideal ÷ wall, bgruntime, submit_nowait", 0.7, 0.8),
        most(f"one at a time, {NO_OP}: cost ÷ create_task", 1.75, 1.3),
        most(f"one at a time, {ONCE}: cost ÷ create_task", 1.75, 1.3),
        most("20,000 ready jobs: longest hold, bgruntime", 2.0, 1.0),
        least("FastAPI: requests/s ÷ create_task", 0.95, 1.0),
        least("FastAPI: requests/s ÷ BackgroundTasks", 1.1, 1.2),
        most("FastAPI: p99 ÷ create_task", 1.2, 1.2),
        least("1,000 × 10 ms, limit 100: × sequential", 90.0, 95.0),
        least("1,000 × 10 ms, limit 100: share of ideal", 0.95, 1.0),
        least("accept, 1 submitter ÷ huey", 0.8, 1.0),
        least("accept, 10 submitters ÷ huey", 5.0, 8.0),
        least("accept, 100 submitters ÷ huey", 15.0, 25.0),
        least("accept, run, complete, 1 submitter ÷ huey", 1.4, 2.0),
        least("accept, run, complete, 10 submitters ÷ huey", 9.0, 15.0),
        least("accept, run, complete, 100 submitters ÷ huey", 28.0, 45.0),
        least("accept, run, complete, 10 submitters ÷ persist-queue", 9.0, 9.0),
        least("accept, run, complete, 10 submitters ÷ DBOS", 100.0, 100.0),
        least("accept, 10 submitters ÷ executemany of 10", 0.6, 0.85),
        least("accept, 100 submitters ÷ executemany of 100", 0.4, 0.7),
        most("commits per completed job, 1 submitter", 1.05, 1.0),
        most("commits per completed job, 10 submitters", 0.12, 0.1),
        most("commits per completed job, 100 submitters", 0.02, 0.01),
        least("4 processes on one file: poorest share of a fair one", 0.9, 1.0),
        most("4 processes on one file: worst wait", 25.0, 25.0),
        most("4 processes at once on a fresh file: bad starts", 0.0, 0.0),
        most("take-over after a death: longest", 1.5, 1.5),
        most("1,000,000 failures: list 50", 1.0, 1.0),
        most("1,000,000 failures: count of one task", 20.0, 20.0),
        most("1,000,000 failures: get", 1.0, 1.0),
        most("beside a writer: purge, p50 of an accept ÷ idle", 1.3, 1.3),
        most("beside a writer: backup, accepts blocked at most", 150.0, 150.0),
    )
}
