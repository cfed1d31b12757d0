"""Channels for tests: one that keeps what it gets, and those that misbehave."""

from __future__ import annotations

import asyncio
from typing import Any

from bgruntime.alerts import Alert


class Inbox:
    """Keeps the alerts it is sent. `broken` makes it refuse them, `hang` makes it take for ever."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []
        self.tries = 0
        self.broken = False
        self.hang = False
        self.deaf = False  # when it hangs, it swallows its cancellation too

    async def send(self, alert: Alert, /) -> None:
        self.tries += 1
        while self.hang:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not self.deaf:
                    raise
        if self.broken:
            raise ConnectionError("refused")
        self.alerts.append(alert)

    @property
    def told(self) -> list[tuple[str, str, Any]]:
        return [(one.state, one.rule, one.task) for one in self.alerts]
