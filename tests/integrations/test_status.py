"""The status pages: who sees what, who may do what, and what every answer looks like."""

from __future__ import annotations

import asyncio
import signal
import string
from contextlib import suppress

import pytest
from fastapi import FastAPI, Request
from pydantic import SecretStr

from bgruntime import Queue, QueueFull, Runtime, current_job, task
from bgruntime.integrations import _pages, _router
from bgruntime.integrations.fastapi import RuntimeDep, accepted, runtime_lifespan, status_router
from tests.door.turns import Gate, hold, turns, until
from tests.integrations.asgi import serve

SAFE = {"X-Bgruntime": "1", "Sec-Fetch-Site": "same-origin"}
SECRET = "correct horse battery staple"


@task(redact=("password",), name="tests.status:sign_in")
async def sign_in(user: str, password: str, token: SecretStr) -> None:
    await asyncio.Event().wait()


@task(name="tests.status:fail")
async def fail(word: str) -> None:
    raise ValueError(f"no such word: {word}")


@task(name="tests.status:double")
async def double(n: int) -> int:
    return n * 2


@task(durable=True, name="tests.status:later")
async def later(n: int) -> None: ...


async def by_header(request: Request) -> object | None:
    return request.headers.get("x-user")


async def not_the_guest(principal: object, action: str, request: Request) -> bool:
    return principal == "ada" or action == "view"


def application(rt: Runtime, **options) -> FastAPI:
    app = FastAPI(lifespan=runtime_lifespan(rt))
    app.include_router(status_router(**options))

    @app.post("/double/{n}", status_code=202)
    async def submit(n: int, rt: RuntimeDep, request: Request):
        return accepted(request, await rt.submit(double, n), n=n)

    return app


def guarded(rt: Runtime) -> FastAPI:
    return application(rt, auth=by_header, allow=not_the_guest)


ADA = {"x-user": "ada", **SAFE}
GUEST = {"x-user": "guest", **SAFE}


# ── probes and numbers ──


def test_the_probes_follow_the_runtime(run, clock):
    """By a clock of its own: the first request holds the loop for longer than is healthy here and there."""

    async def main():
        rt = Runtime()
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            async with serve(application(rt)) as client:
                for probe in ("livez", "readyz", "health"):
                    answer = await client.get(f"/bgruntime/{probe}")
                    assert (answer.status, answer.json()["status"]) == (200, "pass")
                    assert answer.headers["cache-control"] == "no-store"
                rt.pause()
                assert (await client.get("/bgruntime/health")).json()["status"] == "warn"
                signal.raise_signal(signal.SIGTERM)
                assert (await client.get("/bgruntime/readyz")).status == 503
                assert (await client.get("/bgruntime/livez")).status == 200
                await rt.stop()
                assert (await client.get("/bgruntime/health")).status == 503
                assert (await client.get("/bgruntime/readyz")).json()["ready"] is False
        finally:
            signal.signal(signal.SIGTERM, before)

    run(main)


def test_the_numbers_hold_names_and_numbers_and_no_text(run):
    async def main():
        rt = Runtime(queues=[Queue("mail")])
        async with serve(application(rt)) as client:
            await rt.submit(double, 1)
            await rt.submit(fail, SECRET)
            await rt.drain()
            shown = (await client.get("/bgruntime/metrics/tasks")).json()
            assert shown["completed"] == shown["failed"] == 1
            assert shown["tasks"]["tests.status:double"]["completed"] == 1
            assert shown["tasks"]["tests.status:double"]["run_time"]["p95"] > 0
            assert set(shown["queues"]) == {"default", "mail"}

            def texts(value):
                if isinstance(value, dict):
                    return [text for one in value.values() for text in texts(one)]
                return [value] if isinstance(value, str) else []

            assert texts(shown) == []
            assert SECRET not in str(shown)
            page = await client.get("/bgruntime/metrics")
            assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
            assert (
                'bgruntime_jobs_finished_total{task="tests.status:fail",outcome="failed"} 1\n'
                in page.body.decode()
            )
            assert SECRET not in page.body.decode()

    run(main)


