"""P19: an alert whose rule holds is delivered at least once per window, also for a task that only fails."""

from __future__ import annotations

import pytest

from bgruntime import Runtime, task
from bgruntime.alerts import DEFAULT_RULES, AlertRule, Alerts
from tests.alerts.inbox import Inbox

RULES = {
    "failure rate": AlertRule("rate", "failure_rate", threshold=0.1, window=300, min_jobs=20, cooldown=300),
    "in a row": AlertRule("row", "consecutive_failures", threshold=3, window=300, cooldown=300),
}


@task(name="p19.only-fails")
async def only_fails() -> None:
    raise LookupError("no such account")


async def fail(rt: Runtime, times: int) -> None:
    for _ in range(times):
        await (await rt.submit(only_fails)).wait()


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_p19_a_task_that_only_ever_fails_is_told_in_each_window_for_as_long_as_it_does(run, clock, rule):
    inbox = Inbox()

    async def main():
        async with Runtime(observers=[Alerts(rules=[rule], channels=[inbox])]) as rt:
            for window in range(1, 5):
                for _ in range(15):  # of 20 s
                    await fail(rt, 4)
                    await clock.advance(20)
                told = [one for one in inbox.alerts if one.task == only_fails.name]
                assert len(told) >= window

    run(main)
    assert {one.state for one in inbox.alerts if one.task == only_fails.name} == {"raised", "reminder"}


def test_p19_the_default_rules_tell_of_a_rare_task_that_only_ever_fails(run, clock):
    inbox = Inbox()
    assert [rule.metric for rule in DEFAULT_RULES] == ["failure_rate", "consecutive_failures"]

    async def main():
        async with Runtime(observers=[Alerts(channels=[inbox])]) as rt:
            for _ in range(3):
                await fail(rt, 1)
                await clock.advance(1_800)
            assert inbox.told[0] == ("raised", "failing in a row", only_fails.name)

    run(main)


@pytest.mark.parametrize("trouble", ["broken", "hang"])
def test_p19_a_channel_that_comes_back_within_the_window_gets_the_alert(run, clock, trouble):
    inbox = Inbox()

    async def main():
        async with Runtime(observers=[Alerts(rules=[RULES["in a row"]], channels=[inbox])]) as rt:
            setattr(inbox, trouble, True)
            await fail(rt, 3)
            for _ in range(12):
                await clock.advance(5)
            assert inbox.tries >= 2
            assert inbox.alerts == []
            setattr(inbox, trouble, False)
            for _ in range(60):  # one window
                await clock.advance(5)
            assert only_fails.name in {task for _, _, task in inbox.told}

    run(main)


def test_p19_nobody_has_to_read_the_statistics_for_an_alert_to_come(run, clock):
    """And reading them changes nothing: the counts of a task are there from its first job on."""
    told = []
    for reads in (False, True):
        inbox = Inbox()

        async def main(reads=reads, inbox=inbox):
            async with Runtime(observers=[Alerts(rules=[RULES["in a row"]], channels=[inbox])]) as rt:
                for _ in range(3):
                    await fail(rt, 1)
                    if reads:
                        rt.stats()
                await clock.advance(5)

        run(main)
        told.append(inbox.told)
    assert told[0] == told[1] == [("raised", "row", only_fails.name)]
