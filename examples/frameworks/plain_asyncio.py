"""Without a framework: a server of the standard library whose clients do not wait for the work.

python examples/frameworks/plain_asyncio.py
"""

from __future__ import annotations

import asyncio

import bgruntime
from bgruntime import Runtime, task


@task(timeout=10, max_attempts=3)
async def send_email(to: str) -> None:
    await asyncio.sleep(0.01)
    print(f"welcome, {to}")


async def main() -> None:
    async with Runtime() as rt:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            job = await rt.submit(send_email, (await reader.readline()).decode().strip())
            writer.write(f"accepted as {job.id}\n".encode())
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"ada@example.org\n")
            print((await reader.readline()).decode().strip())
            writer.close()
    # what was accepted has been done: leaving the runtime waits for it


if __name__ == "__main__":
    bgruntime.run(main())
