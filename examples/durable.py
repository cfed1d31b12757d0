"""Durable jobs survive `kill -9`.

A shop takes orders as durable jobs and is killed in the middle of them; a second process is started
on the same journal and finishes them. Then the orders that were accepted are compared with those
that were shipped.

    python examples/durable.py [ORDERS]
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import bgruntime
from bgruntime import Runtime, task


@task(durable=True, timeout=10)
async def ship(order: int, shipped: Path) -> None:
    await asyncio.sleep(0.02)
    with shipped.open("a") as file:
        file.write(f"{order}\n")


async def shop(folder: Path, orders: int) -> None:
    """Accept orders while others are being shipped."""
    async with Runtime(concurrency=5, journal=folder / "jobs.db") as rt:
        for order in range(orders):
            _ = await rt.submit(ship, order, folder / "shipped")
            print(order, flush=True)  # it is on disk: now the customer may be told
        await rt.drain()


def open_shop(folder: Path, orders: int) -> subprocess.Popen[str]:
    """A process of its own that prints each order when it was accepted; 0 orders finish what is there."""
    command = [sys.executable, __file__, str(orders), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_and_restart(
    folder: Path, orders: int, seen: Callable[[int], object] = print
) -> tuple[set[int], set[int], list[int]]:
    """The orders that were accepted until the kill, those shipped by then, and all that were in the end."""
    with open_shop(folder, orders) as first:
        assert first.stdout is not None
        accepted = {int(first.stdout.readline()) for _ in range(orders // 2)}
        first.kill()
        accepted |= {int(line) for line in first.stdout if line.endswith("\n")}
    before = set(read(folder / "shipped"))
    seen(len(before))
    with open_shop(folder, orders=0) as second:
        second.wait()
    return accepted, before, read(folder / "shipped")


def read(shipped: Path) -> list[int]:
    return [int(line) for line in shipped.read_text().splitlines()] if shipped.exists() else []


def main(orders: int = 100) -> None:
    with tempfile.TemporaryDirectory() as folder:
        accepted, _, shipped = kill_and_restart(
            Path(folder), orders, lambda count: print(f"killed when {count} orders were shipped; restarting")
        )
    lost = accepted - {*shipped}
    print(f"accepted {len(accepted)}, shipped {len(accepted) - len(lost)}, lost {len(lost)}")
    print(f"shipped twice, for the kill came in the middle: {len(shipped) - len({*shipped})}")
    assert not lost, "an accepted order was lost"


if __name__ == "__main__":
    if sys.argv[2:]:
        bgruntime.run(shop(Path(sys.argv[2]), int(sys.argv[1])))
    else:
        main(*map(int, sys.argv[1:]))
