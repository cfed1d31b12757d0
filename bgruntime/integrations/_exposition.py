"""The numbers as Prometheus reads them, without its client: text format 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bgruntime import RuntimeStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[dict[str, str], float]


def exposition(stats: RuntimeStats) -> str:
    """The page that a scrape reads."""
    return "".join(f"{line}\n" for line in _lines(stats))


def _lines(stats: RuntimeStats) -> Iterator[str]:
    tasks = stats.tasks.items()
    submitted: list[Sample] = [({"task": name}, task.submitted) for name, task in tasks]
    ended: list[Sample] = [
        ({"task": name, "state": state}, count)
        for name, task in tasks
        for state, count in (
            ("completed", task.completed),
            ("discarded", task.failed),
            ("cancelled", task.cancelled),
        )
    ]
    yield from _family("bgruntime_jobs_submitted_total", "counter", "Jobs accepted.", submitted)
    yield from _family("bgruntime_jobs_ended_total", "counter", "Jobs that are over, by state.", ended)
    for name, about, value in (
        ("bgruntime_job_retries_total", "Attempts that were followed by another one.", float(stats.retried)),
        ("bgruntime_jobs_timed_out_total", "Attempts that ran past their timeout.", stats.timed_out),
    ):
        yield from _family(name, "counter", about, [({}, value)])
    rejected: list[Sample] = [({"task": name}, task.rejected) for name, task in tasks]
    yield from _family("bgruntime_submissions_rejected_total", "counter", "Turned away.", rejected)
    for name, about, value in (
        ("bgruntime_jobs_running", "Attempts that hold a slot.", stats.running),
        ("bgruntime_jobs_queued", "Jobs that wait for a slot.", stats.waiting),
        ("bgruntime_jobs_stuck", "Attempts that would not stop.", stats.stuck),
        ("bgruntime_concurrency_limit", "How many attempts may run at once.", stats.concurrency),
        ("bgruntime_oldest_wait_seconds", "How long the first in the queues has waited.", stats.oldest_wait),
    ):
        yield from _family(name, "gauge", about, [({}, value)])
    yield from _durations(stats)


def _durations(stats: RuntimeStats) -> Iterator[str]:
    for name, about, spread in (
        ("bgruntime_job_duration_seconds", "How long attempts ran.", stats.run_time),
        ("bgruntime_job_queue_wait_seconds", "How long attempts waited.", stats.queue_wait),
    ):
        quantiles = (("0.5", spread.p50), ("0.95", spread.p95), ("0.99", spread.p99))
        yield from _family(name, "summary", about, [({"quantile": q}, value) for q, value in quantiles])
        yield f"{name}_sum {spread.total:.9g}"
        yield f"{name}_count {spread.count}"


def _family(name: str, kind: str, about: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{inside}}} {value:.9g}" if inside else f"{name} {value:.9g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


__all__ = ["CONTENT_TYPE", "exposition"]
