"""The dashboard and the alert rules: every name is a real one, and a real Prometheus answers every query."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import pytest

pytest.importorskip("prometheus_client")

import uvicorn
from prometheus_client import CollectorRegistry

from bgruntime import QueueFull, Runtime, task
from bgruntime.integrations.prometheus import RuntimeCollector, alert_rules, grafana_dashboard, metrics_app

SUFFIXES = {
    "counter": ["_total"],
    "histogram": ["_bucket", "_sum", "_count"],
    "gauge": [""],
    "info": ["_info"],
}
needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None or shutil.which("prometheus") is None,
    reason="no promtool and prometheus here (Debian: apt-get install prometheus)",
)


def real_names() -> set[str]:
    described = RuntimeCollector(Runtime()).describe()
    return {f"{metric.name}{suffix}" for metric in described for suffix in SUFFIXES[metric.type]}


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\bbgruntime_\w+", text))


def panels() -> list[dict]:
    return json.loads(grafana_dashboard())["panels"]


def queries() -> list[str]:
    """Every query of the dashboard, as Grafana would send it."""
    filled = {"$__rate_interval": "1m", "$job": ".*", "$instance": ".*"}
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    for variable, value in filled.items():
        found = [query.replace(variable, value) for query in found]
    return found


def test_the_dashboard_asks_for_real_metrics_only_and_for_nearly_all_of_them():
    asked = names_in(grafana_dashboard())
    assert asked <= real_names()
    left_out = {name for name in real_names() - asked if not name.endswith(("_sum", "_count"))}
    assert left_out == set()
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_the_rules_ask_for_real_metrics_only():
    assert names_in(alert_rules()) <= real_names()
    assert len(re.findall(r"- alert:", alert_rules())) == 8


@needs_prometheus
def test_promtool_accepts_the_rules_and_the_page(tmp_path):
    rules = tmp_path / "rules.yml"
    rules.write_text(alert_rules())
    done = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 rules found" in done.stdout
    registry = CollectorRegistry()

    async def main() -> str:
        async with Runtime() as rt:
            registry.register(RuntimeCollector(rt))
            await (await rt.submit(works)).wait()
            from prometheus_client import generate_latest

            return generate_latest(registry).decode()

    page = asyncio.run(main())
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stdout + done.stderr


RULES_TEST = """
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'bgruntime_job_failures_total{job="app", instance="a", task="shop:pay", error="OSError"}'
        values: '0+1x90'
      - series: 'bgruntime_jobs_finished_total{job="app", instance="a", task="shop:pay", outcome="failed"}'
        values: '0+1x90'
      - series: 'bgruntime_job_failures_total{job="app", instance="a", task="shop:mail", error="OSError"}'
        values: '0+1x90'
      - series: 'bgruntime_jobs_finished_total{job="app", instance="a", task="shop:mail", outcome="failed"}'
        values: '0+1x90'
      - series: 'bgruntime_jobs_finished_total{job="app",instance="a",task="shop:mail",outcome="succeeded"}'
        values: '0+3x90'
      - series: 'bgruntime_jobs_stuck{job="app", instance="a"}'
        values: '0x29 1x60'
    alert_rule_test:
      - {eval_time: 20m, alertname: BgruntimeStuck}
      - eval_time: 40m
        alertname: BgruntimeStuck
        exp_alerts:
          - exp_labels: {severity: warning, job: app, instance: a}
            exp_annotations: {summary: "1 attempts would not stop"}
      - eval_time: 70m
        alertname: BgruntimeTaskOnlyFails
        exp_alerts:
          - exp_labels: {severity: warning, job: app, instance: a, task: "shop:pay"}
            exp_annotations:
              summary: "shop:pay: failed 60 times within an hour and never completed"
      - eval_time: 70m
        alertname: BgruntimeFailureRate
        exp_alerts:
          - exp_labels: {severity: warning, job: app, instance: a, task: "shop:mail"}
            exp_annotations: {summary: "shop:mail: 25% of its jobs fail"}
"""


@needs_prometheus
def test_the_rules_raise_what_they_should(tmp_path):
    (tmp_path / "rules.yml").write_text(alert_rules())
    (tmp_path / "test.yml").write_text(RULES_TEST)
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yml"], capture_output=True, text=True, timeout=20, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ── a real Prometheus ──


@task(name="dashboard.works")
async def works() -> None: ...


@task(name="dashboard.fails", max_attempts=2, backoff=0.0)
async def fails() -> None:
    raise OSError("disk")


CONFIG = """
global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: app
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def asked(port: int, path: str, **query: str):
    url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        told = json.load(answer)
    assert told["status"] == "success", told
    return told["data"]


class Served:
    """The metrics of a busy runtime behind uvicorn, on a loop and a thread of their own."""

    def __init__(self, journal) -> None:
        self.port = free_port()
        self._journal = journal
        self._server: uvicorn.Server | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    async def _main(self) -> None:
        async with Runtime(journal=self._journal, queue_size=1, concurrency=1, overflow="reject") as rt:
            config = uvicorn.Config(metrics_app(rt), port=self.port, log_config=None, lifespan="off")
            self._server = uvicorn.Server(config)
            serving = asyncio.create_task(self._server.serve())
            self._ready.set()
            while not serving.done():
                for what in (fails, works, works, works):
                    try:
                        job = rt.submit_nowait(what)
                    except QueueFull:
                        continue
                    if what is fails:
                        await job.wait()
                await asyncio.sleep(0.02)
            await serving

    def __enter__(self):
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *about) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()


def until(fact, what: str, seconds: float = 20.0):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if value := fact():
                return value
        except OSError:
            pass  # it does not listen yet
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds:g} s"
        time.sleep(0.05)


@pytest.mark.slow
@needs_prometheus
def test_a_real_prometheus_answers_every_query_of_the_dashboard_and_loads_every_rule(tmp_path):
    port = free_port()
    with Served(tmp_path / "jobs.db") as served:
        (tmp_path / "rules.yml").write_text(alert_rules())
        (tmp_path / "prometheus.yml").write_text(CONFIG.format(port=served.port))
        command = ["prometheus", f"--config.file={tmp_path}/prometheus.yml", "--log.level=error"]
        command += [f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(lambda: asked(port, "query", query="bgruntime_jobs_finished_total")["result"], "a scrape")
            for query in queries():
                until(
                    lambda query=query: asked(port, "query", query=query)["result"], f"an answer to {query}"
                )
            groups = until(lambda: asked(port, "rules")["groups"], "the rules")
            rules = groups[0]["rules"]
            assert len(rules) == 8
            until(
                lambda: all(rule["health"] == "ok" for rule in asked(port, "rules")["groups"][0]["rules"]),
                "that every rule can be evaluated",
            )
        finally:
            process.terminate()
            process.wait(10)
