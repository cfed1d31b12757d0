"""JSON logs as Loki, Elasticsearch or any collector takes them: one event, one line, the job on each of them.

python examples/observability/json_logs.py
"""

from __future__ import annotations

import asyncio
import logging
import sys

import structlog

from bgruntime import Runtime, task
from bgruntime.logs import configure

log = structlog.get_logger()


@task(name="shop.pay", redact=("card",))
async def pay(order: int, card: str) -> None:
    log.info("pay.begun", order=order)  # carries job_id, task and attempt
    logging.getLogger("bank").warning("slow answer for order %d", order)  # so does the standard library
    if order == 2:
        raise PermissionError(f"the bank refused {card}")  # the number of the card is taken out


async def main() -> None:
    async with Runtime() as rt:
        for order in (1, 2):
            await (await rt.submit(pay, order, "4111-1111-1111-1111")).wait()


if __name__ == "__main__":
    # For files: configure(json=True, file="app.log", max_bytes=50_000_000, keep=5).
    # Promtail and Filebeat read them as they are; `task` and `level` make good labels, `job_id` does not.
    with configure(json=True, level="INFO", stream=sys.stdout):
        asyncio.run(main())
