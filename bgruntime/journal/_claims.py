"""How jobs change hands: the dead are buried, what is free is claimed. Steps for the writing thread."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._owners import Other, again, others
from ._states import FIRST_PAUSE_MS

PAGE = 500
CRASHES = 2  # deaths after a start mark, then a job is quarantined
CRASH_LOOP = "crash loop"

FREE = "SELECT due_ms, key FROM job WHERE owner IS NULL AND task = ? AND due_ms <= ? ORDER BY due_ms LIMIT ?"
CLAIM = """
UPDATE job SET owner = ?, run = run + 1 WHERE owner IS NULL AND key IN (SELECT value FROM json_each(?))
RETURNING key, id, task, args, options, state, run, attempt, crashes, started, due_ms, created_ms,
          errors, origin"""
BURY = """
UPDATE job SET owner = NULL, run = run + 1, crashes = crashes + (state = 2),
               due_ms = coalesce(due_ms, created_ms), state = CASE state WHEN 2 THEN 0 ELSE state END
WHERE key IN (SELECT key FROM job WHERE owner = ? AND key > ? ORDER BY key LIMIT ?)
RETURNING key, id, task, crashes"""
QUARANTINE_CAUSE = (
    "INSERT INTO cause(task, error, place) SELECT task, '', '' FROM job WHERE key = ? ON CONFLICT DO NOTHING"
)
QUARANTINE = """
INSERT INTO ended(key, id, task, args, options, state, reason, error, message, cause, attempt, crashes,
                  errors, durable, obstacle, redrives, budget, created_ms, failed_ms, changed_ms)
SELECT key, id, task, args, CASE WHEN json_valid(options) THEN options END, 6, :reason, '', :message,
       (SELECT id FROM cause WHERE task = job.task AND error = '' AND place = ''),
       attempt, crashes, CASE WHEN json_valid(errors) THEN errors END, 1, NULL, 0, 0, created_ms, :now, :now
FROM job WHERE key = :key AND origin IS NULL ON CONFLICT(key) DO NOTHING"""
QUARANTINE_ORIGIN = """
UPDATE ended SET state = 6, reason = :reason, message = :message, owner = NULL, due_ms = NULL,
                 failed_ms = :now, changed_ms = :now,
                 crashes = crashes + (SELECT crashes FROM job WHERE key = :key)
WHERE key = (SELECT origin FROM job WHERE key = :key)"""
USED_UP = """
UPDATE ended SET state = 6, reason = :reason, message = :message, owner = NULL, due_ms = NULL,
                 crashes = crashes + 1, failed_ms = :now, changed_ms = :now
WHERE owner = :owner AND due_ms IS NOT NULL AND redrives >= budget RETURNING id, task"""
LET_GO = """
UPDATE ended SET owner = NULL, crashes = crashes + 1,
                 due_ms = CASE WHEN due_ms IS NOT NULL THEN :now + (:pause << min(redrives, 16)) END
WHERE owner = :owner"""
RELEASE = """
UPDATE job SET owner = NULL, due_ms = coalesce(due_ms, created_ms),
               state = CASE state WHEN 2 THEN 0 ELSE state END
WHERE owner = ? AND key NOT IN (SELECT value FROM json_each(?))"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row that is ours now."""

    key: int
    id: str
    task: str
    args: str
    options: str | None
    state: int
    run: int
    attempt: int
    crashes: int
    started: int
    due_ms: int
    created_ms: int
    errors: str | None
    origin: int | None


@dataclass(frozen=True, slots=True)
class Buried:
    """What was done with the rows of the dead: how many came free, and which will not run again."""

    freed: int
    last: int | None  # where the next page begins; None when the dead is struck off
    quarantined: tuple[tuple[str, str], ...]  # id and task


