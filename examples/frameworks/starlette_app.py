"""Starlette: the runtime lives as long as the application, and a job starts when the answer was sent.

python examples/frameworks/starlette_app.py
"""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from bgruntime import Runtime, task
from bgruntime.integrations.starlette import BackgroundJobs, runtime_lifespan, runtime_of


@task(timeout=10, max_attempts=3)
async def send_email(to: str) -> None:
    await asyncio.sleep(0.01)
    print(f"welcome, {to}")


async def register(request: Request) -> PlainTextResponse:
    jobs = BackgroundJobs(runtime_of(request))
    jobs.add_task(send_email, request.query_params["email"])
    return PlainTextResponse("registered", background=jobs)


app = Starlette(routes=[Route("/register", register, methods=["POST"])], lifespan=runtime_lifespan(Runtime()))

if __name__ == "__main__":
    with TestClient(app) as client:
        print(client.post("/register?email=ada@example.org").text)
