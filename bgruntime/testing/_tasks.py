"""Tasks and futures whose place in a set does not depend on their address."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from bgruntime.testing._loop import SimLoop


class SimTask(asyncio.Task[Any]):
    """A task with a number: sets of tasks are walked in the same order in every process."""

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        loop = loop or asyncio.get_running_loop()
        self.number = cast("SimLoop", loop).next_number()
        # The default names count in the whole process; these count in the loop.
        super().__init__(coro, loop=loop, name=name or f"Task-{self.number}", **options)

    def __hash__(self) -> int:
        return self.number


class SimFuture(asyncio.Future[Any]):
    """A future with a number, for the same reason."""

    def __init__(self, *, loop: SimLoop) -> None:
        self.number = loop.next_number()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number
