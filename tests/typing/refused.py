"""What the checkers must refuse. Read by mypy and pyright, never run.

Each `type: ignore` is a claim that both checkers object to that line: mypy is run with
`warn_unused_ignores` and pyright with `reportUnnecessaryTypeIgnoreComment`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bgruntime
from bgruntime import Job, Queue, Runtime, task


@task
async def send_email(to: str, subject: str = "Welcome") -> str:
    return f"{to}: {subject}"


@task
def write_report(path: Path) -> int:
    return len(str(path))


@task
async def import_rows(rows: list[dict[str, Any]]) -> int:
    return len(rows)


async def undecorated(n: int) -> float:
    return float(n)


def undecorated_plain(n: int) -> bool:
    return bool(n)


async def submits(rt: Runtime) -> None:
    await rt.submit(send_email, 1)  # type: ignore[call-overload]
    await rt.submit(send_email)  # type: ignore[call-overload]
    await rt.submit(send_email, "a@x", subjet="Hello")  # type: ignore[call-arg]
    await rt.submit(send_email, "a@x", "Hello", "too much")  # type: ignore[call-overload]
    await rt.submit(write_report, "a path")  # type: ignore[call-overload]
    await rt.submit(import_rows, 1)  # type: ignore[call-overload]
    await rt.submit(undecorated, "1")  # type: ignore[call-overload]
    await rt.submit(undecorated_plain, "1")  # type: ignore[call-overload]
    await rt.submit(undecorated(1), 2)  # type: ignore[call-overload]
    await rt.submit(3)  # type: ignore[call-overload]
    rt.submit_nowait(send_email, 1)  # type: ignore[call-overload]
    rt.submit_nowait(undecorated, "1")  # type: ignore[call-overload]
    rt.submit_threadsafe(send_email, 1)  # type: ignore[call-overload]


async def results(rt: Runtime) -> None:
    number: Job[int] = await rt.submit(send_email, "a@x")  # type: ignore[assignment]
    text: str = await (await rt.submit(write_report, Path("a")))  # type: ignore[call-overload]
    numbers: list[int] = await rt.map(send_email, ["a@x"])  # type: ignore[assignment]
    size, receipt = await rt.gather(send_email.bind("a"), write_report.bind(Path("a")))
    receipt.upper()  # type: ignore[attr-defined]
    jobs: list[Job[int]] = await rt.submit_many(send_email, [("a@x",)])  # type: ignore[assignment]
    called: int = await send_email("a@x")  # type: ignore[assignment]
    size.bit_length()  # type: ignore[attr-defined]
    print(number, text, numbers, jobs, called)


async def fans_out(rt: Runtime) -> None:
    await rt.map(send_email, ["a@x"], limit="20")  # type: ignore[call-overload]
    await rt.map(send_email, ["a@x"], on_error="ignore")  # type: ignore[call-overload]
    await rt.map(send_email, 3)  # type: ignore[call-overload]
    await rt.gather(send_email)  # type: ignore[call-overload]
    await rt.gather(3)  # type: ignore[call-overload]


async def groups(rt: Runtime) -> None:
    async with rt.group() as group:
        await group.submit(send_email, 1)  # type: ignore[call-overload]
        group.submit_nowait(write_report, "a path")  # type: ignore[call-overload]


def calls() -> None:
    send_email.bind(1)  # type: ignore[arg-type]
    write_report("a path")  # type: ignore[arg-type]
    send_email.with_options(prioriti=1)  # type: ignore[call-arg]
    send_email.with_options(priority="first")  # type: ignore[arg-type]


def makes() -> None:
    Runtime(concurency=5)  # type: ignore[arg-type]
    Runtime(5)  # type: ignore[call-arg]
    Runtime(concurrency="many")  # type: ignore[arg-type]
    Runtime(overflow="bounce")  # type: ignore[arg-type]
    Queue("mail", 3)  # type: ignore[call-arg]
    Queue("mail", overflow="bounce")  # type: ignore[arg-type]
    task(timeout="30")  # type: ignore[call-overload]
    task(context="sender")  # type: ignore[call-overload]
    task(timout=30)  # type: ignore[call-overload]
    bgruntime.Snooze()  # type: ignore[call-arg]
    bgruntime.run(undecorated)  # type: ignore[arg-type]
