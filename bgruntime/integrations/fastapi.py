"""FastAPI: a runtime inside an application (``pip install 'bgruntime[fastapi]'``).

app = FastAPI(lifespan=runtime_lifespan(Runtime(journal="jobs.db")))

@app.post("/register", status_code=202)
async def register(email: str, rt: RuntimeDep):
    job = await rt.submit(send_email, email)
    return {"job_id": job.id}
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import BackgroundTasks, Depends
from starlette.requests import HTTPConnection

from bgruntime import Runtime

from . import _background
from ._problems import exception_handlers, problem, problem_of
from ._starlette import Lifespan, Serving, runtime_lifespan, runtime_of, serving_of


async def _runtime(connection: HTTPConnection) -> Runtime:
    return runtime_of(connection)


async def _background_jobs(
    connection: HTTPConnection, background: BackgroundTasks
) -> AsyncIterator[_background.BackgroundJobs]:
    jobs = _background.BackgroundJobs(runtime_of(connection))
    background.add_task(jobs)
    try:
        yield jobs
    except BaseException:
        jobs.release()
        raise
    # A response with background tasks of its own has taken the place of FastAPI's, and ours with them.
    await jobs()


RuntimeDep = Annotated[Runtime, Depends(_runtime)]
BackgroundJobs = Annotated[_background.BackgroundJobs, Depends(_background_jobs)]


__all__ = [
    "BackgroundJobs",
    "Lifespan",
    "RuntimeDep",
    "Serving",
    "exception_handlers",
    "problem",
    "problem_of",
    "runtime_lifespan",
    "runtime_of",
    "serving_of",
]
