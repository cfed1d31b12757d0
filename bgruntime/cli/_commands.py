"""What each command does with a journal."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bgruntime import JournalUnavailable
from bgruntime.extend import finite
from bgruntime.journal import AttemptFailure, Failure, FailureGroup, Journal

from ._text import ago, local, one_line, table


class Absent(Exception):
    """There is no such failure."""


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Journal]:
    """A journal that is there; no file is made. Raises `JournalUnavailable` for what is none."""
    if not path.exists():  # noqa: ASYNC240 -- before there is anything to hold up
        raise JournalUnavailable(f"there is no journal {path}")
    async with Journal(path) as journal:
        if problems := journal.problems():
            raise JournalUnavailable(problems[0])
        yield journal


async def failures(options: Namespace) -> None:
    """List failures, or their causes."""
    wanted: dict[str, Any] = {"task": options.task, "error": options.error, "since": options.since}
    async with opened(options.journal) as journal:
        if options.groups:
            groups = await journal.groups(**wanted, limit=options.limit)
            _print_json([asdict(group) for group in groups]) if options.json else _print_groups(groups)
            return
        wanted["state"] = options.state
        found = await journal.failures(**wanted, limit=options.limit)
        if options.json:
            _print_json([asdict(failure) for failure in found])
        else:
            _print_failures(found, await journal.count(**wanted), options.journal)


def _print_failures(found: list[Failure], total: int, path: Path) -> None:
    rows = [
        (one.id, one_line(one.task), one.state, str(one.attempt), ago(one.failed_at), what_happened(one))
        for one in found
    ]
    if rows:
        print(table(("ID", "TASK", "STATE", "ATTEMPTS", "WHEN", "WHAT"), rows))
        print()
    more = f"the newest {len(found)} of {counted(total)}" if total > len(found) else counted(total)
    print(
        f"{more} in {path}" + (f"; all of one: python -m bgruntime show ID --journal {path}" if rows else "")
    )


def what_happened(failure: Failure) -> str:
    """The error in one line, or the reason where there was none."""
    if not failure.error:
        return one_line(failure.message or failure.reason)
    return one_line(f"{failure.error}: {failure.message}")


def _print_groups(groups: list[FailureGroup]) -> None:
    rows = [
        (str(one.count), one_line(one.task), one.error, ago(one.last_seen), one_line(one.place, 200))
        for one in groups
    ]
    print(table(("COUNT", "TASK", "ERROR", "LAST", "WHERE"), rows) if rows else "no failures")


async def show(options: Namespace) -> None:
    """Print all that is known of one job."""
    async with opened(options.journal) as journal:
        found = await journal.get(options.id)
    if found is None:
        raise Absent(f"there is no job {options.id!r} in {options.journal}")
    if options.json:
        _print_json(asdict(found))
    else:
        print("\n".join(described(found)))


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
    return {
        "id": found.id,
        "task": one_line(found.task, 500),
        "state": one_line(found.state + (f", {found.reason}" if found.reason else "")),
        "arguments": one_line(json.dumps(found.args, ensure_ascii=False), 2_000),
        "attempts": f"{found.attempt}{crashes}",
        "redrives": f"{found.redrives}{left}" if found.redrives or left else "",
        "durable": "yes" if found.durable else "no",
        "tags": one_line(", ".join(found.tags)),
        "submitted": local(found.created_at),
        "failed": local(found.failed_at),
        "next": "" if found.next_redrive_at is None else local(found.next_redrive_at),
        "redrivable": one_line(f"no: {found.obstacle}" if found.obstacle else "yes"),
        "where": one_line(found.place, 500),
    }


def attempt_line(attempt: AttemptFailure) -> str:
    """How one attempt failed."""
    error = one_line(f"{attempt.error}: {attempt.message}", 200)
    return f"attempt {attempt.attempt} {attempt.outcome}, {local(attempt.at)}: {error}"


async def redrive(options: Namespace) -> None:
    """Mark failures to be redriven."""
    async with opened(options.journal) as journal:
        try:
            ids = await journal.redrive(
                options.id,
                task=options.task,
                error=options.error,
                since=options.since,
                dry_run=options.dry_run,
            )
        except LookupError as error:
            raise Absent(error.args[0]) from error
    if options.json:
        _print_json({"ids": ids, "dry_run": options.dry_run})
    elif options.dry_run:
        print("\n".join([*map(str, ids), f"{counted(len(ids))} would be redriven"]))
    else:
        print(f"{counted(len(ids))} will be redriven by an application that knows their tasks")


def counted(number: int) -> str:
    return "1 failure" if number == 1 else f"{number:,} failures"


def _print_json(value: Any) -> None:
    print(json.dumps(finite(value), indent=1, ensure_ascii=True, allow_nan=False))
