"""Responses without an end of their own, which a server that shuts down would wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bgruntime.extend import ports

DISCONNECT: Message = {"type": "http.disconnect"}
STREAM = "bgruntime.stream"  # its key in the scope
EVENTS = b"text/event-stream"
STREAM_GRACE = 5.0  # seconds that a stream which may have an end is given to reach it
CUT_AFTER = 1.0  # seconds that an ended stream has to notice


class Streams:
    """An ASGI application around another one, that can end the responses still being streamed.

    Event streams end at once and properly: their clients come back, to another worker. What else is
    sent without a length gets five seconds and is then cut off, so that nobody takes a part for the
    whole. Responses with a length, and those that have not begun, are left alone.
    """

    def __init__(self, app: ASGIApp, serving: Any) -> None:
        self.app = app
        self.serving = serving
        self.open: dict[Stream, None] = {}
        self._ended_at: float | None = None
        self._clock = ports.current().monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["bgruntime"] = self.serving
        if scope["type"] == "http":
            stream = scope[STREAM] = Stream(self, receive, send)
            await stream.run(scope)
        else:
            await self.app(scope, receive, send)

    def end(self) -> None:
        """End what is being streamed now, and what is begun from here on."""
        if self._ended_at is None:
            self._ended_at = self._clock()
            for stream in list(self.open):
                self.end_in_time(stream)

    def opened(self, stream: Stream) -> None:
        """A response is being streamed."""
        self.open[stream] = None
        if self._ended_at is not None:
            self.end_in_time(stream)

    def end_in_time(self, stream: Stream) -> None:
        """End *stream* when its time is over."""
        assert self._ended_at is not None
        grace = 0.0 if stream.is_events else STREAM_GRACE - (self._clock() - self._ended_at)
        stream.end_in(max(0.0, grace))


class Stream:
    """One HTTP exchange: its body is on the way in, its response on the way out."""

    __slots__ = (
        "_body_read",
        "_cut",
        "_ended",
        "_finished",
        "_known_length",
        "_receive",
        "_send",
        "_streams",
        "_task",
        "_timer",
        "is_events",
    )

    def __init__(self, streams: Streams, receive: Receive, send: Send) -> None:
        self._streams = streams
        self._receive, self._send = receive, send
        self._body_read = self._cut = self._finished = self.is_events = False
        self._known_length = True
        self._ended: asyncio.Future[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the whole response was sent."""
        return self._finished

    async def run(self, scope: Scope) -> None:
        """Have the application answer; when its stream was ended, see to the end of the response."""
        self._task = asyncio.current_task()
        try:
            await self._streams.app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self._cut or self._task is None or self._task.uncancel():
                raise
        except Exception:
            if not self._is_ended():
                raise
        finally:
            self._close()
        if self._is_ended() and self.is_events and not self._finished:
            with suppress(OSError):
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def end_in(self, seconds: float) -> None:
        """Tell the application that its client is gone, and cut it off if it does not mind."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        if seconds:
            self._timer = loop.call_later(seconds, self.end_in, 0.0)
            return
        ended = self._ending()
        if not ended.done():
            ended.set_result(None)
        self._timer = loop.call_later(CUT_AFTER, self._cut_off)

    def _close(self) -> None:
        """Whatever the application does from here on, no stream waits for its end."""
        self._streams.open.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()

    def _cut_off(self) -> None:
        if self._task is not None and not self._finished:
            self._cut = True
            self._task.cancel()

    def _is_ended(self) -> bool:
        return self._ended is not None and self._ended.done()

    def _ending(self) -> asyncio.Future[None]:
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
        return self._ended

    async def receive(self) -> Message:
        """What the client sends; that it is gone, once the stream was ended."""
        if not self._body_read:
            message = await self._receive()
            self._body_read = not message.get("more_body", False)
            return message
        receiving = asyncio.get_running_loop().create_task(_awaited(self._receive))
        either: list[asyncio.Future[Any]] = [receiving, self._ending()]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return receiving.result() if receiving.done() else DISCONNECT
        finally:
            receiving.cancel()

    async def send(self, message: Message) -> None:
        """Send on; a stream that was ended sends no more."""
        if message["type"] == "http.response.start":
            self._look_at(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            last = not message.get("more_body", False)
            if self._is_ended():
                raise OSError("the application is shutting down: this stream was ended")
            if not last and not self._known_length and self not in self._streams.open:
                self._streams.opened(self)
            await self._send(message)
            if last:
                self._finished = True
                self._close()
            return
        await self._send(message)

    def _look_at(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        found = {name.lower(): value for name, value in headers}
        self._known_length = b"content-length" in found
        self.is_events = found.get(b"content-type", b"").startswith(EVENTS)


def was_answered(scope: Scope) -> bool:
    """Whether the whole response to this request was sent."""
    stream = scope.get(STREAM)
    return isinstance(stream, Stream) and stream.is_finished


async def _awaited(receive: Receive) -> Message:
    return await receive()


__all__ = ["Streams", "was_answered"]
