"""All planted bugs."""

from __future__ import annotations

from tests.mutants import admitting, dispatching, ending, fanning, timing

BUGS = (*admitting.BUGS, *dispatching.BUGS, *ending.BUGS, *timing.BUGS, *fanning.BUGS)
