"""Under a real uvicorn: a deploy in the middle of load loses nothing and ends in time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import signal
import sqlite3
import sys

import pytest

from tests.door.turns import until
from tests.integrations.server import Connection, connected, served
from tests.journal.programs import program, ran

pytestmark = [pytest.mark.slow, pytest.mark.timing]

APP = "tests.integrations.shop:app"
UVICORN = 1.0  # seconds in which uvicorn itself looks for the signal and ends its process
BUSY = 4.0  # seconds that a busy machine may add
LOOPS = ["asyncio", *(["uvloop"] if sys.platform != "win32" else [])]


def budget(drain: float) -> float:
    """Seconds from the signal to the end of the process: all phases, uvicorn, and the machine."""
    return drain + 1.0 + 1.0 + UVICORN + BUSY


def log_of(folder) -> list[str]:
    path = folder / "log"
    return path.read_text().splitlines() if path.exists() else []


def numbers(lines, word) -> set[int]:
    found = (re.fullmatch(rf"{word} (-?\d+)", line) for line in lines)
    return {int(one[1]) for one in found if one}


FINISH = program("""
    os.environ["SHOP"] = sys.argv[1]
    from tests.integrations import shop

    async def main():
        async with shop.rt:
            await shop.rt.drain()

    asyncio.run(main())
""")


class Load:
    """Clients that order one thing after the other, until the server takes no more."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answered: dict[int, int] = {}
        self._numbers = itertools.count()

    async def client(self) -> None:
        try:
            async with connected(self.port) as connection:
                for n in self._numbers:
                    status, _ = await connection.request("POST", f"/orders/{n}")
                    self.answered[n] = status
        except (OSError, EOFError):  # refused, or closed between two requests: it was not accepted
            return


async def listen(connection: Connection) -> bytes:
    """All that an open stream sends until it ends."""
    connection.writer.write(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n")
    status, headers = await connection.head()
    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    return await connection.reader.read()


@pytest.mark.parametrize(("workers", "group"), [(1, False), (4, False), (4, True)])
@pytest.mark.parametrize("loop", LOOPS)
def test_sigterm_in_the_middle_of_load_loses_no_durable_job_and_answers_what_was_accepted(
    tmp_path, workers, group, loop
):
    async def main(server):
        load = Load(server.port)
        async with connected(server.port) as streaming:
            stream = asyncio.ensure_future(listen(streaming))
            clients = [asyncio.ensure_future(load.client()) for _ in range(16)]
            await until(lambda: len(load.answered) > 150, limit=30)
            server.signal(signal.SIGTERM, group=group)
            took = await asyncio.to_thread(server.end, budget(0.5))
            await asyncio.gather(*clients)
            return load.answered, await stream, took

    with served(APP, workers=workers, loop=loop, SHOP=tmp_path) as server:
        answered, streamed, took = asyncio.run(main(server))
    lines = log_of(tmp_path)
    assert numbers(lines, "took") == set(answered)
    assert set(answered.values()) == {202}
    assert streamed.endswith(b"\r\n0\r\n\r\n"), "the open stream was ended properly"
    assert lines.count("handler restored") == workers
    assert took < budget(0.5)
    assert "Traceback" not in "".join(server.said), "".join(server.said)

    ran(FINISH, tmp_path)
    assert numbers(log_of(tmp_path), "did") == set(answered)


def test_kill_9_in_the_middle_of_load_loses_no_order_that_was_answered(tmp_path):
    async def main(server):
        load = Load(server.port)
        clients = [asyncio.ensure_future(load.client()) for _ in range(16)]
        await until(lambda: len(load.answered) > 100, limit=30)
        server.signal(signal.SIGKILL, group=True)
        await asyncio.gather(*clients)
        return load.answered

    with served(APP, SHOP=tmp_path) as server:
        answered = asyncio.run(main(server))
    ran(FINISH, tmp_path)
    assert set(answered) <= numbers(log_of(tmp_path), "did")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_request_that_was_accepted_before_the_signal_may_still_submit(tmp_path, loop):
    async def main(server):
        async with connected(server.port) as connection:
            asking = asyncio.ensure_future(connection.request("POST", "/late"))
            await until(lambda: "took late" in log_of(tmp_path))
            server.signal(signal.SIGTERM)
            status, answer = await asking
            assert (status, len(answer["job_id"]) > 10) == (202, True)
            await asyncio.to_thread(server.end, budget(5))

    with served(APP, loop=loop, SHOP=tmp_path, SHOP_DRAIN=5) as server:
        asyncio.run(main(server))
    assert "did -1" in log_of(tmp_path), "the drain had time for it"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_signal_skips_the_drain_and_the_job_stays_in_the_journal(tmp_path, workers, number):
    async def main(server):
        async with connected(server.port) as connection:
            assert (await connection.request("POST", "/wait"))[0] == 202
            await until(lambda: "waiting" in log_of(tmp_path))
        server.signal(signal.SIGTERM)
        await until(lambda: "told to stop" in log_of(tmp_path))
        await asyncio.sleep(2.1 if workers > 1 else 0)  # before that it would be an echo of the first
        server.signal(number, group=workers > 1)
        await asyncio.to_thread(server.end, budget(0))

    with served(APP, workers=workers, SHOP=tmp_path, SHOP_DRAIN=60) as server:
        asyncio.run(main(server))
    assert "handler restored" in log_of(tmp_path)
    assert left_in(tmp_path) == ["shop.wait"]


def test_ctrl_c_twice_while_a_request_hangs_ends_the_server_and_keeps_the_durable_job(tmp_path):
    """uvicorn then leaves out the end of the lifespan, and its task is cancelled with the loop."""

    async def main(server):
        async with connected(server.port) as waiting, connected(server.port) as hanging:
            assert (await waiting.request("POST", "/wait"))[0] == 202
            asking = asyncio.ensure_future(hanging.request("POST", "/hang"))
            await until(lambda: {"waiting", "hanging"} <= set(log_of(tmp_path)))
            server.signal(signal.SIGINT)
            await until(lambda: any("Waiting for connections" in line for line in server.said))
            server.signal(signal.SIGINT)
            await hanging.close()  # from Python 3.12 on uvicorn waits for that even now
            await asyncio.to_thread(server.end, budget(0))
            await asyncio.gather(asking, return_exceptions=True)

    with served(APP, SHOP=tmp_path, SHOP_DRAIN=60) as server:
        asyncio.run(main(server))
    assert left_in(tmp_path) == ["shop.wait"]


def left_in(folder) -> list[str]:
    """The tasks of the durable jobs that are not over."""
    with contextlib.closing(sqlite3.connect(folder / "jobs.db")) as connection:
        return [name for (name,) in connection.execute("SELECT task FROM job")]
