"""
The table of planted bugs: ``python -m tests.mutants.run [name …]``.

For each the first seed that catches it, and what that seed said. Exits with 1 if one escapes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.mutants.catalogue import MUTANTS
from tests.mutants.planting import SEEDS, Catch, hunt


def line(catch: Catch) -> str:
    seed = "escaped" if catch.seed is None else f"seed {catch.seed}"
    return f"{catch.mutant.name:44} {seed:>10}  {catch.told[:110]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not options.names or mutant.name in options.names]
    caught: list[int] = []
    with ThreadPoolExecutor(options.processes) as pool:
        for catch in pool.map(partial(hunt, seeds=options.seeds), chosen):
            print(line(catch), flush=True)
            if catch.seed is not None:
                caught.append(catch.seed)
    middle = statistics.median(caught) if caught else 0
    print(f"{len(caught)} of {len(chosen)} caught, the median at seed {middle:.0f}")
    return 0 if len(caught) == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
