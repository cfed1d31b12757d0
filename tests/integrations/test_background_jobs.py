"""BackgroundJobs does what Starlette's BackgroundTasks does, except what that does badly."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from bgruntime import JobState, Runtime, current_job, task
from bgruntime.integrations import fastapi as ours
from bgruntime.integrations.starlette import BackgroundJobs, runtime_lifespan, runtime_of
from tests.door.turns import Gate, hold, until
from tests.integrations.asgi import Answer, Client, serve

who = ContextVar("who", default="nobody")


@task(durable=True, name="tests.integrations:kept")
async def kept(label: str) -> str:
    return label


def answering(add, *, response=None, runtime=None):
    """A Starlette application with one endpoint that adds tasks and answers at once."""

    async def endpoint(request):
        jobs = BackgroundJobs(runtime_of(request))
        add(jobs)
        if response is not None:
            return response(jobs)
        return PlainTextResponse("accepted", background=jobs)

    return Starlette(
        routes=[Route("/", endpoint, methods=["GET", "POST"])],
        lifespan=runtime_lifespan(runtime or Runtime()),
    )


# ── as Starlette does ──


def test_an_async_task_runs_after_the_answer(run):
    done = []

    async def note(label, *, more):
        done.append((label, more))

    async def main():
        async with serve(answering(lambda jobs: jobs.add_task(note, 1, more=2))) as client:
            assert (await client.get("/")).body == b"accepted"
        assert done == [(1, 2)]

    run(main)


def test_a_plain_function_runs_in_a_thread_after_the_answer(run):
    threads = []

    async def main():
        async with serve(
            answering(lambda jobs: jobs.add_task(lambda: threads.append(threading.get_ident())))
        ) as c:
            assert (await c.get("/")).status == 200
        assert len(threads) == 1
        assert threads[0] != threading.get_ident()

    run(main)


def test_several_tasks_run_and_each_may_increment_what_the_others_do(run):
    total = 0

    async def increment(amount):
        nonlocal total
        total += amount

    def add(jobs):
        for amount in (1, 2, 3):
            jobs.add_task(increment, amount=amount)

    async def main():
        async with serve(answering(add)) as client:
            await client.get("/")
        assert total == 6

    run(main)


def test_it_is_made_of_background_tasks_as_well(run):
    done = []

    async def note(label):
        done.append(label)

    async def endpoint(request):
        tasks = [BackgroundTask(note, label) for label in "ab"]
        return PlainTextResponse("", background=BackgroundJobs(runtime_of(request), tasks))

    async def main():
        async with serve(Starlette(routes=[Route("/", endpoint)], lifespan=runtime_lifespan(Runtime()))) as c:
            await c.get("/")
        assert done == ["a", "b"]

    run(main)


@pytest.mark.parametrize("kind", ["partial", "callable object", "task", "lambda of a coroutine"])
def test_whatever_can_be_called_can_be_added(run, kind):
    import functools

    done = []

    async def note(label):
        done.append(label)

    class Note:
        async def __call__(self, label):
            await note(label)

    decorated = task(note, name=f"tests.integrations:note-{kind}")
    funcs = {
        "partial": functools.partial(note),
        "callable object": Note(),
        "task": decorated,
        "lambda of a coroutine": lambda label: note(label),
    }

    async def main():
        async with serve(answering(lambda jobs: jobs.add_task(funcs[kind], 1))) as client:
            await client.get("/")
        assert done == [1]

    run(main)


def test_it_goes_with_a_streamed_response(run):
    done = []

    async def note():
        done.append("after")

    async def body():
        yield b"a"
        done.append("body")
        yield b"b"

    async def main():
        app = answering(
            lambda jobs: jobs.add_task(note), response=lambda jobs: StreamingResponse(body(), background=jobs)
        )
        async with serve(app) as client:
            assert (await client.get("/")).body == b"ab"
        assert done == ["body", "after"]

    run(main)


def responding(rt, add):
    """An ASGI application of one response, without Starlette's own application around it."""

    async def app(scope, receive, send):
        jobs = BackgroundJobs(rt)
        add(jobs)
        response = Response("tasks initiated", media_type="text/plain", background=jobs)
        await response(scope, receive, send)

    return app


