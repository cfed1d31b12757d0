"""docs/planted-bugs.md: made from what the simulation found, and read for the seeds it found it with."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.bug import Bug

PAGE = Path(__file__).resolve().parents[2] / "docs" / "planted-bugs.md"
ROW = re.compile(r"^\| `(\w+)` \| P\d\d \| .* \| (\d+) \|", re.MULTILINE)

HEAD = """\
# Planted bugs

Each of these {count} bugs was put into a copy of the package, one at a time, and the simulation ran seed
after seed (0, 1, 2 …) until one failed. The bug is caught if that happens within 2,000 seeds: here the
median is seed {median:g}, the last is seed {last}. A bug that is not caught is a hole in what the
simulation checks.

The promise is the one the bug breaks; the last column is what the simulation said, by the number of the
promise or by the name of the error. The seeds are those of CPython {python}; on another Python
they differ.

This page is made by:

```sh
python -m tests.mutants --markdown > docs/planted-bugs.md
```

`make prove` plants them all again, each with the seed of this page first.

| bug | promise | what it does to you | first seed | caught as |
|---|---|---|---:|---|
"""


def page(verdicts: Sequence[tuple[Bug, int | None, str]]) -> str:
    """The whole page, from each bug with the seed that caught it and what was said then."""
    import platform

    seeds = [seed for _, seed, _ in verdicts if seed is not None] or [0]
    head = HEAD.format(
        count=len(verdicts),
        median=statistics.median(seeds),
        last=max(seeds),
        python=".".join(platform.python_version_tuple()[:2]),
    )
    return head + "\n".join(row(*verdict) for verdict in verdicts)


def row(bug: Bug, seed: int | None, told: str) -> str:
    found = "**not caught**" if seed is None else str(seed)
    return f"| `{bug.name}` | {bug.promise} | {bug.why} | {found} | {label(told)} |"


def label(told: str) -> str:
    """The promise that *told* names, or else the name of the error."""
    kind, _, said = told.partition(": ")
    promise = re.match(r"P\d\d", said)
    return promise[0] if promise else f"`{kind}`"


def known_seeds() -> dict[str, int]:
    """The seed that caught each bug when the page was made."""
    return {name: int(seed) for name, seed in ROW.findall(PAGE.read_text())} if PAGE.exists() else {}
