"""A real uvicorn in a process of its own, and a client of a few lines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0  # seconds for a server to begin on a busy machine
RUNNING = re.compile(r"Uvicorn running on http://127\.0\.0\.1:(\d+)")


class Server:
    """A running server: its process, its port, and what it said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.port = 0
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def begin(self, started: int) -> None:
        """Wait until it listens and *started* processes have started."""
        deadline = time.monotonic() + PATIENCE
        while not self.port or started:
            line = self._lines.get(timeout=max(0.1, deadline - time.monotonic()))
            assert line is not None, f"the server ended:\n{''.join(self.said)}"
            if found := RUNNING.search(line):
                self.port = int(found[1])
            started -= "Application startup complete" in line

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the server, or to all its processes."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def end(self, within: float) -> float:
        """Wait for its end; the seconds that took. Fails when it takes longer than *within*."""
        began = time.monotonic()
        try:
            self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {within} s:\n{''.join(self.said)}") from None
        took = time.monotonic() - began
        self._reader.join(5)
        return took


@contextlib.contextmanager
def served(
    app: str, *options: str, workers: int = 1, loop: str = "asyncio", **environment: object
) -> Iterator[Server]:
    """Serve *app* on a port of its own choice; all its processes are killed at the end."""
    command = [sys.executable, "-m", "uvicorn", app, "--port", "0", "--workers", str(workers)]
    process = subprocess.Popen(
        [*command, "--loop", loop, "--no-access-log", *options],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **{k: str(v) for k, v in environment.items()}},
        start_new_session=True,
    )
    server = Server(process)
    try:
        server.begin(workers)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        server._reader.join(5)
        assert process.stderr is not None
        process.stderr.close()


class Connection:
    """One connection that is kept, for one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def request(self, method: str, path: str, body: bytes = b"", headers: str = "") -> tuple[int, Any]:
        """The status and the JSON of the answer. Raises an `OSError` or `EOFError` when there is none."""
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        self.writer.write(head.encode() + body)
        await self.writer.drain()
        status, given = await self.head()
        answer = await self.reader.readexactly(int(given.get("content-length", 0)))
        return status, json.loads(answer) if answer else None

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status and the headers of the next answer."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), headers

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def connected(port: int) -> Any:
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield connection
    finally:
        await connection.close()
