"""FastAPI: a runtime inside an application (``pip install 'bgruntime[fastapi]'``).

app = FastAPI(lifespan=runtime_lifespan(Runtime(journal="jobs.db")))
app.include_router(status_router())

@app.post("/register", status_code=202)
async def register(email: str, rt: RuntimeDep):
    job = await rt.submit(send_email, email)
    return {"job_id": job.id}
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

from ._extras import missing

try:
    from fastapi import BackgroundTasks, Depends
    from starlette.requests import HTTPConnection, Request
    from starlette.responses import JSONResponse
    from starlette.routing import NoMatchFound
except ModuleNotFoundError as error:
    raise missing("fastapi", error) from error

from bgruntime import Job, Runtime

from . import _background
from ._problems import SafeJSON, exception_handlers, problem, problem_of
from ._router import job_location, status_router
from ._starlette import Lifespan, Serving, runtime_lifespan, runtime_of, serving_of
from ._streams import was_answered
from ._uploads import BodyLimit, Uploads, safe_name


async def _runtime(connection: HTTPConnection) -> Runtime:
    return runtime_of(connection)


async def _background_jobs(
    connection: HTTPConnection, background: BackgroundTasks
) -> AsyncIterator[_background.BackgroundJobs]:
    jobs = _background.BackgroundJobs(runtime_of(connection))
    background.add_task(jobs)
    try:
        yield jobs
    except BaseException:  # of the endpoint, or of what a response does after it was sent
        if was_answered(connection.scope):
            await jobs()
        else:
            jobs.release()
        raise
    # A response with background tasks of its own has taken the place of FastAPI's, and ours with them.
    await jobs()


RuntimeDep = Annotated[Runtime, Depends(_runtime)]
BackgroundJobs = Annotated[_background.BackgroundJobs, Depends(_background_jobs)]


def accepted(request: Request, job: Job[Any], **more: Any) -> JSONResponse:
    """The answer to a request that became *job*: 202, its id, and where to ask for it as `Location`.

    The location is the path of `status_router`; without one there is none. *more* joins the body.
    """
    headers: dict[str, str] = {}
    with suppress(NoMatchFound):
        headers["Location"] = job_location(request, job.id)
    return SafeJSON({"job_id": job.id, **more}, 202, headers)


__all__ = [
    "BackgroundJobs",
    "BodyLimit",
    "Lifespan",
    "RuntimeDep",
    "Serving",
    "Uploads",
    "accepted",
    "exception_handlers",
    "problem",
    "problem_of",
    "runtime_lifespan",
    "runtime_of",
    "safe_name",
    "serving_of",
    "status_router",
]
