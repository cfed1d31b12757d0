"""The main job on real input, with every claim checked: exit code 1 if one did not hold.

1. notify   200 real messages over SMTP, one after another and as one bounded fan-out
2. ingest   a folder of documents parsed in threads and indexed, one question answered
3. failures every job that failed on the way, out of the journal; the causes removed, all redriven
4. kill -9  a process killed in the middle of durable jobs, a restart, and the count
5. stop     a clean stop in the middle of work, and its report

    python examples/demo.py [FOLDER] [--messages N] [--limit N] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import aiosmtplib
from durable import kill_and_restart
from ingest import SUFFIXES, Hit, Index, documents, find_documents, ingest, standard_library
from notify import ANSWER, MailServer, fan_out, mail_server, one_after_another, send_email
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

import bgruntime
from bgruntime import Job, Runtime, ShutdownReport, task
from bgruntime.logs import JobLog

WORDS = "event loop"
FASTER = 3.0  # times; what even a busy machine must show


@dataclass(frozen=True)
class Claim:
    text: str
    held: bool


@dataclass(frozen=True)
class Failure:
    """One failed job as the table shows it."""

    id: str
    task: str
    about: str
    reason: str
    attempts: int
    cause: str

    @classmethod
    def of(cls, job: Job[Any], about: str) -> Failure:
        error = job.exception()
        cause = f"{type(error).__name__}: {error}"
        return cls(job.id, job.task.rpartition(":")[2], about, str(job.reason), job.attempt, cause)


class LogLines(list[dict[str, Any]]):
    """A logger that keeps its lines, so that they can be counted instead of read."""

    def debug(self, event: str, **fields: Any) -> None:
        """What went well or was cancelled is not counted."""

    def warning(self, event: str, **fields: Any) -> None:
        self.append({"level": "warning", "event": event, **fields})

    def error(self, event: str, **fields: Any) -> None:
        self.append({"level": "error", "event": event, **fields})


@dataclass
class Story:
    """What happened and what was claimed: shown as it happens, or kept for `--json`."""

    console: Console
    claims: list[Claim] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    log: LogLines = field(default_factory=LogLines)
    journal: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="bgruntime-demo-"), "jobs.db"))

    @property
    def tick(self) -> str:
        return "✓" if self.console.encoding.startswith("utf") else "ok"

    @property
    def held(self) -> bool:
        return all(claim.held for claim in self.claims)

    def line(self, text: str) -> None:
        self.console.print(Text(f"  {text}"))

    def chapter(self, title: str, about: str) -> None:
        self.console.print()
        self.console.print(Text.assemble((title, "bold cyan"), "  ", (about, "dim")))
        self.console.print()

    def claim(self, text: str, held: bool) -> None:
        self.claims.append(Claim(text, held))
        mark = (self.tick, "bold green") if held else ("DID NOT HOLD:", "bold red")
        self.console.print(Text.assemble("  ", mark, " ", text))

    def show(self, table: Table) -> None:
        self.console.print(Padding(table, (0, 0, 0, 2), expand=False))
        self.console.print()

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Live bars on a terminal, gone when the block ends; nothing at all in a pipe."""
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        hidden = not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=hidden) as progress:
            yield progress


