"""What a job costs from submit to awaited result, beside every peer: 50,000 of them, at most 100 at once.

python -m benchmarks.throughput --loop uvloop
"""

from __future__ import annotations

from benchmarks import bare, ours, peers
from benchmarks.harness import Figure, Plan, Samples, command, costs, measure, note, ratio
from benchmarks.work import JOBS

BACKLOG = 50_000
SLOW = (peers.ANYIO, peers.AIOMETER, peers.TASKIQ)
WITH_BARS = (
    ours.NOWAIT,
    peers.AIOJOBS,
    bare.RAW,
    bare.GATHER,
    bare.GATHER_TIMEOUT,
    bare.RAW_ALL,
    ours.SUBMIT,
    ours.MAP,
)
REST = (
    ours.SHORT,
    peers.AIOJOBS_SHORT,
    bare.GATHER_SHORT,
    bare.GROUP,
    peers.AIOJOBS_WAIT,
    *SLOW,
)


def figures(plan: Plan) -> list[Figure]:
    found: list[Figure] = []
    for kind, job in JOBS.items():
        if plan.quick and kind == "suspends three times":
            continue
        note(f"throughput, {kind}, {plan.loop}")
        ways = (*WITH_BARS, *(SLOW if plan.quick else REST))
        samples = measure(ways, BACKLOG, job, plan)
        found += [*costs(samples, f"{kind}: "), *compared(kind, samples)]
    return found


def compared(kind: str, samples: Samples) -> list[Figure]:
    """The ratios that have a bar, and some beside them."""
    mine = samples[ours.NOWAIT.name]
    found = [
        Figure(f"{kind}: throughput ÷ aiojobs", "×", ratio(samples[peers.AIOJOBS.name], mine)),
        Figure(f"{kind}: cost ÷ create_task in batches", "×", ratio(mine, samples[bare.RAW.name])),
        Figure(f"{kind}: cost ÷ gather + Semaphore", "×", ratio(mine, samples[bare.GATHER.name])),
        Figure(
            f"{kind}: cost ÷ gather + Semaphore + timeout",
            "×",
            ratio(mine, samples[bare.GATHER_TIMEOUT.name]),
        ),
    ]
    for peer in SLOW:
        found.append(Figure(f"{kind}: throughput ÷ {peer.name}", "×", ratio(samples[peer.name], mine)))
    if ours.SHORT.name in samples:
        short = samples[ours.SHORT.name]
        found.append(
            Figure(
                f"{kind}: throughput ÷ aiojobs, backlog 1,000",
                "×",
                ratio(samples[peers.AIOJOBS_SHORT.name], short),
            )
        )
    return found


if __name__ == "__main__":
    command("throughput", figures)
