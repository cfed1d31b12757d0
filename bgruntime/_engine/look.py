"""Look: snapshots of the engine, made when asked for."""

from __future__ import annotations

import os
from asyncio import _get_running_loop
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from .._model.jobs import GONE, OVER, Job
from .._model.reports import Check, Health, JobTimes
from .._model.states import JobState
from .attempt import running_job
from .dispatch import Line
from .history import Record

if TYPE_CHECKING:
    from .supervise import Supervisor

T = TypeVar("T")


def asked_on_loop(engine: Supervisor, question: Callable[[], T], patience: float) -> T:
    """The answer to *question*, asked on the engine's loop also when this is another thread.

    Raises:
        TimeoutError: the loop did not come to it within *patience* seconds.
    """
    elsewhere = _get_running_loop() is not engine.loop
    if not elsewhere or not engine.loop.is_running() or engine.pid != os.getpid():
        return question()
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except Exception as error:
            answer.set_exception(error)

    engine.loop.call_soon_threadsafe(ask)
    return answer.result(patience)


def find_job(engine: Supervisor, id: str) -> Job[Any] | None:
    """The job of that id, live, held by somebody, or among the last that ended."""
    job = engine.named.get(id)
    if job is not None:
        return job
    engine.fold()
    found = (record for record in engine.history.newest_first() if record.id == id)
    return next((_of_record(record) for record in found), None)


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
    started, ended = job._started, job._context
    if type(ended) is float:
        return JobTimes(job._since + offset, None if started is None else started + offset, ended + offset)
    record = _record_of(engine, job) if job.done() else None
    if record is not None:
        started = record.at - record.ran if record.outcome is not None else None
        since = record.at - record.ran - record.waited
        return JobTimes(since + offset, None if started is None else started + offset, record.at + offset)
    return JobTimes(job._since + offset, None if started is None else started + offset, None)


def _record_of(engine: Supervisor, job: Job[Any]) -> Record | None:
    if isinstance(job._context, Record):
        return job._context
    engine.fold()
    shell = job._entry.shell
    ended = engine.history.newest_first()
    return next((record for record in ended if record.entry is shell and record.id == job._id), None)


def _ended(engine: Supervisor) -> Iterator[Job[Any]]:
    for record in engine.history.newest_first():
        held = None if record.id is None else engine.named.get(record.id)
        yield held if held is not None else _of_record(record)


def _of_record(record: Record) -> Job[Any]:
    """A job of which only the record is left: awaiting it says so."""
    job: Job[Any] = object.__new__(Job)  # pyright: ignore[reportUnknownVariableType]
    job._id = record.id
    job._entry, job._state, job._attempt = record.entry, record.state, record.attempt
    job._reason, job._value, job._waiters = record.reason, GONE, OVER
    job._context = record
    job._args = job._kwargs = job._more = job._task = job._trace = job._started = None
    return job


def job_of_task(engine: Supervisor, task: Any) -> Job[Any] | None:
    """The job whose code *task* runs; on 3.11, which does not show a task's context, its own task only."""
    if hasattr(task, "get_context"):
        job: Job[Any] | None = task.get_context().get(running_job)
        return job
    return next((job for job in list(engine.live) if job._task is task), None)


def health_of(engine: Supervisor | None) -> Health:
    """Whether it is well: each thing that is not is named."""
    phase = "new" if engine is None else engine.phase
    checks = [_phase_check(phase), *(() if engine is None else _checks(engine))]
    statuses = {check.status for check in checks}
    return Health(
        status=next((status for status in ("fail", "warn") if status in statuses), "pass"),
        live=True,
        ready=phase == "running",
        reasons=tuple(check.reason for check in checks if check.status != "pass"),
        checks=tuple(checks),
        totals={} if engine is None else _totals(engine),
    )


def _phase_check(phase: str) -> Check:
    well = phase == "running"
    return Check("phase", "pass" if well else "fail", "" if well else f"the runtime is {phase}")


def _checks(engine: Supervisor) -> Iterator[Check]:
    yield _stuck_check(engine)
    yield from (_queue_check(line) for line in engine.lines.values())
    if engine.journal is not None:
        problems = engine.journal.problems()
        yield from [Check("journal", "fail", problem) for problem in problems] or [Check("journal", "pass")]
    for observer in engine.observers:
        if hasattr(observer, "checks"):
            try:
                found = tuple(observer.checks())
            except BaseException as error:
                engine.complain(f"observer {type(observer).__name__} failed on health", error)
            else:
                yield from found


def _stuck_check(engine: Supervisor) -> Check:
    if not engine.stuck:
        return Check("stuck", "pass")
    kept = len(engine.stuck) - len(engine.stuck_without_slot)
    reason = f"{len(engine.stuck)} attempts are stuck, {kept} of them hold their slots"
    return Check("stuck", "fail" if kept else "warn", reason)


def _queue_check(line: Line) -> Check:
    waiting = line.waiting + line.later
    name = f"queue:{line.name}"
    if line.paused:
        return Check(name, "warn", f"queue {line.name} is paused, {waiting} jobs wait in it")
    if waiting >= line.size:
        return Check(name, "warn", f"queue {line.name} is full: {waiting} jobs wait, its size is {line.size}")
    return Check(name, "pass")


def _totals(engine: Supervisor) -> dict[str, float]:
    engine.fold()
    states = [tally.states for tally in engine.tallies.values()]
    completed = sum(tally.states[JobState.COMPLETED] + tally.succeeded for tally in engine.tallies.values())
    failed = sum(counts[JobState.DISCARDED] for counts in states)
    return {
        "submitted": sum(tally.submitted for tally in engine.tallies.values()),
        "completed": completed,
        "failed": failed,
        "cancelled": sum(counts[JobState.CANCELLED] for counts in states),
        **({"success_rate": completed / (completed + failed)} if completed + failed else {}),
        "running": sum(line.in_use for line in engine.lines.values()),
        "waiting": sum(line.waiting + line.nested for line in engine.lines.values()),
        "retryable": sum(line.retrying for line in engine.lines.values()),
        "stuck": len(engine.stuck),
    }
