"""P28: one sentinel, every way out at once: log lines, journal, metrics, spans, events, alerts and pages."""

from __future__ import annotations

import asyncio
import io
import json

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("prometheus_client")
pytest.importorskip("sentry_sdk")

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from pydantic import SecretStr

from bgruntime import Runtime, task
from bgruntime.alerts import AlertRule, Alerts
from bgruntime.integrations.fastapi import runtime_lifespan, status_router
from bgruntime.integrations.otel import Tracing
from bgruntime.integrations.prometheus import RuntimeCollector
from bgruntime.integrations.sentry import Sentry
from bgruntime.logs import configure
from tests.integrations.asgi import serve
from tests.integrations.recorders import Spans, sentry_set_up

SENTINEL = "s3nt1nel-c0ffee-4111"
UNDECLARED = "uNdEcLaReD-5d3a"
RESULT = "rEsUlT-77b1"
HEADERS = {"x-user": "ada", "X-Bgruntime": "1", "Sec-Fetch-Site": "same-origin"}
PAGES = ("livez", "readyz", "health", "metrics", "metrics/tasks")
GUARDED = ("health/details", "jobs", "failures", "failures/groups")


@task(name="p28.login", redact=("password",), max_attempts=2, backoff=0.0, timeout=5)
async def login(user: str, password: str) -> str:
    local = f"{password} of {len(user)}"
    try:
        raise KeyError(local)
    except KeyError as error:
        raise ValueError(f"nobody may enter with {password!r}") from error


@task(name="p28.typed")
async def typed(user: str, password: SecretStr) -> None:
    plain = password.get_secret_value()
    raise RuntimeError(f"{plain} of a user does not fit: {json.dumps([plain])}")


@task(name="p28.thread", redact=("password",))
def thread(user: str, password: str) -> None:
    hidden = [password]
    raise OSError(f"no such key: {hidden}")


@task(name="p28.exits", redact=("password",))
async def exits(user: str, password: str) -> None:
    raise SystemExit(f"with {password}")


@task(name="p28.hangs", redact=("password",), timeout=0.05)
async def hangs(user: str, password: str) -> None:
    kept = password
    await asyncio.Event().wait()
    print(kept)


@task(name="p28.works", redact=("password",))
async def works(user: str, password: str) -> str:
    return RESULT


async def who(request) -> object:
    return request.headers.get("x-user")


async def submit_all(rt: Runtime) -> None:
    for function in (login, thread, exits, hangs, works):
        await (await rt.submit(function, UNDECLARED, SENTINEL)).wait()
        await (await rt.submit(function, user=UNDECLARED, password=SENTINEL)).wait()
    for secret in (SecretStr(SENTINEL),):
        await (await rt.submit(typed, UNDECLARED, secret)).wait()


def test_p28_a_secret_leaves_by_no_way_and_undeclared_arguments_are_in_the_journal_only(run, tmp_path):
    stream, spans, alerted = io.StringIO(), Spans(), []
    rules = [AlertRule("row", "consecutive_failures", threshold=1)]

    async def main(sent):
        observers = [Tracing(spans.provider), Sentry(), Alerts(rules=rules, channels=[alerted.append])]
        rt = Runtime(journal=tmp_path / "jobs.db", observers=observers)
        app = FastAPI(lifespan=runtime_lifespan(rt))
        app.include_router(status_router(auth=who))
        registry = CollectorRegistry()
        registry.register(RuntimeCollector(rt))
        out = {}
        async with serve(app) as client:
            await submit_all(rt)
            for path in PAGES:
                out[path] = (await client.get(f"/bgruntime/{path}")).body.decode()
            for path in GUARDED:
                # Whoever may see arguments sees those that were not declared secret.
                answer = await client.get(f"/bgruntime/{path}", headers=HEADERS)
                assert answer.status == 200, path
                out[path] = answer.body.decode().replace(UNDECLARED, "")
            out["prometheus"] = generate_latest(registry).decode()
            out["stats"], out["health"] = repr(rt.stats()), repr(rt.health())
            out["jobs"] = repr(rt.jobs())
            failures = await rt.journal.failures()
            assert any(UNDECLARED in str(one.args) for one in failures)
            out["failures"] = str(failures).replace(UNDECLARED, "")
        out["alerts"] = "".join(f"{one!r}{one.title}{one.text}" for one in alerted)
        return out

    with sentry_set_up() as sent, configure(json=True, level="DEBUG", stream=stream) as logs:
        out = run(lambda: main(sent))
        logs.flush()
    out["logs"], out["spans"], out["events"] = stream.getvalue(), spans.text, sent.text
    spans.provider.shutdown()

    assert out["logs"].count('"job.failed"') == 9
    assert "[redacted]" in out["logs"]
    for way in ("failures", "spans", "events", "alerts", "metrics/tasks", "jobs"):
        assert "p28.login" in out[way], way
    for way, text in out.items():
        assert SENTINEL not in text, way
        assert UNDECLARED not in text, way
        assert RESULT not in text, way
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(UNDECLARED.encode() in file.read_bytes() for file in files)
    for file in files:
        assert SENTINEL.encode() not in file.read_bytes(), file