def test_the_page_for_prometheus_is_read_by_its_own_client(run):
    from prometheus_client.parser import text_string_to_metric_families

    async def main():
        rt = Runtime()

        @task(name='a "quoted"\nname\\')
        async def odd() -> None: ...

        async with serve(application(rt)) as client:
            await (await rt.submit(odd))
            page = (await client.get("/bgruntime/metrics")).body.decode()
            families = {one.name: one for one in text_string_to_metric_families(page)}
            [sample] = list(families["bgruntime_jobs_submitted"].samples)
            assert sample.labels == {"task": 'a "quoted"\nname\\'}
            assert families["bgruntime_job_duration_seconds"].type == "histogram"

    run(main)


def test_the_page_has_the_metrics_of_the_collector_under_the_same_names(run, tmp_path):
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.parser import text_string_to_metric_families

    from bgruntime.integrations.prometheus import RuntimeCollector

    def samples(page: str) -> set[object]:
        return {
            (family.type, family.documentation, sample.name, frozenset(sample.labels.items()))
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }

    async def main():
        rt = Runtime(journal=tmp_path / "jobs.db", concurrency=1, queue_size=1, overflow="reject")
        async with serve(application(rt)) as client:
            jobs = [await rt.submit(double, 1), await rt.submit(fail, SECRET)]
            with suppress(QueueFull):
                await rt.submit(double, 2)
            for job in jobs:
                await job.wait()
            registry = CollectorRegistry()
            registry.register(RuntimeCollector(rt))
            theirs = (await asyncio.to_thread(generate_latest, registry)).decode()
            ours = (await client.get("/bgruntime/metrics")).body.decode()
            assert samples(ours) == samples(theirs)
            assert "\nbgruntime_journal_failed_jobs 1\n" in ours

    run(main)


# ── one job ──


def test_a_submitted_job_is_a_202_with_its_location_where_it_can_be_awaited(run):
    async def main():
        async with serve(application(Runtime())) as client:
            answer = await client.post("/double/4")
            assert answer.status == 202
            location = answer.headers["location"]
            id = answer.json()["job_id"]
            assert location == f"/bgruntime/jobs/{id}"
            shown = (await client.get(f"/bgruntime/jobs/{id}?wait=10")).json()
            assert (shown["id"], shown["state"], shown["attempt"]) == (id, "completed", 1)
            assert shown["created_at"] <= shown["started_at"] <= shown["ended_at"]

    run(main)


@pytest.mark.parametrize(
    "id", ["a/b", "//evil.example", "a/../b", "50% off?#x", "back\\slash", "ü\n", "\udcff"]
)
def test_a_job_is_found_at_its_location_whatever_its_id_and_whoever_asks(run, id):
    async def main():
        app = application(Runtime(), auth=by_header)
        app.root_path = "/proxied"

        @app.post("/named", status_code=202)
        async def named(rt: RuntimeDep, request: Request):
            return accepted(request, await rt.submit(double.with_options(id=id), 1))

        async with serve(app) as client:
            answer = await client.post("/named", headers={"host": "evil.example/?"})
            assert (answer.status, answer.json()["job_id"]) == (202, id)
            location = answer.headers["location"]
            assert location.startswith("/proxied/bgruntime/jobs/")
            assert set(location) <= set(string.ascii_letters + string.digits + "/%._-~")
            if id == "\udcff":  # no address can say that
                return
            assert (await client.get(f"{location}?wait=10")).json()["id"] == id
            assert (await client.get(f"{location}/details", headers=ADA)).json()["id"] == id

    run(main)


def test_without_the_router_a_submitted_job_has_no_location(run):
    async def main():
        app = FastAPI(lifespan=runtime_lifespan(Runtime()))

        @app.post("/")
        async def submit(rt: RuntimeDep, request: Request):
            return accepted(request, await rt.submit(double, 1))

        async with serve(app) as client:
            answer = await client.post("/")
            assert answer.status == 202
            assert "location" not in answer.headers

    run(main)


