"""What one commit writes, and the transaction that writes it. Runs in the connection's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._claims import quarantine_ours
from ._faults import Fault, fault_of, is_poison
from ._texts import storable
from ._traces import Trace

UNWRITABLE = "cannot be written"

INSERT_JOB = """
INSERT INTO job(key, id, given, task, args, options, state, owner, run, attempt, crashes, due_ms,
                created_ms, origin)
VALUES(?, ?, ?, ?, ?, ?, ?, {owner:d}, 1, 0, 0, ?, ?, ?) ON CONFLICT(key) DO NOTHING"""
UPDATE_JOB = """
UPDATE job SET state = ?1, started = max(started, ?1 = 2), attempt = ?2, due_ms = ?3, errors = ?4
WHERE key = ?5 AND run = ?6 AND owner = ?7"""
DELETE_JOB = "DELETE FROM job WHERE key = ? AND run = ? AND owner = ?"
SEEN_MS = 30_000  # a traceback that comes again is noted only so often
INSERT_TRACE = f"""
INSERT INTO trace(hash, body, seen_ms) VALUES(?, ?, ?)
ON CONFLICT(hash) DO UPDATE SET seen_ms = excluded.seen_ms WHERE excluded.seen_ms > seen_ms + {SEEN_MS}"""
INSERT_CAUSE = "INSERT INTO cause(task, error, place) VALUES(?, ?, ?) ON CONFLICT DO NOTHING"
INSERT_ENDED = """
INSERT INTO ended(key, id, task, args, options, state, reason, error, message, cause, trace, attempt, crashes,
                  errors, durable, obstacle, redrives, budget, due_ms, created_ms, failed_ms, changed_ms)
SELECT :key, :id, :task, coalesce(:args, (SELECT args FROM job WHERE key = :key)),
       coalesce(:options, (SELECT options FROM job WHERE key = :key)), :state, :reason, :error, :message,
       (SELECT id FROM cause WHERE task = :task AND error = :error AND place = :place), :trace, :attempt,
       :crashes, :errors, :durable, :obstacle, 0, :budget, :due_ms, :created_ms, :failed_ms, :failed_ms
WHERE :run IS NULL OR EXISTS(SELECT 1 FROM job WHERE key = :key AND run = :run AND owner = :owner)
ON CONFLICT(key) DO NOTHING"""
UPDATE_ENDED = """
UPDATE ended SET owner = NULL, changed_ms = :failed_ms, failed_ms = :failed_ms, reason = :reason,
       error = :error, message = :message, trace = :trace, attempt = attempt + :attempt,
       crashes = crashes + :crashes,
       cause = (SELECT id FROM cause WHERE task = :task AND error = :error AND place = :place),
       errors = (SELECT json_group_array(json(value))
                 FROM (SELECT value FROM json_each(CASE WHEN json_valid(ended.errors) THEN ended.errors
                                                             ELSE '[]' END)
                 UNION ALL SELECT value FROM json_each(coalesce(:errors, '[]')))),
       state = CASE WHEN :again AND redrives < budget THEN 3 ELSE :final END,
       due_ms = CASE WHEN :again AND redrives < budget THEN :failed_ms + (:pause << min(redrives, 16))
                ELSE NULL END
WHERE key = :origin AND (owner IS NOT NULL OR failed_ms <> :failed_ms)
  AND (:run IS NULL OR EXISTS(SELECT 1 FROM job WHERE key = :key AND run = :run AND owner = :owner))"""

Row = tuple[Any, ...]


@dataclass(slots=True, eq=False)
class Accept:
    """The rows of one submit: all of them are written or none."""

    rows: list[Row]
    deadline: float  # on the monotonic clock
    future: Any
    then: tuple[str, list[Row]] | None = None  # what is to be true with them
    error: BaseException | None = None
    rescued: bool = False  # they may have come into this file out of one that was taken away

    @property
    def given(self) -> bool:
        """Was an id given to one of them, which no other row may have?"""
        return any(row[2] for row in self.rows)


@dataclass(slots=True, eq=False)
class Step:
    """Any other transaction, in a savepoint of its own beside what else is written."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    durable: bool  # must it outlive a power cut
    future: Any
    bind: Callable[[], tuple[Any, ...]] | None = None  # gives `args` when its batch is made up
    abandoned: Callable[[Any], None] | None = None  # gets a value that nobody takes, or that is in doubt
    value: Any = None
    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class Ending:
    """One job that is over: its row goes, and what is to be kept of it comes."""

    fence: Row | None = None  # key, run and owner of the durable job's row
    record: dict[str, Any] | None = None
    trace: Trace | None = None
    resolve: tuple[str, dict[str, Any]] | None = None  # a statement about the failure it was redriven from
    withdrawn: bool = False  # it may never have been written
    entry: Any = None  # of the ledger, to put it back where it came from
    future: Any = None


@dataclass(slots=True, eq=False)
class Check:
    """An update somebody waits for, to know whether the row is still ours."""

    row: Row
    future: Any
    written: bool = False


@dataclass(slots=True, eq=False)
class Batch:
    """One commit, by the process that is `owner` in the file."""

    owner: int = 0
    now_ms: int = 0
    accepts: list[Accept] = field(default_factory=list[Accept])
    updates: list[Row] = field(default_factory=list[Row])
    completed: list[Any] = field(default_factory=list[Any])  # entries of which nothing is kept
    fences: list[Row] = field(default_factory=list[Row])  # key, run and owner of each of them
    endings: list[Ending] = field(default_factory=list[Ending])
    step: Step | None = None
    marked: list[Any] = field(default_factory=list[Any])  # the entries that the updates are of
    checks: list[Check] = field(default_factory=list[Check])
    durable: bool = False
    committed: bool = False  # into a file that may not be the one at the path any more
    late: int = 0  # writes that were refused because the row was no longer ours
    poisoned: list[BaseException] = field(default_factory=list[BaseException])

    def __bool__(self) -> bool:
        return bool(self.accepts or self.updates or self.checks or self.fences or self.endings or self.step)


