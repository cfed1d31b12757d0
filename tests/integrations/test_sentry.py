"""What Sentry's own SDK sends: one event for each job that failed for good, a transaction per attempt."""

from __future__ import annotations

import asyncio
import io
import logging

import pytest

pytest.importorskip("sentry_sdk")

import sentry_sdk

from bgruntime import Discard, Runtime, current_job, task
from bgruntime.extend import JobAccepted, JobUncompleted
from bgruntime.integrations.sentry import Sentry
from bgruntime.logs import configure
from tests.integrations.recorders import sentry_set_up


@pytest.fixture
def sent():
    with sentry_set_up() as sent:
        yield sent


@task(name="sentry.pay")
async def pay(card: str) -> None:
    local = f"card {card}"
    raise LookupError(f"no account, {len(local)}")


def test_a_job_that_fails_for_good_is_one_event_without_locals_and_arguments(run, sent):
    async def main():
        async with Runtime(observers=[Sentry()]) as rt:
            job = await rt.submit(pay, "4711-0815")
            await job.wait()
            return job.id

    id = run(main)
    [event] = sent.events
    [error] = event["exception"]["values"]
    assert (error["type"], error["value"]) == ("LookupError", "no account, 14")
    assert error["mechanism"]["handled"] is False
    assert [frame["function"] for frame in error["stacktrace"]["frames"]] == ["pay"]
    assert not any("vars" in frame for frame in error["stacktrace"]["frames"])
    assert event["fingerprint"] == ["bgruntime", "sentry.pay", "LookupError"]
    assert event["transaction"] == "sentry.pay"
    assert event["tags"]["bgruntime.task"] == "sentry.pay"
    about = event["contexts"]["job"]
    assert (about["id"], about["attempt"], about["outcome"]) == (id, 1, "failed")
    assert "4711-0815" not in sent.text


def test_each_attempt_is_a_transaction_and_only_the_last_failure_an_event(run, sent, clock):
    @task(name="sentry.flaky", max_attempts=3, backoff=lambda state: 1)
    async def flaky(until: int) -> None:
        if current_job().attempt < until:
            raise ConnectionError("no route")

    async def main():
        async with Runtime(observers=[Sentry()]) as rt:
            good, bad = await rt.submit(flaky, 2), await rt.submit(flaky, 9)
            for _ in range(3):
                await clock.advance(2)
            await good
            await bad.wait()

    run(main)
    assert len(sent.events) == 1
    assert sent.events[0]["contexts"]["job"]["attempt"] == 3
    told = [one["contexts"]["trace"] for one in sent.transactions]
    assert {one["op"] for one in told} == {"queue.process"}
    assert sorted(one["status"] for one in told) == ["internal_error"] * 4 + ["ok"]
    retries = [one["data"]["messaging.message.retry.count"] for one in told]
    assert sorted(retries) == [0, 0, 1, 1, 2]


def test_an_attempt_and_its_event_belong_to_the_trace_of_the_submitter(run, sent):
    async def main():
        async with Runtime(observers=[Sentry()]) as rt:
            with sentry_sdk.start_transaction(op="http.server", name="request"):
                job = await rt.submit(pay, "1")
            await job.wait()

    run(main)
    by_op = {one["contexts"]["trace"]["op"]: one for one in sent.transactions}
    [publish] = by_op["http.server"]["spans"]
    process = by_op["queue.process"]["contexts"]["trace"]
    assert (publish["op"], publish["description"]) == ("queue.publish", "sentry.pay")
    assert process["trace_id"] == publish["trace_id"]
    assert process["parent_span_id"] == publish["span_id"]
    assert sent.events[0]["contexts"]["trace"]["span_id"] == process["span_id"]