def test_everybody_sees_where_a_job_stands_and_nothing_else_of_it(run):
    async def main():
        rt = Runtime()
        async with serve(application(rt)) as client:
            job = await rt.submit(fail, SECRET)
            await job.wait()
            answer = await client.get(f"/bgruntime/jobs/{job.id}")
            assert set(answer.json()) == {
                "id",
                "task",
                "state",
                "attempt",
                "created_at",
                "started_at",
                "ended_at",
            }
            assert answer.json()["state"] == "discarded"
            assert SECRET not in answer.body.decode()

    run(main)


def test_a_wait_ends_with_its_time_and_says_where_the_job_stands(run):
    async def main():
        gate = Gate()
        rt = Runtime()
        async with serve(application(rt)) as client:
            job = await rt.submit(hold, gate, 0)
            await until(lambda: gate.started)
            answer = await client.get(f"/bgruntime/jobs/{job.id}?wait=0.02")
            assert answer.json()["state"] == "running"
            waiting = asyncio.ensure_future(client.get(f"/bgruntime/jobs/{job.id}?wait=30"))
            await turns()
            assert not waiting.done()
            gate.open()
            assert (await waiting).json()["state"] == "completed"

    run(main)


def test_a_wait_ends_when_the_server_is_told_to_stop(run):
    async def main():
        gate = Gate()
        rt = Runtime()
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            async with serve(application(rt)) as client:
                job = await rt.submit(hold, gate, 0)
                await until(lambda: gate.started)
                waiting = asyncio.ensure_future(client.get(f"/bgruntime/jobs/{job.id}?wait=30"))
                await turns()
                signal.raise_signal(signal.SIGTERM)
                assert (await waiting).json()["state"] == "running"
                gate.open()
        finally:
            signal.signal(signal.SIGTERM, before)

    run(main)


def test_a_wait_that_is_cancelled_while_it_ends_is_cancelled_and_leaves_nothing(run):
    async def main():
        told = asyncio.Event()

        async def slow_to_end():
            try:
                await asyncio.Event().wait()
            finally:
                told.set()
                with suppress(asyncio.CancelledError):
                    await turns(3)
                await turns(3)

        waiting = asyncio.ensure_future(_pages._first(slow_to_end(), asyncio.Event().wait(), 0.01))
        await told.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert len(asyncio.all_tasks()) == 1

    run(main)


def test_only_so_many_wait_at_once(run, monkeypatch):
    monkeypatch.setattr(_pages, "MOST_WAITING", 2)

    begun = []
    first = _pages._first

    async def noticed(*args):
        begun.append(args)
        await first(*args)

    monkeypatch.setattr(_pages, "_first", noticed)

    async def main():
        gate = Gate()
        rt = Runtime()
        async with serve(application(rt)) as client:
            job = await rt.submit(hold, gate, 0)
            path = f"/bgruntime/jobs/{job.id}?wait=30"
            waiting = [asyncio.ensure_future(client.get(path)) for _ in range(2)]
            await until(lambda: len(begun) == 2)
            answer = await client.get(path)
            assert answer.status == 503
            assert answer.headers["retry-after"] == "5"
            gate.open()
            assert [one.status for one in await asyncio.gather(*waiting)] == [200, 200]
            assert (await client.get(path)).status == 200

    run(main)


def test_a_durable_job_of_another_process_is_found_and_one_of_its_memory_is_not(run, tmp_path):
    async def main():
        other = Runtime(journal=tmp_path / "jobs.db")
        async with other, serve(application(Runtime(journal=tmp_path / "jobs.db"))) as client:
            durable = await other.submit(later.with_options(delay=3600), 1)
            answer = await client.get(f"/bgruntime/jobs/{durable.id}?wait=0.01")
            assert (answer.status, answer.json()["state"]) == (200, "scheduled")
            plain = await other.submit(double, 1)
            answer = await client.get(f"/bgruntime/jobs/{plain.id}")
            assert answer.status == 404
            assert "known to the process that accepted it" in answer.json()["detail"]

    run(main)


# ── behind auth ──

