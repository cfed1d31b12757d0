"""Brings jobs that nobody has into the runtime, in pages, as there is room for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bgruntime import BgRuntimeError, JournalUnavailable, PayloadError
from bgruntime.extend import Adopted, Definition, JobQuarantined, JournalHost, ports

from ._access import Access
from ._claims import CRASH_LOOP, Claimed, bury, claim, claimable, dead, quarantine_ours, release
from ._keys import milliseconds
from ._leader import pause
from ._ledger import Entry, Ledger
from ._owners import Other, name_tasks, renew
from ._recorder import Recorder
from ._redrive import UNFIT, with_options
from ._states import Row
from ._texts import storable
from ._writer import Writer

SCAN = 1.0  # seconds between two looks for the dead and for what is due
ROOM = 200  # jobs taken in at a time
TURN = 0.0005  # seconds of reading their arguments after which the loop has its turn


class Feed:
    """Looks every second for processes that have died and for jobs that are due and free.

    `unsure` says that there may be rows of ours that nobody here knows of; they are given back then.
    """

    def __init__(
        self,
        host: JournalHost,
        access: Access,
        writer: Writer,
        ledger: Ledger,
        recorder: Recorder,
        entries: dict[str, Entry],
    ) -> None:
        self._host = host
        self._access = access
        self._writer = writer
        self._ledger = ledger
        self._recorder = recorder
        self._entries = entries
        self._names: tuple[str, ...] = ()
        self._owner = 0
        self._scanned = False
        self._taking: dict[str, asyncio.Task[None]] = {}
        self._claiming = 0  # claims whose rows are not all in `entries` yet
        self._task: asyncio.Task[None] | None = None
        self.unsure = False

    def start(self) -> None:
        """Looks for the first time in the next turn of the loop."""
        self._loop = asyncio.get_running_loop()
        self._ports = ports.current()
        self._task = self._loop.create_task(self._run(), name="bgruntime-journal-feed")

    @property
    def busy(self) -> bool:
        """Are there jobs on their way, or has nobody looked yet?"""
        return self._task is not None and (not self._scanned or bool(self._taking))

    def stop(self) -> None:
        """Brings no more jobs."""
        for task in self._tasks():
            task.cancel()

    async def close(self) -> None:
        """The same, and returns when all is quiet."""
        self.stop()
        await asyncio.gather(*self._tasks(), return_exceptions=True)
        self._task = None

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [task for task in (self._task, *self._taking.values()) if task is not None]

    async def _run(self) -> None:
        try:
            while True:
                try:
                    await self._scan()
                except JournalUnavailable:
                    pass  # it says so itself, and will be tried again
                except Exception as error:
                    told = {"message": "looking for durable jobs failed", "exception": error}
                    self._loop.call_exception_handler(told)
                if not self._scanned or not self._taking:
                    self._scanned = True
                    self._host.nudge()
                await pause(self._loop, SCAN * (0.75 + self._ports.random.random() / 4))
        finally:
            self._scanned = True

    async def _scan(self) -> None:
        if not self._writer.takes:
            return
        await self._say_what_we_know()
        if self.unsure and not self._claiming:
            await self._release()
        await self._access.read(lambda _: self._access.session.stay())
        directory = Path(f"{self._access.path}.owners")
        for gone in await self._access.read(dead, self._ledger.owner, directory):
            await self._bury(gone, directory)
        for definitions in self._by_queue():
            names = [definition.name for definition in definitions]
            queue = definitions[0].options.queue
            if queue not in self._taking and await self._access.read(claimable, names, self._soon()):
                task = self._loop.create_task(self._take(definitions), name=f"bgruntime-journal-feed {queue}")
                self._taking[queue] = task
                task.add_done_callback(self._when_taken(queue))

    async def _release(self) -> None:
        """Give back the rows that nobody here knows of.

        Which these are is decided when the step's batch is made up: what is accepted until then is ours.
        """
        self.unsure = False
        try:
            await self._writer.step(release, bind=lambda: (self._ledger.owner, self._known()))
        except JournalUnavailable:
            self.unsure = True
            raise

    def _known(self) -> list[int]:
        return [*(entry.key for entry in self._entries.values()), *self._ledger.over()]

    def _when_taken(self, queue: str) -> Callable[[asyncio.Task[None]], None]:
        return lambda task: self._taken(queue, task)

    async def _say_what_we_know(self) -> None:
        names = tuple(sorted(definition.name for definition in self._durable()))
        leased = self._access.session.owner is not None and self._access.session.owner.leased
        if names != self._names or self._owner != self._ledger.owner:
            await self._writer.step(name_tasks, self._ledger.owner, names)
            self._names, self._owner = names, self._ledger.owner
        if leased:
            await self._writer.step(renew, self._ledger.owner)

    def _durable(self) -> list[Definition]:
        """The durable tasks of this process that can be in the file."""
        return [one for one in self._host.durable() if storable(one.name) == one.name]

    def _by_queue(self) -> list[list[Definition]]:
        queues: dict[str, list[Definition]] = {}
        for definition in self._durable():
            queues.setdefault(definition.options.queue, []).append(definition)
        return list(queues.values())

    def _soon(self) -> int:
        """Jobs that are due before the next look are taken now; the runtime waits for their time."""
        return milliseconds(self._ports.time() + SCAN)

    def _now(self) -> int:
        return milliseconds(self._ports.time())

    async def _bury(self, gone: Other, directory: Path) -> None:
        after: int | None = 0
        while after is not None:
            buried = await self._writer.step(bury, gone, directory, self._now(), after)
            if buried is None:
                return
            after = buried.last
            for id, task in buried.quarantined:
                self._host.emit(JobQuarantined(self._ports.monotonic(), id, task, CRASH_LOOP))
        with contextlib.suppress(OSError):
            (directory / gone.lock).unlink(missing_ok=True)

    # One queue

    def _taken(self, queue: str, task: asyncio.Task[None]) -> None:
        self._taking.pop(queue, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            told = {"message": f"taking durable jobs of queue {queue!r} failed", "exception": error}
            self._loop.call_exception_handler(told)
        self._host.nudge()

    async def _take(self, definitions: Sequence[Definition]) -> None:
        """Take in what is due, for as long as there is more of it."""
        names = [definition.name for definition in definitions]
        with contextlib.suppress(BgRuntimeError):
            while room := await self._host.reserve(definitions[0], ROOM):
                jobs: list[Adopted] = []
                self._claiming += 1
                try:
                    rows = await self._claim(names, room)
                    jobs = await self._adoptable(rows)
                finally:
                    self._claiming -= 1
                    self._host.adopt(definitions[0], jobs, room)
                if len(rows) < room:
                    return

    async def _claim(self, names: Sequence[str], room: int) -> list[Claimed]:
        return await self._writer.step(claim, bind=lambda: (self._ledger.owner, names, self._soon(), room))

    async def _adoptable(self, rows: Sequence[Claimed]) -> list[Adopted]:
        jobs: list[Adopted] = []
        unfit: list[tuple[Claimed, str]] = []
        until = self._ports.monotonic() + TURN
        for row in rows:
            if self._ports.monotonic() > until:  # their arguments may be large
                await asyncio.sleep(0)
                until = self._ports.monotonic() + TURN
            definition = self._host.definition(row.task)
            if definition is None:
                self.unsure = True  # it was forgotten meanwhile: give its row back
                continue
            try:
                jobs.append(self._adopted(row, definition))
            except PayloadError as error:
                unfit.append((row, str(error)))
            except Exception as error:  # the row is damaged: it is in nobody's way
                unfit.append((row, storable(f"cannot be read: {type(error).__name__}: {error}")))
        if unfit:
            await self._quarantine(unfit)
        return jobs

    def _adopted(self, row: Claimed, definition: Definition) -> Adopted:
        args, kwargs = self._recorder.codec(definition).decode(row.args)
        options: dict[str, Any] = json.loads(row.options) if row.options else {}
        entry = Entry(
            id=row.id,
            key=row.key,
            run=row.run,
            attempt=row.attempt,
            crashes=row.crashes,
            state=Row(row.state),
            due_ms=row.due_ms,
            created_ms=row.created_ms,
            errors=json.loads(row.errors) if row.errors else None,
            origin=row.origin,
        )
        adopted = Adopted(
            id=row.id,
            definition=with_options(definition, row.options),
            args=args,
            kwargs=kwargs,
            attempt=row.attempt,
            due_at=row.due_ms / 1000,
            tags=tuple(options.get("tags", ())),
            fresh=not row.started,
        )
        self._entries[row.id] = entry
        return adopted

    async def _quarantine(self, unfit: Sequence[tuple[Claimed, str]]) -> None:
        rows = [(row.key, row.run, message) for row, message in unfit]
        try:
            await self._writer.step(quarantine_ours, self._ledger.owner, rows, UNFIT, self._now())
        except JournalUnavailable:
            self.unsure = True  # give them back, and run the others
            return
        for row, _ in unfit:
            self._host.emit(JobQuarantined(self._ports.monotonic(), row.id, row.task, UNFIT))
