"""Look: snapshots of the engine, made when asked for."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._model.jobs import GONE, OVER, Job, Tally
from .._model.outcomes import Outcome
from .._model.reports import Check, Health, JobTimes, QueueStats, RuntimeStats, TaskStats
from .._model.states import JobState
from .dispatch import Line
from .settle import Record

if TYPE_CHECKING:
    from .supervise import Supervisor


def find_job(engine: Supervisor, id: str) -> Job[Any] | None:
    """The job of that id, live, held by somebody, or among the last that ended."""
    job = engine.named.get(id)
    if job is not None:
        return job
    engine.fold()
    late = engine.late.get(id)
    found = (one for one in reversed(engine.ring) if one is late or one[1] == id)
    return next((_of_record(engine, one) for one in found), None)


def find_jobs(engine: Supervisor, state: JobState | None, task: str | None) -> list[Job[Any]]:
    """Live jobs first, then those that ended, newest first."""
    engine.fold()
    return [
        job
        for job in (*engine.unended(), *_ended(engine))
        if (state is None or job._state is state) and (task is None or job.task == task)
    ]


def times_of(job: Job[Any]) -> JobTimes:
    """When *job* came to wait, started and ended."""
    engine: Supervisor = job._entry.engine
    offset = engine.ports.time() - engine.clock()
    record = _record_of(engine, job)
    if record is not None:
        started = record.at - record.ran if record.outcome is not None else None
        since = record.at - record.ran - record.waited
        return JobTimes(since + offset, None if started is None else started + offset, record.at + offset)
    started = job._started
    return JobTimes(job._since + offset, None if started is None else started + offset, None)


def _record_of(engine: Supervisor, job: Job[Any]) -> Record | None:
    kept = job._context
    if type(kept) is tuple:
        return Record._make(kept)  # pyright: ignore[reportUnknownArgumentType]
    if not job.done():
        return None
    engine.fold()
    found = (one for one in reversed(engine.ring) if one[0] is job._entry and one[1] == job._id)
    raw = next(found, None)
    return None if raw is None else Record._make(raw)


def _ended(engine: Supervisor) -> Iterator[Job[Any]]:
    for raw in reversed(engine.ring):
        id = raw[1] or engine.late_ids.get(builtins.id(raw))
        held = None if id is None else engine.named.get(id)
        yield held if held is not None else _of_record(engine, raw)


def _of_record(engine: Supervisor, raw: Any) -> Job[Any]:
    """A job of which only the record is left: awaiting it says so."""
    record = Record._make(raw)
    job: Job[Any] = object.__new__(Job)  # pyright: ignore[reportUnknownVariableType]
    job._id = record.id or engine.late_ids.get(builtins.id(raw))
    job._entry, job._state, job._attempt = record.entry, record.state, record.attempt
    job._reason, job._value, job._waiters = record.reason, GONE, OVER
    job._context = raw
    job._args = job._kwargs = job._more = job._task = job._stop = job._trace = job._started = None
    return job


def stats_of(engine: Supervisor) -> RuntimeStats:
    """Everything that is counted, and where things stand now."""
    engine.fold()
    tasks = {name: _task_stats(tally) for name, tally in engine.tallies.items()}
    queues = {name: _queue_stats(engine, line) for name, line in engine.lines.items()}

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
        faults={**engine.complaints, **engine.tell.slow()},
    )


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
    )


def _queue_stats(engine: Supervisor, line: Line) -> QueueStats:
    scheduled = sum(job._state is JobState.SCHEDULED and job._entry.queue is line for job in engine.later)
    since = [job._since for job in line.lanes if job._state is JobState.AVAILABLE]
    return QueueStats(
        waiting=line.waiting + line.nested,
        scheduled=scheduled,
        retryable=line.retrying,
        running=line.in_use,
        concurrency=line.limit,
        size=line.size,
        paused=line.paused,
        oldest_wait=max(0.0, engine.clock() - min(since)) if since else 0.0,
    )


def health_of(engine: Supervisor | None) -> Health:
    """Whether it is well: each thing that is not is named."""
    phase = "new" if engine is None else engine.phase
    checks = [
        Check(
            "phase",
            "pass" if phase == "running" else "fail",
            "" if phase == "running" else f"the runtime is {phase}",
        )
    ]
    if engine is not None:
        if engine.stuck:
            without = len(engine.stuck_without_slot)
            kept = len(engine.stuck) - without
            reason = f"{len(engine.stuck)} attempts are stuck, {kept} of them hold their slots"
            checks.append(Check("stuck", "fail" if kept else "warn", reason))
        if engine.journal is not None:
            checks += [Check("journal", "fail", problem) for problem in engine.journal.problems()]
    statuses = {check.status for check in checks}
    return Health(
        status=next((status for status in ("fail", "warn") if status in statuses), "pass"),
        live=True,
        ready=phase == "running",
        reasons=tuple(check.reason for check in checks if check.status != "pass"),
        checks=tuple(checks),
    )
