"""P14: clean-up of a started attempt runs to its end or the hard deadline; temporary directories go."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

import pytest

import bgruntime
from bgruntime import Discard, JobCancelled, JobTimedOut, Resource, Retry, Runtime, Snooze, current_job, task

from .steps import Gate, turns, until, word


class Log(list):
    """What was opened and closed, and by which thread."""

    def manager(self, name, value=None, *, fail_on_exit=None):
        @contextlib.asynccontextmanager
        async def opened():
            self.append(f"open {name}")
            try:
                yield value
            finally:
                await asyncio.sleep(0)
                self.append(f"close {name}")
                if fail_on_exit:
                    raise fail_on_exit

        return opened()


ENDINGS = [
    "return",
    "raise",
    "retry",
    "snooze",
    "discard",
    "exit",
    "self-cancel",
    "user cancel",
    "timeout",
    "shutdown",
]


async def end(how, started, clock, job, rt):
    """Bring the job to its end in the way named, once `started` says it is under way."""
    await until(lambda: started)
    await turns()
    match how:
        case "user cancel":
            job.cancel("stop")
        case "timeout":
            await clock.advance(10.0)
        case "shutdown":
            await rt.stop(drain=0, cancel=5, close=1)


async def body(how):
    """The body of a job that ends, or is ended, in the way named."""
    match how:
        case "return":
            return
        case "raise":
            raise ValueError("raise")
        case "retry":
            raise Retry(after=1.0)
        case "snooze":
            raise Snooze(1.0)
        case "discard":
            raise Discard("discard")
        case "exit":
            raise SystemExit(1)
        case "self-cancel":
            raise asyncio.CancelledError
        case _:
            await asyncio.Event().wait()


@pytest.mark.parametrize("how", ENDINGS)
def test_p14_what_an_attempt_entered_is_closed_however_it_ends(run, clock, how):
    async def main():
        log, started = Log(), []

        @task(timeout=10.0)
        async def work():
            context = current_job()
            assert await context.enter(log.manager("one", 1)) == 1
            await context.enter(log.manager("two"))
            started.append(1)
            if how == "snooze" and len(started) > 1:
                return
            await body(how)

        async with Runtime() as rt:
            job = await rt.submit(work)
            await end(how, started, clock, job, rt)
            if how == "snooze":
                await until(lambda: word(job.state) == "retryable")
                assert log[-2:] == ["close two", "close one"]
                await clock.advance(1.0)
            await job.wait()
        assert log[:4] == ["open one", "open two", "close two", "close one"]

    run(main)


@pytest.mark.parametrize("how", ENDINGS)
def test_p14_tempdir_goes_with_the_attempt_however_it_ends(run, clock, how):
    async def main():
        places, started = [], []

        @task(timeout=10.0)
        async def work():
            if how == "snooze" and started:
                return
            place = await current_job().tempdir()
            (Path(place) / "nested").mkdir()
            (Path(place) / "nested" / "file").write_text("x")
            places.append(Path(place))
            started.append(1)
            await body(how)

        async with Runtime() as rt:
            job = await rt.submit(work)
            await end(how, started, clock, job, rt)
            if how == "snooze":
                await until(lambda: word(job.state) == "retryable")
                await clock.advance(1.0)
            await job.wait()
        assert len(places) == 1
        assert not places[0].exists()

    run(main)


@pytest.mark.parametrize("ending", ["cancel", "timeout", "shutdown"])
def test_p14_tempdir_goes_although_its_removal_meets_the_second_cancel(run, clock, ending):
    async def main():
        places = []

        @task(timeout=60.0)
        async def work():
            place = Path(await current_job().tempdir())
            for number in range(500):
                (place / f"{number}.txt").write_text("x")
            places.append(place)
            await asyncio.Event().wait()

        async with Runtime(cancel_grace=1, cancel_hard=1) as rt:
            job = await rt.submit(work)
            await until(lambda: places)
            await turns()
            if ending == "cancel":
                job.cancel()
            elif ending == "timeout":
                await clock.advance(60.0)
            drain = 0 if ending == "shutdown" else 60
            stopping = asyncio.ensure_future(rt.stop(drain=drain, cancel=2, close=60))
            while not stopping.done():
                await clock.advance(0.5)
            await stopping
            await until(lambda: not places[0].exists(), "the directory going, sooner or later")

    run(main)


def test_p14_tempdir_is_private_and_each_attempt_has_its_own(run, clock):
    async def main():
        places = []

        @task(max_attempts=2, backoff=lambda _: 1.0)
        async def work():
            place = Path(await current_job().tempdir())
            assert place.is_dir()
            assert place.stat().st_mode & 0o077 == 0
            assert list(place.iterdir()) == []
            places.append(place)
            raise ValueError

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: word(job.state) == "retryable")
            assert not places[0].exists()
            await clock.advance(1.0)
            await job.wait()
        assert len(set(places)) == 2
        assert not any(place.exists() for place in places)

    run(main)


def test_p14_tempdir_as_a_resource_works_in_both_kinds_of_function(run):
    async def main():
        places = []

        @task
        async def asynchronous(workdir: Path = Resource(bgruntime.tempdir)):
            assert workdir.is_dir()
            (workdir / "file").write_text("x")
            places.append(workdir)

        @task
        def plain(workdir: Path = Resource(bgruntime.tempdir)):
            assert workdir.is_dir()
            (workdir / "file").write_text("x")
            places.append(workdir)

        async with Runtime() as rt:
            await (await rt.submit(asynchronous))
            await (await rt.submit(plain))
        assert len(places) == 2
        assert not any(place.exists() for place in places)

    run(main)


def test_p14_the_tempdir_of_a_thread_past_its_timeout_goes_when_the_thread_ends(run, clock):
    async def main():
        hold, seen = threading.Event(), []

        @task(timeout=1.0)
        def work(workdir: Path = Resource(bgruntime.tempdir)):
            seen.append(workdir)
            hold.wait(10)
            seen.append(workdir.is_dir())

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: seen)
            await clock.advance(1.0)
            with pytest.raises(JobTimedOut):
                await job
            await turns()
            assert seen[0].is_dir(), "the thread still works in it"
            hold.set()
            await until(lambda: rt.stats().stuck == 0, "the thread's end")
            assert seen[1] is True
            assert not seen[0].exists()

    run(main)


def test_p14_a_resource_is_given_opened_per_attempt_and_closed_with_it(run, clock):
    async def main():
        log = []

        @contextlib.asynccontextmanager
        async def connection():
            log.append("open")
            yield f"connection {len(log)}"
            log.append("close")

        @task(max_attempts=2, backoff=lambda _: 1.0)
        async def work(label, conn=Resource(connection)):
            log.append((label, conn))
            if log.count("open") == 1:
                raise ValueError
            return conn

        async with Runtime() as rt:
            job = await rt.submit(work, "x")
            await until(lambda: word(job.state) == "retryable")
            await clock.advance(1.0)
            await job
        assert log[0] == "open"
        assert log[1] == ("x", "connection 1")
        assert log.count("open") == 2
        assert log.count("close") >= 1

    run(main)


def test_p14_a_resource_sees_the_exception_of_its_attempt(run):
    async def main():
        seen = []

        @contextlib.asynccontextmanager
        async def transaction():
            try:
                yield "tx"
            except ValueError as error:
                seen.append(("rollback", str(error)))
                raise
            else:
                seen.append("commit")

        @task
        async def work(fail, tx=Resource(transaction)):
            if fail:
                raise ValueError("no")
            return tx

        async with Runtime() as rt:
            assert await (await rt.submit(work, False)) == "tx"
            with pytest.raises(ValueError, match="no"):
                await (await rt.submit(work, True))
        assert seen == ["commit", ("rollback", "no")]

    run(main)


def test_p14_a_plain_context_manager_serves_as_a_resource_in_both_kinds_of_function(run):
    async def main():
        log = []

        @contextlib.contextmanager
        def connection():
            log.append(("open", threading.current_thread()))
            yield "conn"
            log.append(("close", threading.current_thread()))

        @task
        async def asynchronous(conn=Resource(connection)):
            return conn

        @task
        def plain(conn=Resource(connection)):
            log.append(("body", threading.current_thread()))
            return conn

        async with Runtime() as rt:
            assert await (await rt.submit(asynchronous)) == "conn"
            assert [what for what, _ in log] == ["open", "close"]
            log.clear()
            assert await (await rt.submit(plain)) == "conn"
        assert [what for what, _ in log] == ["open", "body", "close"]
        assert len({thread for _, thread in log}) == 1, "opened, used and closed in the same thread"

    run(main)


def test_p14_a_runtime_scope_resource_is_opened_once_and_closed_when_the_runtime_stops(run):
    async def main():
        log = []

        @contextlib.asynccontextmanager
        async def pool():
            log.append("open")
            yield {"pool": len(log)}
            log.append("close")

        @task
        async def work(pool=Resource(pool, scope="runtime")):
            await asyncio.sleep(0)
            return id(pool)

        async with Runtime(concurrency=10) as rt:
            jobs = [await rt.submit(work) for _ in range(20)]
            assert len({await job for job in jobs}) == 1
            assert log == ["open"]
        assert log == ["open", "close"]

    run(main)


def test_p14_a_resource_that_cannot_be_opened_fails_the_attempt_and_runs_no_line_of_the_job(run, clock):
    async def main():
        tries, ran = [], []

        @contextlib.asynccontextmanager
        async def broken():
            tries.append(1)
            if len(tries) == 1:
                raise OSError("no connection")
            yield "conn"

        @task(max_attempts=2, backoff=lambda _: 1.0)
        async def work(conn=Resource(broken)):
            ran.append(conn)

        async with Runtime() as rt:
            job = await rt.submit(work)
            await until(lambda: word(job.state) == "retryable")
            assert ran == []
            await clock.advance(1.0)
            await job
        assert ran == ["conn"]

    run(main)


def test_p14_a_resource_that_fails_to_close_fails_a_job_that_returned(run):
    async def main():
        log = Log()

        @task
        async def work():
            await current_job().enter(log.manager("outer"))
            await current_job().enter(log.manager("inner", fail_on_exit=OSError("close failed")))
            return "value"

        async with Runtime() as rt:
            job = await rt.submit(work)
            with pytest.raises(OSError, match="close failed"):
                await job
        assert log == ["open outer", "open inner", "close inner", "close outer"]

    run(main)


def test_p14_an_argument_given_by_the_caller_replaces_the_resource(run):
    async def main():
        log = Log()

        @task
        async def work(conn=Resource(lambda: log.manager("conn"))):
            return conn

        async with Runtime() as rt:
            assert await (await rt.submit(work, conn="mine")) == "mine"
        assert log == []

    run(main)


def test_p14_clean_up_may_await_as_often_as_it_likes_within_the_grace(run, clock):
    async def main():
        cleaned = []

        @task(timeout=10.0)
        async def work():
            try:
                await asyncio.Event().wait()
            finally:
                for number in range(50):
                    await asyncio.sleep(0)
                    cleaned.append(number)

        async with Runtime() as rt:
            for ending in ("cancel", "timeout", "shutdown"):
                cleaned.clear()
                job = await rt.submit(work)
                await until(lambda: rt.stats().running)
                await turns()
                if ending == "cancel":
                    job.cancel()
                elif ending == "timeout":
                    await clock.advance(10.0)
                else:
                    await rt.stop(drain=0, cancel=5, close=1)
                await job.wait()
                if ending != "shutdown":
                    await rt.drain()
                assert cleaned == list(range(50))

    run(main)


def test_p14_clean_up_that_hangs_is_cut_off_at_the_hard_deadline(run, clock):
    async def main():
        seen, let_go = [], asyncio.Event()

        @task
        async def work():
            try:
                await asyncio.Event().wait()
            finally:
                while not let_go.is_set():
                    with contextlib.suppress(asyncio.CancelledError):
                        await let_go.wait()
                    seen.append("again")

        async with Runtime(cancel_grace=2, cancel_hard=3) as rt:
            job = await rt.submit(work)
            await turns()
            job.cancel()
            await clock.advance(4.9)
            assert seen == ["again"]
            assert word(job.state) == "running"
            await clock.advance(0.1)
            with pytest.raises((JobCancelled, JobTimedOut)):
                await job
            assert word(job.state) in {"cancelled", "discarded"}
            assert rt.stats().stuck == 1
            let_go.set()

    run(main)


def test_p14_every_started_attempt_of_a_storm_is_cleaned_up(run, clock):
    async def main():
        import random

        rng = random.Random(9)
        opened, closed, places = [], [], []

        @contextlib.asynccontextmanager
        async def thing():
            opened.append(1)
            try:
                yield
            finally:
                await turns(rng.randrange(3))
                closed.append(1)

        @task(timeout=5.0)
        async def work(conn=Resource(thing)):
            places.append(Path(await current_job().tempdir()))
            await turns(rng.randrange(5))
            if rng.random() < 0.3:
                raise ValueError
            if rng.random() < 0.2:
                await asyncio.Event().wait()

        # Directories go in real threads, which must not meet deadlines of the fake clock.
        async with Runtime(concurrency=5, cancel_grace=1e6, cancel_hard=1e6) as rt:
            jobs = []
            for _ in range(100):
                jobs.append(await rt.submit(work))
                if rng.random() < 0.4:
                    rng.choice(jobs).cancel()
                await turns(rng.randrange(4))
            while not all(word(job.state) in {"completed", "cancelled", "discarded"} for job in jobs):
                await clock.advance(5.0)
            await rt.drain()
        assert len(opened) == len(closed) > 0
        await until(lambda: not any(place.exists() for place in places), "every directory going")

    run(main)


def test_p14_stop_closes_runtime_resources_after_the_last_attempt(run):
    async def main():
        log, gate = [], Gate()

        @contextlib.asynccontextmanager
        async def pool():
            yield "pool"
            log.append("closed")

        @task
        async def work(pool=Resource(pool, scope="runtime")):
            try:
                await gate.hold()
            finally:
                await turns(5)
                log.append("cleaned")

        async with Runtime() as rt:
            await rt.submit(work)
            await until(lambda: gate.started)
            await rt.stop(drain=0, cancel=5, close=1)
        assert log == ["cleaned", "closed"]

    run(main)
