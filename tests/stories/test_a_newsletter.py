"""A newsletter goes out through a mail server that is slow, flaky and refuses some."""

from __future__ import annotations

import asyncio

import pytest

from bgruntime import Runtime, task


class Refused(Exception):
    """The server will never take this address."""


class MailServer:
    """Takes a few connections at a time; drops every fifth message once, and refuses some for good."""

    def __init__(self, connections):
        self.connections, self.now, self.most = connections, 0, 0
        self.delivered, self.dropped = [], set()

    async def send(self, number):
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            for _ in range(1 + number % 4):
                await asyncio.sleep(0)
            if number % 50 == 7:
                raise Refused(f"{number}@example.org")
            if number % 5 == 0 and number not in self.dropped:
                self.dropped.add(number)
                raise ConnectionResetError(number)
            self.delivered.append(number)
            return f"receipt-{number}"
        finally:
            self.now -= 1


def sender(server):
    @task(timeout=30, max_attempts=3, backoff=lambda _: 1.0, give_up_on=(Refused,))
    async def send(number: int) -> str:
        return await server.send(number)

    return send


async def advancing(clock, work):
    """The result of `work`, with time passing for as long as it takes."""
    working = asyncio.ensure_future(work)
    while not working.done():
        await clock.advance(0.5)
    return await working


def test_everyone_gets_the_newsletter_once_and_the_refused_are_known(run, clock):
    async def main():
        server = MailServer(connections=10)
        send = sender(server)
        async with Runtime(concurrency=50) as rt:
            results = await advancing(
                clock, rt.starmap(send, [(n,) for n in range(200)], limit=10, on_error="return")
            )
            refused = [number for number, result in enumerate(results) if isinstance(result, Refused)]
            assert refused == [7, 57, 107, 157]
            assert [result for result in results if isinstance(result, str)] == [
                f"receipt-{number}" for number in range(200) if number not in refused
            ]
            assert len(server.delivered) == len(set(server.delivered)) == 196
            assert server.most <= 10
            stats = rt.stats()
            assert (stats.submitted, stats.completed, stats.failed, stats.retried) == (200, 196, 4, 40)
            assert (stats.running, stats.waiting, stats.retryable) == (0, 0, 0)

    run(main)


def test_receipts_arrive_while_the_rest_is_still_being_sent(run):
    async def main():
        server = MailServer(connections=3)

        @task
        async def send(number):
            return await server.send(number * 10 + 1)

        async with Runtime() as rt:
            receipts = []
            async for receipt in rt.map(send, range(20), limit=3, ordered=False):
                receipts.append(receipt)
                assert len(server.delivered) <= len(receipts) + 6
            assert sorted(receipts) == sorted(f"receipt-{number * 10 + 1}" for number in range(20))

    run(main)


def test_the_first_refusal_stops_a_newsletter_that_must_be_complete(run):
    async def main():
        server = MailServer(connections=5)

        @task
        async def send(number):
            return await server.send(number * 5 + 2)

        async with Runtime() as rt:
            with pytest.raises(Refused, match="7@example"):
                await rt.map(send, range(100), limit=5)
            assert server.now == 0
            assert len(server.delivered) < 20

    run(main)
