"""What only one process of a journal may do is done by whoever holds its leader lock.

Where there are no such locks it is done by whoever has been in the journal for longest and lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from bgruntime.extend import ports

from ._flocks import UNSUPPORTED, Flock
from ._ledger import settle

LOOK = 1.0  # seconds between two looks at a lock that somebody else holds

Service = Callable[[], Awaitable[Any]]


class Leader:
    """Runs services in one process at a time: when the one that runs them dies, another one does.

    A service is a coroutine function that is called again, `every` so many seconds, for as long as
    this process leads; what it raises is given to `complain` and ends that call only. `first` is asked
    where the file system has no locks.
    """

    def __init__(
        self, path: str, first: Callable[[], Awaitable[bool]], complain: Callable[[str, Exception], None]
    ) -> None:
        self._path = path
        self._first = first
        self._complain = complain
        self._services: dict[str, tuple[Service, float]] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._lock: Flock | None = None
        self._leads = False
        self._task: asyncio.Task[None] | None = None

    @property
    def leads(self) -> bool:
        """Is it this process?"""
        return self._leads

    def add(self, name: str, service: Service, every: float) -> None:
        """Have `service` called every `every` seconds where the leader is; before or after `start`."""
        self._services[name] = (service, every)
        if self.leads:
            self._run(name)

    def start(self) -> None:
        """Begins to look for the lock."""
        self._ports = ports.current()
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._lead(), name="bgruntime-journal-leader")

    async def close(self) -> None:
        """Ends the services and gives the lock to whoever comes first."""
        tasks = [task for task in (self._task, *self._running.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._task = None
        self._running.clear()
        self._resign()

    async def _lead(self) -> None:
        while True:
            if self._lock is not None and not self._lock.in_place():
                await self._step_down()
            leads = self._lock is not None or await self._wins()
            if self._leads and not leads:
                await self._step_down()
            elif leads and not self._leads:
                self._leads = True
                for name in self._services:
                    self._run(name)
            await pause(self._loop, LOOK * (1 + self._ports.random.random() / 4))

    async def _wins(self) -> bool:
        try:
            lock = Flock(self._path)
        except OSError:
            return False
        try:
            won = lock.try_lock()
        except OSError as error:
            lock.close()
            return error.errno in UNSUPPORTED and await self._first()
        if won:
            self._lock = lock
        else:
            lock.close()
        return won

    async def _step_down(self) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        self._running.clear()
        self._resign()

    def _resign(self) -> None:
        self._leads = False
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    def _run(self, name: str) -> None:
        if name not in self._running:
            self._running[name] = self._loop.create_task(self._repeat(name), name=f"bgruntime-journal-{name}")

    async def _repeat(self, name: str) -> None:
        while True:
            service, every = self._services[name]  # the one that was given last
            try:
                await service()
            except Exception as error:
                self._complain(name, error)
            await pause(self._loop, every)


async def pause(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    """Wait for so many seconds of the runtime's time."""
    over = loop.create_future()
    timer = ports.current().call_later(loop, seconds, lambda: settle(over, None))
    try:
        await over
    finally:
        timer.cancel()
