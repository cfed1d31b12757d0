"""Somebody is told when something is wrong, once, again, and when it is over; and never for nothing."""

from __future__ import annotations

import asyncio

import pytest

from bgruntime import Runtime, task
from bgruntime.alerts import Alert, AlertRule, Alerts
from bgruntime.extend import AlertRaised, AlertResolved, JournalDegraded, JournalRecovered, LoopBlocked
from tests.alerts.inbox import Inbox

RATE = AlertRule("rate", "failure_rate", threshold=0.10, window=300, min_jobs=20)
ROW = AlertRule("row", "consecutive_failures", threshold=3)


@task
async def good() -> None:
    return


@task
async def bad(text: str = "no such account") -> None:
    raise LookupError(text)


@task
async def other_bad() -> None:
    raise OSError("disk")


async def end(rt: Runtime, what, times: int, *args) -> None:
    for _ in range(times):
        await (await rt.submit(what, *args)).wait()


def watched(inbox: Inbox, *rules: AlertRule, **options) -> Runtime:
    return Runtime(observers=[Alerts(rules=rules, channels=[inbox], **options)])


def test_a_task_that_only_ever_fails_alerts(run, clock):
    inbox = Inbox()

    async def main():
        async with Runtime(observers=[Alerts(channels=[inbox])]) as rt:
            await end(rt, bad, 3)
            await clock.advance(5)
            await clock.settle()
            return list(inbox.alerts)

    [alert] = run(main)
    assert (alert.state, alert.metric, alert.task) == ("raised", "consecutive_failures", bad.name)
    assert (alert.value, alert.threshold, alert.error, alert.message) == (
        3,
        3,
        "LookupError",
        "no such account",
    )
    assert bad.name in alert.title
    assert "3" in alert.title


def test_failures_far_apart_are_in_a_row_whatever_the_window(run, clock):
    inbox = Inbox()

    async def main():
        async with Runtime(observers=[Alerts(channels=[inbox])]) as rt:
            for _ in range(3):
                await end(rt, bad, 1)
                await clock.advance(1200)
            return inbox.told

    assert run(main)[0] == ("raised", "failing in a row", bad.name)


def test_a_success_between_failures_ends_the_row(run, clock):
    inbox = Inbox()

    @task(name="now-and-then")
    async def now_and_then(fails: bool) -> None:
        if fails:
            raise LookupError

    async def main():
        async with watched(inbox, ROW) as rt:
            for fails in (True, True, False, True, True, False):
                await end(rt, now_and_then, 1, fails)
                await clock.advance(10)

    run(main)
    assert inbox.alerts == []


def test_a_row_that_ended_between_two_looks_is_told(run, clock):
    inbox = Inbox()

    @task(name="recovers")
    async def recovers(fails: bool) -> None:
        if fails:
            raise LookupError

    async def main():
        async with watched(inbox, ROW) as rt:
            await end(rt, recovers, 3, True)
            await end(rt, recovers, 1, False)
            await clock.advance(20)

    run(main)
    assert [state for state, _, _ in inbox.told] == ["raised", "resolved"]


def test_a_failure_rate_needs_its_minimum_of_jobs(run, clock):
    inbox = Inbox()

    async def main():
        async with watched(inbox, RATE) as rt:
            await end(rt, bad, 19)
            await clock.advance(5)
            assert inbox.alerts == []
            await end(rt, bad, 1)
            await clock.advance(5)

    run(main)
    assert set(inbox.told) == {("raised", "rate", None), ("raised", "rate", bad.name)}
    assert {one.jobs for one in inbox.alerts} == {20}


@pytest.mark.parametrize(("failures", "expected"), [(10, 0), (11, 1)])
def test_a_rate_alerts_above_its_threshold_and_not_at_it(run, clock, failures, expected):
    inbox = Inbox()

    async def main():
        async with watched(inbox, AlertRule("rate", "failure_rate", 0.10)) as rt:
            await end(rt, good, 100 - failures)
            await end(rt, other_bad, failures)
            await clock.advance(5)

    run(main)
    assert sum(one.task is None for one in inbox.alerts) == expected


def test_old_successes_do_not_hide_new_failures(run, clock):
    inbox = Inbox()

    @task(name="was-good")
    async def was_good(fails: bool) -> None:
        if fails:
            raise LookupError

    async def main():
        async with watched(inbox, RATE) as rt:
            await rt.map(was_good, [False] * 3000, limit=100)
            await clock.advance(310)
            await end(rt, was_good, 30, True)
            await clock.advance(5)

    run(main)
    assert ("raised", "rate", "was-good") in inbox.told
    assert inbox.alerts[0].value == 1.0


