"""Starlette: a runtime inside an application (``pip install 'bgruntime[starlette]'``).

app = Starlette(routes, lifespan=runtime_lifespan(Runtime()))

async def register(request):
    jobs = BackgroundJobs(runtime_of(request))
    jobs.add_task(send_email, "ada@example.org")
    return PlainTextResponse("welcome", background=jobs)
"""

from __future__ import annotations

from ._extras import missing

try:
    from ._background import BackgroundJobs
    from ._problems import exception_handlers, problem, problem_of
    from ._starlette import Lifespan, Serving, runtime_lifespan, runtime_of, serving_of
    from ._uploads import BodyLimit, Uploads, safe_name
except ModuleNotFoundError as error:
    raise missing("starlette", error) from error

__all__ = [
    "BackgroundJobs",
    "BodyLimit",
    "Lifespan",
    "Serving",
    "Uploads",
    "exception_handlers",
    "problem",
    "problem_of",
    "runtime_lifespan",
    "runtime_of",
    "safe_name",
    "serving_of",
]
