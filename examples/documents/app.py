"""The application: what is uploaded becomes a durable job that reads, embeds and indexes it."""

from __future__ import annotations

import hmac
import os
from collections.abc import AsyncIterator, Mapping, Set
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy
from fastapi import Depends, FastAPI, HTTPException, Query, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pypdf.errors import PyPdfError

from bgruntime import Queue, Runtime, Shutdown, current_job, task
from bgruntime.alerts import Alerts
from bgruntime.integrations.fastapi import (
    BodyLimit,
    RuntimeDep,
    Uploads,
    accepted,
    runtime_lifespan,
    safe_name,
    status_router,
)

from .extract import HEAD, kind_of, pieces_of, text_of
from .index import Hit, Index
from .minilm import MiniLM

MIB = 1024 * 1024
FILE_LIMIT = 20 * MIB
BATCH = 16  # pieces that are embedded at once

# What no second attempt would read. It stays in the journal, and its file with it, until it is redriven.
UNREADABLE = (PyPdfError, UnicodeDecodeError, ValueError)


class Library:
    """The model and the index that jobs use, opened before the runtime and closed after it."""

    model: MiniLM
    index: Index


library = Library()


@task(
    name="documents.process",
    queue="documents",
    durable=True,
    timeout=120,
    max_attempts=3,
    give_up_on=UNREADABLE,
    backoff=1,
)
def process(path: Path, name: str, owner: str) -> int:
    """Read, embed and index one document; how many pieces it has. In a thread of the runtime."""
    job = current_job()
    pieces = list(pieces_of(text_of(path)))
    if not pieces:
        raise ValueError("there is no text in it")
    vectors = []
    for start in range(0, len(pieces), BATCH):
        job.progress(start / len(pieces), f"{start} of {len(pieces)} pieces embedded")
        vectors.append(library.model.embed(pieces[start : start + BATCH]))
    library.index.put(path.name, owner, name, pieces, numpy.concatenate(vectors))
    job.progress(1.0, f"{len(pieces)} pieces indexed")
    job.log.info("document.indexed", pieces=len(pieces))
    return len(pieces)


@task(name="documents.search", timeout=10)
def find(query: str, owner: str, limit: int) -> list[Hit]:
    """The nearest pieces of the owner's documents."""
    [vector] = library.model.embed([query])
    return library.index.search(owner, vector, limit)


async def user_of(request: Request) -> str | None:
    """Who a request is from, by its token: never a parameter, which anybody could set."""
    said = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
    users: dict[str, str] = request.app.state.users
    found = [user for token, user in users.items() if hmac.compare_digest(token.encode(), said)]
    return found[0] if found else None


async def signed_in(user: Annotated[str | None, Depends(user_of)]) -> str:
    if user is None:
        raise HTTPException(401, "say who you are", {"WWW-Authenticate": "Bearer"})
    return user


User = Annotated[str, Depends(signed_in)]


def create(
    folder: Path, users: Mapping[str, str], *, operators: Set[str] = frozenset({"you"}), **options: Any
) -> FastAPI:
    """The application, with its files in *folder*.

    Args:
        folder: made if it is not there.
        users: who they are, by the token each sends as ``Authorization: Bearer …``.
        operators: those of them who see and steer the jobs of everybody.
        options: of the runtime.
    """
    folder.mkdir(0o700, parents=True, exist_ok=True)
    uploads = Uploads(folder / "uploads", limit=FILE_LIMIT)
    given: dict[str, Any] = {
        "journal": folder / "jobs.db",
        "observers": [uploads, Alerts()],
        "queues": [Queue("documents", concurrency=os.cpu_count() or 1, size=1_000)],
        "shutdown": Shutdown(drain=20, cancel=5, close=2),
    }
    runtime = Runtime(**given | options)

    @asynccontextmanager
    async def opened(app: FastAPI) -> AsyncIterator[None]:
        library.model = await run_in_threadpool(MiniLM)  # 0.3 s, in which nothing else would run
        with Index(folder / "index.db") as library.index:
            yield

    async def is_operator(user: object, action: str, request: Request) -> bool:
        return user in operators

    app = FastAPI(title="Documents", lifespan=runtime_lifespan(runtime, opened))
    app.add_middleware(BodyLimit, limit=FILE_LIMIT + MIB)
    # /metrics/tasks and /health are for everybody, /jobs, /failures and /pause for operators
    app.include_router(status_router(prefix="", auth=user_of, allow=is_operator))

    app.state.users = dict(users)

    @app.post("/documents", status_code=202)
    async def upload(file: UploadFile, user: User, rt: RuntimeDep, request: Request) -> JSONResponse:
        """Keep a document and promise to index it: 202 once both are on disk."""
        head = await file.read(HEAD)
        if kind_of(head) is None:
            raise HTTPException(415, "PDF, HTML and text in UTF-8 are read here")
        name = safe_name(file.filename)
        job = await uploads.submit(rt, process, file, name, user)
        return accepted(request, job, name=name)

    @app.get("/documents")
    def documents(user: User) -> list[str]:
        """The names of your documents."""
        return library.index.names(user)

    @app.get("/search")
    async def search(
        user: User,
        rt: RuntimeDep,
        q: Annotated[str, Query(min_length=1, max_length=1_000)],
        limit: Annotated[int, Query(ge=1, le=50)] = 5,
    ) -> list[dict[str, Any]]:
        """The pieces of your documents that are nearest to the question in meaning."""
        return [asdict(hit) for hit in await (await rt.submit(find, q, user, limit))]

    return app