def test_each_attempt_has_a_scope_of_its_own(run, sent):
    @task(name="sentry.scoped")
    async def scoped(number: int) -> None:
        sentry_sdk.set_tag("number", number)
        sentry_sdk.add_breadcrumb(message=f"crumb {number}")
        await asyncio.sleep(0)
        raise ValueError(str(number))

    async def main():
        async with Runtime(observers=[Sentry()]) as rt:
            sentry_sdk.set_tag("request", "secret of the request")
            for number in range(3):
                await rt.submit(scoped, number)
        assert not sentry_sdk.get_isolation_scope()._tags.get("number")

    run(main)
    assert len(sent.events) == 3
    for event in sent.events:
        number = event["exception"]["values"][0]["value"]
        assert event["tags"]["number"] == int(number) or event["tags"]["number"] == number
        assert [crumb["message"] for crumb in event["breadcrumbs"]["values"]] == [f"crumb {number}"]
        assert "request" not in event["tags"]


def test_the_runtimes_own_error_lines_are_no_second_event_and_those_of_the_job_are_its_own(run, sent):
    @task(name="sentry.logs")
    async def logs() -> None:
        logging.getLogger("application").error("told by the application")
        raise OSError("disk")

    async def main():
        async with Runtime(observers=[Sentry()]) as rt:
            await (await rt.submit(logs)).wait()

    with configure(json=True, stream=io.StringIO()) as logging_:
        run(main)
        logging_.flush()
    titles = [
        event.get("logentry", {}).get("message") or event["exception"]["values"][0]["type"]
        for event in sent.events
    ]
    assert titles == ["told by the application", "OSError"]


def test_the_cause_of_an_exit_names_the_group_and_a_plain_function_fails_alike(run, sent):
    @task(name="sentry.exits")
    async def exits() -> None:
        raise SystemExit(3)

    @task(name="sentry.thread")
    def thread() -> None:
        raise PermissionError("not yours")

    @task(name="sentry.gives-up")
    async def gives_up() -> None:
        raise Discard("no such customer")

    async def main():
        async with Runtime(observers=[Sentry()]) as rt:
            for function in (exits, thread, gives_up):
                await (await rt.submit(function)).wait()

    run(main)
    assert [event["fingerprint"][1:] for event in sent.events] == [
        ["sentry.exits", "SystemExit"],
        ["sentry.thread", "PermissionError"],
        ["sentry.gives-up", "bgruntime.JobDiscarded"],
    ]


def test_a_job_that_completes_or_is_cancelled_is_no_event(run, sent):
    @task(name="sentry.fine")
    async def fine() -> None: ...

    async def main():
        async with Runtime(observers=[Sentry()]) as rt:
            await (await rt.submit(fine))
            rt.pause()
            job = await rt.submit(fine)
            job.cancel()
            await job.wait()
            rt.resume()

    run(main)
    assert sent.events == []
    assert len(sent.transactions) == 1


def test_nothing_is_kept_of_a_job_that_is_over_while_its_handle_is_held(run, sent):
    observer = Sentry()

    @task(name="sentry.ends")
    async def ends(how: str) -> None:
        if how == "fails":
            raise LookupError

    async def main():
        async with Runtime(observers=[observer]) as rt:
            held = [await rt.submit(ends, how) for how in ("completes", "fails")]
            for job in held:
                await job.wait()
            assert (len(observer._scopes), len(observer._headers)) == (0, 0)

    run(main)


def test_a_timeout_is_told_as_one(run, sent, clock):
    @task(name="sentry.hangs", timeout=5)
    async def hangs() -> None:
        await asyncio.Event().wait()

    async def main():
        async with Runtime(observers=[Sentry()]) as rt:
            late = await rt.submit(hangs)
            await clock.advance(6)
            await late.wait()
            cancelled = await rt.submit(hangs)
            await clock.advance(1)
            cancelled.cancel()
            await cancelled.wait()

    run(main)
    statuses = [one["contexts"]["trace"]["status"] for one in sent.transactions]
    assert statuses == ["deadline_exceeded", "cancelled"]


def test_where_sentry_was_not_set_up_nothing_is_heard(run):
    async def main():
        async with Runtime(observers=[Sentry()]) as rt:
            assert not rt._engine.tell.wanted(JobAccepted)
            assert rt._engine.tell.wanted(JobUncompleted)  # by the log
            await (await rt.submit(pay, "1")).wait()

    run(main)
