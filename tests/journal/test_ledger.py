"""What a batch that was not written leaves behind."""

from __future__ import annotations

import asyncio

from bgruntime.journal._batch import Ending
from bgruntime.journal._ledger import Entry, Ledger


def test_an_ending_that_somebody_waits_for_is_still_to_outlive_a_power_cut_when_it_is_written_again(run):
    async def main():
        ledger = Ledger()
        future = asyncio.get_running_loop().create_future()
        ledger.end(Entry("a", 1, 1), Ending(future=future))
        for _ in range(3):
            batch = ledger.take()
            assert batch.durable
            ledger.restore(batch)
        ledger.written(ledger.take())
        await future
        ledger.end(Entry("b", 2, 1), Ending())
        assert not ledger.take().durable

    run(main)
