"""Attempt: run a job once, in a Task of its own, and say how it ended. It never raises."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from .._model.events import AttemptEnded, AttemptStarted, RetryScheduled
from .._model.jobs import OVER, Job, ThreadUse
from .._model.outcomes import Outcome, Reason
from .._model.policies import AttemptState, TaskOptions
from .._model.states import JobState
from .._parts.frames import clear_frames, without_own_frames
from .._parts.texts import in_a_line
from .decide import Verdict, decide, name_the_end
from .redact import Said, may_be_said, reason_said
from .settle import ENGINE, Ending, settle, timed_out, wake

if TYPE_CHECKING:
    from .supervise import Supervisor

COMPLETED = JobState.COMPLETED
SUCCEEDED = Outcome.SUCCEEDED
ERROR_LIMIT = 200  # characters of an error in the record of a job
OPTIONS = frozenset(field.name for field in fields(TaskOptions))

running_job: ContextVar[Job[Any] | None] = ContextVar("bgruntime_job", default=None)


async def attempt(engine: Supervisor, job: Job[Any]) -> None:
    """Run *job* once and see it to its end. Whatever its function raises ends here."""
    entry = job._entry
    job._started = started = engine.clock()
    running_job.set(job)
    kwargs = job._kwargs
    value: Any
    failure: BaseException | None
    # An eager Task is in its first step before anybody can stop it.
    if (
        engine.odd_start
        and (job._more is not None or engine.tells_start)
        and not _begin(engine, job, started)
    ):
        value, failure = None, asyncio.CancelledError()  # cancelled between its start and its first step
    else:
        try:
            if kwargs is None:
                value = await entry.call(*job._args)  # type: ignore[misc]  # there until it is over
            else:
                value = await entry.call(*job._args, **kwargs)  # type: ignore[misc]
        except BaseException as error:
            value, failure = None, error
        else:
            if job._more is None and not engine.tells_end:
                # The plain end, written out: saves about 400 ns a job. Otherwise it is `finish`.
                ended = engine.clock()
                job._state = COMPLETED
                job._value = value
                job._args = job._kwargs = None
                job._context = ended  # it takes the context's place
                entry.ends.extend((job._id, job._since, started, ended))
                waiters = job._waiters
                job._waiters = OVER
                task = job._task
                if task is not None:
                    job._task = None
                    del engine.live[job]
                elif waiters is None and not engine.watched:
                    engine.slot_left = True  # in its first step, with nobody to tell: to its starter
                    return
                queue = entry.queue
                queue.in_use -= 1
                engine.in_use -= 1
                if waiters is not None:
                    wake(job, waiters)
                if queue.limit is not None and not queue.listed:
                    engine.list_line(queue)
                if engine.watched:
                    engine.note_end(job, COMPLETED)
                if engine.pumping is False and (engine.turns or engine.resuming or engine.room_wanted):
                    engine.pump_at(engine, ended)
                return
            failure = None
    more = job._more
    if more is not None and more.exits is not None:
        more.leaving = True
        value, failure = await _leave(more.exits, value, failure)
        more.leaving, more.exits = False, None
    finish(engine, job, value, failure, engine.clock())
    # The frames in a traceback lead back to this one, which therefore must hold nothing of the job.
    del job, entry, kwargs, more, value, failure
    if engine.pumping is False and (engine.turns or engine.resuming or engine.room_wanted):
        engine.pump_at(engine, engine.clock())


def _begin(engine: Supervisor, job: Job[Any], started: float) -> bool:
    """The first step where it is not the plain one; False if *job* was cancelled before it."""
    if engine.tells_start:
        engine.tell(AttemptStarted(started, job, job._attempt, started - job._since))
    return job._more is None or job._more.stop is None


async def _leave(exits: Any, value: Any, failure: BaseException | None) -> tuple[Any, BaseException | None]:
    """Close what the attempt entered, last first, as leaving the ``async with`` of each would."""
    try:
        async with exits:
            if failure is not None:
                raise failure
    except BaseException as error:
        return None, error
    return value, None


def finish(
    engine: Supervisor, job: Job[Any], value: Any, failure: BaseException | None, ended: float
) -> None:
    """The end of an attempt in full: slot, outcome, verdict, and what follows from it."""
    release(engine, job)
    if isinstance(failure, KeyboardInterrupt):
        # In a step of its own, when this job has its end: the stop that it starts accounts for it.
        engine.loop.call_soon(engine.on_interrupt, failure, context=engine.context)
    if job._waiters is OVER or job._state is not JobState.RUNNING:
        # Its end was declared at its timeout, or when it was abandoned: a late finisher changes nothing.
        return
    outcome = name_the_end(job._stop, failure)
    if outcome is SUCCEEDED:
        failure = None
    verdict = verdict_on(engine, job, outcome, failure, ended)
    error = failure if job._stop is None else None
    if isinstance(error, TypeError) and job._kwargs:
        _hint_at_options(job, error)
    said = may_be_said(job, error)
    _tell_end(engine, job, outcome, error, said, ended)
    _record(engine, job, verdict, error, said, ended)
    if verdict.state is JobState.RETRYABLE:
        run_again(engine, job, verdict, error)
    else:
        settle(engine, job, verdict.state, verdict.reason, verdict.outcome, value=value, error=error)


def verdict_on(
    engine: Supervisor, job: Job[Any], outcome: Outcome, failure: BaseException | None, now: float
) -> Verdict:
    """What becomes of *job* after an attempt that ended with *outcome*; a stop overrules a retry."""
    error = timed_out(job) if outcome is Outcome.TIMED_OUT else failure
    state = AttemptState(job._attempt, error, now - job._since, engine.ports.random)
    verdict = decide(outcome, job._stop, failure, job._entry.options, state)
    if verdict.fault is not None:
        engine.complain(f"the backoff of {job._entry.name} failed", verdict.fault)
    if job._more is not None and job._more.moved:
        return Verdict(outcome, JobState.AVAILABLE, Reason.INTERRUPTED)
    if verdict.state is JobState.RETRYABLE and job._entry.definition.coroutine is not None:
        return Verdict(outcome, JobState.DISCARDED, "failed")  # it can run once
    if engine.interrupts and (verdict.state is JobState.RETRYABLE or outcome is Outcome.INTERRUPTED):
        state_after = JobState.AVAILABLE if engine.will_requeue(job) else JobState.CANCELLED
        return Verdict(outcome, state_after, Reason.INTERRUPTED)
    return verdict


def run_again(engine: Supervisor, job: Job[Any], verdict: Verdict, error: BaseException | None) -> None:
    """Let *job* wait for its next attempt, without a slot."""
    ended = Ending(verdict.outcome, error, verdict.reason, job._started, engine.clock())
    scheduled: RetryScheduled | None = None
    if engine.tell.wanted(RetryScheduled):
        said = may_be_said(job, error)
        scheduled = RetryScheduled(
            ended.ended_at, job, job._attempt, verdict.outcome, verdict.delay, error, said.message, said.scrub
        )
    if not verdict.counts:
        job._attempt -= 1
    engine.retry(job, verdict, ended)
    if error is not None:
        without_own_frames(error, ENGINE)
        clear_frames(error)
    if scheduled is not None:
        engine.tell(scheduled)


def release(engine: Supervisor, job: Job[Any]) -> None:
    """Give back what the attempt of *job* held. Only now has it really ended."""
    job._task = None
    engine.live.pop(job, None)
    more = job._more
    if more is not None:
        if more.thread is ThreadUse.RESERVED:
            more.thread = ThreadUse.NONE
            engine.thread_returned()
        if more.retake is not None:
            if not more.retake.done():
                more.retake.set_result(None)  # a child that outlives the attempt needs no slot
            more.retake = None
        more.waits = 0
        if more.stopping is not None:
            more.stopping = None
    if job in engine.stuck:
        if more is None or more.thread is not ThreadUse.RUNNING:
            engine.unstick(job)  # else when its thread ends
    elif more is None or more.holds:
        engine.free_slot(job._entry.queue)
    if more is not None and more.after is not None:
        after, more.after = more.after, None
        after.attempt_ended(job)
    if engine.watched:
        engine.check_idle()


def _hint_at_options(job: Job[Any], error: TypeError) -> None:
    """Say so where an option of the job was given as an argument of its function."""
    text = str(error)
    for name in job._kwargs or ():
        if name in OPTIONS and f"unexpected keyword argument '{name}'" in text:
            error.add_note(
                f"{name} is an option of the job and no argument of {job._entry.name}: "
                f"submit(task.with_options({name}=...), ...)"
            )


def _tell_end(
    engine: Supervisor, job: Job[Any], outcome: Outcome, error: BaseException | None, said: Said, ended: float
) -> None:
    if engine.tells_end and not (job._stop is not None and job._stop.told):
        assert job._started is not None
        ran = ended - job._started
        engine.tell(AttemptEnded(ended, job, job._attempt, outcome, ran, error, said.message, said.scrub))


def _record(
    engine: Supervisor, job: Job[Any], verdict: Verdict, error: BaseException | None, said: Said, ended: float
) -> None:
    told = job._stop is not None and job._stop.told
    if told and verdict.state is JobState.RETRYABLE:
        return  # recorded when it was declared
    started = job._started
    assert started is not None
    if job._id is None and verdict.state is not JobState.RETRYABLE:
        job._id = engine.new_id()
    record: tuple[Any, ...] = (
        job._entry.shell,
        job._id,
        verdict.state,
        None if told else verdict.outcome,
        job._attempt,
        started - job._since,
        ended - started,
        ended,
        reason_said(job, verdict.reason),
    )
    if told:
        record += (None, verdict.outcome)
    elif error is not None and verdict.state is JobState.DISCARDED:
        record += (in_a_line(f"{type(error).__name__}: {said.message}", ERROR_LIMIT),)
    engine.history.add(job._entry, record)
