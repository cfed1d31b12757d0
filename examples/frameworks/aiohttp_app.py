"""aiohttp: the runtime is a cleanup context of the application.

python examples/frameworks/aiohttp_app.py
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

import bgruntime
from bgruntime import Runtime, task

RT = web.AppKey("RT", Runtime)


@task(timeout=10, max_attempts=3)
async def send_email(to: str) -> None:
    await asyncio.sleep(0.01)
    print(f"welcome, {to}")


async def register(request: web.Request) -> web.Response:
    job = await request.app[RT].submit(send_email, request.query["email"])
    return web.json_response({"job_id": job.id}, status=202)


async def runtime(app: web.Application) -> AsyncIterator[None]:
    async with Runtime() as app[RT]:
        yield


def application() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(runtime)
    app.router.add_post("/register", register)
    return app


async def main() -> None:
    async with TestClient(TestServer(application())) as client:
        answer = await client.post("/register?email=ada@example.org")
        print(await answer.json())


if __name__ == "__main__":
    bgruntime.run(main())
