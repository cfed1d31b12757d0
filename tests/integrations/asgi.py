"""A server in a few lines: it runs the lifespan of an application and sends it requests, on one loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote


@dataclass
class Answer:
    """What an application answered. `sent` is set with the last byte, `done` when it has returned."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)
    sent: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    complete: bool = False

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Sends requests to an application whose lifespan is running."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.request("GET", path, **more)

    async def post(self, path: str, **more: Any) -> Answer:
        return await self.request("POST", path, **more)

    async def request(
        self,
        method: str,
        path: str,
        *,
        json_body: Any = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        answer: Answer | None = None,
        spec_version: str = "2.3",
    ) -> Answer:
        """One exchange; returns when the application does, with what was answered."""
        answer = Answer() if answer is None else answer
        given = {name.lower(): value for name, value in (headers or {}).items()}
        if json_body is not None:
            body = json.dumps(json_body).encode()
            given.setdefault("content-type", "application/json")
        given.setdefault("host", "app.example")
        given.setdefault("content-length", str(len(body)))
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": spec_version},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("app.example", 80),
            "state": {},
        }
        requests = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            if requests:
                return requests.pop()
            await answer.sent.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {k.decode().lower(): v.decode() for k, v in message.get("headers", ())}
            else:
                chunk = bytes(message.get("body", b""))
                answer.body += chunk
                answer.chunks.append(chunk)
                answer.began.set()
                if not message.get("more_body", False):
                    answer.complete = True
                    answer.sent.set()

        await self.app(scope, receive, send)
        return answer


@asynccontextmanager
async def serve(app: Any) -> AsyncIterator[Client]:
    """Run the lifespan of `app` around the block, as a server does. Raises what failed in it."""
    messages: asyncio.Queue[Any] = asyncio.Queue()
    replies: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    running = asyncio.ensure_future(app(scope, messages.get, replies.put))
    try:
        await step(running, messages, replies, "startup")
        yield Client(app)
        await step(running, messages, replies, "shutdown")
        await running
    finally:
        running.cancel()
        await asyncio.wait([running])


async def step(running: Any, messages: Any, replies: Any, name: str) -> None:
    await messages.put({"type": f"lifespan.{name}"})
    reply = asyncio.ensure_future(replies.get())
    try:
        await asyncio.wait([reply, running], return_when=asyncio.FIRST_COMPLETED)
        if not reply.done() or reply.result()["type"].endswith("failed"):
            await running
    finally:
        reply.cancel()
