"""A flag that threads block on and coroutines await."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from bgruntime._parts.flags import Flag


def test_awaiting_a_flag_that_is_set_already_returns_at_once(run: Any) -> None:
    async def main() -> None:
        flag = Flag()
        flag.set()
        await flag
        assert flag.is_set()

    run(main)


def test_a_flag_that_a_thread_sets_wakes_all_who_await_it_and_all_who_block_on_it(run: Any) -> None:
    async def main() -> None:
        flag = Flag()

        async def wait() -> None:
            await flag

        waiting = [asyncio.ensure_future(wait()) for _ in range(3)]
        given_up = asyncio.ensure_future(wait())
        blocked = threading.Thread(target=flag.wait)
        blocked.start()
        await asyncio.sleep(0)
        given_up.cancel()
        setter = threading.Thread(target=flag.set)
        setter.start()
        await asyncio.gather(*waiting)
        blocked.join()
        setter.join()
        assert given_up.cancelled()

    run(main)
