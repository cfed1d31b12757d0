"""An application to be served by a real uvicorn: each order becomes a durable job.

What happens is appended to the file $SHOP/log, one line each, by all processes:
``took N`` an order was accepted, ``did N`` its job ran, and what the signals did.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import StreamingResponse

from bgruntime import Queue, Runtime, Shutdown, current_job, task
from bgruntime.integrations.fastapi import RuntimeDep, accepted, runtime_lifespan, status_router

FOLDER = Path(os.environ["SHOP"])
DRAIN = float(os.environ.get("SHOP_DRAIN", "0.5"))
CANCEL, CLOSE = 1.0, 1.0

_log = os.open(FOLDER / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(line: str) -> None:
    os.write(_log, f"{line}\n".encode())


@task(durable=True, name="shop.ship")
async def ship(n: int) -> None:
    await asyncio.sleep(0.02)
    note(f"did {n}")


@task(durable=True, name="shop.wait", queue="slow", timeout=None)
async def wait_long() -> None:
    note("waiting")
    while not current_job().stopping.is_set():
        await asyncio.sleep(0.01)
    note("told to stop")
    await asyncio.Event().wait()


@asynccontextmanager
async def own(_: FastAPI) -> AsyncIterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    note("handler restored" if signal.getsignal(signal.SIGTERM) == before else "handler lost")


rt = Runtime(
    concurrency=2,
    queue_size=500,
    queues=[Queue("slow", concurrency=2)],
    journal=FOLDER / "jobs.db",
    shutdown=Shutdown(drain=DRAIN, cancel=CANCEL, close=CLOSE),
)
app = FastAPI(lifespan=runtime_lifespan(rt, own))
app.include_router(status_router())


@app.post("/orders/{n}", status_code=202)
async def order(n: int, rt: RuntimeDep, request: Request):
    note(f"took {n}")
    await asyncio.sleep(0.01)
    return accepted(request, await rt.submit(ship, n))


@app.post("/late", status_code=202)
async def late(rt: RuntimeDep, request: Request):
    """Submits a moment after the server was told to stop."""
    note("took late")
    serving = request.scope["bgruntime"]
    await serving.closing.wait()
    return accepted(request, await rt.submit(ship, -1))


@app.post("/wait", status_code=202)
async def wait(rt: RuntimeDep, request: Request):
    return accepted(request, await rt.submit(wait_long))


@app.post("/hang")
async def hang():
    note("hanging")
    await asyncio.Event().wait()


@app.get("/events")
async def events():
    async def ticks() -> AsyncIterator[bytes]:
        while True:
            yield b"data: tick\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(ticks(), media_type="text/event-stream")