def claim(
    connection: sqlite3.Connection, owner: int, names: Collection[str], until_ms: int, limit: int
) -> list[Claimed]:
    """Take at most `limit` rows of these tasks that nobody has and that are due, the longest due first."""
    found = [connection.execute(FREE, (name, until_ms, limit)).fetchall() for name in names]
    keys = [key for _, key in heapq.nsmallest(limit, (row for rows in found for row in rows))]
    if not keys:
        return []
    rows = connection.execute(CLAIM, (owner, json.dumps(keys))).fetchall()
    return sorted((Claimed(*row) for row in rows), key=lambda row: (row.due_ms, row.key))


def claimable(connection: sqlite3.Connection, names: Collection[str], until_ms: int) -> bool:
    """Is there anything to claim? A question for the reading thread."""
    return any(connection.execute(FREE, (name, until_ms, 1)).fetchone() for name in names)


def dead(connection: sqlite3.Connection, owner: int, directory: Path) -> list[Other]:
    """Who has left without signing off? A question for the reading thread."""
    return [other for other in others(connection, owner) if other.is_dead(directory)]


def bury(
    connection: sqlite3.Connection, gone: Other, directory: Path, now_ms: int, after: int = 0
) -> Buried | None:
    """Free a page of a dead process's rows, those above `after`; strike it off when there are no more.

    A job that was running counts one death more; at the second it is quarantined. So is a failure whose
    last automatic redrive was under way. Looks again whether the owner is dead: between the question and
    this transaction everything may have changed. None when it is not, or when somebody else has struck it
    off.
    """
    found = again(connection, gone)
    if found is None or not found.is_dead(directory):
        return None
    rows = connection.execute(BURY, (gone.id, after, PAGE)).fetchall()
    looping = [(key, id, task) for key, id, task, crashes in rows if crashes >= CRASHES]
    for key, _, _ in looping:
        quarantine(connection, key, CRASH_LOOP, f"its process died {CRASHES} times while it ran", now_ms)
    last = max((row[0] for row in rows), default=0) if len(rows) == PAGE else None
    told = [(id, task) for _, id, task in looping]
    if last is None:
        told += _bury_redrives(connection, gone, now_ms)
        connection.execute("DELETE FROM owner WHERE id = ?", (gone.id,))
    return Buried(len(rows), last, tuple(told))


def _bury_redrives(connection: sqlite3.Connection, gone: Other, now_ms: int) -> list[tuple[str, str]]:
    """Free the failures the dead was redriving; returns id and task of those that had no redrive left."""
    values: dict[str, Any] = {"owner": gone.id, "now": now_ms, "pause": FIRST_PAUSE_MS, "reason": CRASH_LOOP}
    values["message"] = "its process died while it was redriven for the last time"
    used_up = connection.execute(USED_UP, values).fetchall()
    connection.execute(LET_GO, values)
    return used_up


def quarantine(connection: sqlite3.Connection, key: int, reason: str, message: str, now_ms: int) -> None:
    """Move a job to where it does not run again by itself, the failure it was redriven from included."""
    values: dict[str, Any] = {"key": key, "reason": reason, "message": message, "now": now_ms}
    connection.execute(QUARANTINE_CAUSE, (key,))
    connection.execute(QUARANTINE, values)
    connection.execute(QUARANTINE_ORIGIN, values)
    connection.execute("DELETE FROM job WHERE key = ?", (key,))


def quarantine_ours(
    connection: sqlite3.Connection, owner: int, rows: Sequence[tuple[int, int, str]], reason: str, now_ms: int
) -> None:
    """Quarantine rows of ours, given as key, run and what is wrong with each."""
    for key, run, message in rows:
        held = connection.execute(
            "SELECT 1 FROM job WHERE key = ? AND run = ? AND owner = ?", (key, run, owner)
        )
        if held.fetchone():
            quarantine(connection, key, reason, message, now_ms)


def release(connection: sqlite3.Connection, owner: int, kept: Collection[int]) -> int:
    """Give back all rows of ours but those with the keys `kept`: rows whose acceptance was in doubt."""
    return connection.execute(RELEASE, (owner, json.dumps(list(kept)))).rowcount