READ = ["/health/details", "/jobs", "/jobs/x/details", "/failures", "/failures/groups"]
WRITE = [
    "/jobs/x/cancel",
    "/queues/default/pause",
    "/queues/default/resume",
    "/pause",
    "/resume",
    "/failures/redrive",
    "/failures/x/redrive",
    "/failures/discard",
    "/failures/purge",
    "/failures/x/discard",
]


def test_without_auth_nothing_that_writes_or_tells_is_there(run):
    async def main():
        app = application(Runtime())
        assert set(app.openapi()["paths"]) == {
            "/double/{n}",
            *(f"/bgruntime/{page}" for page in ("livez", "readyz", "health", "metrics", "metrics/tasks")),
            "/bgruntime/jobs/{id}",
        }
        async with serve(app) as client:
            for path in WRITE:
                assert (await client.post(f"/bgruntime{path}", headers=ADA, json_body={})).status in (
                    404,
                    405,
                )
            for path in READ:
                if path != "/jobs/x/details":
                    assert (await client.get(f"/bgruntime{path}", headers=ADA)).status == 404

    run(main)


def test_the_lists_above_are_all_there_is():
    paths = guarded(Runtime()).openapi()["paths"]
    writes = {path for path, item in paths.items() if "post" in item} - {"/double/{n}"}
    assert writes == {
        f"/bgruntime{path}".replace("/x", "/{id}").replace("default", "{queue}") for path in WRITE
    }


@pytest.mark.parametrize("path", READ + WRITE)
def test_nobody_and_those_who_may_not_are_turned_away(run, path):
    async def main():
        method = "GET" if path in READ else "POST"
        async with serve(guarded(Runtime())) as client:
            body = {"older_than": 1} if path.endswith("purge") else {"task": "x"}
            more = {} if method == "GET" else {"json_body": body}
            answer = await client.request(method, f"/bgruntime{path}", headers=SAFE, **more)
            assert answer.status == 401
            assert "www-authenticate" in answer.headers
            if method == "POST":
                answer = await client.request(method, f"/bgruntime{path}", headers=GUEST, **more)
                assert answer.status == 403
            assert answer.headers["content-type"] == "application/problem+json"

    run(main)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"X-Bgruntime": "1", "Sec-Fetch-Site": "cross-site"},
        {"X-Bgruntime": "1", "Sec-Fetch-Site": "same-site"},
        {"X-Bgruntime": "1", "Sec-Fetch-Site": "none"},
        {"X-Bgruntime": "1", "Origin": "https://elsewhere.example"},
        {"X-Bgruntime": "1", "Origin": "null"},
        {"X-Bgruntime": "1", "Origin": "http://["},
        {"X-Bgruntime": "1", "Origin": "https://app.example.elsewhere.example"},
        {"X-Bgruntime": "1", "Sec-Fetch-Site": "cross-site", "Origin": "http://app.example"},
    ],
    ids=str,
)
def test_what_changes_something_comes_from_the_same_origin_with_a_header_no_form_can_send(run, headers):
    async def main():
        rt = Runtime()
        async with serve(guarded(rt)) as client:
            answer = await client.post("/bgruntime/pause", headers={"x-user": "ada", **headers})
            assert answer.status == 403
            assert not rt.stats().queues["default"].paused

    run(main)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://app.example"},
        {"Origin": "http://App.Example"},
        {"Sec-Fetch-Site": "same-origin"},
    ],
)
def test_a_program_and_the_same_origin_may(run, headers):
    async def main():
        rt = Runtime()
        async with serve(guarded(rt)) as client:
            given = {"x-user": "ada", "X-Bgruntime": "1", **headers}
            answer = await client.post("/bgruntime/queues/default/pause", headers=given)
            assert answer.json() == {"queue": "default", "paused": True}
            assert rt.stats().queues["default"].paused
            assert (await client.post("/bgruntime/resume", headers=given)).json()["paused"] is False
            assert (await client.post("/bgruntime/queues/nope/pause", headers=given)).status == 404

    run(main)


