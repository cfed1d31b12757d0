"""Redrive: a journaled failure becomes a new job, through the front door, in one process at a time."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from bgruntime import (
    AcceptUnknown,
    Job,
    JournalUnavailable,
    PayloadError,
    QueueFull,
    RuntimeClosed,
    UnknownTask,
)
from bgruntime.extend import Definition, JobQuarantined, JobState, JournalHost, ports

from ._access import Access
from ._batch import Ending
from ._failures import Filter, matching
from ._keys import milliseconds
from ._ledger import Ledger
from ._recorder import Recorder
from ._texts import storable
from ._writer import Writer

PAGE = 100  # claimed at a time, and running at a time of those that were not asked for by hand
HELD = 0  # the owner of a failure while a durable job is under way for it
ALWAYS = (1 << 63) - 1
UNFIT = "arguments no longer fit"
PUT_OFF_MS = 60_000  # for a failure that cannot be submitted, so that it is in nobody's way
PASSING = (QueueFull, RuntimeClosed, JournalUnavailable)  # troubles of the runtime, not of one failure

DUE = """
SELECT key FROM ended WHERE due_ms <= ? AND owner IS NULL AND redrives < budget
AND task IN (SELECT value FROM json_each(?)) ORDER BY due_ms LIMIT ?"""
CLAIM = """
UPDATE ended SET owner = ?1, redrives = redrives + ?2
WHERE owner IS NULL AND obstacle IS NULL AND state IN (3, 5, 6, 7) AND (?2 = 0 OR redrives < budget)
AND failed_ms <= ?3 AND key IN (SELECT value FROM json_each(?4))
RETURNING key, id, task, args, options"""
HOLD = f"UPDATE ended SET owner = {HELD} WHERE key = ?"
SUCCEEDED = "UPDATE ended SET state = 4, owner = NULL, due_ms = NULL, changed_ms = :now WHERE key = :key"
FREED = """
UPDATE ended SET owner = NULL, redrives = redrives - :counted,
       due_ms = CASE WHEN due_ms IS NULL THEN NULL ELSE max(due_ms, :now) END
WHERE key = :key AND owner IN (:owner, :held)"""
PUT_OFF = """
UPDATE ended SET due_ms = :now + :pause WHERE key = :key AND owner IS NULL AND due_ms IS NOT NULL"""
UNFIT_NOW = """
UPDATE ended SET state = 6, owner = NULL, due_ms = NULL, reason = :reason, message = :message,
       changed_ms = :now
