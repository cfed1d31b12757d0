"""What is known of jobs that are over, and how it is found: quickly among a million."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._keys import key_of
from ._states import OPEN, Row, rows_of

UNKNOWN_AFTER_MS = 600_000  # nobody has claimed it for so long: nobody knows its task
UNKNOWN = "unknown task"
INTERRUPTED = "interrupted"
HELD = "it is being redriven now"
OVER = {int(Row.COMPLETED): "it is completed", int(Row.GIVEN_UP): "it was put away by hand"}

ENDED = """
ended.key, ended.id, ended.task, ended.args, ended.options, ended.state, ended.reason, ended.error,
ended.message, cause.place, trace.body, ended.attempt, ended.crashes, ended.errors, ended.durable,
ended.obstacle, ended.owner, ended.redrives, ended.budget, ended.due_ms, ended.created_ms,
ended.failed_ms, ended.changed_ms"""
FROM_ENDED = "FROM ended JOIN cause ON cause.id = ended.cause LEFT JOIN trace ON trace.hash = ended.trace"
OPEN_JOB = (
    "SELECT id, task, args, options, state, attempt, crashes, errors, owner, due_ms, created_ms FROM job"
)
GROUPS = """
SELECT cause.task, cause.error, cause.place, count(*), min(failed_ms), max(failed_ms)
FROM ended JOIN cause ON cause.id = ended.cause WHERE ended.state IN ({states}) {and_more}
GROUP BY cause.id ORDER BY count(*) DESC, max(failed_ms) DESC LIMIT ?"""
MATCHING_CAUSES = (
    "SELECT id FROM cause"
    " WHERE (? IS NULL OR task = ?) AND (? IS NULL OR error = ? OR error LIKE ? ESCAPE '!')"
)
UNKNOWN_JOBS = f"""
{OPEN_JOB} WHERE owner IS NULL AND due_ms <= ?
AND task NOT IN (SELECT name.value FROM owner, json_each(owner.names) name)
ORDER BY due_ms LIMIT ?"""


@dataclass(frozen=True, slots=True)
class AttemptFailure:
    """How one attempt failed. `at` is in seconds since the epoch."""

    attempt: int
    outcome: str
    error: str
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A job in the journal. Times are seconds since the epoch.

    `args` are its arguments by parameter: as JSON has them, `[redacted]` where they were, and
    ``{"repr": …}`` where they could not be written. `obstacle` says why it cannot be redriven; it is
    None when it can. `place` is the innermost line of the application in the traceback.
    """

    id: str
    task: str
    state: str
    reason: str
    error: str
    message: str
    traceback: str
    place: str
    args: Any
    attempt: int
    attempts: tuple[AttemptFailure, ...]
    crashes: int
    durable: bool
    obstacle: str | None
    redrives: int
    redrives_left: int
    next_redrive_at: float | None
    created_at: float
    failed_at: float
    changed_at: float
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def redrivable(self) -> bool:
        """Can a new job be made of it?"""
        return self.obstacle is None

    @property
    def tags(self) -> tuple[str, ...]:
        """The words it was submitted with."""
        return tuple(self.options.get("tags", ()))


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures with one cause: the same task, exception and innermost line of the application."""

    task: str
    error: str
    place: str
    count: int
    first_seen: float
    last_seen: float


@dataclass(frozen=True, slots=True)
class Filter:
    """Which failures are meant. Seconds since the epoch; `states` are rows."""

    states: tuple[Row, ...] = OPEN
    task: str | None = None
    error: str | None = None
    reason: str | None = None
    since: float | None = None
    until: float | None = None
    redrivable: bool = False
    tasks: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        *,
        state: str | None = None,
        task: str | None = None,
        error: str | None = None,
        reason: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> Filter:
        """The failures that are open, unless a state is named; with a reason, those put to an end too."""
        states = OPEN if state is None else rows_of(state)
        if state is None and reason is not None:
            states = (*OPEN, Row.CANCELLED)
        return cls(states, task, error, reason, since, until)

    def conditions(self) -> tuple[str, list[Any]]:
        """The part of WHERE that the index does not begin with."""
        parts: list[tuple[str, Any]] = []
        if self.reason is not None:
            parts.append(("ended.reason = ?", self.reason))
        if self.since is not None:
            parts.append(("ended.failed_ms >= ?", int(self.since * 1000)))
        if self.until is not None:
            parts.append(("ended.failed_ms < ?", int(self.until * 1000)))
        if self.tasks is not None:
            parts.append(("ended.task IN (SELECT value FROM json_each(?))", json.dumps(self.tasks)))
        where = "".join(f" AND {condition}" for condition, _ in parts)
        if self.redrivable:
            where += " AND ended.obstacle IS NULL AND ended.owner IS NULL"
        return where, [value for _, value in parts]


def matching(
    connection: sqlite3.Connection, wanted: Filter, columns: str, source: str, limit: int | None
) -> list[tuple[Any, ...]]:
    """The rows that are meant, the newest failure first. The first two columns are failed_ms and key.

    One walk along an index for each state, and for each cause where an error is named: every walk is
    in order already, so what is merged is never more than what was asked for.
    """
    where, values = wanted.conditions()
    walks: list[Iterator[tuple[Any, ...]]] = []
    for start, first in _starts(connection, wanted):
        tail = "" if limit is None else f" LIMIT {limit:d}"
        sql = f"SELECT ended.failed_ms, ended.key, {columns} {source} WHERE {start}{where} "
        walks.append(
            connection.execute(
                f"{sql} ORDER BY ended.failed_ms DESC, ended.key DESC{tail}", [*first, *values]
            )
        )
    merged = heapq.merge(*walks, key=lambda row: (-row[0], -row[1]))
    return [row for row, _ in zip(merged, range(limit) if limit is not None else iter(int, 1), strict=False)]


def _starts(connection: sqlite3.Connection, wanted: Filter) -> list[tuple[str, list[Any]]]:
    """Where the walks begin: each a condition an index answers, with its values."""
    states = [int(state) for state in wanted.states]
    if wanted.error is not None:
        causes = causes_of(connection, wanted.task, wanted.error)
        return [
            ("ended.cause = ? AND ended.state = ?", [cause, state]) for cause in causes for state in states
        ]
    if wanted.task is not None:
        return [("ended.task = ? AND ended.state = ?", [wanted.task, state]) for state in states]
    return [("ended.state = ?", [state]) for state in states]


def causes_of(connection: sqlite3.Connection, task: str | None, error: str | None) -> list[int]:
    """The causes with this task and this error, by its full name or the last part of it."""
    pattern = None if error is None else "%." + error.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return [cause for (cause,) in connection.execute(MATCHING_CAUSES, (task, task, error, error, pattern))]


def failures(
    connection: sqlite3.Connection, wanted: Filter, limit: int, names: Sequence[str], now: int
) -> list[Failure]:
    """The newest `limit` failures that are meant; jobs whose task nobody knows among them."""
    found = [failure_of(row[2:]) for row in matching(connection, wanted, ENDED, FROM_ENDED, limit)]
    if Row.QUARANTINED in wanted.states and wanted.error is None and wanted.reason in (None, UNKNOWN):
        found += _unknown(connection, wanted, limit, names, now)
    return found[:limit]


def _unknown(
    connection: sqlite3.Connection, wanted: Filter, limit: int, names: Sequence[str], now: int
) -> list[Failure]:
    rows = connection.execute(UNKNOWN_JOBS, (now - UNKNOWN_AFTER_MS, limit)).fetchall()
    shown = (open_job_of(row, now) for row in rows if row[1] not in names)
    return [
        job
        for job in shown
        if (wanted.task is None or job.task == wanted.task)
        and (wanted.since is None or job.failed_at >= wanted.since)
        and (wanted.until is None or job.failed_at < wanted.until)
    ]


def count(connection: sqlite3.Connection, wanted: Filter) -> int:
    """How many failures are meant."""
    where, values = wanted.conditions()
    totals = (
        connection.execute(f"SELECT count(*) FROM ended WHERE {start}{where}", [*first, *values]).fetchone()[
            0
        ]
        for start, first in _starts(connection, wanted)
    )
    return sum(totals)


def groups(connection: sqlite3.Connection, wanted: Filter, limit: int) -> list[FailureGroup]:
    """Failures by cause, the most frequent first."""
    where, values = wanted.conditions()
    if wanted.task is not None or wanted.error is not None:
        where += " AND cause.id IN (SELECT value FROM json_each(?))"
        values.append(json.dumps(causes_of(connection, wanted.task, wanted.error)))
    sql = GROUPS.format(states=",".join(str(int(state)) for state in wanted.states), and_more=where)
    rows = connection.execute(sql, [*values, limit])
    return [
        FailureGroup(task, error, place, number, first / 1000, last / 1000)
        for task, error, place, number, first, last in rows
    ]


def get(connection: sqlite3.Connection, id: str, names: Sequence[str], now: int) -> Failure | None:
    """The job with this id, over or not; the newest where an id was given more than once."""
    sql = f"SELECT {ENDED} {FROM_ENDED} WHERE ended.id = ? ORDER BY ended.key DESC LIMIT 1"
    row = connection.execute(f"{OPEN_JOB} WHERE key = ? AND id = ?", (key_of(id), id)).fetchone()
    row = row or connection.execute(f"{OPEN_JOB} WHERE id = ? AND given = 1", (id,)).fetchone()
    if row is not None:
        return open_job_of(row, now, known=row[1] in names or _known(connection, row[1]))
    row = connection.execute(sql, (id,)).fetchone()
    return None if row is None else failure_of(row)


def _known(connection: sqlite3.Connection, task: str) -> bool:
    sql = "SELECT 1 FROM owner, json_each(owner.names) name WHERE name.value = ? LIMIT 1"
    return connection.execute(sql, (task,)).fetchone() is not None


def failure_of(row: Sequence[Any]) -> Failure:
    """What the columns `ENDED` say."""
    (_, id, task, args, options, state, reason, error, message, place, body, attempt, crashes, errors) = row[
        :14
    ]
    durable, obstacle, owner, redrives, budget, due, created, failed, changed = row[14:23]
    told = f"{error}: {message}" if message else error
    return Failure(  # by position: with names a page of them takes a fifth longer
        id,
        task,
        Row(state).word,
        reason,
        error,
        message,
        f"{body}{told}" if body else told,
        place,
        parsed(args),
        attempt,
        attempts_of(errors),
        crashes,
        bool(durable),
        HELD if owner is not None else OVER.get(state) or obstacle,
        redrives,
        max(0, budget - redrives) if state == Row.RETRYABLE else 0,
        None if due is None else due / 1000,
        created / 1000,
        failed / 1000,
        changed / 1000,
        options_of(options),
    )


def open_job_of(row: Sequence[Any], now: int, *, known: bool = False) -> Failure:
    """What the columns `OPEN_JOB` say: a durable job that is not over."""
    id, task, args, options, state, attempt, crashes, errors, owner, due, created = row
    lost = owner is None and not known and due is not None and due <= now - UNKNOWN_AFTER_MS
    attempts = attempts_of(errors)
    last = attempts[-1] if attempts else None
    since = (created if due is None else due) / 1000
    return Failure(
        id=id,
        task=task,
        state="quarantined" if lost else Row(state).word,
        reason=UNKNOWN if lost else "",
        error=last.error if last else "",
        message=f"no process has known the task {task!r} for 10 minutes"
        if lost
        else (last.message if last else ""),
        traceback="",
        place="",
        args=parsed(args),
        attempt=attempt,
        attempts=attempts,
        crashes=crashes,
        durable=True,
        obstacle="it is not over",
        redrives=0,
        redrives_left=0,
        next_redrive_at=None,
        created_at=created / 1000,
        failed_at=since,
        changed_at=since,
        options=options_of(options),
    )


def attempts_of(errors: str | None) -> tuple[AttemptFailure, ...]:
    """The attempts that failed, the first one first."""
    if not errors:
        return ()
    try:
        return tuple(
            AttemptFailure(one["attempt"], one["outcome"], one["error"], one["message"], one["at"])
            for one in json.loads(errors)
        )
    except (ValueError, TypeError, LookupError):  # damaged: the rest of the row is still to be seen
        return ()


def options_of(options: str | None) -> dict[str, Any]:
    """The options a job was submitted with; none where they are damaged."""
    told: Any = parsed(options) if options else None
    return dict(told) if isinstance(told, dict) else {}  # pyright: ignore[reportUnknownArgumentType]


def parsed(args: str) -> Any:
    """Arguments as JSON has them; the text itself where it was cut."""
    try:
        return json.loads(args)
    except ValueError:
        return args
