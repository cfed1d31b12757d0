"""Who reads while the journal closes leaves no connection behind."""

from __future__ import annotations

import asyncio

from bgruntime import JournalUnavailable, Runtime

from .steps import until


def test_who_reads_while_it_closes_gets_an_answer_or_an_error_and_leaves_nothing_open(run, path):
    async def main():
        answers = []
        over = asyncio.Event()

        async def ask(journal) -> None:
            while not over.is_set():
                try:
                    answers.append(await journal.get("nobody"))
                except JournalUnavailable as error:
                    answers.append(error)
                    await asyncio.sleep(0)

        async with Runtime(journal=path) as rt:
            asking = [asyncio.ensure_future(ask(rt.journal)) for _ in range(5)]
            await until(lambda: None in answers)
        over.set()
        await asyncio.wait(asking)
        assert isinstance(answers[-1], JournalUnavailable)

    run(main)
