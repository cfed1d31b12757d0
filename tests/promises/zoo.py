"""Jobs that behave as badly as jobs can while they still yield to the loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import anyio


class Zoo:
    """The animals; `open()` lets whatever still lives end, so that a test leaves nothing behind."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.thread_gate = threading.Event()
        self.orphans: list[asyncio.Task[object]] = []
        self.started: list[str] = []
        self.cleaned: list[str] = []

    def open(self) -> None:
        """Let every animal go."""
        self.gate.set()
        self.thread_gate.set()

    async def rest(self) -> None:
        """Wait for what the animals left behind, once the gate is open."""
        if self.orphans:
            await asyncio.wait(self.orphans)

    async def swallower(self) -> None:
        self.started.append("swallower")
        while not self.gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.gate.wait()

    async def spinner(self) -> None:
        self.started.append("spinner")
        while not self.gate.is_set():
            await asyncio.sleep(0)

    async def swallowing_spinner(self) -> None:
        self.started.append("swallowing_spinner")
        while not self.gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    async def shielded(self) -> None:
        self.started.append("shielded")
        inner = asyncio.ensure_future(self.gate.wait())
        self.orphans.append(inner)
        await asyncio.shield(inner)

    async def anyio_shielded(self) -> None:
        self.started.append("anyio_shielded")
        with anyio.CancelScope(shield=True):
            await self.gate.wait()

    async def endless_finally(self) -> None:
        self.started.append("endless_finally")
        try:
            await self.gate.wait()
        finally:
            await self.gate.wait()

    async def tidy(self) -> None:
        self.started.append("tidy")
        try:
            await self.gate.wait()
        finally:
            await asyncio.sleep(0)
            self.cleaned.append("tidy")

    async def exits_when_cancelled(self) -> None:
        self.started.append("exits_when_cancelled")
        try:
            await self.gate.wait()
        finally:
            raise SystemExit(1)

    async def fails_when_cancelled(self) -> None:
        self.started.append("fails_when_cancelled")
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            raise ValueError("clean-up") from None

    async def groups_when_cancelled(self) -> None:
        self.started.append("groups_when_cancelled")
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            raise BaseExceptionGroup("exit", [SystemExit(2)]) from None

    async def cancels_itself(self) -> None:
        self.started.append("cancels_itself")
        task = asyncio.current_task()
        assert task is not None
        while not self.gate.is_set():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    def thread(self) -> None:
        self.started.append("thread")
        self.thread_gate.wait(30)


ANIMALS = [
    name for name, value in vars(Zoo).items() if not name.startswith("_") and name not in {"open", "rest"}
]
STUCK = {"swallower", "swallowing_spinner", "cancels_itself", "thread"}
