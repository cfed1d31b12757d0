"""P18: jobs that were cancelled where they wait do not pile up there."""

from __future__ import annotations

import gc
import weakref

from bgruntime import Runtime, task

from .steps import Gate, until

MANY = 3_000


def test_p18_what_was_cancelled_in_a_queue_is_let_go_while_the_queue_stands(run):
    async def main():
        gate = Gate()
        hold = task(gate.hold)
        async with Runtime(concurrency=1) as rt:
            first = await rt.submit(hold, "first")
            await until(lambda: gate.started)
            seen = []
            for number in range(MANY):
                job = rt.submit_nowait(hold.with_options(priority=number % 3), number)
                seen.append(weakref.ref(job))
                job.cancel()
            last = await rt.submit(hold, "last")
            del job
            rt.stats()
            gc.collect()
            held = sum(ref() is not None for ref in seen)
            assert held < MANY / 2, "those lately over may be asked for, the others are gone"
            gate.open()
            assert [await first, await last] == ["first", "last"]
        assert gate.started == ["first", "last"]

    run(main)
