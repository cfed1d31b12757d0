"""P02, for durable jobs: a cancelled submit withdraws its job; of a crash in that instant the id tells."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator

import pytest

from bgruntime import Runtime
from bgruntime.journal import _session
from tests.journal.programs import program, ran, started
from tests.journal.steps import durable


@pytest.fixture
def slow_commits(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """Commits of new jobs wait for one release each."""
    allowed = threading.Semaphore(0)
    write = _session.Session.write

    def wait(self, connection, batch, limit):
        if batch.accepts:
            assert allowed.acquire(timeout=10)
        return write(self, connection, batch, limit)

    monkeypatch.setattr(_session.Session, "write", wait)
    yield allowed
    for _ in range(100):
        allowed.release()


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 10])
def test_p02_a_cancelled_durable_submit_withdraws_its_job_wherever_it_stood(
    run, tmp_path, slow_commits, turns
):
    path = tmp_path / "jobs.db"

    async def main():
        seen = []

        async def look(n: int) -> None:
            seen.append(n)

        task = durable(look)
        async with Runtime(journal=path) as rt:
            submitting = asyncio.ensure_future(rt.submit(task, 1))
            for _ in range(turns):
                await asyncio.sleep(0)
            submitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submitting
            for _ in range(3):
                slow_commits.release()
            await (await rt.submit(task, 2))
            await rt.journal._writer.flush()
            assert seen == [2]
            assert ids_in(path) == []
            assert rt.stats().waiting == 0
            assert (await rt.journal.stats()).late == 0

    run(main)


def ids_in(path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return [id for (id,) in connection.execute("SELECT id FROM job")]
    finally:
        connection.close()


TASK = """
@task(name="p02.note", durable=True)
async def note(n: int) -> None:
    with open(sys.argv[1] + ".ran", "a") as file:
        file.write(f"{n}\\n")
"""
CRASH = program(
    TASK
    + """
from bgruntime.journal import _session
commit = _session._commit

def crash(connection):
    accepting = connection.execute("SELECT count(*) FROM job").fetchone() != (0,)
    if accepting and sys.argv[2] == "after":
        commit(connection)
    if accepting:
        os.kill(os.getpid(), 9)
    commit(connection)

async def main():
    _session._commit = crash
    async with Runtime(journal=sys.argv[1]) as rt:
        await rt.submit(note.with_options(id="order-17"), 17)
asyncio.run(main())
"""
)
ASK = program(
    TASK
    + """
async def main():
    async with Runtime(journal=sys.argv[1]) as rt:
        rt.pause()
        found = await rt.journal.get("order-17")
        print(found and found.state)
        rt.resume()
        await rt.drain()
asyncio.run(main())
"""
)


@pytest.mark.parametrize(("moment", "answer", "effect"), [("before", "None", ""), ("after", "some", "17\n")])
def test_p02_an_id_given_beforehand_tells_what_a_crash_in_the_instant_of_the_commit_left(
    tmp_path, moment, answer, effect
):
    path = tmp_path / "jobs.db"
    with started(CRASH, path, moment) as process:
        assert process.wait(timeout=30) == -9
    said = ran(ASK, path).strip()
    assert (said == "None") == (answer == "None")
    ran_file = tmp_path / "jobs.db.ran"
    assert (ran_file.read_text() if ran_file.exists() else "") == effect
