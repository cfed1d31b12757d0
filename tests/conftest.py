"""What every test may use: `run` and `clock`."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import structlog

from tests.quiet import QuietRun

if TYPE_CHECKING:
    from bgruntime.testing import FakeClock

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
    from bgruntime.testing import FakeClock

    with FakeClock() as fake:
        yield fake


@pytest.fixture(autouse=True)
def _structlog_left_as_found() -> Iterator[None]:
    """`structlog.testing.capture_logs` leaves structlog configured, and logging goes where it is."""
    yield
    structlog.reset_defaults()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is sensitive to time runs last, when nothing else warms up beside it."""
    items.sort(key=lambda item: item.get_closest_marker("timing") is not None)


def pytest_collection_finish() -> None:
    """Take all that was imported out of the collector's sight, so that a collection per test is cheap."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _what_stays_is_out_of_sight() -> Iterator[None]:
    """What a module imported and pytest keeps of its tests would make every later collection dearer."""
    yield
    pytest_collection_finish()