def grid(*columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


# ── 1 · notify ───────────────────────────────────────────────────────────────────────


async def notify(story: Story, rt: Runtime, server: MailServer, messages: int, limit: int) -> None:
    about = f"{messages} real messages to an SMTP server that takes {ANSWER * 1000:.0f} ms to accept one"
    story.chapter("1 · notify", about)
    addresses = [f"customer{number}@example.org" for number in range(messages)]
    with story.progress() as progress:
        names = ("one after another", f"fan-out, limit {limit}")
        bars = [progress.add_task(name, total=messages, start=False) for name in names]
        progress.start_task(bars[0])
        start = time.perf_counter()
        await one_after_another(addresses, server.port, lambda: progress.advance(bars[0]))
        middle = time.perf_counter()
        progress.start_task(bars[1])
        first, server.peak = server.received.copy(), 0
        await fan_out(rt, addresses, server.port, limit, lambda: progress.advance(bars[1]))
        end = time.perf_counter()
    tell_notify(story, messages, limit, middle - start, end - middle)
    second = server.received - first
    once = dict.fromkeys(addresses, 1)
    received = f"the server received {first.total()} and {second.total()} messages, each customer one of each"
    story.claim(received, first == second == once)
    story.claim(
        f"never more than {limit} deliveries at once (most seen: {server.peak})", server.peak <= limit
    )
    await difficult_addresses(story, rt, server)


def tell_notify(story: Story, messages: int, limit: int, sequential: float, batched: float) -> None:
    ideal, ratio = messages * ANSWER / limit, sequential / batched
    table = grid("", "seconds", "times faster", "", right=("seconds", "times faster"))
    for name, seconds, style in (
        ("one after another", sequential, "red"),
        (f"fan-out, limit {limit}", batched, "bold green"),
        ("ideal: the waiting alone", ideal, "dim"),
    ):
        bar = Text("━" * max(1, round(24 * seconds / sequential)), style)
        table.add_row(name, f"{seconds:.2f}", f"{sequential / seconds:.1f}", bar)
    story.show(table)
    story.facts["notify"] = {
        "messages": messages, "limit": limit, "sequential_s": sequential, "batched_s": batched,
        "ideal_s": ideal, "ratio": ratio,
    }  # fmt: skip
    story.claim(f"the fan-out was at least {FASTER:.0f} times faster", ratio >= FASTER)


async def difficult_addresses(story: Story, rt: Runtime, server: MailServer) -> None:
    """One mailbox that is greylisted and one that does not exist."""
    later = await rt.submit(send_email, "later@example.org", server.port)
    nobody = await rt.submit(send_email, "nobody@example.org", server.port)
    await later.wait()
    await nobody.wait()
    delivered = server.received["later@example.org"] == 1 and later.attempt == 2
    story.claim("a greylisted message was tried again and delivered at attempt 2", delivered)
    story.claim("a mailbox that does not exist was tried once, not three times", nobody.attempt == 1)
    story.failures.append(Failure.of(nobody, "nobody@example.org"))


# ── 2 · ingest ───────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Trouble:
    """Documents that no program can read: some are broken, some hang for ever."""

    broken: list[Path]
    hung: list[Path]

    @classmethod
    def make(cls, folder: Path) -> Trouble:
        broken = [folder / name for name in ("old-encoding.txt", "moved-away.md", "half-written.py")]
        broken[0].write_bytes("naïve café".encode("latin-1"))
        broken[1].symlink_to(folder / "gone")
        broken[2].write_text("def half_written(:\n")
        hung = [folder / f"hung-mount-{number}.txt" for number in (1, 2)]
        for path in hung:
            os.mkfifo(path)  # opening one blocks until somebody writes, as a dead network mount does
        return cls(broken, hung)

    def repair(self) -> None:
        """Give every document something to read."""
        for path in (*self.broken, *self.hung):
            path.unlink()
            path.write_text(f"# {path.stem}\n")

    def release(self) -> None:
        """Let the threads go that still wait for the hung documents."""
        for path in self.hung:
            with suppress(OSError):
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


async def read_folder(
    story: Story, rt: Runtime, folder: Path, words: str, index: Index, trouble: Trouble
) -> None:
    good = await (await rt.submit(find_documents, folder))
    paths = [*trouble.hung, *trouble.broken, *good]
    bad, words = len(paths) - len(good), words or good[0].stem
    story.chapter("2 · ingest", "documents parsed in threads into a full-text index")
    story.line(f"{len(good)} documents of {folder}")
    story.line(
        f"and {bad} that cannot be read: {len(trouble.broken)} broken, {len(trouble.hung)} that hang for ever"
    )
    start = time.perf_counter()
    with story.progress() as progress:
        bar = progress.add_task("parsed and indexed", total=len(paths))
        jobs = await ingest(rt, paths, index, lambda: progress.advance(bar))
    seconds = time.perf_counter() - start
    indexed = len(index)
    hits = await (await rt.submit(index.search, words))
    trouble.release()
    failed = {path: job for path, job in jobs.items() if job.exception()}
    story.failures += [Failure.of(job, path.name) for path, job in failed.items()]
    characters = sum(job.result() for path, job in jobs.items() if path not in failed)
    story.facts["ingest"] = {
        "folder": str(folder), "documents": len(paths), "indexed": indexed, "failed": len(failed),
        "characters": characters, "seconds": seconds, "words": words, "hits": [hit._asdict() for hit in hits],
    }  # fmt: skip
    story.line(f"{characters:,} characters in {seconds:.1f} s; the best answers to “{words}”:\n")
    tell_hits(story, folder, hits)
    whole = f"{len(paths)} documents = {indexed} in the index + {len(failed)} failed"
    story.claim(whole, len(paths) == indexed + len(failed))
    story.claim(f"the index answered “{words}” with {len(hits)} documents", bool(hits))
    timed_out = {path for path, job in failed.items() if isinstance(job.exception(), TimeoutError)}
    story.claim("the documents that hang timed out", {*trouble.hung} <= timed_out)
    story.claim("the documents that are broken failed", {*trouble.broken} <= failed.keys() - timed_out)


def tell_hits(story: Story, folder: Path, hits: Sequence[Hit]) -> None:
    table = grid("", "")
    table.show_header = False
    for hit in hits:
        table.add_row(str(Path(hit.path).relative_to(folder)), Text(hit.title, "dim"))
    story.show(table)


# ── 3 · failures ─────────────────────────────────────────────────────────────────────


async def show_failures(story: Story, rt: Runtime) -> None:
    story.chapter("3 · failures", "every job that failed above, out of the journal, and why")
    kept = await rt.journal.failures(limit=1000)
    table = grid("task and job", "reason", "attempts", "cause", right=("attempts",))
    about = {failure.id: failure.about for failure in story.failures}
    for name, failures in groupby(sorted(kept, key=lambda one: one.task), key=lambda one: one.task):
        table.add_row(Text(name.rpartition(":")[2], "bold"))
        for failure in failures:
            cause = Text(f"{failure.error}: {failure.message}", "red")
            table.add_row(
                f"  {about.get(failure.id, failure.id)}", failure.reason, str(failure.attempt), cause
            )
    story.show(table)
    ids = {failure.id for failure in story.failures}
    counted = rt.stats().failed
    story.claim(f"the runtime counted the same {counted} failures", counted == len(ids))
    story.claim(f"the journal keeps {len(kept)}, by the same ids", {failure.id for failure in kept} == ids)
    logged = [line["job_id"] for line in story.log if line["event"] == "job.failed"]
    story.claim("each of them was logged once, when it happened", sorted(logged) == sorted(ids))


async def redrive(story: Story, rt: Runtime, server: MailServer, trouble: Trouble) -> None:
    """Remove the causes, and run again what failed."""
    server.missing.clear()
    trouble.repair()
    ours = 1 + len(trouble.broken) + len(trouble.hung)
    story.line(f"the mailbox is opened, the {ours - 1} documents are repaired; redriving\n")
    redriven = await rt.journal.redrive()
    for job in redriven:
        assert isinstance(job, Job)
        await job.wait()
    completed = await rt.journal.count(state="completed")
    left = await rt.journal.failures(limit=1000)
    for failure in left:  # of your own folder: nothing has been done about these
        await rt.journal.discard(failure.id)
    story.claim(f"{completed} of {len(redriven)} failures completed when redriven", completed == ours)
    fates = f"{len(left)} given up by hand, " if left else ""
    still_open = await rt.journal.count()
    emptied = completed + len(left) == len(redriven) and not still_open
    story.claim(f"{fates}{still_open} left in the journal", emptied)


# ── 4 · kill -9 ──────────────────────────────────────────────────────────────────────


async def kill(story: Story, rt: Runtime, folder: Path, orders: int) -> None:
    story.chapter("4 · kill -9", "a process killed in the middle of durable jobs, and another in its place")
    start = time.perf_counter()
    accepted, before, shipped = await (await rt.submit(kill_and_restart, folder, orders, lambda _: None))
    lost = accepted - {*shipped}
    again = len(shipped) - len({*shipped})
    story.facts["kill"] = {
        "accepted": len(accepted), "finished_before": len(before), "again": again, "lost": len(lost),
        "seconds": time.perf_counter() - start,
    }  # fmt: skip
    story.line(f"killed with {len(accepted)} jobs accepted and {len(before)} finished; started again\n")
    finished = len(accepted) - len(lost)
    story.claim(f"accepted {len(accepted)} = finished {finished}, lost {len(lost)}", not lost)
    story.claim("it was in the middle of them", len(before) < len(accepted))


# ── 5 · stop ─────────────────────────────────────────────────────────────────────────


@task(timeout=None)
async def watch_mailbox(port: int, closed: list[str]) -> None:
    """Keep a connection open until cancelled, then say goodbye to the server."""
    client = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False)
    await client.connect()
    try:
        await asyncio.Event().wait()
    finally:
        closed.append((await client.quit()).message)


