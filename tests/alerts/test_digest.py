"""Once a day people are told which failures are open, by one process, and not when nothing is."""

from __future__ import annotations

import asyncio

import pytest

from bgruntime import Runtime, task
from bgruntime.alerts import Digest
from tests.alerts.inbox import Inbox


@task(name="digest.pays")
async def pays(account: str) -> None:
    raise LookupError(f"no account {account}")


@task(name="digest.mails")
async def mails() -> None:
    raise OSError("no route")


async def end(rt: Runtime, what, times: int, *args) -> None:
    for _ in range(times):
        await (await rt.submit(what, *args)).wait()


async def arrived(inbox: Inbox, count: int) -> None:
    async with asyncio.timeout(10):
        while len(inbox.alerts) < count:
            await asyncio.sleep(0.01)


def test_open_failures_are_told_by_cause_the_most_frequent_first_and_without_arguments(run, tmp_path):
    inbox = Inbox()

    async def main():
        async with Runtime(
            journal=tmp_path / "jobs.db", observers=[Digest(channels=[inbox], every=0.05)]
        ) as rt:
            await end(rt, pays, 3, "4711")
            await end(rt, mails, 1)
            async with asyncio.timeout(10):
                while not inbox.alerts or inbox.alerts[-1].value < 4:
                    await asyncio.sleep(0.01)

    run(main)
    alert = inbox.alerts[-1]
    assert (alert.state, alert.title) == ("digest", "[digest] 4 open failures")
    first, second = alert.text.splitlines()
    assert first.startswith("3 × digest.pays: LookupError at ")
    assert second.startswith("1 × digest.mails: OSError at ")
    assert "4711" not in repr(alert)


def test_one_of_several_processes_tells_and_a_restart_does_not_tell_again(run, tmp_path):
    inbox = Inbox()
    path = tmp_path / "jobs.db"

    async def main():
        async with Runtime(journal=path) as rt:
            await end(rt, mails, 1)
        for _ in range(2):  # restarts
            first, second = (Digest(channels=[inbox]) for _ in range(2))
            async with (
                Runtime(journal=path, observers=[first]),
                Runtime(journal=path, observers=[second]),
            ):
                for digest in (first, second):
                    await digest._look()
            await arrived(inbox, 1)

    run(main)
    assert len(inbox.alerts) == 1


def test_nothing_is_told_while_nothing_is_open_or_there_is_no_journal(run, tmp_path):
    inbox = Inbox()

    async def main():
        for options in ({"journal": tmp_path / "jobs.db"}, {}):
            digest = Digest(channels=[inbox])
            async with Runtime(observers=[digest], **options) as rt:
                await digest._look()
                assert rt.stats().faults == {}

    run(main)
    assert inbox.tries == 0


def test_the_seconds_between_two_digests_are_more_than_none():
    with pytest.raises(ValueError, match="every"):
        Digest(every=0)


def test_a_runtime_with_it_runs_again_on_another_loop(run, clock, tmp_path):
    digest = Digest(channels=[Inbox()])
    rt = Runtime(journal=tmp_path / "jobs.db", observers=[digest])

    async def first():
        async with rt:
            await clock.advance(61)
            assert digest._post._looking is not None

    async def second():
        async with rt:
            assert digest._post._looking is None

    run(first)
    run(second)


class Host:
    """A runtime whose journal takes its time to say whether it is time."""

    def __init__(self) -> None:
        self.runtime = self.journal = self
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def is_time(self, name: str, every: float) -> bool:
        self.asked.set()
        await self.answer.wait()
        return False


async def leaving_while_it_looks(digest: Digest, clock) -> tuple[Host, asyncio.Task[None]]:
    await digest.__aenter__()
    host = Host()
    digest.attach(host)
    await clock.advance(61)
    await host.asked.wait()
    leaving = asyncio.create_task(digest.__aexit__(None, None, None))
    await clock.settle()
    assert not leaving.done()
    return host, leaving


def test_leaving_waits_for_a_look_that_goes_on(run, clock):
    async def main():
        host, leaving = await leaving_while_it_looks(Digest(channels=[Inbox()]), clock)
        host.answer.set()
        await leaving
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main)


def test_leaving_that_is_cancelled_ends_the_look_before_it_returns(run, clock):
    async def main():
        _, leaving = await leaving_while_it_looks(Digest(channels=[Inbox()]), clock)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main)
