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
from functools import partial
from typing import Any

from aiosmtpd.smtp import SMTP

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
    """What a mail server on loopback has received."""

    def __init__(self) -> None:
        self.subjects: asyncio.Queue[str] = asyncio.Queue()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        subject = message_from_bytes(envelope.content)["Subject"]
        self.subjects.put_nowait(str(make_header(decode_header(subject))))
        return "250 OK"


async def fail(urls: list[str], journal: str) -> None:
    """Three jobs fail: an alert at once, and what is open in a digest."""
    alerts = Alerts(RULES, channels=["log", *urls], every=0.1)
    digest = Digest(channels=urls)
    async with Runtime(observers=[alerts, digest], journal=journal) as rt:
        for number in range(3):
            await (await rt.submit(report, number)).wait()
        open_failures = await digest.tell()  # by itself once a day
        print("open:", open_failures.title if open_failures else "nothing")


async def main() -> None:
    postbox, loop = Postbox(), asyncio.get_running_loop()
    session = partial(SMTP, postbox, hostname="localhost", loop=loop)
    listener = await loop.create_server(session, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        mail = f"mailto://127.0.0.1:{port}?from=app@example.org&to=ops@example.org&mode=insecure"
        urls = os.environ.get("ALERT_URLS", mail).split()
        with tempfile.TemporaryDirectory() as folder:
            await fail(urls, f"{folder}/jobs.db")
        while not postbox.subjects.empty():
            print("a mail came:", postbox.subjects.get_nowait())


if __name__ == "__main__":
    asyncio.run(main())
