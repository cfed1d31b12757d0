"""What each command does with a journal: returns a text for the standard output and the exit code."""

from __future__ import annotations

import json
import os
import shlex
import stat
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bgruntime import JournalUnavailable
from bgruntime.journal import AttemptFailure, Failure, FailureGroup, Journal

from ._text import ago, as_json, local, one_line, table, terminal

OPEN = ("retryable", "discarded", "quarantined")
PUT_AWAY, NOT_OVER = "it was put away by hand", "it is not over"  # as `Failure.obstacle` says it

Answer = tuple[str, int]


class Impossible(Exception):
    """That cannot be done: there is no such failure, or it is not one for this."""


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Journal]:
    """A journal that is there; no file is made. Raises `JournalUnavailable` for what is none."""
    check(path)  # before there is anything to hold up
    async with Journal(path) as journal:
        if problems := journal.problems():
            raise JournalUnavailable(problems[0])
        yield journal


def check(path: Path) -> None:
    """Raises `JournalUnavailable` for what would be made or left behind in vain by opening it."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise JournalUnavailable(f"there is no journal {path}") from None
    except OSError as error:
        raise JournalUnavailable(f"journal {path} cannot be opened: {error.strerror}") from error
    if stat.S_ISREG(found.st_mode):
        if not found.st_size:
            raise JournalUnavailable(f"{path} is an empty file, and no journal yet")
        if not os.access(path, os.R_OK | os.W_OK):
            raise JournalUnavailable(f"journal {path} cannot be opened: no permission to read and write it")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise JournalUnavailable(f"journal {path} cannot be opened: no permission to write in its folder")


async def failures(options: Namespace) -> Answer:
    """List failures, or their causes."""
    filters = filters_of(options)
    async with opened(options.journal) as journal:
        if options.groups:
            causes = await journal.groups(**filters, limit=options.limit + 1)  # one more: is there more?
            groups = causes[: options.limit]
            text = as_json([asdict(one) for one in groups]) if options.json else causes_listed(groups)
            if len(causes) > len(groups) and not options.json:
                text += f"\n\nthe first {len(groups)} causes; there are more"
            some, found_open = bool(groups), bool(groups)
        else:
            wanted = {**filters, "state": options.state}
            found = await journal.failures(**wanted, limit=options.limit)
            text = as_json([asdict(one) for one in found]) if options.json else listed(found)
            if found and not options.json:
                total = max(len(found), await journal.count(**wanted))
                text += f"\n\n{how_many(len(found), total)} in {place_of(options)}; {hint(options)}"
            some = bool(found)
            found_open = any(one.state in OPEN and one.obstacle != PUT_AWAY for one in found)
        if not some and not options.json:
            text = nothing(options, await journal.count())
    return text, int(found_open)


def filters_of(options: Namespace) -> dict[str, Any]:
    """Which failures are meant, a state aside."""
    return {"task": options.task, "error": options.error, "since": options.since}


def listed(found: list[Failure]) -> str:
    """Failures, a line for each."""
    rows = [
        (
            one_line(one.id, 500),
            one_line(one.task),
            one.state,
            str(one.attempt),
            ago(one.failed_at),
            what_happened(one),
        )
        for one in found
    ]
    return table(("ID", "TASK", "STATE", "ATTEMPTS", "WHEN", "WHAT"), rows, terminal(), below=(1, 5))


def how_many(shown: int, total: int) -> str:
    return f"the newest {shown} of {counted(total)}" if total > shown else counted(total)


def place_of(options: Namespace) -> str:
    return one_line(str(options.journal), 500)


def hint(options: Namespace) -> str:
    """How to see more, to be pasted into a shell."""
    path = one_line(shlex.quote(str(options.journal)), 500)
    return f"all of one: {options.prog} show ID --journal {path}"


def nothing(options: Namespace, still_open: int) -> str:
    """That nothing was found, and whether that is because of what was asked for."""
    if not still_open and getattr(options, "state", None) is None:
        return f"no failure in {place_of(options)} is open"
    return f"nothing in {place_of(options)} matches; open there: {counted(still_open)}"


def what_happened(failure: Failure) -> str:
    """The error in one line, or the reason where there was none."""
    if not failure.error:
        return one_line(failure.message or failure.reason)
    return one_line(f"{failure.error}: {failure.message}")


def causes_listed(groups: list[FailureGroup]) -> str:
    """Causes, a line for each."""
    rows = [
        (
            str(one.count),
            one_line(one.task),
            one_line(one.error),
            ago(one.last_seen),
            one_line(one.place, 200),
        )
        for one in groups
    ]
    return table(("COUNT", "TASK", "ERROR", "LAST", "WHERE"), rows, terminal(), below=(2, 4))


async def show(options: Namespace) -> Answer:
    """Tell all that is known of one job."""
    async with opened(options.journal) as journal:
        found = await journal.get(options.id)
    if found is None:
        raise Impossible(f"there is no job {options.id!r} in {options.journal}")
    return as_json(asdict(found)) if options.json else "\n".join(described(found)), 0


def described(found: Failure) -> list[str]:
    """A job in full, line by line."""
    lines = [f"{name:<11} {fact}" for name, fact in facts_of(found).items() if fact]
    if len(found.attempts) > 1:
        lines += ["", *map(attempt_line, found.attempts)]
    if found.traceback:
        lines += ["", *(one_line(line, 500) for line in found.traceback.split("\n"))]
    return lines


def facts_of(found: Failure) -> dict[str, str]:
    """What is told of a job by name; an empty text is left out."""
    left = f", {found.redrives_left} left" if found.redrives_left else ""
    crashes = f", and {found.crashes} crashes" if found.crashes else ""
    over = found.obstacle != NOT_OVER
    return {
        "id": one_line(found.id, 500),
        "task": one_line(found.task, 500),
        "state": one_line(found.state + (f", {found.reason}" if found.reason else "")),
        "arguments": one_line(json.dumps(found.args, ensure_ascii=False), 2_000),
        "attempts": f"{found.attempt}{crashes}",
        "redrives": f"{found.redrives}{left}" if found.redrives or left else "",
        "durable": "yes" if found.durable else "no",
        "tags": one_line(", ".join(found.tags)),
        "submitted": local(found.created_at),
        "due": "" if over or found.state == "running" else local(found.failed_at),
        "failed" if found.error else "ended": local(found.failed_at) if over else "",
        "next": "" if found.next_redrive_at is None else local(found.next_redrive_at),
        "redrivable": one_line(f"no: {found.obstacle}" if found.obstacle else "yes"),
        "where": one_line(found.place, 500),
    }


def attempt_line(attempt: AttemptFailure) -> str:
    """How one attempt failed."""
    error = one_line(f"{attempt.error}: {attempt.message}", 200)
    return f"attempt {attempt.attempt} {attempt.outcome}, {local(attempt.at)}: {error}"


async def redrive(options: Namespace) -> Answer:
    """Mark failures to be redriven."""
    filters = filters_of(options)
    if options.id is not None and any(value is not None for value in filters.values()):
        raise Impossible("redrive takes an id or filters, not both")
    async with opened(options.journal) as journal:
        try:
            ids = [str(id) for id in await journal.redrive(options.id, **filters, dry_run=options.dry_run)]
        except LookupError as error:
            raise Impossible(error.args[0]) from error
        matching = 0 if ids else await journal.count(**filters)
        still_open = 0 if ids else await journal.count()
    if options.json:
        return as_json({"ids": ids, "dry_run": options.dry_run}), 0
    if matching:
        return f"{counted(matching)} cannot be redriven; {options.prog} show ID says why", 0
    if not ids:
        return nothing(options, still_open), 0
    if options.dry_run:
        return "\n".join([*(one_line(id, 500) for id in ids), f"{counted(len(ids))} would be redriven"]), 0
    return f"{counted(len(ids))} will be redriven by an application that knows their tasks", 0


def counted(number: int) -> str:
    return "1 failure" if number == 1 else f"{number:,} failures"
