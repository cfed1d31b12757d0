"""The command line: look at the failures in a journal, and have them redriven.

    python -m bgruntime failures --journal jobs.db --since 2h
    python -m bgruntime show ID --journal jobs.db
    python -m bgruntime redrive --journal jobs.db --task mail:send --dry-run

It works while the application runs, and when it does not. Exit codes: 0 it is done, 1 there is no such
failure, 2 the command or the journal is not one to work with.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from bgruntime import JournalUnavailable

from ._commands import Absent, failures, redrive, show

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, that of the process unless *arguments* are given; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        asyncio.run(options.command(options))
        sys.stdout.flush()
    except Absent as error:
        print(f"bgruntime: {error}", file=sys.stderr)
        return 1
    except (JournalUnavailable, ValueError) as error:
        print(f"bgruntime: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def parser() -> argparse.ArgumentParser:
    """What may be said on the command line."""
    whole = argparse.ArgumentParser(prog="python -m bgruntime", description="Look after a journal.")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")

    listing = commands.add_parser("failures", help="list failures, the newest first")
    _add_journal(listing)
    _add_filters(listing)
    listing.add_argument("--state", help="retryable, discarded, quarantined, cancelled or completed")
    listing.add_argument("--limit", type=_number, default=50, metavar="N", help="at most so many (50)")
    listing.add_argument("--groups", action="store_true", help="by cause, with counts")
    listing.set_defaults(command=failures)

    one = commands.add_parser("show", help="all that is known of one job")
    one.add_argument("id")
    _add_journal(one)
    one.set_defaults(command=show)

    again = commands.add_parser(
        "redrive",
        help="have failures run again",
        description="Marks failures, all that can be redriven unless told which; a running application that"
        " knows their tasks redrives them within a second.",
    )
    again.add_argument("id", nargs="?")
    _add_journal(again)
    _add_filters(again)
    again.add_argument("--dry-run", action="store_true", help="only say which")
    again.set_defaults(command=redrive)
    return whole


def _add_journal(command: argparse.ArgumentParser) -> None:
    given = os.environ.get("BGRUNTIME_JOURNAL")
    command.add_argument(
        "--journal",
        type=Path,
        metavar="FILE",
        default=Path(given) if given else None,
        required=not given,
        help="the journal; BGRUNTIME_JOURNAL unless given",
    )
    command.add_argument("--json", action="store_true", help="for a program to read")


def _add_filters(command: argparse.ArgumentParser) -> None:
    command.add_argument("--task", help="of this task only")
    command.add_argument("--error", help="with this exception only: its name, with the module or without")
    command.add_argument("--since", type=_moment, metavar="WHEN", help="90s, 15m, 2h, 3d, or a date")


def _moment(text: str) -> timedelta | datetime:
    """So long ago, or that instant; one without a time zone is meant here."""
    unit = UNITS.get(text[-1:])
    if unit is not None and text[:-1].isascii() and text[:-1].isdigit():
        return timedelta(**{unit: int(text[:-1])})
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither like 15m nor a date") from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


__all__ = ["main", "parser"]
