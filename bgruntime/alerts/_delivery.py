"""From an alert to a channel that may hang, fail or flap: a queue, a deadline, and another try."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from bgruntime.extend import Channel, Mailbox, ports

from ._rules import Alert

DEADLINE = 5.0  # seconds for one try
TRIES = 6
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between two tries
QUEUE = 100  # alerts that wait for one channel
CLOSE = 5.0  # seconds that leaving waits for what is under way

Complain = Callable[[str, BaseException | None], None]


class Delivery:
    """Hands alerts to one *channel* in their order, each at most six times, from a task of its own."""

    def __init__(
        self, name: str, channel: Channel, complain: Complain, delivered: Callable[[Alert], None]
    ) -> None:
        self.name = name
        self.sent = self.failed = 0
        self.problem = ""
        self._channel = channel
        self._complain = complain
        self._delivered = delivered
        self._ports = ports.current()
        self._mailbox: Mailbox[Alert] = Mailbox(self._deliver, size=QUEUE, batch=1, close=CLOSE)
        self._hanging: set[asyncio.Task[None]] = set()
        self._leaving = asyncio.Event()

    @property
    def dropped(self) -> int:
        """How many alerts found no room in the queue, or were still in it at the end."""
        return self._mailbox.dropped

    def put(self, alert: Alert) -> None:
        """Take *alert*; it is dropped, counted and said when a hundred wait already."""
        if not self._mailbox.put(alert):
            self._complain(f"alert channel {self.name} is behind: an alert was dropped", None)

    async def __aenter__(self) -> Self:
        await self._mailbox.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        try:
            await self._mailbox.__aexit__(kind, error, trace)
        finally:
            for task in self._hanging:
                task.cancel()
            if self._hanging:
                await asyncio.wait(self._hanging, timeout=0.1)

    async def _deliver(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            await self._try_hard(alert)

    async def _try_hard(self, alert: Alert) -> None:
        pause = FIRST_PAUSE
        for attempt in range(1, TRIES + 1):
            error = await self.try_once(alert)
            if error is None:
                self.sent += 1
                self.problem = ""
                self._delivered(alert)
                return
            self.problem = f"alert channel {self.name} fails: {type(error).__name__}"
            self._complain(f"alert channel {self.name} failed", error)
            if attempt == TRIES or self._leaving.is_set():
                break
            await self._pause(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        self.failed += 1

    async def try_once(self, alert: Alert) -> BaseException | None:
        """Send *alert* within 5 seconds; what went wrong, or None."""
        sending: asyncio.Task[None] = asyncio.get_running_loop().create_task(
            self._send(alert), name=f"bgruntime alert {self.name}"
        )
        over, timer = self._timer(DEADLINE)
        try:
            either: set[asyncio.Future[None]] = {sending, over}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._leave_behind(sending)
            raise
        finally:
            timer.cancel()
        if not sending.done():
            self._leave_behind(sending)
            return TimeoutError(f"no answer within {DEADLINE:g} s")
        if sending.cancelled():
            return RuntimeError("the channel was cancelled")
        return sending.exception()

    async def _send(self, alert: Alert) -> None:
        try:
            await self._channel.send(alert)
        except (SystemExit, KeyboardInterrupt) as error:  # out of a task they end the application's loop
            raise RuntimeError(f"the channel raised {type(error).__name__}") from error

    def _leave_behind(self, sending: asyncio.Task[None]) -> None:
        """Cancel a try and do not wait for it: a channel may ignore that."""
        if sending.done():
            return
        sending.cancel()
        self._hanging.add(sending)
        sending.add_done_callback(self._ended_late)

    def _ended_late(self, sending: asyncio.Task[None]) -> None:
        self._hanging.discard(sending)
        if not sending.cancelled():
            sending.exception()  # seen: its deadline was reported

    async def _pause(self, seconds: float) -> None:
        over, timer = self._timer(seconds)
        leaving = asyncio.get_running_loop().create_task(self._leaving.wait(), name="bgruntime alert pause")
        try:
            either: set[asyncio.Future[Any]] = {over, leaving}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            leaving.cancel()

    def _timer(self, seconds: float) -> tuple[asyncio.Future[None], Any]:
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        return over, self._ports.call_later(
            loop, seconds, lambda: None if over.done() else over.set_result(None)
        )


__all__ = ["Delivery"]