def prepare(batch: Batch) -> None:
    """Formats the tracebacks: before the lock is taken, for it is the slow part."""
    for ending in batch.endings:
        if ending.trace is not None and ending.record is not None:
            ending.record["trace"] = ending.trace.hash()
            ending.trace.body()


def fill(connection: sqlite3.Connection, batch: Batch) -> None:
    """Writes the batch in a transaction that it begins and leaves open; one bad row fails alone."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        _fill_at_once(connection, batch)
    except Exception as error:
        if not is_poison(error):
            raise
        connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        _fill_one_by_one(connection, batch)
    if batch.step is not None:
        _take_step(connection, batch.step)


def _fill_at_once(connection: sqlite3.Connection, batch: Batch) -> None:
    batch.late = 0
    if batch.updates:
        written = connection.executemany(UPDATE_JOB, batch.updates).rowcount
        batch.late += len(batch.updates) - written
    for check in batch.checks:
        check.written = connection.execute(UPDATE_JOB, check.row).rowcount == 1
    if batch.fences:
        batch.late += len(batch.fences) - connection.executemany(DELETE_JOB, batch.fences).rowcount
    if batch.endings:
        _write_endings(connection, batch)
    if batch.accepts:  # last: the id of a job that is over may be given again
        insert = INSERT_JOB.format(owner=batch.owner)
        connection.executemany(insert, [row for accept in batch.accepts for row in accept.rows])
        for accept in batch.accepts:
            if accept.then is not None:
                connection.executemany(*accept.then)


def _write_endings(connection: sqlite3.Connection, batch: Batch) -> None:
    kept = [ending for ending in batch.endings if ending.record is not None]
    if kept:
        _write_records(connection, batch, kept)
    for ending in batch.endings:
        if ending.resolve is not None:
            connection.execute(*ending.resolve)
    fences = [ending.fence for ending in batch.endings if ending.fence is not None and not ending.withdrawn]
    if fences:
        batch.late += len(fences) - connection.executemany(DELETE_JOB, fences).rowcount
    withdrawn = [ending.fence for ending in batch.endings if ending.fence is not None and ending.withdrawn]
    if withdrawn:
        connection.executemany(DELETE_JOB, withdrawn)


def _write_records(connection: sqlite3.Connection, batch: Batch, endings: Sequence[Ending]) -> None:
    records = [ending.record for ending in endings if ending.record is not None]
    traces = {trace.hash(): trace for ending in endings if (trace := ending.trace) is not None}
    if traces:
        rows = [(key, trace.body(), batch.now_ms) for key, trace in traces.items()]
        connection.executemany(INSERT_TRACE, rows)
    causes = {(record["task"], record["error"], record["place"]) for record in records}
    connection.executemany(INSERT_CAUSE, causes)
    connection.executemany(INSERT_ENDED, [record for record in records if record["origin"] is None])
    connection.executemany(UPDATE_ENDED, [record for record in records if record["origin"] is not None])


def _fill_one_by_one(connection: sqlite3.Connection, batch: Batch) -> None:
    batch.late = 0
    parts = [Batch(updates=[update]) for update in batch.updates]
    parts += [Batch(checks=[check]) for check in batch.checks]
    parts += [Batch(fences=batch.fences)] if batch.fences else []
    parts += [Batch(now_ms=batch.now_ms, endings=[ending]) for ending in batch.endings]
    for part in parts:
        error = _alone(connection, part)
        batch.late += part.late
        if error is not None:
            batch.poisoned.append(error)
            for ending in part.endings:
                _put_away(connection, batch, ending, error)
    for accept in batch.accepts:
        accept.error = _alone(connection, Batch(batch.owner, accepts=[accept]))


def _put_away(connection: sqlite3.Connection, batch: Batch, ending: Ending, error: BaseException) -> None:
    """A durable job whose end cannot be written as it is shall not run again, and not be lost either."""
    if ending.fence is not None:
        key, run, owner = ending.fence
        message = storable(f"its end could not be written: {type(error).__name__}: {error}")
        quarantine_ours(connection, owner, [(key, run, message)], UNWRITABLE, batch.now_ms)


def _alone(connection: sqlite3.Connection, part: Batch) -> BaseException | None:
    """Write a part in a savepoint; the error that is its own fault, or None."""
    own: BaseException | None = None
    connection.execute("SAVEPOINT part")
    try:
        _fill_at_once(connection, part)
    except Exception as error:
        if not is_poison(error):
            raise  # the file's trouble, which is the end of the whole transaction
        connection.execute("ROLLBACK TO part")
        own = error
    connection.execute("RELEASE part")
    return own


def _take_step(connection: sqlite3.Connection, step: Step) -> None:
    connection.execute("SAVEPOINT step")
    try:
        step.value = step.function(connection, *step.args)
    except Exception as error:
        if isinstance(error, sqlite3.Error) and fault_of(error) is not Fault.OTHER:
            raise  # the file's trouble, not the step's
        connection.execute("ROLLBACK TO step")
        step.error = error
    connection.execute("RELEASE step")


def keys_of(accepts: Iterable[Accept]) -> list[int]:
    """The keys of all rows of these accepts."""
    return [row[0] for accept in accepts for row in accept.rows]