@pytest.mark.parametrize("kind", ["async", "sync", "three", "three as a list", "the first of two fails"])
def test_the_cases_of_starlettes_own_tests_hold_for_a_bare_response(run, kind):
    """Its only other outcome: there, a task that fails keeps the next from running; here it does not."""
    count = 0

    async def in_loop(amount=1):
        nonlocal count
        count += amount
        if kind == "the first of two fails" and count == 1:
            raise ValueError("the first of two")

    def in_thread():
        nonlocal count
        count += 1

    def add(jobs):
        if kind == "sync":
            jobs.add_task(in_thread)
        elif kind == "three as a list":
            for task in [BackgroundTask(in_loop, amount) for amount in (1, 2, 3)]:
                jobs.add_task(task.func, *task.args, **task.kwargs)
        elif kind == "three":
            for amount in (1, 2, 3):
                jobs.add_task(in_loop, amount=amount)
        else:
            for _ in range(2 if kind.startswith("the first") else 1):
                jobs.add_task(in_loop)

    expected = {"async": 1, "sync": 1, "three": 6, "three as a list": 6, "the first of two fails": 2}

    async def main():
        async with Runtime() as rt:
            answer = await Client(responding(rt, add)).get("/")
            assert (answer.status, answer.body) == (200, b"tasks initiated")
            await rt.drain()
            assert count == expected[kind]

    run(main)


# ── and better ──


def test_a_task_that_fails_stops_none_of_the_others(run):
    done = []

    async def fail():
        raise ValueError("this one is broken")

    async def note():
        done.append("noted")

    def add(jobs):
        jobs.add_task(fail)
        jobs.add_task(note)

    async def main():
        rt = Runtime()
        async with serve(answering(add, runtime=rt)) as client:
            assert (await client.get("/")).status == 200
            await until(lambda: rt.stats().failed == 1 and done == ["noted"])
            [failed] = rt.jobs(state="discarded")
            assert "fail" in failed.task

    run(main)


def test_a_slow_task_holds_neither_the_connection_nor_the_next_one(run):
    async def main():
        gate, done = Gate(), []
        rt = Runtime()

        async def note():
            done.append("noted")

        def add(jobs):
            jobs.add_task(hold, gate, 1)
            jobs.add_task(note)

        async with serve(answering(add, runtime=rt)) as client:
            await client.get("/")  # returns although a job of it is still running
            await until(lambda: done == ["noted"])
            assert rt.stats().running == 1
            gate.open()

    run(main)


def test_no_task_starts_before_the_answer_was_sent(run):
    async def main():
        answer, seen = Answer(), []

        async def look():
            seen.append(answer.complete)

        async with serve(answering(lambda jobs: jobs.add_task(look))) as client:
            await client.request("GET", "/", answer=answer)
        assert seen == [True]

    run(main)


def test_a_task_has_a_timeout_and_a_job_to_ask(run):
    asked = []

    @task(timeout=7, name="tests.integrations:asked")
    async def ask():
        asked.append(current_job())

    async def main():
        async with serve(answering(lambda jobs: jobs.add_task(ask))) as client:
            await client.get("/")
        assert len(asked) == 1

    run(main)


def test_a_full_queue_is_a_503_before_the_answer_and_nothing_of_the_request_runs(run):
    async def main():
        gate, done = Gate(), []
        rt = Runtime(concurrency=1, queue_size=1)

        async def note():
            done.append("noted")

        def add(jobs):
            jobs.add_task(note)
            jobs.add_task(note)

        async with serve(answering(add, runtime=rt)) as client:
            await rt.submit(hold, gate, 0)
            await until(lambda: gate.started)
            answer = await client.get("/")
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) > 0
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == 503
            assert "queue 'default' is full" in answer.json()["detail"]
            gate.open()
            await rt.drain()
            assert not done
            assert (await client.get("/")).status == 200  # all the room is back
            await rt.drain()
            assert (await client.get("/")).status == 200
        assert done == ["noted"] * 4

    run(main)


def test_an_endpoint_that_fails_starts_nothing_and_gives_the_room_back(run):
    async def main():
        done = []
        rt = Runtime(concurrency=1, queue_size=1)
        app = FastAPI(lifespan=ours.runtime_lifespan(rt))

        @app.get("/")
        async def fail(jobs: ours.BackgroundJobs):
            jobs.add_task(done.append, "ran")
            jobs.add_task(done.append, "ran")
            raise HTTPException(418)

        async with serve(app) as client:
            for _ in range(3):
                assert (await client.get("/")).status == 418
            assert rt.stats().submitted == 0
        assert not done

    run(main)


def test_a_durable_task_is_submitted_and_not_added(run, tmp_path):
    async def main():
        rt = Runtime(journal=tmp_path / "jobs.db")
        app = FastAPI(lifespan=ours.runtime_lifespan(rt))

        @app.get("/add")
        async def add(jobs: ours.BackgroundJobs):
            with pytest.raises(TypeError, match=r"durable.*await submit"):
                jobs.add_task(kept, "x")

        @app.get("/submit", status_code=202)
        async def submit(jobs: ours.BackgroundJobs):
            job = await jobs.submit(kept.with_options(delay=3600), "x")
            assert (await rt.journal.get(job.id)).task == "tests.integrations:kept"
            assert jobs.jobs == [job]

        async with serve(app) as client:
            await client.get("/add")
            assert (await client.get("/submit")).status == 202

    run(main)


# ── in FastAPI ──


