"""Prometheus: the numbers of a runtime, read when they are scraped (``pip install 'bgruntime[prometheus]'``).

    REGISTRY.register(RuntimeCollector(rt))          # beside your own metrics
    app.mount("/metrics", metrics_app(rt))           # or as an ASGI app of its own

A dashboard for Grafana and rules for Prometheus come with it: `python -c "from
bgruntime.integrations.prometheus import alert_rules; print(alert_rules())" > bgruntime.yml`.

Jobs pay nothing for it: the runtime counts anyway, and a scrape reads what it has counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.resources import files
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from bgruntime import Runtime, RuntimeClosed, RuntimeStats, __version__
from bgruntime.extend import Spread, TaskStats, loop_of

SERIES = 1_000  # label sets of one metric; what comes after those is summed up as `other`
OTHER = "other"

Labels = tuple[str, ...]

GAUGES = {
    "bgruntime_jobs_running": "Attempts that hold a slot.",
    "bgruntime_jobs_queued": "Jobs that wait for a slot.",
    "bgruntime_jobs_stuck": "Attempts that would not stop.",
    "bgruntime_concurrency_limit": "How many attempts may run at once.",
    "bgruntime_oldest_wait_seconds": "How long the job that waits longest has waited.",
    "bgruntime_event_loop_lag_seconds": "How late the event loop was at most in the last 5 minutes.",
}


class RuntimeCollector(Collector):
    """A collector of the metrics of one runtime, for any registry of prometheus_client.

    It may be registered before the runtime is entered, and read from any thread. Labels are names of
    tasks, outcomes, reasons and types of error; of each metric at most 1,000 sets of them are told
    apart. While the loop is held it gives the numbers it had last.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: dict[str, dict[Labels, Labels]] = {}
        self._last: RuntimeStats | None = None
        self._journal: Any = None
        self._asking: asyncio.Task[None] | None = None

    def describe(self) -> Iterable[Metric]:
        """The metrics without their values: nothing is read when it is registered."""
        return self._families(None)

    def collect(self) -> Iterable[Metric]:
        """The metrics now."""
        with suppress(RuntimeClosed, TimeoutError):
            self._last = self._runtime.stats()
        self._ask_journal()
        return self._families(self._last)

    def _families(self, stats: RuntimeStats | None) -> Iterator[Metric]:
        info = InfoMetricFamily("bgruntime", "The version of bgruntime.")
        info.add_metric([], {"version": __version__})
        yield info
        yield from self._counters(stats)
        yield from self._histograms(stats)
        yield from self._gauges(stats)
        yield from self._journal_metrics()

    # -- families ------------------------------------------------------------------------------

    def _counters(self, stats: RuntimeStats | None) -> Iterator[Metric]:
        tasks = _tasks(stats)
        yield self._counter(
            "bgruntime_jobs_submitted",
            "Jobs accepted.",
            ["task"],
            {(name,): task.submitted for name, task in tasks.items()},
        )
        yield self._counter(
            "bgruntime_jobs_finished",
            "Jobs that ended, by how their last attempt did.",
            ["task", "outcome"],
            {(name, how): n for name, task in tasks.items() for how, n in task.finished.items()},
        )
        yield self._counter(
            "bgruntime_job_failures",
            "Jobs that failed for good, by the type of the error.",
            ["task", "error"],
            {
                (name, error): one.count
                for name, task in tasks.items()
                for error, one in task.failures.items()
            },
        )
        yield self._counter(
            "bgruntime_job_retries",
            "Attempts that were followed by another one.",
            [],
            {} if stats is None else {(): stats.retried},
        )
        yield self._counter(
            "bgruntime_jobs_rejected",
            "Submissions that were turned away, by reason.",
            ["reason"],
            {} if stats is None else {(reason,): n for reason, n in stats.rejections.items()},
        )

    def _counter(self, name: str, about: str, labels: list[str], values: Mapping[Labels, float]) -> Metric:
        family = CounterMetricFamily(name, about, labels=labels)
        for label_values, value in self._bounded(name, values).items():
            family.add_metric(list(label_values), value)
        return family

    def _bounded(self, name: str, values: Mapping[Labels, float]) -> dict[Labels, float]:
        """*values*, those of late labels summed up; who is in stays in, or counters would fall."""
        known = self._known.setdefault(name, {})
        sums: dict[Labels, float] = {}
        for labels, value in values.items():
            if labels not in known:
                known[labels] = labels if len(known) < SERIES else (OTHER,) * len(labels)
            shown = known[labels]
            sums[shown] = sums.get(shown, 0) + value
        return sums

    def _histograms(self, stats: RuntimeStats | None) -> Iterator[Metric]:
        tasks = _tasks(stats)
        wanted: list[tuple[str, str, Callable[[TaskStats], Spread]]] = [
            ("bgruntime_job_duration_seconds", "How long attempts ran.", lambda task: task.run_time),
            ("bgruntime_job_queue_wait_seconds", "How long attempts waited.", lambda task: task.queue_wait),
        ]
        for name, about, spread_of in wanted:
            family = HistogramMetricFamily(name, about, labels=["task"])
            for task_name, task in tasks.items():
                spread = spread_of(task)
                if spread.up_to:
                    family.add_metric([task_name], _buckets(spread), spread.total)
            yield family

    def _gauges(self, stats: RuntimeStats | None) -> Iterator[Metric]:
        values = {} if stats is None else _gauge_values(stats)
        for name, about in GAUGES.items():
            family = GaugeMetricFamily(name, about)
            if name in values:
                family.add_metric([], values[name])
            yield family

    def _journal_metrics(self) -> Iterator[Metric]:
        failed = GaugeMetricFamily("bgruntime_journal_failed_jobs", "Open failures in the journal.")
        errors = CounterMetricFamily("bgruntime_journal_write_errors", "Errors of the journal's file.")
        if self._journal is not None:
            open_states = ("retryable", "discarded", "quarantined")
            failed.add_metric([], sum(self._journal.failures.get(state, 0) for state in open_states))
            errors.add_metric([], self._journal.errors)
        yield failed
        yield errors

    # -- the journal ---------------------------------------------------------------------------

    def _ask_journal(self) -> None:
        """Have the journal counted for the next scrape: that takes a read of its file."""
        loop = loop_of(self._runtime)
        if loop is not None and self._runtime.journal is not None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._begin_to_ask, loop)

    def _begin_to_ask(self, loop: asyncio.AbstractEventLoop) -> None:
        journal = self._runtime.journal
        if journal is not None and (self._asking is None or self._asking.done()):
            self._asking = loop.create_task(self._count_journal(journal), name="bgruntime prometheus")

    async def _count_journal(self, journal: Any) -> None:
        with suppress(Exception):  # while it cannot be read the last numbers stand
            self._journal = await journal.stats()


