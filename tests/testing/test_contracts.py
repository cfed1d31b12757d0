"""Our own parts keep the contracts, and parts that do not are found."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from bgruntime.alerts import Alert, Alerts, CallChannel, LogChannel
from bgruntime.extend import JobSettled
from bgruntime.journal import Journal
from bgruntime.metrics import Metrics
from bgruntime.testing.contracts import (
    ChannelContract,
    JournalContract,
    MiddlewareContract,
    ObserverContract,
)


class TestMetrics(ObserverContract):
    def make(self):
        return Metrics()


class TestAlerts(ObserverContract):
    def make(self):
        return Alerts(channels=[LogChannel()])


class TestAMinimalObserver(ObserverContract):
    class Minimal:
        def on_event(self, event):
            """Hears it."""

    def make(self):
        return self.Minimal()


class TestAPlainMiddleware(MiddlewareContract):
    def make(self):
        return lambda context: contextlib.nullcontext()


class TestAnAsyncMiddleware(MiddlewareContract):
    def make(self):
        @contextlib.asynccontextmanager
        async def around(context):
            await asyncio.sleep(0)
            yield
            await asyncio.sleep(0)

        return around


class OfAlerts(ChannelContract):
    def make_alert(self):
        return Alert("rule", "failure_rate", "test", None, 0.5, 0.1, 300.0, 0.0, 1.0)


class TestLogChannel(OfAlerts):
    def make(self):
        return LogChannel()


class TestCallChannelWithACoroutineFunction(OfAlerts):
    def make(self):
        async def take(alert):
            await asyncio.sleep(0)

        return CallChannel(take)


class TestCallChannelWithAPlainFunction(OfAlerts):
    def make(self):
        return CallChannel(lambda alert: None)


class TestJournal(JournalContract):
    def make(self, folder):
        return Journal(folder / "jobs.db")


# ── what does not keep a contract ──


class Wrong:
    """An observer that fails at one kind of event."""

    listens_to = (JobSettled,)

    def on_event(self, event):
        raise KeyError(event.job.tags)


def test_an_observer_that_fails_is_found():
    class Suite(ObserverContract):
        def make(self):
            return Wrong()

    with pytest.raises(AssertionError, match="Wrong"):
        Suite().test_no_event_of_any_kind_of_job_makes_it_fail()


def test_a_middleware_that_swallows_or_fails_is_found():
    class Suite(MiddlewareContract):
        def make(self):
            @contextlib.contextmanager
            def around(context):
                yield
                raise ValueError("mine")

            return around

    with pytest.raises(AssertionError, match="middleware"):
        Suite().test_jobs_end_with_it_as_they_do_without()


def test_a_channel_that_cannot_be_cancelled_is_found():
    class Stubborn:
        async def send(self, alert, /):
            for _ in range(2):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(1.5)

    class Suite(OfAlerts):
        def make(self):
            return Stubborn()

    with pytest.raises(ExceptionGroup) as failed:
        Suite().test_it_can_be_given_up()
    assert failed.group_contains(AssertionError, match="goes on")


def test_a_journal_that_forgets_is_found(tmp_path):
    class Suite(JournalContract):
        made = 0

        def make(self, folder):
            self.made += 1
            return Journal(folder / f"jobs-{self.made}.db")

    from bgruntime.testing import contracts

    contracts._runs.clear()
    contracts.PATIENCE, patience = 0.5, contracts.PATIENCE
    try:
        with pytest.raises(TimeoutError):
            Suite().test_a_job_that_was_interrupted_runs_again_in_the_next_runtime(tmp_path)
    finally:
        contracts.PATIENCE = patience
