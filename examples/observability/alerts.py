"""Alerts by mail and to DingTalk when a task fails, and a digest of what is open.

python examples/observability/alerts.py            a mail to a server on loopback
ALERT_URLS="dingtalk://token mailto://…" python examples/observability/alerts.py

Every URL that apprise knows is a channel: slack://, feishu://, wecombot://, msteams://, json://, ….
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from email import message_from_bytes
from email.header import decode_header, make_header
from typing import Any

from aiosmtpd.controller import Controller

from bgruntime import Runtime, task
from bgruntime.alerts import AlertRule, Alerts, Digest

RULES = [
    AlertRule("failing in a row", "consecutive_failures", threshold=3),
    AlertRule("failure rate", "failure_rate", threshold=0.10, window=300, min_jobs=20),
    AlertRule("slow", "p95", threshold=30.0, task="shop.report"),
    AlertRule("old queue", "queue_age", threshold=60.0),
]


@task(name="shop.report")
async def report(number: int) -> None:
    raise ConnectionError("the warehouse does not answer")


class Postbox:
    """A mail server for the demonstration."""

    def __init__(self) -> None:
        self.subjects: asyncio.Queue[str] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        subject = str(make_header(decode_header(message_from_bytes(envelope.content)["Subject"])))
        self.loop.call_soon_threadsafe(self.subjects.put_nowait, subject)
        return "250 OK"


class OnAnyPort(Controller):
    """Reads the port that the system gave before it looks whether it can be reached."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


async def main() -> None:
    postbox = Postbox()
    controller = OnAnyPort(postbox, hostname="127.0.0.1", port=0)
    controller.start()
    mail = f"mailto://127.0.0.1:{controller.port}?from=app@example.org&to=ops@example.org&mode=insecure"
    urls = os.environ.get("ALERT_URLS", mail).split()
    observers = [Alerts(RULES, channels=["log", *urls], every=0.1), Digest(channels=urls, every=86_400)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            async with Runtime(observers=observers, journal=f"{folder}/jobs.db") as rt:
                for number in range(3):
                    await (await rt.submit(report, number)).wait()
                if mail in urls:
                    print("a mail came:", await postbox.subjects.get())
                digest = await observers[1].tell()  # by itself once a day
                print(digest and digest.title)
    finally:
        controller.stop()


if __name__ == "__main__":
    asyncio.run(main())
