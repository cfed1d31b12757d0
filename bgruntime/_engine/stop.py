"""Stop: quiet, drain, cancel, close, each with its limit; in the end nothing is left unaccounted for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .._model.events import ShutdownProgress
from .._model.jobs import Job, reason_of
from .._model.outcomes import Outcome, Reason, Stop
from .._model.policies import Shutdown
from .._model.reports import ShutdownReport
from .._model.states import JobState
from .dispatch import SLICE_SECONDS, unlist_line

if TYPE_CHECKING:
    from .supervise import Supervisor

INTERRUPTED = Reason.INTERRUPTED


class Stopping:
    """One stop of one runtime. It goes on whatever becomes of those who wait for it."""

    def __init__(self, engine: Supervisor, close: Callable[[float], Awaitable[None]]) -> None:
        self._engine = engine
        self._close = close
        self._hurry: asyncio.Future[None] = engine.loop.create_future()
        self._callers: dict[Job[Any], None] = {}
        self.add_caller()
        self._completed: list[Job[Any]] = []
        self._cancelled: list[Job[Any]] = []
        self._requeued: list[Job[Any]] = []
        self.done: asyncio.Future[ShutdownReport] = engine.loop.create_future()

    def begin(self, limits: Shutdown, *, leaving: bool) -> None:
        """Take no new work from here on, and start. *leaving* lets running jobs submit while it drains."""
        engine = self._engine
        engine.phase = "leaving" if leaving else "draining"
        engine.at_once.clear()
        engine.stopping = True
        engine.on_end.append(self._note)
        engine.watched = True
        for line in engine.lines.values():
            line.room.close()
        for job in engine.live:
            if job._more is not None and job._more.stopping is not None:
                job._more.stopping.set()
        if engine.journal is not None:
            engine.journal.quiet()
        _ = engine.help(self._run(limits), "bgruntime stop")

    def add_caller(self) -> None:
        """A job that asks for the stop is not waited for, and not interrupted before it has its answer."""
        caller = self._engine.inside()
        if caller is not None:
            self._callers[caller] = None
            self._engine.check_idle()

    def skip_drain(self) -> None:
        """Do not wait for the work any longer; go on to cancel."""
        if not self._hurry.done():
            self._hurry.set_result(None)

    async def end_callers(self, seconds: float) -> None:
        """When the runtime is left, the jobs that asked for the stop end too: they are interrupted now."""
        engine = self._engine
        callers = [job for job in self._callers if job in engine.live and job is not engine.inside()]
        self._callers.clear()
        for job in callers:
            if job._stop is None:
                engine.ask_to_stop(job, Stop(Outcome.INTERRUPTED, INTERRUPTED))
        if callers:
            await self._until_ended(seconds)
        for job in callers:
            if job in engine.live:
                engine.abandon(job)

    async def _run(self, limits: Shutdown) -> None:
        engine = self._engine
        began = engine.clock()
        try:
            if engine.pumping is None and not self._callers:
                await asyncio.sleep(0)  # begun inside the first step of a job that is not in `live` yet
            await self._drain(limits.drain)
            await self._cancel(limits.cancel)
            await self._leave_threads(limits.close)
            self._tell("closing")
            await self._close(limits.close)
        finally:
            # Reached as well when the loop itself is being torn down around us.
            self._end_the_rest()
            engine.phase = "closed"
            engine.timers.close()
            if not engine.live:
                engine.disarm()
            self._tell("closed")
            self.done.set_result(self._report(engine.clock() - began))

    async def _drain(self, limit: float | None) -> None:
        engine = self._engine
        self._tell("draining")
        if limit == 0:
            self.skip_drain()
        timer = None
        if limit:
            timer = engine.timers.at(engine.clock() + limit, lambda _: self.skip_drain(), None)
        with suppress(asyncio.CancelledError):
            await engine.until_idle(besides=self._callers, give_up=self._hurry)
        if timer is not None:
            engine.timers.cancel(timer)

    async def _cancel(self, limit: float) -> None:
        """Interrupt what is left; again at half of *limit*; at its end leave alone what would not stop."""
        engine = self._engine
        engine.phase = "cancelling"
        engine.interrupts = True
        for line in engine.lines.values():
            line.closed = True
            unlist_line(engine, line)
        began = engine.clock()
        if self._left():
            self._tell("cancelling")
        for job in self._left():
            if job._stop is None:  # else it was cancelled before, and cleans up
                engine.ask_to_stop(job, Stop(Outcome.INTERRUPTED, INTERRUPTED))
            job._deadline = began + limit + 1.0  # the phase's own clock counts from here on
        await self._interrupt_all_waiting()
        if not self._left():
            return
        await self._until_ended(max(0.0, began + limit / 2 - engine.clock()))
        for job in self._left():
            job._stop = job._stop or Stop(Outcome.INTERRUPTED, INTERRUPTED)
            job._stop.stage = 2
            engine.send_cancel(job)
        await self._until_ended(max(0.0, began + limit - engine.clock()))
        for job in self._left():
            engine.abandon(job)

    async def _leave_threads(self, limit: float) -> None:
        """Let go of threads that do not end: their tasks wait no longer, the threads themselves go on."""
        waiting = [
            job._task for job in self._engine.stuck if self._engine._in_thread(job) and job._task is not None
        ]
        for task in waiting:
            task.cancel()
        if waiting:
            await asyncio.wait(waiting, timeout=limit)

    def _left(self) -> list[Job[Any]]:
        return [job for job in self._engine.live if job not in self._callers]

    async def _until_ended(self, seconds: float) -> None:
        engine = self._engine
        over: asyncio.Future[None] = engine.loop.create_future()
        timer = engine.timers.at(engine.clock() + seconds, _set, over)
        with suppress(asyncio.CancelledError):
            await engine.until_idle(besides=self._callers, give_up=over)
        engine.timers.cancel(timer)

    async def _interrupt_all_waiting(self) -> None:
        """Interrupt what will not start any more, in slices between which the loop turns."""
        engine = self._engine
        until = engine.clock() + SLICE_SECONDS
        for job in [job for job in engine.unended() if job._state is not JobState.RUNNING]:
            self._interrupt_waiting(job)
            if engine.clock() >= until:
                await asyncio.sleep(0)
                until = engine.clock() + SLICE_SECONDS

    def _interrupt_waiting(self, job: Job[Any]) -> None:
        if job.done() or job._state.is_final:
            return  # the end of another one has ended it meanwhile, as that of a fan-out does
        engine = self._engine
        state = JobState.AVAILABLE if engine.will_requeue(job) else JobState.CANCELLED
        engine.withdraw(job, INTERRUPTED, state)

    def _end_the_rest(self) -> None:
        """However we got here, no job is left without an end."""
        engine = self._engine
        for job in list(engine.unended()):
            if job in self._callers:
                continue
            if job._state is not JobState.RUNNING:
                self._interrupt_waiting(job)
            else:
                job._stop = job._stop or Stop(Outcome.INTERRUPTED, INTERRUPTED)
                engine.abandon(job)
        for job in engine.stuck:
            if job._task is not None:
                _let_go(job._task)

    def _note(self, job: Job[Any], state: JobState) -> None:
        if state is JobState.AVAILABLE:
            self._requeued.append(job)
        elif reason_of(job) is INTERRUPTED:
            self._cancelled.append(job)
        else:
            self._completed.append(job)

    def _report(self, duration: float) -> ShutdownReport:
        engine = self._engine
        return ShutdownReport(
            completed=tuple(job.id for job in self._completed),
            cancelled=tuple(job.id for job in self._cancelled if job not in engine.stuck),
            requeued=tuple(job.id for job in self._requeued),
            stuck=tuple(job.id for job in engine.stuck),
            lost=tuple(job.id for job in engine.unended() if job not in self._callers),
            duration=duration,
        )

    def _tell(self, phase: str) -> None:
        engine = self._engine
        if engine.tell.wanted(ShutdownProgress):
            waiting = sum(line.waiting + line.nested + line.later for line in engine.lines.values())
            engine.tell(ShutdownProgress(engine.clock(), phase, len(engine.live), waiting))


def _let_go(task: asyncio.Task[Any]) -> None:
    """Have nobody wait for *task* any more: `asyncio.run` would do so for ever, and the process not end."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it was reported as stuck
    asyncio._unregister_task(task)  # public to those who extend asyncio, says its documentation


def _set(future: asyncio.Future[None]) -> None:
    future.set_result(None)
