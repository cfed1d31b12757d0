"""A first look: one job, many jobs, a job that fails twice, and one that hangs.

python examples/quickstart.py
"""

from __future__ import annotations

import asyncio

import bgruntime
from bgruntime import JobTimedOut, Runtime, current_job, task


@task(timeout=5)
async def greet(name: str) -> str:
    await asyncio.sleep(0.1)
    return f"Hello, {name}!"


@task(max_attempts=3, backoff=0.05)
async def unsteady() -> str:
    if current_job().attempt < 3:
        raise ConnectionError("the other side hung up")
    return f"worked at attempt {current_job().attempt}"


@task(timeout=0.2)
async def hang() -> None:
    await asyncio.Event().wait()


async def main() -> None:
    async with Runtime(concurrency=10) as rt:
        job = await rt.submit(greet, "Ada")
        print(await job)

        async for greeting in rt.map(greet, ["Grace", "Edsger", "Barbara"], limit=2):
            print(greeting)

        print("unsteady:", await (await rt.submit(unsteady)))

        stuck = await rt.submit(hang)
        try:
            await stuck
        except JobTimedOut as error:
            print(f"hang: {stuck.state}, {error}")


if __name__ == "__main__":
    bgruntime.run(main())
