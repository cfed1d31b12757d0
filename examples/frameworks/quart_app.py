"""Quart: the runtime runs while the application serves.

python examples/frameworks/quart_app.py
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from quart import Quart, request

import bgruntime
from bgruntime import Runtime, task

app = Quart(__name__)
rt = Runtime()


@task(timeout=10, max_attempts=3)
async def send_email(to: str) -> None:
    await asyncio.sleep(0.01)
    print(f"welcome, {to}")


@app.while_serving
async def runtime() -> AsyncGenerator[None, None]:
    async with rt:
        yield


@app.post("/register")
async def register() -> tuple[dict[str, str], int]:
    job = await rt.submit(send_email, request.args["email"])
    return {"job_id": job.id}, 202


async def main() -> None:
    async with app.test_app() as running:
        answer = await running.test_client().post("/register?email=ada@example.org")
        print(await answer.get_json())


if __name__ == "__main__":
    bgruntime.run(main())