def test_arguments_are_shown_to_whom_may_see_them_and_secrets_to_nobody(run):
    async def main():
        rt = Runtime()
        async with serve(guarded(rt)) as client:
            job = await rt.submit(sign_in, "ada", SECRET, SecretStr(SECRET))
            path = f"/bgruntime/jobs/{job.id}/details"
            shown = await client.get(path, headers=ADA)
            assert shown.json()["arguments"]["user"] == "'ada'"
            assert set(shown.json()["arguments"]) == {"user", "password", "token"}
            assert SECRET not in shown.body.decode()
            assert "arguments" not in (await client.get(path, headers=GUEST)).json()
            answer = await client.post(f"/bgruntime/jobs/{job.id}/cancel", headers=ADA)
            assert answer.json() == {"cancelled": True}
            await job.wait()
            assert (await client.get(path, headers=ADA)).json()["state"] == "cancelled"
            assert (await client.post(f"/bgruntime/jobs/{job.id}/cancel", headers=ADA)).json() == {
                "cancelled": False
            }

    run(main)


def test_a_text_that_utf8_has_no_bytes_for_is_shown_as_it_is(run):
    async def main():
        @task(name="tests.status:half \udcff")
        async def half(gate: Gate) -> None:
            current_job().progress(0.5, "reading \udcff.txt")
            await gate.wait()

        rt, gate = Runtime(), Gate()
        async with serve(guarded(rt)) as client:
            job = await rt.submit(half.with_options(tags=("tag \udcff",)), gate)
            await until(lambda: gate.started)
            for path in ("/jobs", f"/jobs/{job.id}", f"/jobs/{job.id}/details", "/metrics/tasks", "/metrics"):
                answer = await client.get(f"/bgruntime{path}", headers=ADA)
                assert answer.status == 200
            [shown] = (await client.get("/bgruntime/jobs", headers=ADA)).json()["items"]
            assert shown["note"] == "reading \udcff.txt"
            assert (shown["task"], shown["tags"]) == ("tests.status:half \udcff", ["tag \udcff"])
            gate.open()

    run(main)


def test_lists_come_in_pages(run):
    async def main():
        rt = Runtime()
        async with serve(guarded(rt)) as client:
            for n in range(5):
                await rt.submit(double, n)
            await rt.submit(fail, "x")
            await rt.drain()
            seen, offset = [], 0
            while offset is not None:
                page = (await client.get(f"/bgruntime/jobs?limit=2&offset={offset}", headers=ADA)).json()
                assert page["total"] == 6
                seen += [one["id"] for one in page["items"]]
                offset = page["next"]
            assert len(set(seen)) == 6
            page = (
                await client.get("/bgruntime/jobs?state=discarded&task=tests.status:fail", headers=ADA)
            ).json()
            assert page["total"] == 1
            assert (await client.get("/bgruntime/jobs?limit=101", headers=ADA)).status == 422

    run(main)


def test_a_failure_with_numbers_that_json_does_not_know_hides_no_other(run, tmp_path):
    async def main():
        rt = Runtime(journal=tmp_path / "jobs.db")
        async with serve(guarded(rt)) as client:
            for word in ("a", {"x": [float("nan"), 1.5], "y": float("-inf")}, "b"):
                await (await rt.submit(fail, word)).wait()
            page = (await client.get("/bgruntime/failures", headers=ADA)).json()
            told = [item["arguments"]["word"] for item in page["items"]]
            assert told == ["b", {"x": ["nan", 1.5], "y": "-inf"}, "a"]

    run(main)


