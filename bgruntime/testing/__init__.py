"""
Test what runs in the background: simulated loops, seeds that replay, and modes for tests.

>>> simulate(main, seeds=1000)  # one run per seed, the first failure says how to replay it

`inline`, `manual` and `recorded` are modes for tests of code that submits, `FakeClock` moves time by
hand, `LeftBehind` is what the fixture `runtime` raises, and `contracts` has the tests that an observer,
a middleware, a channel or a journal of your own must pass.
"""

from __future__ import annotations

from bgruntime.testing._clock import FakeClock
from bgruntime.testing._errors import (
    SimCrash,
    SimDeadlock,
    SimFailure,
    SimLivelock,
    SimUnhandled,
    SimUnsupported,
)
from bgruntime.testing._loop import SimLoop
from bgruntime.testing._modes import (
    InlineSubmissions,
    ManualSubmissions,
    Submission,
    Submissions,
    assert_not_submitted,
    assert_submitted,
    inline,
    manual,
    recorded,
)
from bgruntime.testing._simulate import Simulated, Simulation, run_seed, simulate
from bgruntime.testing._tasks import SimFuture, SimTask
from bgruntime.testing._watched import LeftBehind, WatchedRuntime

__all__ = [
    "FakeClock",
    "InlineSubmissions",
    "LeftBehind",
    "ManualSubmissions",
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
    "Submission",
    "Submissions",
    "WatchedRuntime",
    "assert_not_submitted",
    "assert_submitted",
    "inline",
    "manual",
    "recorded",
    "run_seed",
    "simulate",
]
