"""What every test may use: `run` and `clock`."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.quiet import QuietRun

if TYPE_CHECKING:
    from tests.fake_clock import FakeClock

LOOPS = {"stock": asyncio.new_event_loop}

try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS["uvloop"] = uvloop.new_event_loop


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> QuietRun:
    """Runs `async def main()` on a new event loop, once with each kind of loop."""
    return QuietRun(request.param, LOOPS[request.param])


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """A fake clock under the runtimes that are entered in this test: `await clock.advance(seconds)`."""
    from bgruntime.extend import ports
    from tests.fake_clock import FakeClock

    fake = FakeClock()
    with ports.use(fake.ports):
        yield fake


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is sensitive to time runs last, when nothing else warms up beside it."""
    items.sort(key=lambda item: item.get_closest_marker("timing") is not None)


def pytest_collection_finish() -> None:
    """Take all that was imported out of the collector's sight, so that a collection per test is cheap."""
    gc.collect()
    gc.freeze()
