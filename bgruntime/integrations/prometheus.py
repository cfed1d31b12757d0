"""Prometheus: the numbers of a runtime, read when they are scraped (``pip install 'bgruntime[prometheus]'``).

    REGISTRY.register(RuntimeCollector(rt))          # beside your own metrics
    app.mount("/metrics", metrics_app(rt))           # or as an ASGI app of its own

A dashboard for Grafana and rules for Prometheus come with it: `python -c "from
bgruntime.integrations.prometheus import alert_rules; print(alert_rules())" > bgruntime.yml`.

Jobs pay nothing for it: the runtime counts anyway, and a scrape reads what it has counted.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.resources import files
from typing import Any

from ._extras import missing

try:
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
except ModuleNotFoundError as error:
    raise missing("prometheus", error) from error

from bgruntime import Runtime, RuntimeClosed, RuntimeStats, __version__
from bgruntime.extend import Spread, loop_of

from ._series import Families, Family

JOURNAL_PATIENCE = 1.0  # seconds that a scrape in a thread waits for what the journal counts


class RuntimeCollector(Collector):
    """A collector of the metrics of one runtime, for any registry of prometheus_client.

    It may be registered before the runtime is entered, and read from any thread. Labels are names of
    tasks, outcomes, reasons and types of error; of each metric at most 1,000 sets of them are told
    apart. While the loop is held it gives the numbers it had last.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._families = Families()
        self._last: RuntimeStats | None = None
        self._journal: Any = None
        self._asking: asyncio.Task[None] | None = None

    def describe(self) -> Iterable[Metric]:
        """The metrics without their values: nothing is read when it is registered."""
        return self._metrics(None)

    def collect(self) -> Iterable[Metric]:
        """The metrics now."""
        with suppress(RuntimeClosed, TimeoutError):
            self._last = self._runtime.stats()
        self._ask_journal()
        return self._metrics(self._last)

    def _metrics(self, stats: RuntimeStats | None) -> Iterator[Metric]:
        info = InfoMetricFamily("bgruntime", "The version of bgruntime.")
        info.add_metric([], {"version": __version__})
        yield info
        yield from map(_metric, self._families.of(stats, self._journal))

    # -- the journal ---------------------------------------------------------------------------

    def _ask_journal(self) -> None:
        """Have the journal counted, which takes a read of its file: for this scrape in a thread of its own,
        for the next one on the loop, which must not wait.
        """
        loop = loop_of(self._runtime)
        if loop is None or self._runtime.journal is None:
            return
        counted = threading.Event()
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._begin_to_ask, loop, counted)
            if loop.is_running() and asyncio._get_running_loop() is not loop:
                counted.wait(JOURNAL_PATIENCE)

    def _begin_to_ask(self, loop: asyncio.AbstractEventLoop, counted: threading.Event) -> None:
        journal = self._runtime.journal
        if journal is None:
            counted.set()
            return
        if self._asking is None or self._asking.done():
            self._asking = loop.create_task(self._count_journal(journal), name="bgruntime prometheus")
        self._asking.add_done_callback(lambda _: counted.set())

    async def _count_journal(self, journal: Any) -> None:
        with suppress(Exception):  # while it cannot be read the last numbers stand
            self._journal = await journal.stats()


def _metric(family: Family) -> Metric:
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.about, labels=family.labels)
        for labels, spread in family.spreads.items():
            histogram.add_metric(list(labels), _buckets(spread), spread.total)
        return histogram
    make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = make(family.name, family.about, labels=family.labels)
    for labels, value in family.values.items():
        metric.add_metric(list(labels), value)
    return metric


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
    return _off_the_loop(tools.make_asgi_app(registry=registry))


def _off_the_loop(app: Any) -> Any:
    """*app* on a loop of its own in a thread: to write the page of a thousand tasks takes 0.5 s."""

    async def answering(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        request = await receive()
        answer: list[Any] = []

        async def asked() -> Any:
            return request

        async def note(message: Any) -> None:
            answer.append(message)

        await asyncio.to_thread(lambda: asyncio.run(app(scope, asked, note)))
        for message in answer:
            await send(message)

    return answering


def grafana_dashboard() -> str:
    """The JSON of a dashboard of these metrics, to be imported into Grafana 10 or later."""
    return files("bgruntime.integrations").joinpath("grafana_dashboard.json").read_text("utf-8")


def alert_rules() -> str:
    """The YAML of alert rules on these metrics, for `rule_files` of Prometheus."""
    return files("bgruntime.integrations").joinpath("prometheus_rules.yml").read_text("utf-8")


__all__ = ["RuntimeCollector", "alert_rules", "grafana_dashboard", "metrics_app"]