async def stop_in_the_middle(story: Story, rt: Runtime, server: MailServer, messages: int) -> None:
    story.chapter("5 · stop", f"in the middle of work: {messages} messages queued, 2 jobs that never end")
    closed: list[str] = []
    before = server.received.total()
    watchers = [await rt.submit(watch_mailbox, server.port, closed) for _ in range(2)]
    late = [(f"late{number}@example.org", server.port) for number in range(messages)]
    mails = await rt.submit_many(send_email, late)
    start = time.perf_counter()
    report = await rt.stop(drain=1, cancel=1, close=1)
    seconds = time.perf_counter() - start
    tell_report(story, report, seconds)
    accepted = len(watchers) + len(mails)
    completed, interrupted, lost = len(report.completed), len(report.cancelled), len(report.lost)
    whole = f"accepted {accepted} = completed {completed} + interrupted {interrupted}, lost {lost}"
    story.claim(whole, completed + interrupted == accepted and lost == 0)
    delivered = sum(job.state == "completed" for job in mails)
    received = server.received.total() - before
    story.claim(f"the server received the {received} messages that completed", received == delivered)
    story.claim("both interrupted jobs said goodbye to the server first", len(closed) == 2)
    story.claim(f"it took {seconds:.2f} s, no more than the 3 s it was given", seconds <= 3.1)


