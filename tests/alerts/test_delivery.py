"""Alerts arrive, for real, and a channel that hangs, fails or flaps touches no job."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from bgruntime import Runtime, task
from bgruntime.alerts import AlertRule, Alerts, _delivery
from bgruntime.extend import Mailbox
from tests.alerts.inbox import Inbox

ROW = AlertRule("row", "consecutive_failures", threshold=3)
PATIENCE = 15.0  # seconds for a thread and a socket on a busy machine


@task
async def good() -> int:
    return 1


@task
async def bad() -> None:
    raise LookupError("no such account")


async def fail_three_times(rt: Runtime) -> None:
    for _ in range(3):
        await (await rt.submit(bad)).wait()


async def until(fact, alerts: Alerts | None = None) -> None:
    """Wait for a fact that another thread brings about."""
    deadline = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.005)


class Webhook:
    """A real HTTP server on loopback that keeps what is posted to it."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.status = 200
        self.asked = 0
        self.answer = threading.Event()
        self.answer.set()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                owner.asked += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                owner.answer.wait(PATIENCE)
                if owner.status == 200:
                    owner.bodies.append(json.loads(body))
                self.send_response(owner.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self._server.server_port}/hook?token=s3cr3t"

    def close(self) -> None:
        self.answer.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(autouse=True)
def _leaving_is_short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(_delivery, "CLOSE", 0.3)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    hook = Webhook()
    yield hook
    hook.close()


class Postbox:
    def __init__(self) -> None:
        self.mails: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append(message_from_bytes(envelope.content))
        return "250 OK"