def test_one_notice_then_reminders_at_the_cooldown_then_one_when_it_is_over(run, clock):
    inbox = Inbox()
    rule = AlertRule("row", "consecutive_failures", 3, cooldown=900)

    async def main():
        async with watched(inbox, rule) as rt:
            await end(rt, bad, 3)
            await clock.advance(895)
            assert [one.state for one in inbox.alerts] == ["raised"]
            await clock.advance(10)
            assert [one.state for one in inbox.alerts] == ["raised", "reminder"]
            await clock.advance(900)
            assert [one.state for one in inbox.alerts] == ["raised", "reminder", "reminder"]
            bad_again = bad.with_options(tags=["x"])
            await end(rt, bad_again, 1)
            await clock.advance(5)
            assert len(inbox.alerts) == 3

    run(main)
    since = {one.since for one in inbox.alerts}
    assert len(since) == 1


def test_a_rate_is_over_only_well_below_its_threshold(run, clock):
    """Hysteresis: 10 % raises, 9 % is no recovery, 8 % is."""
    inbox = Inbox()
    rule = AlertRule("rate", "failure_rate", 0.10, window=3600)

    async def main():
        async with watched(inbox, rule) as rt:
            await end(rt, other_bad, 10)
            await end(rt, good, 70)
            await clock.advance(5)
            assert [one.state for one in inbox.alerts if one.task is None] == ["raised"]
            await end(rt, good, 31)  # 10 of 111: 9 %
            await clock.advance(5)
            assert [one.state for one in inbox.alerts if one.task is None] == ["raised"]
            await end(rt, good, 20)  # 10 of 131: 7.6 %
            await clock.advance(5)
            assert [one.state for one in inbox.alerts if one.task is None] == ["raised", "resolved"]

    run(main)


def test_a_rate_is_over_when_the_window_has_passed(run, clock):
    inbox = Inbox()

    async def main():
        async with watched(inbox, RATE) as rt:
            await end(rt, bad, 25)
            await clock.advance(5)
            await clock.advance(320)

    run(main)
    assert sorted(state for state, _, _ in inbox.told) == ["raised", "raised", "resolved", "resolved"]


def test_a_step_of_the_wall_clock_silences_nothing(run, clock):
    inbox = Inbox()

    async def main():
        async with watched(inbox, ROW) as rt:
            clock.set_wall(clock.time() - 3600)
            await end(rt, bad, 3)
            await clock.advance(5)

    run(main)
    assert [state for state, _, _ in inbox.told] == ["raised"]


def test_a_rule_may_be_about_one_task(run, clock):
    inbox = Inbox()

    async def main():
        async with watched(inbox, AlertRule("row", "consecutive_failures", 3, task=bad.name)) as rt:
            await end(rt, other_bad, 5)
            await end(rt, bad, 3)
            await clock.advance(5)

    run(main)
    assert inbox.told == [("raised", "row", bad.name)]


def test_nobody_is_told_about_a_silenced_task(run, clock):
    inbox = Inbox()
    alerts = Alerts(rules=[ROW], channels=[inbox], silence=[other_bad.name])

    async def main():
        async with Runtime(observers=[alerts]) as rt:
            alerts.silence(bad.name, seconds=60)
            await end(rt, bad, 3)
            await end(rt, other_bad, 3)
            await clock.advance(30)
            assert inbox.alerts == []
            await clock.advance(40)
            assert inbox.told == [("raised", "row", bad.name)]
            alerts.unsilence(other_bad.name)
            await clock.advance(5)

    run(main)
    assert inbox.told[1] == ("raised", "row", other_bad.name)


def test_the_p95_of_the_run_time(run, clock):
    inbox = Inbox()

    async def main():
        async with watched(inbox, AlertRule("slow", "p95", 10.0, min_jobs=1)) as rt:
            gate = asyncio.Event()

            @task(name="slow", timeout=None)
            async def slow() -> None:
                await gate.wait()

            job = await rt.submit(slow)
            await clock.advance(12)
            gate.set()
            await job
            await clock.advance(5)

    run(main)
    assert ("raised", "slow", "slow") in inbox.told
    assert inbox.alerts[0].value == pytest.approx(12, rel=0.01)


def test_the_age_of_the_queue(run, clock):
    inbox = Inbox()

    async def main():
        async with watched(inbox, AlertRule("queue", "queue_age", 60)) as rt:
            rt.pause()
            job = await rt.submit(good)
            await clock.advance(70)
            assert inbox.told == [("raised", "queue", None)]
            rt.resume()
            await job
            await clock.advance(5)

    run(main)
    assert [state for state, _, _ in inbox.told] == ["raised", "resolved"]


def test_stuck_attempts(run, clock):
    inbox = Inbox()
    released = asyncio.Event()

    async def main():
        async with watched(inbox, AlertRule("stuck", "stuck", 1)) as rt:

            @task(timeout=1)
            async def deaf() -> None:
                while not released.is_set():
                    try:
                        await released.wait()
                    except asyncio.CancelledError:
                        pass

            job = await rt.submit(deaf)
            await clock.advance(20)
            assert inbox.told == [("raised", "stuck", None)]
            released.set()
            await job.wait()
            await clock.advance(6)

    run(main)
    assert [state for state, _, _ in inbox.told] == ["raised", "resolved"]


