"""The journal as JSON lines, one job each: to look at with other tools, to keep, to bring to another file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from ._faults import is_poison
from ._states import Row

PAGE = 500
FORMAT = "bgruntime-journal-1"

ENDED = (
    "key", "id", "task", "args", "options", "state", "reason", "error", "message", "place", "trace", "body",
    "attempt", "crashes", "errors", "durable", "obstacle", "redrives", "budget", "due_ms", "created_ms",
    "failed_ms", "changed_ms",
)  # fmt: skip
JOB = (
    "key", "id", "given", "task", "args", "options", "state", "run", "attempt", "crashes", "started",
    "due_ms", "created_ms", "errors", "origin",
)  # fmt: skip

SELECT_ENDED = """
SELECT ended.key, ended.id, ended.task, ended.args, ended.options, ended.state, reason, ended.error, message,
       place, hex(trace), body, attempt, crashes, errors, durable, obstacle, redrives, budget,
       due_ms, created_ms, failed_ms, changed_ms
FROM ended JOIN cause ON cause.id = ended.cause LEFT JOIN trace ON trace.hash = ended.trace
WHERE ended.key > ? ORDER BY ended.key LIMIT ?"""
SELECT_JOB = f"SELECT {', '.join(JOB)} FROM job WHERE key > ? ORDER BY key LIMIT ?"
INSERT_CAUSE = "INSERT INTO cause(task, error, place) VALUES(:task, :error, :place) ON CONFLICT DO NOTHING"
INSERT_TRACE = (
    "INSERT INTO trace(hash, body, seen_ms) VALUES(:hash, :body, :failed_ms) ON CONFLICT DO NOTHING"
)
INSERT_ENDED = """
INSERT INTO ended(key, id, task, args, options, state, reason, error, message, cause, trace, attempt, crashes,
                  errors, durable, obstacle, redrives, budget, due_ms, created_ms, failed_ms, changed_ms)
VALUES(:key, :id, :task, :args, :options, :state, :reason, :error, :message,
       (SELECT id FROM cause WHERE task = :task AND error = :error AND place = :place), :hash, :attempt,
       :crashes, :errors, :durable, :obstacle, :redrives, :budget, :due_ms, :created_ms, :failed_ms,
       :changed_ms)
ON CONFLICT(key) DO NOTHING"""
INSERT_JOB = f"""
INSERT INTO job({", ".join(JOB)}) VALUES({", ".join(":" + name for name in JOB)}) ON CONFLICT DO NOTHING"""


def page(connection: sqlite3.Connection, kind: str, after: int) -> tuple[list[str], int]:
    """One page of lines about jobs with a key above `after`, and the last key of it."""
    names, sql = (ENDED, SELECT_ENDED) if kind == "ended" else (JOB, SELECT_JOB)
    rows = connection.execute(sql, (after, PAGE)).fetchall()
    lines = [
        json.dumps({"kind": kind, **dict(zip(names, row, strict=True))}, ensure_ascii=False) for row in rows
    ]
    return lines, rows[-1][0] if rows else after


def header(version: int) -> str:
    """The first line."""
    return json.dumps({"format": FORMAT, "schema": version})


def parse(lines: Iterator[str], newest: int) -> Iterator[dict[str, Any]]:
    """The jobs that the lines tell of. Raises `ValueError`, with the line's number, for any other text."""
    number = 0
    for number, line in enumerate(lines, 1):
        try:
            told = json.loads(line)
            if number == 1:
                _check_header(told, newest)
            else:
                yield _checked(told)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number}: {error}") from error
    if not number:
        raise ValueError("not an export of a journal: it is empty")


def _check_header(told: Any, newest: int) -> None:
    if not isinstance(told, dict) or told.get("format") != FORMAT:  # pyright: ignore[reportUnknownMemberType]
        raise ValueError(f"not an export of a journal: the first line has no format {FORMAT!r}")
    if told.get("schema", 0) > newest:  # pyright: ignore[reportUnknownMemberType]
        raise ValueError(f"schema version {told['schema']}; this bgruntime knows versions up to {newest}")


def _checked(told: Any) -> dict[str, Any]:
    names = {"ended": ENDED, "job": JOB}[told["kind"]]
    missing = [name for name in names if name not in told]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing")
    states = [int(state) for state in Row]
    states = states[Row.RETRYABLE :] if names is ENDED else states[: Row.RETRYABLE + 1]
    if told["state"] not in states:
        raise ValueError(f"state is one of {states}, got {told['state']!r}")
    _check_json("options", told["options"], dict)
    for error in _check_json("errors", told["errors"], list) or ():
        if not isinstance(error, dict):
            raise ValueError(f"errors: {error!r} is no object")
    return {"kind": told["kind"], **{name: told[name] for name in names}}


def _check_json(name: str, text: Any, kind: type) -> Any:
    value = None if text is None else json.loads(text, parse_constant=_no_number)
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"{name} {text!r} is no JSON of a {kind.__name__}")
    return value


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number that JSON has")


def at_rest(job: dict[str, Any]) -> dict[str, Any]:
    """The same failure, but not one that is redriven by itself."""
    if job["kind"] == "job" or job["state"] != Row.RETRYABLE:
        return job
    return {**job, "state": int(Row.DISCARDED), "budget": 0, "due_ms": None}


def take_in(connection: sqlite3.Connection, jobs: list[dict[str, Any]]) -> int:
    """Write a page of parsed lines; what is there already stays as it is. Returns how many were new.

    Raises `ValueError`, naming the job, for values of the wrong kind.
    """
    new = 0
    for job in jobs:
        try:
            new += _take_in_job(connection, job) if job["kind"] == "job" else _take_in_ended(connection, job)
        except (sqlite3.Error, TypeError, OverflowError) as error:
            if isinstance(error, sqlite3.Error) and not is_poison(error):
                raise  # the file's trouble, not this line's
            raise ValueError(f"job {job['id']!r}: {error}") from error
    return new


def _take_in_job(connection: sqlite3.Connection, job: dict[str, Any]) -> int:
    state = 0 if job["state"] == 2 else job["state"]
    values = {**job, "state": state, "due_ms": job["due_ms"] or job["created_ms"]}
    return connection.execute(INSERT_JOB, values).rowcount


def _take_in_ended(connection: sqlite3.Connection, job: dict[str, Any]) -> int:
    values = {**job, "hash": bytes.fromhex(job["trace"]) if job["trace"] else None}
    connection.execute(INSERT_CAUSE, values)
    if values["hash"] is not None and job["body"] is not None:
        connection.execute(INSERT_TRACE, values)
    return connection.execute(INSERT_ENDED, values).rowcount
