"""Hour by hour in the journal: what became of jobs, over restarts and processes."""

from __future__ import annotations

import sqlite3

import pytest

from bgruntime import Runtime, task
from bgruntime.journal import Journal
from bgruntime.journal._schema import FIRST
from bgruntime.metrics import Trends


@task(name="trends.works")
async def works() -> None: ...


@task(name="trends.fails")
async def fails() -> None:
    raise LookupError


async def end(rt: Runtime, what, times: int) -> None:
    for _ in range(times):
        await (await rt.submit(what)).wait()


async def kept(path, **which):
    async with Journal(path) as journal:
        return await journal.trends(**which)


def test_what_several_runs_have_counted_is_one_hour(run, tmp_path):
    path = tmp_path / "jobs.db"

    async def main():
        for _ in range(3):
            async with Runtime(journal=path, observers=[Trends()]) as rt:
                await end(rt, works, 4)
                await end(rt, fails, 1)
        return await kept(path)

    trends = run(main)
    of = {name: [one for one in trends if one.task == name] for name in ("trends.works", "trends.fails")}
    assert sum(one.completed for one in of["trends.works"]) == 12  # two hours where one ends meanwhile
    assert sum(one.failed for one in of["trends.fails"]) == 3
    assert sum(one.run_time.count for one in trends) == 15
    assert {one.at % 3600 for one in trends} == {0}
    assert {one.success_rate for one in of["trends.works"]} == {1.0}


def test_hours_are_told_apart_and_found_by_task_and_time(run, clock, tmp_path):
    path = tmp_path / "jobs.db"
    clock.set_wall(1_700_000_000.0)

    async def main():
        async with Runtime(journal=path, observers=[Trends()]) as rt:
            await end(rt, works, 2)
            rt.stats()  # has them counted
            clock.set_wall(clock.time() + 3_600)
            await end(rt, works, 3)
            await end(rt, fails, 1)
        everything = await kept(path)
        return everything, await kept(path, task="trends.works", since=1_700_000_000.0 + 3_600)

    everything, found = run(main)
    assert [(one.task, one.completed, one.failed) for one in everything] == [
        ("trends.works", 2, 0),
        ("trends.fails", 0, 1),
        ("trends.works", 3, 0),
    ]
    assert everything[1].at - everything[0].at == 3_600
    assert found == [everything[2]]


def test_what_cannot_be_written_is_kept_for_the_next_time(run, tmp_path):
    trends = Trends()

    async def main():
        async with Runtime(journal=tmp_path / "jobs.db", observers=[trends]) as rt:
            await end(rt, works, 2)
            real = rt.journal.add_trends

            async def refuse(hours, **options) -> None:
                raise OSError("no space left on device")

            rt.journal.add_trends = refuse
            with pytest.raises(OSError, match="no space"):
                await trends.write()
            await end(rt, works, 1)
            rt.journal.add_trends = real
        return await kept(tmp_path / "jobs.db")

    assert sum(one.completed for one in run(main)) == 3


def test_without_a_journal_it_does_nothing(run):
    async def main():
        async with Runtime(observers=[Trends()]) as rt:
            await end(rt, works, 2)
            return rt.stats().faults

    assert run(main) == {}


def test_a_journal_of_the_first_version_gets_the_new_table(run, tmp_path):
    path = tmp_path / "jobs.db"

    async def make():
        async with Runtime(journal=path) as rt:
            await end(rt, fails, 1)

    run(make)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DROP TABLE trend")
    connection.execute("PRAGMA user_version=1")
    connection.close()
    assert "trend(" not in FIRST

    async def main():
        async with Runtime(journal=path, observers=[Trends()]) as rt:
            await end(rt, works, 1)
            failures = await rt.journal.failures()
        return failures, await kept(path)

    failures, trends = run(main)
    assert len(failures) == 1
    assert [one.completed for one in trends] == [1]


def test_a_turn_is_taken_once_in_so_many_seconds_whoever_asks(run, clock, tmp_path):
    async def main():
        path = tmp_path / "jobs.db"
        async with Journal(path) as one, Journal(path) as other:
            took = [await one.is_time("digest", 60), await other.is_time("digest", 60)]
            await clock.advance(61)
            took += [await other.is_time("digest", 60), await one.is_time("digest", 60)]
        async with Journal(path) as again:
            took.append(await again.is_time("digest", 60))
        return took

    assert run(main) == [True, False, True, False, False]


def test_a_runtime_with_it_runs_again_on_another_loop(run, clock, tmp_path):
    rt = Runtime(journal=tmp_path / "jobs.db", observers=[trends := Trends()])

    async def first():
        async with rt:
            await end(rt, works, 2)
            await clock.advance(61)
            assert trends._writing is not None

    async def second():
        async with rt:
            await end(rt, works, 1)

    run(first)
    run(second)
    assert sum(one.completed for one in run(lambda: kept(tmp_path / "jobs.db"))) == 3


def test_a_turn_before_the_journal_is_open_does_not_keep_it_from_writing(run, tmp_path):
    class Turns(Trends):
        def attach(self, host):
            super().attach(host)
            self._turn()

    async def main():
        rt = Runtime(journal=tmp_path / "jobs.db", observers=[Turns()])
        for _ in range(2):
            async with rt:
                await end(rt, works, 1)
        return await kept(tmp_path / "jobs.db")

    assert sum(one.completed for one in run(main)) == 2