def test_a_held_loop_and_a_sick_journal(run, clock):
    inbox = Inbox()
    rules = [AlertRule("loop", "loop_lag", 1.0, window=60), AlertRule("journal", "journal", 1)]
    alerts = Alerts(rules=rules, channels=[inbox])

    async def main():
        async with Runtime(observers=[alerts]):
            alerts.on_event(LoopBlocked(clock.now, 1.8, None, "report.py:42 in build", ""))
            alerts.on_event(JournalDegraded(clock.now, "disk full"))
            await clock.advance(5)
            assert sorted(inbox.told) == [("raised", "journal", None), ("raised", "loop", None)]
            alerts.on_event(JournalRecovered(clock.now, 0))
            await clock.advance(70)

    run(main)
    assert sorted(state for state, _, _ in inbox.told) == ["raised", "raised", "resolved", "resolved"]
    assert "report.py:42 in build" in inbox.alerts[0].text


def test_what_goes_on_is_an_event_and_a_warning_of_health(run, clock):
    inbox = Inbox()
    heard = []

    class Listener:
        listens_to = (AlertRaised, AlertResolved)

        def on_event(self, event):
            heard.append(event)

    async def main():
        alerts = Alerts(rules=[ROW], channels=[inbox])
        async with Runtime(observers=[alerts, Listener()]) as rt:
            assert rt.health().status == "pass"
            await end(rt, bad, 3)
            await clock.advance(5)
            health = rt.health()
            assert (health.status, health.ready) == ("warn", True)
            assert any(bad.name in reason for reason in health.reasons)
            assert [one.task for one in alerts.raised()] == [bad.name]

    run(main)
    assert [type(event) for event in heard] == [AlertRaised]
    assert heard[0].alert.task == bad.name


def test_what_happened_last_is_told_before_leaving(run):
    """No look is due any more: a short program tells what went wrong all the same."""
    inbox = Inbox()

    async def main():
        async with watched(inbox, ROW, every=3600) as rt:
            await end(rt, bad, 3)

    run(main)
    assert inbox.told == [("raised", "row", bad.name)]


def test_secrets_of_the_job_are_in_no_alert(run, clock):
    inbox = Inbox()

    @task(redact=["card"])
    async def charge(card: str) -> None:
        raise ValueError(f"cannot charge {card}")

    async def main():
        async with watched(inbox, ROW) as rt:
            await end(rt, charge, 3, "s3nt1nel-4111")
            await clock.advance(5)

    run(main)
    [alert] = inbox.alerts
    assert "s3nt1nel-4111" not in repr(alert) + alert.text + alert.title + repr(alert.as_dict())
    assert "cannot charge [redacted]" in alert.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": ""}, "name"),
        ({"metric": "speed"}, "metric is one of"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": 1.5}, "from 0 to 1"),
        ({"window": 0}, "window"),
        ({"min_jobs": 0}, "min_jobs"),
        ({"cooldown": -1}, "cooldown"),
        ({"metric": "stuck", "threshold": 1, "task": "x"}, "leave out task"),
        ({"metric": "consecutive_failures", "threshold": 0}, "threshold"),
    ],
)
def test_a_rule_that_exists_is_valid(options, words):
    with pytest.raises(ValueError, match=words):
        AlertRule(**{"name": "rate", "metric": "failure_rate", "threshold": 0.1} | options)


@pytest.mark.parametrize("channel", ["smoke signals", 42, None])
def test_what_is_no_channel_is_refused_when_it_is_given(channel):
    with pytest.raises(ValueError, match="channel"):
        Alerts(channels=[channel])


def test_two_rules_of_one_name_are_refused():
    with pytest.raises(ValueError, match="one name"):
        Alerts(rules=[ROW, ROW])


def test_a_notice_can_be_read_by_people():
    alert = Alert(
        "rate", "failure_rate", "raised", "shop:pay", 0.35, 0.1, 300, 1.0, 61.0, 40, "OSError", "disk full"
    )
    assert alert.title == "[raised] failure rate of shop:pay: 35% (limit 10%)"
    assert alert.text.splitlines() == [
        "rule: rate",
        "jobs: 40 in the last 300 s",
        "since: 60 s",
        "newest failure: OSError: disk full",
    ]


def test_channels_are_left_also_when_the_last_look_raises(run):
    class Blind(Alerts):
        def look(self):
            raise ZeroDivisionError

    async def main():
        with pytest.raises(ZeroDivisionError):
            async with Blind(channels=[Inbox()]):
                pass

    run(main)
