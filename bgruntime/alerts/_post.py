"""What an observer needs that looks now and then and tells channels: begun together, ended together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from bgruntime.extend import ports

from ._channels import channel_of, name_of_channel
from ._delivery import Complain, Delivery
from ._rules import Alert


class Post:
    """Hands each alert to all *channels*, which do not wait for one another, and keeps the time of the looks.

    Leaving ends the turns, waits for a look that goes on and then at most 5 seconds for what is being
    delivered. When it is cancelled the look is, too, and has ended when it returns.

    Raises:
        ValueError: a channel is none.
    """

    def __init__(
        self,
        channels: Sequence[Any],
        complain: Complain,
        delivered: Callable[[Alert], None] = lambda alert: None,
    ) -> None:
        self._channels = [(name_of_channel(given), channel_of(given)) for given in channels]
        self._complain = complain
        self._delivered = delivered
        self._forget()

    def _forget(self) -> None:
        self._deliveries: list[Delivery] = []
        self._timer: Any = None
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._forget()  # what is of an earlier run, on another loop perhaps
        self._deliveries = self._made()
        for one in self._deliveries:
            await one.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._end_look()
        finally:
            # All at once: leaving waits for the slowest, not for one after another.
            await asyncio.gather(*(one.__aexit__(kind, error, trace) for one in self._deliveries))

    async def _end_look(self) -> None:
        if self._looking is None:
            return
        try:
            await asyncio.wait([self._looking])
        finally:
            if not self._looking.done():
                self._looking.cancel()
                await asyncio.wait([self._looking])

    def _made(self) -> list[Delivery]:
        return [Delivery(name, channel, self._complain, self._delivered) for name, channel in self._channels]

    def turn_every(self, seconds: float, turn: Callable[[], object]) -> None:
        """Call *turn* again and again from now on, until this is left."""
        loop, call_later = asyncio.get_running_loop(), ports.current().call_later

        def again() -> None:
            self._timer = call_later(loop, seconds, again)
            turn()

        self._timer = call_later(loop, seconds, again)

    def begin_look(self, look: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Run *look* in a task of that *name*, unless the last one still goes on."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(look(), name=name)

    def put(self, alert: Alert) -> None:
        """Have *alert* delivered to each channel."""
        for delivery in self._deliveries:
            delivery.put(alert)

    async def try_once(self, alert: Alert) -> Mapping[str, str]:
        """Send *alert* to each channel, once; what went wrong by channel, "" where nothing did."""
        deliveries = self._made()
        errors = await asyncio.gather(*(one.try_once(alert) for one in deliveries))
        return {
            one.name: "" if error is None else type(error).__name__
            for one, error in zip(deliveries, errors, strict=True)
        }

    def problems(self) -> list[str]:
        """A sentence for each channel that fails."""
        return [one.problem for one in self._deliveries if one.problem]


__all__ = ["Post"]
