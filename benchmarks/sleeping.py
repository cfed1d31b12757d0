"""Jobs that wait 10 ms each: how near the wall time comes to the ideal, jobs × 10 ms ÷ limit.

python -m benchmarks.sleeping
"""

from __future__ import annotations

from benchmarks import bare, ours, peers
from benchmarks.harness import WALL, Figure, Plan, command, measure, note
from benchmarks.work import wait_10_ms

JOBS = 10_000
WAIT = 0.010
LIMITS = (100, 1000)


def figures(plan: Plan) -> list[Figure]:
    ways = [ours.NOWAIT, ours.MAP, peers.AIOJOBS]
    if not plan.quick:
        ways += [bare.GATHER, bare.GROUP, peers.ANYIO, peers.AIOMETER]
    found: list[Figure] = []
    for limit in LIMITS:
        note(f"sleeping, limit {limit}, {plan.loop}")
        samples = measure(ways, JOBS, wait_10_ms, plan, limit=limit, clock=WALL, warm_up=2 * limit)
        for name, seconds in samples.items():
            shares = [WAIT / limit / value for value in seconds]
            found.append(Figure(f"10 ms jobs, limit {limit:,}: ideal ÷ wall, {name}", "share", shares))
    return found


if __name__ == "__main__":
    command("sleeping", figures, rounds=3)