def test_it_is_a_dependency_in_async_and_in_plain_endpoints(run):
    async def main():
        done = []
        app = FastAPI(lifespan=ours.runtime_lifespan(Runtime()))

        async def note(label):
            done.append(label)

        @app.get("/async")
        async def in_loop(jobs: ours.BackgroundJobs):
            jobs.add_task(note, "async")

        @app.get("/plain")
        def in_thread(jobs: ours.BackgroundJobs):
            jobs.add_task(note, "plain")

        async with serve(app) as client:
            await client.get("/async")
            await client.get("/plain")
        assert done == ["async", "plain"]

    run(main)


def test_a_dependency_and_its_endpoint_share_nothing_but_the_runtime(run):
    async def main():
        done = []
        app = FastAPI(lifespan=ours.runtime_lifespan(Runtime()))

        async def audit(jobs: ours.BackgroundJobs):
            jobs.add_task(done.append, "dependency")

        @app.get("/", dependencies=[Depends(audit)])
        async def endpoint(jobs: ours.BackgroundJobs, tasks: BackgroundTasks):
            jobs.add_task(done.append, "endpoint")
            tasks.add_task(done.append, "theirs")

        async with serve(app) as client:
            await client.get("/")
        assert sorted(done) == ["dependency", "endpoint", "theirs"]

    run(main)


def test_a_response_with_background_tasks_of_its_own_loses_no_job(run):
    async def main():
        done = []
        app = FastAPI(lifespan=ours.runtime_lifespan(Runtime()))

        @app.get("/")
        async def endpoint(jobs: ours.BackgroundJobs):
            jobs.add_task(done.append, "ours")
            return JSONResponse({}, background=BackgroundTask(done.append, "theirs"))

        async with serve(app) as client:
            await client.get("/")
        assert sorted(done) == ["ours", "theirs"]

    run(main)


@pytest.mark.parametrize("sent", [True, False])
def test_when_a_response_fails_its_jobs_run_if_it_was_sent_and_give_their_room_back_if_not(run, sent):
    async def main():
        done = []
        rt = Runtime(concurrency=1, queue_size=1)
        app = FastAPI(lifespan=ours.runtime_lifespan(rt))

        def boom():
            raise ValueError("boom")

        async def broken():
            yield b"a part"
            boom()

        @app.get("/")
        async def endpoint(jobs: ours.BackgroundJobs):
            jobs.add_task(done.append, "ours")
            if sent:
                return PlainTextResponse("sent", background=BackgroundTask(boom))
            return StreamingResponse(broken())

        async with serve(app) as client:
            for _ in range(3):
                answer = Answer()
                with pytest.raises(ValueError, match="boom"):
                    await client.request("GET", "/", answer=answer)
                assert answer.complete is sent
                await rt.drain()
        assert done == ["ours"] * (3 if sent else 0)

    run(main)


def test_what_was_added_is_listed_as_starlette_does(run):
    async def main():
        async with Runtime() as rt:
            done = []
            jobs = BackgroundJobs(rt, [BackgroundTask(done.append, 1)])
            jobs.add_task(done.append, 2)
            assert [(task.func, task.args) for task in jobs.tasks] == [
                (done.append, (1,)),
                (done.append, (2,)),
            ]
            await jobs()
            await rt.drain()
            assert sorted(done) == [1, 2]

    run(main)


def test_jobs_see_the_context_of_their_request(run):
    async def main():
        seen = []
        app = FastAPI(lifespan=ours.runtime_lifespan(Runtime()))

        async def look():
            seen.append(who.get())

        @app.get("/{name}")
        async def endpoint(name: str, jobs: ours.BackgroundJobs, rt: ours.RuntimeDep):
            who.set(name)
            await rt.submit(look)
            jobs.add_task(look)

        async with serve(app) as client:
            await asyncio.gather(client.get("/ada"), client.get("/grace"))
        assert sorted(seen) == ["ada", "ada", "grace", "grace"]

    run(main)


def test_jobs_that_were_promised_before_the_stop_run_even_if_the_answer_comes_after_it_began(run):
    async def main():
        done, gate = [], asyncio.Event()
        rt = Runtime()
        app = FastAPI(lifespan=ours.runtime_lifespan(rt))

        @app.get("/")
        async def endpoint(jobs: ours.BackgroundJobs):
            jobs.add_task(done.append, "ran")
            await gate.wait()

        async with serve(app) as client:
            running = await rt.submit(gate.wait)
            asking = asyncio.ensure_future(client.get("/"))
            await until(
                lambda: (
                    rt.stats().queues["default"].scheduled or len(done) or running.state == JobState.RUNNING
                )
            )
            stopping = asyncio.ensure_future(rt.stop())
            await until(lambda: rt.stats().phase == "draining")
            gate.set()
            assert (await asking).status == 200
            await stopping
        assert done == ["ran"]

    run(main)
