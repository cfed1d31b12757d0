"""What Prometheus scrapes: the right names, the right numbers, in a form that its own parser accepts."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from types import FunctionType

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

import bgruntime
from bgruntime import QueueFull, Runtime, task
from bgruntime.extend import BOUNDS, JobSettled
from bgruntime.integrations._series import Families
from bgruntime.integrations.prometheus import RuntimeCollector, metrics_app

NAMES = {
    "bgruntime_jobs_submitted_total": {"task"},
    "bgruntime_jobs_finished_total": {"task", "outcome"},
    "bgruntime_job_failures_total": {"task", "error"},
    "bgruntime_job_retries_total": set(),
    "bgruntime_jobs_rejected_total": {"reason"},
    "bgruntime_job_duration_seconds_bucket": {"task", "le"},
    "bgruntime_job_queue_wait_seconds_bucket": {"task", "le"},
    "bgruntime_jobs_running": set(),
    "bgruntime_jobs_queued": set(),
    "bgruntime_jobs_stuck": set(),
    "bgruntime_concurrency_limit": set(),
    "bgruntime_event_loop_lag_seconds": set(),
    "bgruntime_journal_failed_jobs": set(),
    "bgruntime_journal_write_errors_total": set(),
    "bgruntime_info": {"version"},
}


@task
async def good() -> None:
    return


@task
async def bad(kind: type[Exception] = LookupError) -> None:
    raise kind("no such account")


@task(max_attempts=2, backoff=lambda state: 0.001)
async def flaky() -> None:
    raise ConnectionError


def registered(rt: Runtime) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(RuntimeCollector(rt))
    return registry


async def a_bit_of_everything(rt: Runtime) -> None:
    for what in (good, good, good, bad, flaky):
        await (await rt.submit(what)).wait()
    rt.pause()
    job = await rt.submit(good)
    with pytest.raises(QueueFull):
        await rt.submit(bad)
    job.cancel()
    rt.resume()


def test_every_name_is_there_with_its_labels_and_the_official_parser_accepts_it(run, tmp_path):
    async def main():
        async with Runtime(
            concurrency=2, queue_size=1, overflow="reject", journal=tmp_path / "jobs.db"
        ) as rt:
            registry = registered(rt)
            await a_bit_of_everything(rt)
            openmetrics(registry)  # the first one has the journal counted
            while registry.get_sample_value("bgruntime_journal_failed_jobs") is None:
                await asyncio.sleep(0.005)
            return openmetrics(registry).decode()

    text = run(main)
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {sample.name: set(sample.labels) for sample in samples}
    assert {name: found.get(name) for name in NAMES} == NAMES


def test_the_numbers_are_those_of_the_runtime(run):
    async def main():
        async with Runtime(concurrency=2, queue_size=1, overflow="reject") as rt:
            registry = registered(rt)
            await a_bit_of_everything(rt)
            get = registry.get_sample_value
            assert get("bgruntime_jobs_submitted_total", {"task": good.name}) == 4
            assert get("bgruntime_jobs_finished_total", {"task": good.name, "outcome": "succeeded"}) == 3
            assert get("bgruntime_jobs_finished_total", {"task": good.name, "outcome": "cancelled"}) == 1
            assert get("bgruntime_jobs_finished_total", {"task": flaky.name, "outcome": "failed"}) == 1
            assert get("bgruntime_job_failures_total", {"task": bad.name, "error": "LookupError"}) == 1
            assert get("bgruntime_job_retries_total") == 1
            assert get("bgruntime_jobs_rejected_total", {"reason": "queue_full"}) == 1
            assert get("bgruntime_job_duration_seconds_count", {"task": flaky.name}) == 2
            assert get("bgruntime_job_duration_seconds_bucket", {"task": flaky.name, "le": "+Inf"}) == 2
            assert get("bgruntime_concurrency_limit") == 2
            assert get("bgruntime_jobs_running") == 0
            assert get("bgruntime_info", {"version": bgruntime.__version__}) == 1

    run(main)


class Settled:
    """Notes how jobs ended."""

    listens_to = (JobSettled,)

    def __init__(self) -> None:
        self.ends: dict[str, JobSettled] = {}

    def on_event(self, event) -> None:
        self.ends[event.job.tags[0]] = event


def test_events_and_numbers_agree_how_the_jobs_ended_that_would_not_stop(run, clock):
    settled = Settled()

    async def main():
        let_go = asyncio.Event()

        @task(name="stubborn", timeout=1, max_attempts=2, backoff=lambda state: 1)
        async def stubborn(cancels: int) -> None:
            for _ in range(cancels):
                with suppress(asyncio.CancelledError):
                    await let_go.wait()
            await let_go.wait()

        async def submit(what: str, cancels: int, **options):
            return await rt.submit(stubborn.with_options(tags=(what,), **options), cancels)

        async with Runtime(cancel_grace=5, cancel_hard=5, observers=[settled]) as rt:
            registry = registered(rt)
            await submit("stuck after its timeout", 99)
            job = await submit("stuck after a cancel", 99, timeout=None)
            await clock.settle()
            job.cancel("not needed")
            job = await submit("cancelled after its timeout", 1)
            await submit("timed out", 0, max_attempts=1)
            await clock.advance(2)
            job.cancel("no longer needed")
            for _ in range(4):
                await clock.advance(5)
            finished = rt.stats().tasks["stubborn"].finished
            scraped = {
                sample.labels["outcome"]: sample.value
                for family in registry.collect()
                for sample in family.samples
                if sample.name == "bgruntime_jobs_finished_total"
            }
            let_go.set()
            return finished, scraped

    finished, scraped = run(main)
    found = {what: (str(one.state), str(one.outcome), str(one.reason)) for what, one in settled.ends.items()}
    assert found == {
        "stuck after its timeout": ("discarded", "stuck", "stuck"),
        "stuck after a cancel": ("cancelled", "stuck", "not needed"),
        "cancelled after its timeout": ("cancelled", "timed_out", "no longer needed"),
        "timed out": ("discarded", "timed_out", "timed_out"),
    }
    assert finished == scraped == {"stuck": 2, "timed_out": 2}


def test_the_buckets_count_exactly(run, clock):
    async def main():
        async with Runtime() as rt:
            registry = registered(rt)

            @task(name="timed", timeout=None)
            async def timed(gate: asyncio.Event) -> None:
                await gate.wait()

            for seconds in (0.005, 0.25, 0.250001, 400):
                gate = asyncio.Event()
                job = await rt.submit(timed, gate)
                await clock.advance(seconds)
                gate.set()
                await job
            counts = {
                bound: registry.get_sample_value(
                    "bgruntime_job_duration_seconds_bucket", {"task": "timed", "le": str(bound)}
                )
                for bound in BOUNDS
            }
            total = registry.get_sample_value("bgruntime_job_duration_seconds_sum", {"task": "timed"})
            return counts, total

    counts, total = run(main)
    assert (counts[0.005], counts[0.1], counts[0.25], counts[0.5], counts[300.0]) == (1, 1, 2, 3, 3)
    assert total == pytest.approx(400.505001)


def test_it_may_be_registered_before_the_runtime_is_entered_and_read_after_it_was_left(run):
    async def main():
        rt = Runtime()
        registry = registered(rt)
        before = openmetrics(registry).decode()
        async with rt:
            await (await rt.submit(good))
        return before, openmetrics(registry).decode()

    before, after = run(main)
    assert "bgruntime_info" in before
    assert f'bgruntime_jobs_submitted_total{{task="{good.name}"}} 1.0' in after
    list(text_string_to_metric_families(before))


class Where:
    """Notes the thread in which statistics are made."""

    listens_to = (type(None),)

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def on_event(self, event) -> None:
        raise AssertionError

    def complete(self, stats):
        self.threads.append(threading.current_thread())
        return stats


def test_a_scrape_from_another_thread_reads_on_the_loop(run):
    where = Where()

    async def main():
        async with Runtime(observers=[where]) as rt:
            registry = registered(rt)
            await (await rt.submit(good))
            return (await asyncio.get_running_loop().run_in_executor(None, openmetrics, registry)).decode()

    text = run(main)
    assert where.threads == [threading.main_thread()]
    assert f'bgruntime_jobs_submitted_total{{task="{good.name}"}} 1.0' in text


def test_beyond_a_thousand_label_sets_the_rest_is_other_and_no_counter_falls():
    families = Families()
    first = {(f"task {n}", "E"): 1 for n in range(900)}
    assert len(families._bounded("x", first)) == 900
    more = {("new", "E"): 1} | {(f"late {n}", "E"): 2 for n in range(200)} | first
    shown = families._bounded("x", more)
    assert len(shown) == 1_001
    assert shown["other", "other"] == 2 * 200 - 2 * 99
    assert sum(shown.values()) == sum(more.values())
    again = families._bounded("x", first | {("yet another", "E"): 5} | more)
    assert all(again[labels] >= shown[labels] for labels in shown)


async def held(gate: asyncio.Event, fails: bool) -> None:
    await gate.wait()
    if fails:
        raise LookupError


def test_a_scrape_of_more_than_a_thousand_tasks_sums_up_to_the_totals(run):
    async def main():
        async with Runtime(concurrency=2_000) as rt:
            registry = registered(rt)
            gates, jobs = [], []
            for number in range(1_100):
                work = FunctionType(held.__code__, globals())
                work.__qualname__ = f"work {number}"
                gates.append(asyncio.Event())
                jobs.append(await rt.submit(work, gates[-1], number % 2 == 0))
            for gate in reversed(gates):
                gate.set()
            for job in jobs:
                await job.wait()
            return [sample for family in registry.collect() for sample in family.samples]

    samples = run(main)

    def total(name: str, **labels: str) -> float:
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())

    assert total("bgruntime_jobs_submitted_total") == total("bgruntime_jobs_finished_total") == 1_100
    assert total("bgruntime_job_failures_total") == 550
    for name in ("bgruntime_job_duration_seconds", "bgruntime_job_queue_wait_seconds"):
        assert total(f"{name}_count") == total(f"{name}_bucket", le="+Inf") == 1_100
        assert len([one for one in samples if one.name == f"{name}_count"]) == 1_001
    assert total("bgruntime_job_duration_seconds_count", task="other") >= 100


async def ask(app, accept: str) -> tuple[int, dict[str, str], str]:
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    headers = [(b"accept", accept.encode())]
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    head = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], head, sent[1]["body"].decode()


def test_the_asgi_app_answers_with_the_metrics_of_the_runtime_and_the_process(run):
    async def main():
        async with Runtime() as rt:
            app = metrics_app(rt)
            await (await rt.submit(good))
            return await ask(app, "application/openmetrics-text; version=1.0.0")

    status, head, body = run(main)
    assert status == 200
    assert head["content-type"].startswith("application/openmetrics-text")
    assert "bgruntime_jobs_submitted_total" in body
    assert "python_info" in body
    list(text_string_to_metric_families(body))


def test_the_page_is_written_in_a_thread_of_its_own(run):
    writers: list[threading.Thread] = []

    class Noting(Collector):
        def collect(self):
            writers.append(threading.current_thread())
            return ()

    async def main():
        async with Runtime() as rt:
            registry = CollectorRegistry()
            app = metrics_app(rt, registry)
            registry.register(Noting())
            writers.clear()
            return await ask(app, "text/plain")

    status, _, body = run(main)
    assert (status, "bgruntime_info" in body) == (200, True)
    assert [writer is threading.main_thread() for writer in writers] == [False]


def test_from_a_thread_the_health_says_when_the_loop_is_held(run, monkeypatch):
    monkeypatch.setattr("bgruntime._runtime._PATIENCE", 0.2)

    async def main():
        async with Runtime() as rt:
            loop = asyncio.get_running_loop()
            fine = await loop.run_in_executor(None, rt.health)
            held = loop.run_in_executor(None, rt.health)
            time.sleep(0.6)
            return fine, await held

    fine, held = run(main)
    assert (fine.live, fine.status) == (True, "pass")
    assert (held.live, held.ready, held.status) == (False, False, "fail")


def test_a_scrape_in_a_thread_has_the_journal_counted_too(run, tmp_path):
    async def main():
        async with Runtime(journal=tmp_path / "jobs.db") as rt:
            registry = registered(rt)
            await (await rt.submit(bad)).wait()
            async with asyncio.timeout(10):
                while (
                    await asyncio.to_thread(registry.get_sample_value, "bgruntime_journal_failed_jobs")
                ) != 1:
                    await asyncio.sleep(0.005)
        return registry

    registry = run(main)
    assert registry.get_sample_value("bgruntime_journal_failed_jobs") == 1  # after the loop is closed, too


def test_the_first_scrape_in_a_thread_has_the_journal_counted(run, tmp_path):
    async def main():
        async with Runtime(journal=tmp_path / "jobs.db") as rt:
            await (await rt.submit(bad)).wait()
            return (await asyncio.to_thread(openmetrics, registered(rt))).decode()

    text = run(main)
    assert "\nbgruntime_journal_failed_jobs 1.0\n" in text
    assert "\nbgruntime_journal_write_errors_total 0.0\n" in text
