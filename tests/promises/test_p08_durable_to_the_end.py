"""P08: a durable job is attempted until it completes or its attempts are used, across crashes."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from bgruntime import Runtime
from tests.journal.programs import kill, line_of, program, ran, started
from tests.journal.steps import durable, until

TASKS = """
folder = Path(sys.argv[1])

@task(name="p08.second", durable=True)
async def second(n: int) -> None:
    (folder / f"started-{n}").touch()
    await asyncio.sleep(1)
    with open(folder / "done", "a") as file:
        file.write(f"{n}\\n")

@task(name="p08.deadly", durable=True)
async def deadly() -> None:
    with open(folder / "deadly", "a") as file:
        file.write("x")
    await asyncio.sleep(0.1)
    os.kill(os.getpid(), 9)

@task(name="p08.attempts", durable=True, max_attempts=3, backoff=lambda state: 0.3)
async def attempts() -> None:
    with open(folder / "attempts", "a") as file:
        file.write(f"{current_job().attempt}\\n")
    print("attempt", flush=True)
    raise ValueError("again")
"""
FIRST = program(
    TASKS
    + """
async def main():
    async with Runtime(concurrency=5, journal=folder / "jobs.db") as rt:
        jobs = await rt.submit_many(second, [(n,) for n in range(50)])
        print(len(jobs), flush=True)
        await rt.drain()
asyncio.run(main())
"""
)
AGAIN = program(
    TASKS
    + """
async def main():
    async with Runtime(concurrency=50, journal=folder / "jobs.db") as rt:
        await rt.drain()
        print(await rt.journal.stats())
asyncio.run(main())
"""
)
DEADLY = program(
    TASKS
    + """
async def main():
    async with Runtime(journal=folder / "jobs.db") as rt:
        if not (await rt.journal.stats()).jobs and not await rt.journal.failures():
            await rt.submit(deadly)
        await rt.drain()
        print(*[(one.state, one.reason, one.crashes, one.attempt) for one in await rt.journal.failures()])
asyncio.run(main())
"""
)
ATTEMPTS = program(
    TASKS
    + """
async def main():
    async with Runtime(journal=folder / "jobs.db") as rt:
        if sys.argv[2] == "first":
            await rt.submit(attempts)
        await rt.drain()
        failures = await rt.journal.failures()
        print(*[(one.state, one.attempt, one.crashes, len(one.attempts)) for one in failures])
asyncio.run(main())
"""
)


def open_jobs(path) -> int:
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(connection.execute("SELECT count(*) FROM job").fetchone()[0])
    finally:
        connection.close()


@pytest.mark.slow
def test_p08_fifty_accepted_jobs_finish_although_their_process_is_killed_in_the_middle(tmp_path):
    with started(FIRST, tmp_path) as process:
        assert line_of(process) == "50"
        while not (tmp_path / "done").exists() or len((tmp_path / "done").read_text().splitlines()) < 10:
            assert process.poll() is None
        kill(process)
    ran(AGAIN, tmp_path)
    finished = [int(line) for line in (tmp_path / "done").read_text().splitlines()]
    assert set(finished) == set(range(50))
    assert len(finished) - 50 <= 10  # what had just ended or was running at the kill
    assert open_jobs(tmp_path / "jobs.db") == 0


def test_p08_a_job_that_kills_its_process_twice_is_quarantined_and_costs_no_third(tmp_path):
    for _ in range(2):
        with started(DEADLY, tmp_path) as process:
            assert process.wait(timeout=30) == -9
    assert ran(DEADLY, tmp_path).strip() == "('quarantined', 'crash loop', 2, 0)"
    assert (tmp_path / "deadly").read_text() == "xx"


@pytest.mark.slow
def test_p08_a_crash_between_two_attempts_costs_none_and_gives_none(tmp_path):
    with started(ATTEMPTS, tmp_path, "first") as process:
        assert line_of(process) == "attempt"
        while not rows_of_retry(tmp_path / "jobs.db"):
            assert process.poll() is None
        kill(process)
    told = ran(ATTEMPTS, tmp_path, "again").splitlines()[-1]
    assert told == "('discarded', 3, 0, 3)"
    assert (tmp_path / "attempts").read_text().split() == ["1", "2", "3"]


def rows_of_retry(path) -> int:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT count(*) FROM job WHERE attempt = 1").fetchone()[0])
    finally:
        connection.close()


def test_p08_a_failing_durable_job_uses_its_attempts_and_is_kept(run, tmp_path):
    async def main():
        seen = []

        async def fail() -> None:
            seen.append(None)
            raise ValueError("no")

        async with Runtime(journal=tmp_path / "jobs.db") as rt:
            job = await rt.submit(durable(fail, max_attempts=3, backoff=lambda _: 0.01))
            with pytest.raises(ValueError, match="no"):
                await job
            kept = await rt.journal.get(job.id)
            assert (kept.state, kept.attempt, len(kept.attempts), len(seen)) == ("discarded", 3, 3, 3)

    run(main)


def test_p08_a_job_adopted_from_a_dead_process_has_its_start_on_disk_before_it_starts(run, tmp_path):
    path = tmp_path / "jobs.db"

    async def main():
        seen = []

        async def look() -> None:
            connection = sqlite3.connect(path)
            seen.append(connection.execute("SELECT state, started, run > 1 FROM job").fetchall())
            connection.close()

        task = durable(look)
        async with Runtime(journal=path) as rt:
            rt.pause()
            await rt.submit(task)
            await rt.stop(drain=0)
        async with Runtime(journal=path) as rt:
            await until(lambda: seen)
        assert seen == [[(2, 1, 1)]]
        await asyncio.sleep(0)

    run(main)
