"""Count: what is where, and what was counted, as one frozen snapshot.

Imported when it is first asked for: its many dataclasses take 7 ms to make.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .._model.jobs import Tally
from .._model.outcomes import Outcome
from .._model.states import JobState
from .._model.stats import QueueStats, RuntimeStats, TaskStats, success_rate
from .dispatch import Line

if TYPE_CHECKING:
    from .supervise import Supervisor


def stats_of(engine: Supervisor) -> RuntimeStats:
    """Everything that is counted, and where things stand now."""
    engine.fold()
    tasks = {name: _task_stats(tally) for name, tally in engine.tallies.items()}
    scheduled = Counter(job._entry.queue.name for job in engine.later if job._state is JobState.SCHEDULED)
    queues = {name: _queue_stats(engine, line, scheduled[name]) for name, line in engine.lines.items()}

    def total(field: str) -> int:
        return sum(getattr(one, field) for one in tasks.values())

    return RuntimeStats(
        phase=engine.phase,
        concurrency=engine.limit,
        running=sum(queue.running for queue in queues.values()),
        waiting=sum(queue.waiting for queue in queues.values()),
        scheduled=sum(queue.scheduled for queue in queues.values()),
        retryable=sum(queue.retryable for queue in queues.values()),
        stuck=len(engine.stuck),
        threads=engine.threads,
        threads_in_use=engine.threads_in_use,
        submitted=total("submitted"),
        completed=total("completed"),
        failed=total("failed"),
        cancelled=total("cancelled"),
        timed_out=total("timed_out"),
        retried=total("retried"),
        rejected=total("rejected"),
        queues=queues,
        tasks=tasks,
        oldest_wait=max((queue.oldest_wait for queue in queues.values()), default=0.0),
        success_rate=success_rate(total("completed"), total("failed")),
        faults={**engine.complaints, **engine.tell.slow()},
    )


def completed_by_observers(engine: Supervisor, stats: RuntimeStats) -> RuntimeStats:
    """*stats* with what the observers have measured; one that fails adds nothing."""
    for observer in engine.observers:
        if hasattr(observer, "complete"):
            try:
                stats = observer.complete(stats)
            except BaseException as error:
                engine.complain(f"observer {type(observer).__name__} failed on stats", error)
    return stats


def _task_stats(tally: Tally) -> TaskStats:
    states, outcomes = tally.states, tally.outcomes
    return TaskStats(
        submitted=tally.submitted,
        rejected=tally.rejected,
        completed=states[JobState.COMPLETED] + tally.succeeded,
        failed=states[JobState.DISCARDED],
        cancelled=states[JobState.CANCELLED],
        timed_out=outcomes[Outcome.TIMED_OUT],
        retried=states[JobState.RETRYABLE],
        outcomes={str(outcome): count for outcome, count in outcomes.items() if count}
        | ({str(Outcome.SUCCEEDED): tally.succeeded} if tally.succeeded else {}),
        success_rate=success_rate(tally.succeeded + states[JobState.COMPLETED], states[JobState.DISCARDED]),
    )


def _queue_stats(engine: Supervisor, line: Line, scheduled: int) -> QueueStats:
    oldest = line.lanes.oldest(lambda job: job._state is JobState.AVAILABLE)
    return QueueStats(
        waiting=line.waiting + line.nested,
        scheduled=scheduled,
        retryable=line.retrying,
        running=line.in_use,
        concurrency=line.limit,
        size=line.size,
        paused=line.paused,
        oldest_wait=0.0 if oldest is None else max(0.0, engine.clock() - oldest._since),
    )