def tell_report(story: Story, report: ShutdownReport, seconds: float) -> None:
    counts = {
        name: len(getattr(report, name)) for name in ("completed", "cancelled", "requeued", "stuck", "lost")
    }
    table = grid(*counts, right=tuple(counts))
    table.add_row(*(str(count) for count in counts.values()))
    story.show(table)
    story.facts["stop"] = {**counts, "seconds": seconds}


# ── the command ──────────────────────────────────────────────────────────────────────


async def tell(story: Story, options: argparse.Namespace) -> None:
    log = JobLog(story.log)
    with tempfile.TemporaryDirectory() as place, closing(Index(Path(place, "index.sqlite"))) as index:
        trouble = Trouble.make(Path(place))
        async with (
            mail_server() as server,
            Runtime(concurrency=100, threads=4, observers=[log], journal=story.journal) as rt,
        ):
            await notify(story, rt, server, options.messages, options.limit)
            await read_folder(story, rt, options.folder, options.words, index, trouble)
            await show_failures(story, rt)
            await redrive(story, rt, server, trouble)
            await kill(story, rt, Path(place), orders=120)
            await stop_in_the_middle(story, rt, server, messages=60)


def say_what_next(story: Story) -> None:
    python = Path(sys.executable)
    here = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python.name
    story.chapter("next", "look into the journal, or try one of these")
    look = f"  {here} -m bgruntime failures --state completed --journal {story.journal}\n"
    story.console.print(Text(look, "bold"), soft_wrap=True)
    table = grid("", "")
    table.show_header = False
    table.columns[0].no_wrap = True
    for command, about in (
        (f"{here} examples/quickstart.py", "copy from this"),
        ("make demo ARGS=~/Documents", "on your own documents"),
        ("make demo ARGS=--json", "for a program to read"),
        ("make bench", "the gain, measured"),
        ("make test", "the promises, tested"),
    ):
        table.add_row(Text(command, "bold"), Text(about, "dim"))
    story.show(table)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The main job on real input, with every claim checked.")
    parser.add_argument(
        "folder", type=Path, nargs="?", help="documents to ingest (default: Python's own sources)"
    )
    parser.add_argument("--words", help="what to ask the index")
    parser.add_argument("--messages", type=int, default=200, help="messages to send (default 200)")
    parser.add_argument(
        "--limit",
        type=int,
        default=20,
        help="messages under way at once (default 20; below 4 the claim of speed cannot hold)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    options = parser.parse_args(words)
    if options.folder and not options.folder.is_dir():
        parser.error(f"{options.folder} is not a folder")
    if options.folder and next(documents(options.folder), None) is None:
        parser.error(f"no documents under {options.folder}: none ends in {' '.join(sorted(SUFFIXES))}")
    if min(options.messages, options.limit) < 1:
        parser.error("--messages and --limit are at least 1")
    options.words = options.words or (WORDS if options.folder is None else "")
    options.folder = (options.folder or standard_library()).resolve()
    return options


def summary(story: Story, seconds: float) -> dict[str, Any]:
    """Everything the demo found out, for a program to read."""
    return {
        "ok": story.held,
        "seconds": seconds,
        "python": platform.python_version(),
        "claims": [asdict(claim) for claim in story.claims],
        "journal": str(story.journal),
        **story.facts,
        "failures": [asdict(failure) for failure in story.failures],
    }


def main() -> int:
    options = arguments()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without · still gets the text
    story = Story(Console(quiet=options.json, highlight=False))
    start = time.perf_counter()
    bgruntime.run(tell(story, options))
    seconds = time.perf_counter() - start
    if options.json:
        print(json.dumps(summary(story, seconds), indent=1))
        return 0 if story.held else 1
    say_what_next(story)
    failed = sum(not claim.held for claim in story.claims)
    verdict = Text(f"{failed} did not hold", "bold red") if failed else Text("all held", "bold green")
    story.console.print(Text.assemble(f"{len(story.claims)} claims, ", verdict, f", in {seconds:.1f} s"))
    return 0 if story.held else 1


if __name__ == "__main__":
    sys.exit(main())
