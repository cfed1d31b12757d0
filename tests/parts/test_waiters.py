"""A line for room holds those who still wait, whatever became of the others."""

from __future__ import annotations

import asyncio
from typing import Any

from bgruntime._parts.waiters import SWEEP_FROM, Turn, Waiters


def test_those_who_give_up_behind_one_who_waits_are_let_go_of(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        waiters: Waiters[int] = Waiters()
        first, last = loop.create_future(), loop.create_future()
        waiters.add(first, 0)
        for n in range(3 * SWEEP_FROM):
            impatient = loop.create_future()
            waiters.add(impatient, n)
            impatient.cancel()
            waiters.leave(impatient)
        waiters.add(last, 99)
        assert len(waiters._futures) <= SWEEP_FROM + 2
        assert waiters.first_wants() == 0
        waiters.call_first()
        assert first.result() is Turn.YOURS
        assert waiters.first_wants() == 99

    run(main)
