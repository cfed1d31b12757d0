"""Sentry: one event for each job that failed for good, grouped by task and error, without locals.

python examples/observability/sentry_events.py              events are printed
SENTRY_DSN=https://… python examples/observability/sentry_events.py
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import sentry_sdk

from bgruntime import Runtime, task
from bgruntime.integrations.sentry import Sentry


@task(name="shop.pay", max_attempts=2, backoff=0.01, redact=("card",))
async def pay(order: int, card: str) -> None:
    raise PermissionError(f"the bank refused {card}")  # two attempts, one event


def shown(event: Any, hint: Any) -> Any:
    [error] = event["exception"]["values"]
    print(f"{error['type']}: {error['value']}", event["fingerprint"])
    return event if os.environ.get("SENTRY_DSN") else None


async def main() -> None:
    async with Runtime(observers=[Sentry()]) as rt:
        await (await rt.submit(pay, 1, "4111-1111-1111-1111")).wait()


if __name__ == "__main__":
    dsn = os.environ.get("SENTRY_DSN", "https://key@sentry.invalid/1")
    # Those of the web framework you use are added by themselves, unless it is said as here.
    sentry_sdk.init(dsn=dsn, before_send=shown, auto_enabling_integrations=False)
    asyncio.run(main())
