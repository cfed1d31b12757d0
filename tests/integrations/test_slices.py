"""What takes long on the loop is done in slices."""

from __future__ import annotations

import asyncio

from bgruntime.extend import ports
from bgruntime.integrations._slices import in_slices


def test_the_loop_has_a_turn_after_every_millisecond(run):
    now = 0.0
    seen: list[str] = []

    def pieces():
        nonlocal now
        for number in range(6):
            now += 0.0004
            seen.append(str(number))
            yield number

    async def main():
        loop = asyncio.get_running_loop()

        def turn() -> None:
            seen.append("turn")
            if len(seen) < 8:
                loop.call_soon(turn)

        loop.call_soon(turn)
        with ports.use(ports.Ports(monotonic=lambda: now)):
            return await in_slices(pieces())

    assert run(main) == [0, 1, 2, 3, 4, 5]
    assert " ".join(seen) == "0 1 2 turn 3 4 5 turn"