class OnAnyPort(Controller):
    """Finds out which port it was given before it looks whether it can be reached there."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def smtp() -> Iterator[tuple[Postbox, int]]:
    """A real SMTP server on loopback."""
    postbox = Postbox()
    controller = OnAnyPort(postbox, hostname="127.0.0.1", port=0)
    controller.start()
    yield postbox, controller.port
    controller.stop()


needs_apprise = pytest.mark.skipif(find_spec("apprise") is None, reason="apprise is not installed")


@needs_apprise
def test_an_alert_arrives_by_mail(run, smtp):
    postbox, port = smtp
    url = f"mailto://127.0.0.1:{port}?from=alerts@example.org&to=ops@example.org&mode=insecure"

    async def main():
        async with Runtime(observers=[Alerts(rules=[ROW], channels=[url], every=0.02)]) as rt:
            await fail_three_times(rt)
            await until(lambda: postbox.mails)

    run(main)
    mail = postbox.mails[0]
    assert "ops@example.org" in str(mail["To"])
    body = b"".join(part.get_payload(decode=True) or b"" for part in mail.walk()).decode()
    assert bad.name in str(mail["Subject"]).replace("\n ", "") + body
    assert "no such account" in body


@needs_apprise
def test_an_alert_arrives_at_a_webhook_and_so_does_its_end(run, webhook):
    @task(name="flips")
    async def flips(fails: bool) -> None:
        if fails:
            raise LookupError("no such account")

    async def main():
        async with Runtime(observers=[Alerts(rules=[ROW], channels=[webhook.url], every=0.02)]) as rt:
            for _ in range(3):
                await (await rt.submit(flips, True)).wait()
            await until(lambda: len(webhook.bodies) == 1)
            await (await rt.submit(flips, False)).wait()
            await until(lambda: len(webhook.bodies) == 2)

    run(main)
    titles = [body["title"] for body in webhook.bodies]
    assert titles[0].startswith("[raised]")
    assert titles[1].startswith("[resolved]")
    assert "LookupError: no such account" in webhook.bodies[0]["message"]


@pytest.mark.slow
@needs_apprise
def test_a_webhook_that_answers_with_errors_is_asked_again(run, webhook):
    webhook.status = 500

    async def main():
        alerts = Alerts(rules=[ROW], channels=[webhook.url], every=0.02)
        async with Runtime(observers=[alerts]) as rt:
            await fail_three_times(rt)
            await until(lambda: webhook.asked >= 1 and rt.stats().faults)
            assert any("json://…" in reason for reason in rt.health().reasons)
            assert "s3cr3t" not in repr(rt.health()) + repr(rt.stats().faults)
            webhook.status = 200
            await until(lambda: webhook.bodies)
            await until(lambda: not any("json://…" in reason for reason in rt.health().reasons))

    run(main)
    assert webhook.asked >= 2


@needs_apprise
def test_a_webhook_that_hangs_holds_neither_jobs_nor_the_exit(run, webhook):
    webhook.answer.clear()
    inbox = Inbox()

    async def main():
        alerts = Alerts(rules=[ROW], channels=[webhook.url, inbox], every=0.02)
        runtime = Runtime(observers=[alerts])
        async with runtime as rt:
            await fail_three_times(rt)
            await until(lambda: webhook.asked and inbox.alerts)
            began = time.monotonic()
            assert await rt.map(good_one, range(200), limit=20) == [1] * 200
            assert time.monotonic() - began < 2
            began = time.monotonic()
        took = time.monotonic() - began
        webhook.answer.set()
        return took

    assert run(main) < 0.9
    assert [one.state for one in inbox.alerts] == ["raised"]


async def good_one(_: int) -> int:
    return 1


@needs_apprise
def test_a_url_that_apprise_does_not_know_is_refused_without_being_shown():
    with pytest.raises(ValueError, match="nonsense://…") as caught:
        Alerts(channels=["nonsense://user:s3cr3t@host"])
    assert "s3cr3t" not in str(caught.value)


def test_without_apprise_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ModuleNotFoundError, match=r"bgruntime\[alerts\]"):
        Alerts(channels=["slack://token"])


def test_plain_functions_coroutine_functions_and_objects_are_channels(run):
    got: list[str] = []
    inbox = Inbox()
    threads = []

    def plain(alert):
        threads.append(threading.current_thread() is threading.main_thread())
        got.append("plain")

    async def coroutine(alert):
        got.append("coroutine")

    async def main():
        alerts = Alerts(
            rules=[ROW], channels=[plain, coroutine, inbox, lambda alert: coroutine(alert)], every=0.02
        )
        async with Runtime(observers=[alerts]) as rt:
            await fail_three_times(rt)
            await until(lambda: len(got) == 3 and inbox.alerts)

    run(main)
    assert sorted(got) == ["coroutine", "coroutine", "plain"]
    assert threads == [False]


def test_the_log_channel_writes_a_line(run, caplog):
    async def main():
        async with Runtime(observers=[Alerts(rules=[ROW], every=3600)]) as rt:
            await fail_three_times(rt)

    with caplog.at_level(logging.INFO, logger="bgruntime.alerts"):
        run(main)
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith("alert.raised [raised] failures in a row of")
    assert (record.task, record.alert_rule, record.value) == (bad.name, "row", 3)


def test_a_failing_channel_is_tried_again_with_pauses_that_grow(run, clock):
    inbox = Inbox()
    inbox.broken = True

    async def main():
        async with Runtime(observers=[Alerts(rules=[ROW], channels=[inbox])]) as rt:
            await fail_three_times(rt)
            await clock.advance(5)
            tries = [inbox.tries]
            for pause in (1, 2, 4, 8, 16, 32):
                await clock.advance(pause)
                tries.append(inbox.tries)
            return tries, rt.stats().faults

    tries, faults = run(main)
    assert tries == [1, 2, 3, 4, 5, 6, 6]
    assert faults["alert channel Inbox failed"] == 6


def test_a_channel_that_comes_back_gets_what_it_missed(run, clock):
    inbox = Inbox()
    inbox.broken = True

    async def main():
        async with Runtime(observers=[Alerts(rules=[ROW], channels=[inbox])]) as rt:
            await fail_three_times(rt)
            await clock.advance(6)
            assert inbox.alerts == []
            inbox.broken = False
            await clock.advance(2)

    run(main)
    assert inbox.told == [("raised", "row", bad.name)]


def test_what_reached_nobody_is_told_again_within_the_window(run, clock):
    """All tries failed; the cooldown is long, the window is not."""
    inbox = Inbox()
    inbox.broken = True
    rule = AlertRule("row", "consecutive_failures", 3, window=300, cooldown=86_400)

    async def main():
        async with Runtime(observers=[Alerts(rules=[rule], channels=[inbox])]) as rt:
            await fail_three_times(rt)
            await clock.advance(100)
            assert (inbox.tries, inbox.alerts) == (6, [])
            inbox.broken = False
            await clock.advance(210)
            assert [one.state for one in inbox.alerts] == ["reminder"]
            await clock.advance(600)
            assert len(inbox.alerts) == 1

    run(main)


@pytest.mark.parametrize("deaf", [False, True], ids=["hangs", "hangs and ignores its cancellation"])
def test_a_channel_that_hangs_is_given_up_after_five_seconds_and_holds_no_other(run, clock, deaf):
    hanging, fine = Inbox(), Inbox()
    hanging.hang, hanging.deaf = True, deaf

    async def main():
        alerts = Alerts(rules=[ROW], channels=[hanging, fine])
        async with Runtime(observers=[alerts]) as rt:
            await fail_three_times(rt)
            await clock.advance(5)
            assert (hanging.tries, len(fine.alerts)) == (1, 1)
            await clock.advance(4.9)
            assert hanging.tries == 1
            await clock.advance(1.2)
            assert hanging.tries == 2
            assert (await (await rt.submit(good))) == 1
            hanging.hang = False
            hanging.deaf = False

    run(main)


@pytest.mark.slow
def test_leaving_waits_at_most_five_seconds_for_a_channel(run):
    inbox = Inbox()
    inbox.hang = True

    async def main():
        runtime = Runtime(observers=[Alerts(rules=[ROW], channels=[inbox], every=3600)])
        async with runtime as rt:
            await fail_three_times(rt)
            began = time.monotonic()
        return time.monotonic() - began

    assert 0.1 < run(main) < 5.6
    assert inbox.tries == 1


def test_the_queue_of_a_channel_is_bounded(run, clock):
    inbox = Inbox()
    inbox.broken = True
    rules = [AlertRule(f"row {number}", "consecutive_failures", 1) for number in range(150)]

    async def main():
        alerts = Alerts(rules=rules, channels=[inbox])
        async with Runtime(observers=[alerts]) as rt:
            await (await rt.submit(bad)).wait()
            await clock.advance(5)
            faults = rt.stats().faults
            inbox.broken = False
            return faults

    faults = run(main)
    assert faults["alert channel Inbox is behind: an alert was dropped"] >= 49


def test_a_test_alert_goes_to_every_channel_and_says_which_failed(run):
    fine, broken = Inbox(), Inbox()
    broken.broken = True

    async def broken_channel(alert):
        await broken.send(alert)

    async def main():
        return await Alerts(channels=[fine, broken_channel]).test()

    results = run(main)
    assert list(results.values()) == ["", "ConnectionError"]
    assert [one.state for one in fine.alerts] == ["test"]


@pytest.mark.slow
def test_a_hanging_thread_does_not_hold_the_exit_of_the_interpreter():
    code = """
        import asyncio, time
        from bgruntime import Runtime
        from bgruntime.alerts import Alerts, AlertRule

        async def bad():
            raise LookupError

        def hangs(alert):
            time.sleep(60)

        async def main():
            rule = AlertRule("row", "consecutive_failures", 1)
            async with Runtime(observers=[Alerts(rules=[rule], channels=[hangs], every=0.01)]) as rt:
                await (await rt.submit(bad)).wait()
                await asyncio.sleep(0.1)
        asyncio.run(main())
    """
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 12


class Exits:
    """A channel that raises what ends a program."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error, self.tries = error, 0

    async def send(self, alert: Any, /) -> None:
        self.tries += 1
        raise self.error


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_channel_that_raises_what_ends_programs_ends_no_loop(run, error):
    async def main():
        channel, told = Exits(error), []
        alerts = Alerts(rules=[ROW], channels=[channel, told.append])
        assert await alerts.test() == {"Exits": "RuntimeError", "list.append": ""}
        async with Runtime(observers=[alerts]) as rt:
            await fail_three_times(rt)
            alerts.look()
            await until(lambda: channel.tries == 2)
            await until(lambda: len(told) == 2)
            assert await (await rt.submit(good)) == 1

    run(main)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_mailbox_outlives_a_delivery_that_raises_what_ends_programs(run, error):
    taken: list[int] = []

    async def deliver(items):
        if not taken:
            taken.append(0)
            raise error
        taken.extend(items)

    async def main():
        async with Mailbox(deliver, batch=1) as mailbox:
            mailbox.put(1)
            mailbox.put(2)
        assert (mailbox.failed, taken) == (1, [0, 2])

    run(main)
