"""E-mail to many people: one after another, then as one bounded fan-out.

A real SMTP server (aiosmtpd) listens on loopback and takes 20 ms to accept a message, as a
mail provider does. It counts what it received and how many deliveries ran at once.

    python examples/notify.py [MESSAGES] [LIMIT]
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from functools import partial
from itertools import repeat
from typing import Any

import aiosmtplib
from aiosmtpd.smtp import SMTP

import bgruntime
from bgruntime import Runtime, task

ANSWER = 0.020  # seconds the server takes to accept one message


@dataclass
class MailServer:
    """What the server saw. A mailbox that is `missing` is refused, `later@…` the first time only."""

    port: int = 0
    received: Counter[str] = field(default_factory=Counter)
    delivering: int = 0
    peak: int = 0
    put_off: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=lambda: {"nobody@example.org"})

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, *_: Any) -> str:
        if address in self.missing:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        (address,) = envelope.rcpt_tos
        self.delivering += 1
        self.peak = max(self.peak, self.delivering)
        await asyncio.sleep(ANSWER)
        self.delivering -= 1
        if address.startswith("later@") and address not in self.put_off:
            self.put_off.add(address)
            return "451 greylisted, try again"
        self.received[address] += 1
        return "250 accepted"


@asynccontextmanager
async def mail_server() -> AsyncIterator[MailServer]:
    """A mail server on a free loopback port, gone at the end of the block."""
    seen = MailServer()
    loop = asyncio.get_running_loop()
    session = partial(SMTP, seen, hostname="localhost", loop=loop)
    listener = await loop.create_server(session, "127.0.0.1", 0)
    async with listener:
        seen.port = listener.sockets[0].getsockname()[1]
        yield seen


@task(
    timeout=10,
    max_attempts=3,
    retry_on=(aiosmtplib.SMTPException, OSError),
    give_up_on=(aiosmtplib.SMTPRecipientsRefused,),
    backoff=0.05,
)
async def send_email(to: str, port: int) -> str:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@example.org", to, "Your order"
    message.set_content("It left our house this morning.\n")
    await aiosmtplib.send(message, hostname="127.0.0.1", port=port, start_tls=False)
    return to


async def one_after_another(
    addresses: Sequence[str], port: int, sent: Callable[[], object] = lambda: None
) -> None:
    """What a loop over `BackgroundTasks` does; calls `sent` after each message."""
    for to in addresses:
        await send_email(to, port)
        sent()


async def fan_out(
    rt: Runtime, addresses: Sequence[str], port: int, limit: int, sent: Callable[[], object] = lambda: None
) -> None:
    """At most `limit` messages under way at once; calls `sent` after each one."""
    async for _ in rt.map(send_email, addresses, repeat(port), limit=limit, ordered=False):
        sent()


async def main(messages: int = 40, limit: int = 20) -> None:
    addresses = [f"customer{number}@example.org" for number in range(messages)]
    async with mail_server() as server, Runtime() as rt:
        start = time.perf_counter()
        await one_after_another(addresses, server.port)
        sequential = time.perf_counter() - start
        await fan_out(rt, addresses, server.port, limit)
        batched = time.perf_counter() - start - sequential
    print(f"one after another  {sequential:5.2f} s")
    print(f"fan-out, limit {limit:<3} {batched:5.2f} s, {sequential / batched:.1f} times faster")
    print(f"received {server.received.total()} messages, at most {server.peak} at once")
    assert server.received == dict.fromkeys(addresses, 2), "every customer got both messages"


if __name__ == "__main__":
    bgruntime.run(main(*map(int, sys.argv[1:3])))
