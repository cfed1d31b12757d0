"""
A real process full of misbehaving jobs: ``python -m tests.zoo.member SERVER LOOP ANIMAL …``.

Says ``ready`` when each job has started, and at the end, as JSON, the report of the stop and who
has cleaned up. SERVER is ``plain`` or ``uvicorn``, LOOP is ``stock`` or ``uvloop``.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import bgruntime
from bgruntime import Runtime, Shutdown, task
from tests.promises.zoo import Zoo

LIMITS = Shutdown(drain=1.5, cancel=0.6, close=0.3)


class WholeZoo(Zoo):
    """Also those who do not even yield, or take their time."""

    async def holds_the_loop(self) -> None:
        self.started.append("holds_the_loop")
        while not self.gate.is_set():
            time.sleep(0.1)
            await asyncio.sleep(0)

    async def cleans_up_slowly(self) -> None:
        self.started.append("cleans_up_slowly")
        try:
            await self.gate.wait()
        finally:
            await asyncio.sleep(0.2)
            self.cleaned.append("cleans_up_slowly")

    async def ends_in_the_drain(self) -> None:
        self.started.append("ends_in_the_drain")
        while not bgruntime.current_job().stopping.is_set():
            await asyncio.sleep(0.01)

    def sleeping_thread(self) -> None:
        self.started.append("sleeping_thread")
        time.sleep(3600)


def runtime() -> Runtime:
    return Runtime(shutdown=LIMITS, cancel_grace=0.3, cancel_hard=0.3)


async def fill(rt: Runtime, animals: list[str]) -> Zoo:
    """Submit the animals and wait until each of them has started."""
    zoo = WholeZoo()
    for name in animals:
        await rt.submit(task(getattr(zoo, name), name=f"zoo:{name}", timeout=None))
    while len(zoo.started) < len(animals):
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    return zoo


async def tell(rt: Runtime, zoo: Zoo) -> None:
    """After the stop: what became of everybody."""
    report = await rt.stop()
    names = {job.id: job.task.removeprefix("zoo:") for job in rt.jobs()}
    kinds = ("completed", "cancelled", "requeued", "stuck", "lost")
    said = {kind: sorted(names[id] for id in getattr(report, kind)) for kind in kinds}
    print(json.dumps(said | {"duration": report.duration, "cleaned": sorted(zoo.cleaned)}), flush=True)


async def plain(animals: list[str]) -> None:
    """An application without a server that stops at SIGTERM; at SIGINT asyncio cancels it."""
    rt, stops = runtime(), []
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stops.append(loop.create_task(rt.stop()))
        stops[0].add_done_callback(lambda _: ended.set())

    loop.add_signal_handler(signal.SIGTERM, stop)
    try:
        async with rt:
            zoo = await fill(rt, animals)
            await ended.wait()
    finally:
        await tell(rt, zoo)


def served(animals: list[str], loop: str) -> None:
    """The same under uvicorn."""
    import uvicorn
    from starlette.applications import Starlette

    from bgruntime.integrations.starlette import runtime_lifespan

    rt = runtime()
    inner = runtime_lifespan(rt)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with inner(app):
            zoo = await fill(rt, animals)
            yield
        await tell(rt, zoo)

    kind = "asyncio" if loop == "stock" else "uvloop"
    config = uvicorn.Config(Starlette(lifespan=lifespan), port=0, log_level="critical", loop=kind)
    uvicorn.Server(config).run()


def main() -> None:
    server, loop, *animals = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored where tests are started
    if loop == "stock":
        sys.modules["uvloop"] = None  # type: ignore[assignment]  # what is not there is not chosen
    try:
        if server == "plain":
            bgruntime.run(plain(animals))
        else:
            served(animals, loop)
    except KeyboardInterrupt:
        print("interrupted", flush=True)


if __name__ == "__main__":
    main()
