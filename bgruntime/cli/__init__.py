"""The command line: look at the failures in a journal, and have them redriven.

    bgruntime failures --journal jobs.db --since 2h
    bgruntime show ID --journal jobs.db
    bgruntime redrive --journal jobs.db --task mail:send --dry-run

It works while the application runs, and when it does not; ``python -m bgruntime`` is the same.

Exit codes: 0 it is done, and nothing was found that is open; 1 `failures` found some that are open; 2 that
cannot be done: the command, the id or the journal is not one to work with, or the output cannot be written;
130 it was interrupted (Ctrl-C). With ``--json`` what was found, or ``{"error": …}``, is on standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from bgruntime import JournalUnavailable, __version__

from ._commands import Answer, Impossible, failures, redrive, show
from ._text import as_json, one_line

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
MOST = 1 << 31  # no journal has so many
EPOCH = datetime.fromtimestamp(0, UTC)
FINE, IMPOSSIBLE, INTERRUPTED = 0, 2, 130
CODES = "exit codes: 0 fine, 1 failures found that are open, 2 it cannot be done, 130 interrupted"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, that of the process unless *arguments* are given; returns the exit code."""
    try:
        options = parser().parse_args(arguments)
        try:
            text, code = asyncio.run(_interruptible(options.command(options)))
        except (Impossible, JournalUnavailable, ValueError) as error:
            _complain(str(error))
            text, code = as_json({"error": str(error)}) if options.json else "", IMPOSSIBLE
        return _answer(text + "\n" if text else "", code)
    except SystemExit as left:  # help was given, or the command makes no sense
        _write(sys.stderr, "")
        raise SystemExit(_answer("", left.code if isinstance(left.code, int) else FINE)) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED


async def _interruptible(command: Coroutine[Any, Any, Answer]) -> Answer:
    """A Ctrl-C has it end properly, and so does the next one while that takes its time."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(RuntimeError, ValueError):  # not in the main thread
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    return await command


def _answer(text: str, code: int) -> int:
    """Have it on standard output; returns the exit code."""
    error = _write(sys.stdout, text)
    if error is None or isinstance(error, BrokenPipeError):  # whoever read has seen enough
        return code
    _complain(f"the output cannot be written: {error.strerror}")
    return IMPOSSIBLE


def _complain(text: str) -> None:
    _write(sys.stderr, f"bgruntime: {one_line(text, 2_000)}\n")


def _write(stream: TextIO | None, text: str) -> OSError | None:
    """Write it, in letters that the stream has, and all that waits in there; what went wrong, if anything."""
    if stream is None:  # closed by whoever called
        return None
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # Python tries once more when it ends
        os.close(nowhere)
        return error
    return None


def parser() -> argparse.ArgumentParser:
    """What may be said on the command line."""
    as_module = Path(sys.argv[0]) == Path(__file__).parents[1] / "__main__.py"
    whole = argparse.ArgumentParser(
        prog="python -m bgruntime" if as_module else "bgruntime",
        description="Look after a journal.",
        epilog=CODES,
    )
    whole.add_argument("--version", action="version", version=f"bgruntime {__version__}")
    whole.set_defaults(prog=whole.prog)
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")

    listing = commands.add_parser("failures", help="list failures, the newest first", epilog=CODES)
    _add_journal(listing)
    _add_filters(listing)
    chosen = listing.add_mutually_exclusive_group()
    chosen.add_argument("--state", help="retryable, discarded, quarantined, cancelled or completed")
    chosen.add_argument("--groups", action="store_true", help="those that are open by cause, with counts")
    listing.add_argument("--limit", type=_number, default=50, metavar="N", help="at most so many (50)")
    listing.set_defaults(command=failures)

    one = commands.add_parser("show", help="all that is known of one job", epilog=CODES)
    one.add_argument("id")
    _add_journal(one)
    one.set_defaults(command=show)

    again = commands.add_parser(
        "redrive",
        help="have failures run again",
        description="Marks failures, all that can be redriven unless told which; a running application that"
        " knows their tasks redrives them within a second.",
        epilog=CODES,
    )
    again.add_argument("id", nargs="?", help="this one, in place of --task, --error and --since")
    _add_journal(again)
    _add_filters(again)
    again.add_argument("--dry-run", action="store_true", help="only say which")
    again.set_defaults(command=redrive)
    return whole


def _add_journal(command: argparse.ArgumentParser) -> None:
    given = os.environ.get("BGRUNTIME_JOURNAL")
    command.add_argument(
        "--journal",
        type=_file,
        metavar="FILE",
        default=given or None,
        required=not given,
        help="the journal; BGRUNTIME_JOURNAL unless given",
    )
    command.add_argument("--json", action="store_true", help="for a program to read")


def _add_filters(command: argparse.ArgumentParser) -> None:
    command.add_argument("--task", help="of this task only")
    command.add_argument("--error", help="with this exception only: its name, with the module or without")
    command.add_argument("--since", type=_moment, metavar="WHEN", help="90s, 15m, 2h, 3d, or a date")


def _file(text: str) -> Path:
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a file")
    return Path(text)


def _moment(text: str) -> timedelta | datetime:
    """So long ago, or that instant; one without a time zone is meant here."""
    unit = UNITS.get(text[-1:])
    if unit is not None and text[:-1].isascii() and text[:-1].isdigit():
        try:
            return timedelta(**{unit: int(text[:-1])})
        except (OverflowError, ValueError):  # longer ago than anything
            return EPOCH
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither like 15m nor a date") from None
    try:
        return moment if moment.tzinfo else moment.astimezone()
    except (OverflowError, ValueError, OSError):  # at one of the ends of time, where a time zone is no matter
        return moment.replace(tzinfo=UTC)


def _number(text: str) -> int:
    digits = text.lstrip("0")
    if not (digits.isascii() and digits.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return min(int(digits[:20]), MOST)


__all__ = ["main", "parser"]
