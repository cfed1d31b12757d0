"""
The pytest plugin: the fixture `sim`, and the options that choose its seeds.

``pytest --bgruntime-seed=7 path::test`` replays one seed, as ``BGRUNTIME_SEED=7`` does;
``--bgruntime-seeds=20000`` runs so many.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bgruntime.testing._simulate import Simulate

HELP = {
    "BGRUNTIME_SEED": "replay every simulation with this seed and no other",
    "BGRUNTIME_SEEDS": "run every simulation with so many seeds",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bgruntime", "bgruntime: simulated event loops")
    for variable, told in HELP.items():
        group.addoption(_option(variable), dest=variable, type=int, metavar="N", help=told)


def pytest_configure(config: pytest.Config) -> None:
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
