"""A runtime lives as long as its application, and stops in step with the server."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute

from bgruntime import JobInterrupted, PayloadError, QueueFull, Runtime, RuntimeClosed, Shutdown, task
from bgruntime.integrations import _signals, _streams
from bgruntime.integrations.fastapi import BodyLimit, RuntimeDep, runtime_lifespan
from bgruntime.integrations.starlette import runtime_of, serving_of
from tests.door.turns import Gate, hold, turns, until
from tests.integrations.asgi import Answer, serve


@task
async def double(n: int) -> int:
    return n * 2


@pytest.fixture
def quiet_signals():
    """SIGTERM and SIGINT are noted and do nothing else, as under a server."""
    heard: list[int] = []

    def note(number, frame):
        heard.append(number)

    before = {number: signal.signal(number, note) for number in _signals.ENDING}
    yield heard
    after = {number: signal.getsignal(number) for number in _signals.ENDING}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert all(handler is note for handler in after.values()), "somebody left a handler behind"


def test_the_runtime_runs_while_the_application_does(run):
    async def main():
        rt = Runtime()
        app = FastAPI(lifespan=runtime_lifespan(rt))

        @app.get("/{n}")
        async def ask(n: int, rt: RuntimeDep):
            return await (await rt.submit(double, n))

        async with serve(app) as client:
            assert (await client.get("/21")).json() == 42
        with pytest.raises(RuntimeClosed):
            await rt.submit(double, 1)
        async with serve(app) as client:  # and again
            assert (await client.get("/4")).json() == 8

    run(main)


def test_what_the_applications_own_lifespan_opens_is_open_as_long_as_jobs_run(run):
    async def main():
        events = []
        gate = Gate()

        @asynccontextmanager
        async def own(app):
            events.append("opened")
            yield {"pool": "a pool"}
            events.append("closed")

        async def work():
            await hold(gate, 0)
            events.append("worked")

        rt = Runtime()

        async def endpoint(request):
            await runtime_of(request).submit(work)
            return PlainTextResponse("")

        app = Starlette(routes=[Route("/", endpoint)], lifespan=runtime_lifespan(rt, own))
        async with serve(app) as client:
            await client.get("/")
            await until(lambda: gate.started)
            gate.open()
        assert events == ["opened", "worked", "closed"]

    run(main)


def test_when_the_runtime_cannot_start_what_was_opened_before_it_is_closed(run):
    async def main():
        events = []

        @asynccontextmanager
        async def own(app):
            events.append("opened")
            try:
                yield
            finally:
                events.append("closed")

        class Broken:
            async def __aenter__(self):
                raise ConnectionError("no such collector")

            async def __aexit__(self, *_):
                events.append("left")

            def on_event(self, event): ...

        app = Starlette(lifespan=runtime_lifespan(Runtime(observers=[Broken()]), own))
        with pytest.raises(ConnectionError):
            async with serve(app):
                pass
        assert events == ["opened", "closed"]

    run(main)


def test_when_the_applications_own_lifespan_cannot_start_the_runtime_does_not_either(run):
    async def main():
        @asynccontextmanager
        async def own(app):
            raise ConnectionError("no database")
            yield

        rt = Runtime()
        with pytest.raises(ConnectionError):
            async with serve(Starlette(lifespan=runtime_lifespan(rt, own))):
                pass
        with pytest.raises(RuntimeClosed, match="new"):
            await rt.submit(double, 1)

    run(main)


def test_a_request_finds_the_runtime_in_a_mounted_application_too(run):
    async def main():
        async def endpoint(request):
            return PlainTextResponse(str(await (await runtime_of(request).submit(double, 4))))

        inner = Starlette(routes=[Route("/", endpoint)])
        app = Starlette(routes=[Mount("/inner", inner)], lifespan=runtime_lifespan(Runtime()))
        async with serve(app) as client:
            assert (await client.get("/inner/")).body == b"8"

    run(main)


def test_an_application_without_the_lifespan_says_what_is_missing(run):
    async def main():
        async def endpoint(request):
            with pytest.raises(RuntimeError, match=r"lifespan=runtime_lifespan\(Runtime"):
                runtime_of(request)
            return PlainTextResponse("")

        async with serve(Starlette(routes=[Route("/", endpoint)])) as client:
            await client.get("/")

    run(main)


def test_a_submit_in_a_request_waits_for_room_no_longer_than_it_may(run):
    async def main():
        gate = Gate()
        rt = Runtime(concurrency=1, queue_size=1)
        app = FastAPI(lifespan=runtime_lifespan(rt, wait_limit=0.03))

        @app.get("/")
        async def ask(rt: RuntimeDep):
            await rt.submit(double, 1)

        async with serve(app) as client:
            await rt.submit(hold, gate, 0)
            await until(lambda: gate.started)
            assert (await client.get("/")).status == 200
            answer = await client.get("/")
            assert answer.status == 503
            assert "0.03 s" in answer.json()["detail"]
            gate.open()

    run(main)


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (QueueFull("default", 10), 503, True),
        (RuntimeClosed("draining"), 503, True),
        (PayloadError("argument 'x' of task t cannot be stored"), 422, False),
    ],
)
def test_a_refused_submission_is_a_problem_with_its_status(run, error, status, retry):
    async def main():
        app = FastAPI(lifespan=runtime_lifespan(Runtime()))

        @app.get("/")
        async def ask():
            raise error

        async with serve(app) as client:
            answer = await client.get("/")
            assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
            assert answer.json() == {
                "type": "about:blank",
                "title": answer.json()["title"],
                "status": status,
                "detail": str(error),
            }
            assert ("retry-after" in answer.headers) is retry

    run(main)


class Plain:
    """Middleware that keeps the next application under the name it is given."""

    def __init__(self, app, name):
        setattr(self, name, app)
        self.name = name

    async def __call__(self, scope, receive, send):
        await getattr(self, self.name)(scope, receive, send)


@pytest.mark.parametrize("kind", ["BodyLimit", "app", "_app", "unknown"])
def test_a_refused_submission_is_a_problem_behind_middleware_too(run, kind, caplog):
    async def endpoint(request):
        raise QueueFull("default", 10)

    async def main():
        app = Starlette(routes=[Route("/", endpoint)], lifespan=runtime_lifespan(Runtime()))
        if kind == "BodyLimit":
            app.add_middleware(BodyLimit, limit=100)
        else:
            app.add_middleware(Plain, name=kind)
        async with serve(app) as client:
            if kind == "unknown":
                with pytest.raises(QueueFull):
                    await client.get("/")
                assert "no ExceptionMiddleware was found" in caplog.text
                return
            answer = await client.get("/")
            assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json")
            assert "no ExceptionMiddleware" not in caplog.text

    run(main)


def test_a_handler_of_the_application_comes_before_ours(run):
    async def main():
        app = FastAPI(lifespan=runtime_lifespan(Runtime()))

        @app.exception_handler(QueueFull)
        async def own(request, error):
            return PlainTextResponse("come back tomorrow", 429)

        @app.get("/")
        async def ask():
            raise QueueFull("default", 1)

        async with serve(app) as client:
            assert (await client.get("/")).status == 429

    run(main)


# ── signals ──


def test_sigterm_turns_readiness_off_at_once_and_requests_may_still_submit(run, quiet_signals):
    async def main():
        rt = Runtime()
        seen = {}

        async def endpoint(request):
            serving = serving_of(request)
            seen["before"] = serving.ready
            signal.raise_signal(signal.SIGTERM)
            seen["after"] = serving.ready
            job = await serving.runtime.submit(double, 21)
            return PlainTextResponse(str(await job))

        app = Starlette(routes=[Route("/", endpoint)], lifespan=runtime_lifespan(rt))
        async with serve(app) as client:
            assert (await client.get("/")).body == b"42"
        assert seen == {"before": True, "after": False}

    run(main)
    assert quiet_signals == [signal.SIGTERM]


def test_the_drain_gets_what_is_left_of_the_clock_that_began_with_the_signal(run, quiet_signals, clock):
    async def main():
        gate = Gate()
        rt = Runtime(shutdown=Shutdown(drain=20, cancel=5, close=2))
        app = Starlette(lifespan=runtime_lifespan(rt))
        serving = serve(app)
        await serving.__aenter__()
        job = await rt.submit(hold, gate, 0)
        await until(lambda: gate.started)
        signal.raise_signal(signal.SIGTERM)
        await clock.advance(19)  # the server waits for its connections
        leaving = asyncio.ensure_future(serving.__aexit__(None, None, None))
        await turns()
        assert not job.done()
        await clock.advance(0.9)
        assert not job.done()
        await clock.advance(0.2)
        await until(job.done)
        with pytest.raises(JobInterrupted):
            await job
        await leaving

    run(main)


def test_a_second_signal_skips_the_drain(run, quiet_signals):
    async def main():
        gate = Gate()
        rt = Runtime()
        serving = serve(Starlette(lifespan=runtime_lifespan(rt)))
        await serving.__aenter__()
        job = await rt.submit(hold, gate, 0)
        await until(lambda: gate.started)
        signal.raise_signal(signal.SIGTERM)
        leaving = asyncio.ensure_future(serving.__aexit__(None, None, None))
        await until(lambda: rt.stats().phase == "draining")
        await turns()
        assert not job.done()
        signal.raise_signal(signal.SIGTERM)
        await leaving
        assert isinstance(job.exception(), JobInterrupted)

    run(main)
    assert quiet_signals == [signal.SIGTERM] * 2


def test_a_second_signal_that_comes_before_the_lifespan_ends_skips_it_too(run, quiet_signals):
    async def main():
        gate = Gate()
        rt = Runtime()
        async with serve(Starlette(lifespan=runtime_lifespan(rt))):
            job = await rt.submit(hold, gate, 0)
            await until(lambda: gate.started)
            os.kill(os.getpid(), signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            await turns()
        assert isinstance(job.exception(), JobInterrupted)

    run(main)


def test_a_signal_that_interrupts_a_job_does_not_make_that_job_the_caller_of_the_stop(run, quiet_signals):
    async def main():
        gate = Gate()

        async def work():
            signal.raise_signal(signal.SIGTERM)
            await until(lambda: rt.stats().phase == "draining")
            signal.raise_signal(signal.SIGTERM)
            await hold(gate, 0)

        rt = Runtime()
        async with serve(Starlette(lifespan=runtime_lifespan(rt))):
            job = await rt.submit(work)
            await until(lambda: quiet_signals)
        assert isinstance(job.exception(), JobInterrupted)
        assert (await rt.stop()).cancelled == (job.id,)

    run(main)


def test_in_a_worker_process_the_echo_of_its_parent_is_no_second_signal(run, quiet_signals, monkeypatch):
    monkeypatch.setattr("multiprocessing.parent_process", object)

    async def main():
        gate = Gate()
        rt = Runtime()
        serving = serve(Starlette(lifespan=runtime_lifespan(rt)))
        await serving.__aenter__()
        job = await rt.submit(hold, gate, 0)
        await until(lambda: gate.started)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        leaving = asyncio.ensure_future(serving.__aexit__(None, None, None))
        await until(lambda: rt.stats().phase == "draining")
        await turns()
        assert not job.done()
        gate.open()
        await leaving
        assert job.result() == 0

    run(main)


def test_outside_the_main_thread_signals_are_left_alone(quiet_signals):
    def in_thread():
        async def main():
            before = signal.getsignal(signal.SIGTERM)
            async with serve(Starlette(lifespan=runtime_lifespan(Runtime()))):
                assert signal.getsignal(signal.SIGTERM) is before

        asyncio.run(main())
        passed.append(True)

    passed: list[bool] = []
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert passed


def test_a_handler_that_was_put_on_top_of_ours_stays(run):
    async def main():
        async with serve(Starlette(lifespan=runtime_lifespan(Runtime()))):
            ours = signal.signal(signal.SIGTERM, on_top)
            assert ours is not before
        assert signal.getsignal(signal.SIGTERM) is on_top

    def on_top(number, frame): ...

    before = signal.getsignal(signal.SIGTERM)
    try:
        run(main)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_is_ignored_stays_ignored(run):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)

    async def main():
        async with serve(Starlette(lifespan=runtime_lifespan(Runtime()))):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN

    try:
        run(main)
    finally:
        signal.signal(signal.SIGTERM, before)


# ── streams ──


async def ticks(seen):
    try:
        while True:
            yield b"data: tick\n\n"
            await asyncio.Event().wait()
    finally:
        seen.append("closed")


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_an_event_stream_ends_properly_at_sigterm(run, quiet_signals, monkeypatch, spec_version):
    monkeypatch.setattr(_streams, "CUT_AFTER", 0.05)

    async def main():
        seen = []

        async def endpoint(request):
            return StreamingResponse(ticks(seen), media_type="text/event-stream")

        app = Starlette(routes=[Route("/", endpoint)], lifespan=runtime_lifespan(Runtime()))
        async with serve(app) as client:
            answer = Answer()
            asking = asyncio.ensure_future(
                client.request("GET", "/", answer=answer, spec_version=spec_version)
            )
            await answer.began.wait()
            signal.raise_signal(signal.SIGTERM)
            await asking
            assert answer.complete
            assert seen == ["closed"]
            late = await client.request("GET", "/", spec_version=spec_version)
            assert late.complete  # one that was accepted before and opens its stream only now

    run(main)


def test_another_stream_gets_its_time_and_is_then_cut_off_so_that_it_does_not_look_whole(
    run, quiet_signals, monkeypatch
):
    monkeypatch.setattr(_streams, "STREAM_GRACE", 0.1)
    monkeypatch.setattr(_streams, "CUT_AFTER", 0.05)

    async def main():
        gate = asyncio.Event()
        seen = []

        async def export():
            yield b"a,b\n"
            await gate.wait()
            yield b"1,2\n"

        async def finite(request):
            return StreamingResponse(export(), media_type="text/csv")

        async def endless(request):
            return StreamingResponse(ticks(seen), media_type="text/plain")

        routes = [Route("/finite", finite), Route("/endless", endless)]
        async with serve(Starlette(routes=routes, lifespan=runtime_lifespan(Runtime()))) as client:
            answers = Answer(), Answer()
            asking = [
                asyncio.ensure_future(client.request("GET", path, answer=answer))
                for path, answer in zip(("/finite", "/endless"), answers, strict=True)
            ]
            for answer in answers:
                await answer.began.wait()
            signal.raise_signal(signal.SIGTERM)
            await turns()
            gate.set()
            await asyncio.wait(asking)
            assert answers[0].body == b"a,b\n1,2\n"
            assert answers[0].complete
            assert not answers[1].complete
            assert seen == ["closed"]

    run(main)


def test_a_response_with_a_length_and_a_request_without_an_answer_are_left_alone(run, quiet_signals):
    async def main():
        gate = asyncio.Event()

        async def download():
            yield b"12"
            await gate.wait()
            yield b"34"

        async def sized(request):
            return StreamingResponse(
                download(), headers={"content-length": "4"}, media_type="text/event-stream"
            )

        async def slow(request):
            await gate.wait()
            return PlainTextResponse(await request.body())

        routes = [Route("/sized", sized), Route("/slow", slow, methods=["POST"])]
        async with serve(Starlette(routes=routes, lifespan=runtime_lifespan(Runtime()))) as client:
            answer = Answer()
            asking = asyncio.ensure_future(client.request("GET", "/sized", answer=answer))
            slow_one = asyncio.ensure_future(client.post("/slow", body=b"text"))
            await answer.began.wait()
            signal.raise_signal(signal.SIGTERM)
            await turns()
            gate.set()
            assert (await asking).body == b"1234"
            assert (await slow_one).body == b"text"

    run(main)


def test_a_stream_that_ends_by_itself_is_forgotten(run):
    async def main():
        async def endpoint(request):
            async def body():
                yield b"1"
                assert len(serving_of(request).streams.open) == 1
                yield b"2"

            return StreamingResponse(body())

        app = Starlette(routes=[Route("/", endpoint)], lifespan=runtime_lifespan(Runtime()))
        async with serve(app) as client:
            assert (await client.get("/")).body == b"12"
            assert not app.middleware_stack.open

    run(main)


@pytest.mark.parametrize("kind", ["text/event-stream", "text/csv"])
def test_what_follows_a_stream_that_was_sent_whole_is_left_alone(run, quiet_signals, monkeypatch, kind):
    monkeypatch.setattr(_streams, "STREAM_GRACE", 0.01)
    monkeypatch.setattr(_streams, "CUT_AFTER", 0.01)

    async def main():
        done = []

        async def after():
            await asyncio.sleep(0.1)
            done.append("after")

        async def endpoint(request):
            async def body():
                yield b"1"

            return StreamingResponse(body(), media_type=kind, background=BackgroundTask(after))

        routes = [Route("/", endpoint)]
        async with serve(Starlette(routes=routes, lifespan=runtime_lifespan(Runtime()))) as client:
            early = Answer()
            asking = asyncio.ensure_future(client.request("GET", "/", answer=early))
            await early.sent.wait()
            signal.raise_signal(signal.SIGTERM)
            await asking
            assert early.complete
            assert done == ["after"]

    run(main)


def test_a_websocket_finds_the_runtime_and_is_otherwise_not_touched(run):
    async def main():
        async def endpoint(websocket):
            await websocket.accept()
            await websocket.send_text(str(await (await runtime_of(websocket).submit(double, 2))))
            await websocket.close()

        app = Starlette(routes=[WebSocketRoute("/", endpoint)], lifespan=runtime_lifespan(Runtime()))
        sent = []
        async with serve(app):
            scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "subprotocols": []}

            async def receive():
                return {"type": "websocket.connect"}

            async def send(message):
                sent.append(message)

            await app(scope, receive, send)
        assert [message.get("text") for message in sent if message["type"] == "websocket.send"] == ["4"]

    run(main)
