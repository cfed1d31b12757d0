"""The runtime's ports on a simulated loop: clocks, chance and threads, all from the seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from bgruntime.extend import ports
from bgruntime.testing._tasks import SimTask
from bgruntime.testing._threads import current_thread

if TYPE_CHECKING:
    from bgruntime.testing._loop import SimLoop


def ports_of(loop: SimLoop) -> ports.Ports:
    """Ports that read nothing but *loop*."""
    chance = Random(f"{loop.seed}/runtime")

    def passed() -> float:
        thread = current_thread()
        return loop.time() if thread is None else thread.now

    def wall() -> float:
        return loop.wall_time() - loop.time() + passed()

    def spawn(target: Callable[[], None], name: str) -> None:
        loop.spawn(target)

    return ports.Ports(
        monotonic=passed,
        time=wall,
        random=chance,
        token=chance.randbytes,
        call_later=_call_later,
        spawn=spawn,
        task_class=SimTask,
    )


def _call_later(
    loop: asyncio.AbstractEventLoop, delay: float, callback: Callable[[], object]
) -> asyncio.TimerHandle:
    return loop.call_later(delay, callback)