WHERE key = :key"""


@dataclass(frozen=True, slots=True)
class Failed:
    """A failure that is ours to redrive."""

    key: int
    id: str
    task: str
    args: str
    options: str | None
    counted: int  # 1 when it was redriven by itself


class Redriver:
    """Makes new jobs of failures and writes down what became of them.

    `origin_of(job)` tells which failure a job was made of, while it is under way.
    """

    def __init__(
        self,
        host: JournalHost,
        access: Access,
        writer: Writer,
        ledger: Ledger,
        recorder: Recorder,
        new_id: Callable[[], str],
    ) -> None:
        self._host = host
        self._new_id = new_id
        self._access = access
        self._writer = writer
        self._ledger = ledger
        self._recorder = recorder
        self._under_way: dict[str, Failed] = {}
        self._followers: set[asyncio.Task[None]] = set()
        self._stopped = False
        self.submitting = 0

    def origin_of(self, id: str) -> int | None:
        """The key of the failure that the job with this id was made of."""
        failed = self._under_way.get(id)
        return None if failed is None else failed.key

    def over(self, id: str) -> int | None:
        """The same, when the job is over: it is not under way any more."""
        failed = self._under_way.pop(id, None)
        return None if failed is None else failed.key

    def stop(self) -> None:
        """Makes no more jobs."""
        self._stopped = True

    async def close(self) -> None:
        """Lets go of all that is under way."""
        self.stop()
        for follower in list(self._followers):
            follower.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)
        for id in list(self._under_way):
            self.free(id)

    def free(self, id: str) -> None:
        """The job came to no end of its own: its failure may be redriven again, and this did not count."""
        failed = self._under_way.pop(id, None)
        if failed is not None:
            self._free(failed)

    def _free(self, failed: Failed, *, held: int | None = HELD) -> None:
        self._write(FREED, failed.key, counted=failed.counted, owner=self._ledger.owner, held=held)

    def _free_all(self, claimed: list[Failed]) -> None:
        for failed in claimed:
            self._free(failed)

    def _names(self) -> list[str]:
        return [name for name in self._host.names() if storable(name) == name]

    # By itself

    async def run_due(self) -> None:
        """Redrive the failures that are due, the longest due first, as many as may be under way at a time."""
        room = PAGE - len(self._under_way)
        if room > 0 and not self._stopped:
            now = milliseconds(ports.current().time())
            names = json.dumps(self._names())
            claimed = await self._claim(claim_due, lambda: (self._ledger.owner, now, names, room))
            await self._submit_all(claimed, put_off=True)

    # By hand

    async def run_matching(self, wanted: Filter) -> list[Job[Any]]:
        """Redrive all failures that are meant and can be, and return when the jobs are accepted."""
        jobs: list[Job[Any]] = []
        until = milliseconds(
            ports.current().time()
        )  # what fails again, here or elsewhere, is not taken twice
        wanted = replace(wanted, redrivable=True, tasks=tuple(self._names()))
        keys = await self._access.read(keys_of, wanted)
        for first in range(0, len(keys), PAGE):
            page = keys[first : first + PAGE]
            jobs += await self._submit_all(await self._claim_page(page, until))
        return jobs

    async def _claim_page(self, page: list[int], until: int) -> list[Failed]:
        return await self._claim(claim_page, lambda: (self._ledger.owner, page, until))

    async def _claim(
        self, claim: Callable[..., list[Failed]], bind: Callable[[], tuple[Any, ...]]
    ) -> list[Failed]:
        """Failures that are ours now; when nobody is left to redrive them they are let go of."""
        return await self._writer.step(claim, bind=bind, abandoned=self._free_all)

    async def run_one(self, id: str) -> Job[Any]:
        """Redrive the failure with this id.

        Raises:
            LookupError: there is none that is open, or it is being redriven now.
            PayloadError: its arguments do not fit the task any more.
            UnknownTask: this process does not know the task.
        """
        claimed = await self._claim(claim_one, lambda: (self._ledger.owner, id))
        if not claimed:
            raise LookupError(f"no failure {id!r} that can be redriven now")
        return await self._submit(claimed[0])

    # The job

    async def _submit_all(self, claimed: list[Failed], *, put_off: bool = False) -> list[Job[Any]]:
        """Submit what can be; whatever happens, what was not submitted is let go of.

        With `put_off` a failure that cannot be submitted, whatever the reason, stops none of the others.
        """
        jobs: list[Job[Any]] = []
        left = list(reversed(claimed))
        try:
            while left:
                failed = left.pop()
                try:
                    jobs.append(await self._submit(failed))
                except (PayloadError, UnknownTask):
                    pass  # that is written down, or nobody's fault
                except Exception as error:
                    if not put_off:
                        raise
                    if isinstance(error, PASSING):
                        break
                    self._write(PUT_OFF, failed.key, pause=PUT_OFF_MS)
        finally:
            self._free_all(left)
        return jobs

    async def _submit(self, failed: Failed) -> Job[Any]:
        """Make a job of it, or let go of it and raise why not."""
        try:
            if self._stopped:
                raise RuntimeClosed("stopping")
            definition = self._host.definition(failed.task)
            if definition is None:
                raise UnknownTask(f"failure {failed.id}: no task {failed.task!r} is defined in this process")
            args, kwargs = self._decoded(failed, definition)
            return await self._send(failed, with_options(definition, failed.options), args, kwargs)
        except AcceptUnknown:  # the job that may be there holds it
            self._free(failed, held=None)
            raise
        except BaseException:
            self._free(failed)
            raise

    def _decoded(self, failed: Failed, definition: Definition) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            return self._recorder.codec(definition).decode(failed.args)
        except PayloadError as error:
            self._write(UNFIT_NOW, failed.key, reason=UNFIT, message=str(error))
            self._host.emit(JobQuarantined(ports.current().monotonic(), failed.id, failed.task, UNFIT))
            raise

    async def _send(
        self, failed: Failed, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Job[Any]:
        id = self._new_id()
        self._under_way[id] = failed
        self.submitting += 1
        try:
            named = replace(definition, options=replace(definition.options, id=id), kept=False)
            job = await self._host.submit(named, args, kwargs)
        except BaseException:
            self._under_way.pop(id, None)
            raise
        finally:
            self.submitting -= 1
        if not definition.options.durable:
            loop = asyncio.get_running_loop()
            follower = loop.create_task(self._follow(job, id), name=f"bgruntime-redrive {failed.id}")
            self._followers.add(follower)
            follower.add_done_callback(self._followers.discard)
        return job

    async def _follow(self, job: Job[Any], id: str) -> None:
        """An ordinary job tells the journal of its failure only: see to its success."""
        await job.wait()
        if job.state is JobState.COMPLETED:
            self._write(SUCCEEDED, self._under_way.pop(id).key)
        else:
            self.free(id)  # unless its failure was written down

    def _write(self, statement: str, key: int, **values: Any) -> None:
        now = milliseconds(ports.current().time())
        self._ledger.end(None, Ending(resolve=(statement, {"key": key, "now": now, **values})))


def succeeded(origin: int, now: int) -> tuple[str, dict[str, Any]]:
    """The statement by which a failure counts as dealt with."""
    return SUCCEEDED, {"key": origin, "now": now}


def freed(origin: int, now: int) -> tuple[str, dict[str, Any]]:
    """The statement by which a failure may be redriven again."""
    return FREED, {"key": origin, "now": now, "counted": 0, "owner": None, "held": HELD}


def with_options(definition: Definition, options: str | None) -> Definition:
    """The task with the options one job of it was submitted with."""
    kept: dict[str, Any] = json.loads(options) if options else {}
    known = {
        name: value
        for name, value in kept.items()
        if name in ("priority", "timeout", "max_attempts", "expires_in")
    }
    if "tags" in kept:
        known["tags"] = tuple(kept["tags"])
    own = definition.options
    trace = str(kept.get("trace", ""))
    if not trace and all(getattr(own, name) == value for name, value in known.items()):
        return definition
    return replace(definition, options=replace(own, **known), kept=False, trace=trace)


def claim_due(connection: sqlite3.Connection, owner: int, now: int, names: str, limit: int) -> list[Failed]:
    """Take the failures that are due."""
    keys = [key for (key,) in connection.execute(DUE, (now, names, limit))]
    return _claim(connection, owner, keys, 1)


def keys_of(connection: sqlite3.Connection, wanted: Filter) -> list[int]:
    """The failures that are meant, the newest first. A question for the reading thread."""
    return [row[1] for row in matching(connection, wanted, "0", "FROM ended", None)]


def claim_page(connection: sqlite3.Connection, owner: int, keys: list[int], until_ms: int) -> list[Failed]:
    """Take those of these failures that can still be had, and have not failed again since."""
    return _claim(connection, owner, keys, 0, until_ms)


def claim_one(connection: sqlite3.Connection, owner: int, id: str) -> list[Failed]:
    """Take the newest failure with this id, if it can be redriven."""
    sql = "SELECT key FROM ended WHERE id = ? ORDER BY key DESC LIMIT 1"
    return _claim(connection, owner, [key for (key,) in connection.execute(sql, (id,))], 0)


def _claim(
    connection: sqlite3.Connection, owner: int, keys: list[int], counted: int, until_ms: int = ALWAYS
) -> list[Failed]:
    if not keys:
        return []
    values = (owner, counted, until_ms, json.dumps(keys))
    rows: list[tuple[Any, ...]] = connection.execute(CLAIM, values).fetchall()
    order = {key: place for place, key in enumerate(keys)}
    claimed = (Failed(key, id, task, args, options, counted) for key, id, task, args, options in rows)
    return sorted(claimed, key=lambda failed: order[failed.key])