def test_failures_are_listed_grouped_redriven_discarded_and_purged(run, tmp_path):
    async def main():
        rt = Runtime(journal=tmp_path / "jobs.db")
        async with serve(guarded(rt)) as client:
            jobs = [await rt.submit(fail, word) for word in ("a", "b", "c", "d")]
            for job in jobs:
                await job.wait()
            page = (await client.get("/bgruntime/failures?limit=3", headers=ADA)).json()
            assert (page["total"], len(page["items"]), page["next"]) == (4, 3, 3)
            assert page["items"][0]["arguments"] == {"word": "d"}
            assert page["items"][0]["message"] == "no such word: d"
            assert (
                "arguments" not in (await client.get("/bgruntime/failures", headers=GUEST)).json()["items"][0]
            )
            [group] = (await client.get("/bgruntime/failures/groups", headers=ADA)).json()
            assert (group["error"], group["count"]) == ("ValueError", 4)
            details = (await client.get(f"/bgruntime/jobs/{jobs[0].id}/details", headers=ADA)).json()
            assert "ValueError" in details["traceback"]

            answer = await client.post(f"/bgruntime/failures/{jobs[0].id}/redrive", headers=ADA)
            assert answer.status == 202
            assert answer.headers["location"].endswith(f"/bgruntime/jobs/{answer.json()['job_id']}")
            await rt.job(answer.json()["job_id"]).wait()
            assert (await client.post("/bgruntime/failures/nope/redrive", headers=ADA)).status == 404
            which = {"task": "tests.status:fail", "dry_run": True}
            answer = await client.post("/bgruntime/failures/redrive", headers=ADA, json_body=which)
            assert (answer.status, answer.json()["count"] >= 3) == (202, True)

            answer = await client.post(f"/bgruntime/failures/{jobs[1].id}/discard", headers=ADA)
            assert answer.json() == {"count": 1}
            assert (await client.post("/bgruntime/failures/nope/discard", headers=ADA)).status == 404
            answer = await client.post("/bgruntime/failures/discard", headers=ADA, json_body={})
            assert answer.status == 422
            which = {"error": "ValueError"}
            answer = await client.post("/bgruntime/failures/discard", headers=ADA, json_body=which)
            assert answer.json()["count"] >= 2
            answer = await client.post("/bgruntime/failures/purge", headers=ADA, json_body={"older_than": 0})
            assert answer.json()["count"] >= 3
            assert (await client.get("/bgruntime/failures", headers=ADA)).json()["total"] == 0

    run(main)


def test_no_more_failures_are_taken_at_once_than_one_request_may(run, tmp_path, monkeypatch):
    monkeypatch.setattr(_router, "MOST_AT_ONCE", 1)

    async def main():
        rt = Runtime(journal=tmp_path / "jobs.db")
        async with serve(guarded(rt)) as client:
            for word in ("a", "b"):
                await (await rt.submit(fail, word)).wait()
            for action in ("redrive", "discard"):
                which = {"task": "tests.status:fail"}
                answer = await client.post(f"/bgruntime/failures/{action}", headers=ADA, json_body=which)
                assert answer.status == 409
            assert (await client.get("/bgruntime/failures", headers=ADA)).json()["total"] == 2

    run(main)


def test_without_a_journal_the_failures_say_so(run):
    async def main():
        async with serve(guarded(Runtime())) as client:
            answer = await client.get("/bgruntime/failures", headers=ADA)
            assert answer.status == 404
            assert "no journal" in answer.json()["detail"]

    run(main)


def test_a_body_that_is_too_long_or_no_json_is_refused(run):
    async def main():
        async with serve(guarded(Runtime())) as client:
            big = b'{"task": "' + b"x" * 70_000 + b'"}'
            given = {**ADA, "content-type": "application/json"}
            assert (await client.post("/bgruntime/failures/redrive", headers=given, body=big)).status == 413
            for body in (b"{", b"[]", b'{"task": "\\ud800"}', b"\xff"):
                answer = await client.post("/bgruntime/failures/redrive", headers=given, body=body)
                assert answer.status in (400, 422)
                assert answer.headers["content-type"] == "application/problem+json"

    run(main)


def test_what_was_done_is_in_the_audit_log_on_one_line(run, caplog):
    caplog.set_level("INFO", "bgruntime.audit")

    async def main():
        async with serve(guarded(Runtime())) as client:
            await client.post("/bgruntime/queues/default\nforged/pause", headers=ADA)

    run(main)
    [record] = caplog.records
    assert "\n" not in record.getMessage()
    assert "ada" in record.getMessage()