def _gauge_values(stats: RuntimeStats) -> dict[str, float]:
    values = {
        "bgruntime_jobs_running": stats.running,
        "bgruntime_jobs_queued": stats.waiting,
        "bgruntime_jobs_stuck": stats.stuck,
        "bgruntime_concurrency_limit": stats.concurrency,
        "bgruntime_oldest_wait_seconds": stats.oldest_wait,
    }
    return (
        values if stats.loop is None else values | {"bgruntime_event_loop_lag_seconds": stats.loop.recent.max}
    )


def _tasks(stats: RuntimeStats | None) -> Mapping[str, TaskStats]:
    return stats.tasks if stats is not None else {}


def _buckets(spread: Spread) -> list[tuple[str, float]]:
    return [*((str(bound), count) for bound, count in spread.up_to.items()), ("+Inf", spread.count)]


def metrics_app(runtime: Runtime, registry: CollectorRegistry | None = None) -> Any:
    """An ASGI app that answers with the metrics of *runtime* and of the process.

    With a *registry* of the application's own, the metrics are added to it and it is what is shown.
    """
    if registry is None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
    registry.register(RuntimeCollector(runtime))
    tools: Any = prometheus_client  # whose ASGI app is typed in part only
    return tools.make_asgi_app(registry=registry)


def grafana_dashboard() -> str:
    """The JSON of a dashboard of these metrics, to be imported into Grafana 10 or later."""
    return files("bgruntime.integrations").joinpath("grafana_dashboard.json").read_text("utf-8")


def alert_rules() -> str:
    """The YAML of alert rules on these metrics, for `rule_files` of Prometheus."""
    return files("bgruntime.integrations").joinpath("prometheus_rules.yml").read_text("utf-8")


__all__ = ["RuntimeCollector", "alert_rules", "grafana_dashboard", "metrics_app"]
