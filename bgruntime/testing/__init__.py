"""
Test what runs in the background: simulated loops, seeds that replay, and modes for tests.

>>> simulate(main, seeds=1000)  # one run per seed, the first failure says how to replay it
"""

from __future__ import annotations

from bgruntime.testing._errors import (
    SimCrash,
    SimDeadlock,
    SimFailure,
    SimLivelock,
    SimUnhandled,
    SimUnsupported,
)
from bgruntime.testing._loop import SimLoop
from bgruntime.testing._simulate import Simulated, Simulation, run_seed, simulate
from bgruntime.testing._tasks import SimFuture, SimTask

__all__ = [
    "SimCrash",
    "SimDeadlock",
    "SimFailure",
    "SimFuture",
    "SimLivelock",
    "SimLoop",
    "SimTask",
    "SimUnhandled",
    "SimUnsupported",
    "Simulated",
    "Simulation",
    "run_seed",
    "simulate",
]
