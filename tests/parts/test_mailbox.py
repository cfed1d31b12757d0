"""A mailbox takes at once, hands on in order, and says what it could not hand on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from bgruntime.extend import Mailbox


@pytest.mark.parametrize("option", ["size", "batch"])
def test_a_mailbox_that_could_hold_or_hand_on_nothing_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} .*at least 1.* 0"):
        Mailbox(_lost, **{option: 0})


def test_what_is_put_in_before_it_opens_waits_and_is_handed_on_when_it_does(run: Any) -> None:
    got: list[int] = []

    async def deliver(batch: Sequence[int]) -> None:
        got.extend(batch)

    async def main() -> None:
        mailbox: Mailbox[int] = Mailbox(deliver, size=2)
        assert [mailbox.put(n) for n in (1, 2, 3)] == [True, True, False]
        assert (len(mailbox), mailbox.dropped, got) == (2, 1, [])
        async with mailbox:
            pass
        assert (len(mailbox), got) == (0, [1, 2])

    run(main)


async def _lost(batch: Sequence[int]) -> None:
    raise AssertionError(batch)
