"""
The pytest plugin: the fixtures `runtime`, `clock` and `sim`, and the options that choose seeds.

It is there as soon as bgruntime is installed. ``pytest --bgruntime-seed=7 path::test`` replays one
seed, as ``BGRUNTIME_SEED=7`` does; ``--bgruntime-seeds=20000`` runs so many.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bgruntime.testing import FakeClock, WatchedRuntime
    from bgruntime.testing._simulate import Simulate

HELP = {
    "BGRUNTIME_SEED": "replay every simulation with this seed and no other",
    "BGRUNTIME_SEEDS": "run every simulation with so many seeds",
}
MARKER = "bgruntime(**options): options of the `Runtime` that the fixture `runtime` gives, as concurrency=5"
WATCHED: pytest.StashKey[WatchedRuntime] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bgruntime", "bgruntime: simulated event loops")
    for variable, told in HELP.items():
        group.addoption(_option(variable), dest=variable, type=int, metavar="N", help=told)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    for variable in HELP:
        value: Any = config.getoption(variable)
        if value is not None:
            os.environ[variable] = str(value)
            config.add_cleanup(partial(_forget, variable))


def _forget(variable: str) -> None:
    os.environ.pop(variable, None)


def _option(variable: str) -> str:
    return "--" + variable.lower().replace("_", "-")


@pytest.fixture
def sim() -> Simulate:
    """`bgruntime.testing.simulate`; a failure says how to run its seed again."""
    from bgruntime.testing import simulate

    return simulate


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """A `FakeClock` under the runtimes that are entered in this test: `await clock.advance(seconds)`."""
    from bgruntime.testing import FakeClock

    with FakeClock() as fake:
        yield fake


@pytest.fixture
def runtime(request: pytest.FixtureRequest) -> Iterator[WatchedRuntime]:
    """A runtime that is not entered yet; the test fails if it leaves jobs, tasks or threads behind.

    ``@pytest.mark.bgruntime(concurrency=5)`` gives it options.
    """
    from bgruntime.testing import WatchedRuntime

    marker = request.node.get_closest_marker("bgruntime")
    watched = WatchedRuntime(**(marker.kwargs if marker else {}))
    request.node.stash[WATCHED] = watched
    yield watched
    watched.check()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A test that has left its runtime fails itself, and not only what is taken down after it."""
    result = yield
    watched = pyfuncitem.stash.get(WATCHED, None)
    if watched is not None and not watched.is_open:
        watched.check()
    return result
