"""
What a simulation can find.

AssertionError
└── SimFailure          a seed did not hold
    ├── SimDeadlock     somebody waits, and nothing is left that could wake them
    ├── SimLivelock     steps without end
    └── SimUnhandled    the loop's exception handler was called
RuntimeError
└── SimUnsupported      real sockets, processes or threads: not in here
BaseException
└── SimCrash            raise it to stop the world as ``kill -9`` would
"""

from __future__ import annotations


class SimFailure(AssertionError):
    """A simulated program broke a rule that holds for every program."""


class SimDeadlock(SimFailure):
    """Somebody waits, and neither a ready step nor a timer is left to wake them."""


class SimLivelock(SimFailure):
    """The program took more steps than it was allowed."""


class SimUnhandled(SimFailure):
    """The loop's exception handler was called; the exception, if any, is the cause."""


class SimUnsupported(RuntimeError):
    """The program asked for something real: a socket, a process, a blocking wait."""


class SimCrash(BaseException):
    """Raised in ``on_step`` it ends the run on the spot: no clean-up runs in the loop."""
