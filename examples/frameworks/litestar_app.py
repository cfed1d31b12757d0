"""Litestar: the runtime is a lifespan of the application and part of its state.

python examples/frameworks/litestar_app.py
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request, post
from litestar.datastructures import State
from litestar.testing import TestClient

from bgruntime import Runtime, task


@task(timeout=10, max_attempts=3)
async def send_email(to: str) -> None:
    await asyncio.sleep(0.01)
    print(f"welcome, {to}")


@post("/register", status_code=202)
async def register(request: Request[Any, Any, State]) -> dict[str, str]:
    job = await request.app.state.rt.submit(send_email, request.query_params["email"])
    return {"job_id": job.id}


@asynccontextmanager
async def runtime(app: Litestar) -> AsyncIterator[None]:
    async with Runtime() as app.state.rt:
        yield


app = Litestar([register], lifespan=[runtime])

if __name__ == "__main__":
    with TestClient(app) as client:
        print(client.post("/register?email=ada@example.org").json())
