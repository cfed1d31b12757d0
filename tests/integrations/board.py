"""The status pages as an application to be served: open to all, or behind `auth` with $BOARD=guarded.

Some jobs are there for whoever asks: done, failed-1, failed-2 and durable.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request

from bgruntime import Runtime, task
from bgruntime.integrations.fastapi import runtime_lifespan, status_router


@task(name="board.double")
async def double(n: int) -> int:
    return n * 2


@task(name="board.fail")
async def fail(word: str) -> None:
    raise ValueError(f"no such word: {word}")


@task(name="board.later", durable=True)
async def later() -> None: ...


async def auth(request: Request) -> object | None:
    return request.headers.get("x-user")


async def allow(principal: object, action: str, request: Request) -> bool:
    return principal == "ada" or action == "view"


guarded = os.environ.get("BOARD") == "guarded"
rt = Runtime(journal=Path(os.environ["BOARD_JOURNAL"]))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with runtime_lifespan(rt)(app):
        await (await rt.submit(double.with_options(id="done"), 1)).wait()
        for n in (1, 2):
            await (await rt.submit(fail.with_options(id=f"failed-{n}"), "x")).wait()
        await rt.submit(later.with_options(id="durable", delay=3600))
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(status_router(auth=auth, allow=allow) if guarded else status_router())
