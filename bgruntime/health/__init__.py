"""Whether the event loop is well: how late it is, and who holds it."""

from __future__ import annotations

from ._watch import LoopWatch

__all__ = ["LoopWatch"]
