"""Supervise: own every attempt, slot, timer and deadline, and end them all in time.

There is no await between two halves of a state change: everything here happens in callbacks of
the loop, and only `shutdown` waits. Nobody awaits a job's task: one that will not stop can keep
its slot, but not the supervisor.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Awaitable, Callable, Container, Coroutine, Generator, Iterator, Sequence
from contextvars import Context, copy_context
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from .._model.errors import ForkedRuntime, JobTimedOut, RuntimeClosed, WrongLoop
from .._model.events import AttemptAbandoned, AttemptEnded, AttemptStarted, JobAccepted, JobSettled
from .._model.jobs import OVER, Definition, Entry, Job, Tally, ThreadUse
from .._model.outcomes import Outcome, Reason, Snooze, Stop
from .._model.policies import Limits, Queue
from .._model.states import JobState, check_move
from .._parts.broadcast import Broadcast
from .._parts.ports import REAL, Cancellable, Ports
from .._parts.spelling import did_you_mean
from .._parts.timers import Timers
from . import dispatch
from .attempt import finish, running_job
from .decide import Verdict, may_run_again
from .dispatch import Line, enqueue, list_line
from .history import FOLD_AT, KEEP_FINISHED, History, Record
from .redact import reason_said
from .settle import Ending, settle, timed_out
from .shared import SharedResources
from .surround import call_for

AVAILABLE, RUNNING, RETRYABLE = JobState.AVAILABLE, JobState.RUNNING, JobState.RETRYABLE
FOREVER = float("inf")
STUCK_SHARE = 0.1
SICK_SECONDS = 1.0  # until a durable job tries again to have its start written
STACK_LIMIT = 50


class Supervisor:
    """The engine of one entered runtime. The verbs work on it; the front door asks it."""

    # Slots are read faster than the dict of an object with so many attributes.
    __slots__ = (
        "__weakref__",
        "_complain",
        "_deadline_timer",
        "_factory",
        "ahead",
        "ahead_until",
        "at_once",
        "clock",
        "complaints",
        "context",
        "context_of",
        "deadline_at",
        "depth",
        "disturbed",
        "eager",
        "entries",
        "grace",
        "helpers",
        "history",
        "in_use",
        "interrupts",
        "journal",
        "later",
        "limit",
        "limits",
        "lines",
        "live",
        "loop",
        "loose",
        "measuring",
        "middleware",
        "named",
        "observers",
        "odd_start",
        "on_end",
        "on_interrupt",
        "outside",
        "owed",
        "phase",
        "pid",
        "plain_tasks",
        "ports",
        "pump",
        "pump_at",
        "pumping",
        "resuming",
        "room_wanted",
        "shared",
        "short_of_threads",
        "slot_left",
        "stopping",
        "stuck",
        "stuck_without_slot",
        "tallies",
        "tell",
        "tells_accept",
        "tells_end",
        "tells_start",
        "threads",
        "threads_in_use",
        "timers",
        "turns",
        "unfolded",
        "watched",
        "watchers",
    )

    def __init__(
        self,
        limits: Limits,
        queues: Sequence[Queue],
        *,
        observers: Sequence[Any] = (),
        middleware: Sequence[Any] = (),
        context_of: Callable[[Job[Any]], Any],
        on_interrupt: Callable[[KeyboardInterrupt], None],
        complain: Callable[[str, BaseException | None], None],
        loop: asyncio.AbstractEventLoop,
        ports: Ports,
    ) -> None:
        self.limits = limits
        self.loop = loop
        self.ports = ports
        self.clock = ports.monotonic if ports.monotonic is REAL.monotonic else _each_its_own(ports.monotonic)
        self.pid = os.getpid()
        self.limit = limits.concurrency
        self.threads = limits.threads
        self.grace = limits.cancel_grace
        self.in_use = self.threads_in_use = 0
        self.lines = {queue.name: self._line(queue) for queue in (Queue("default"), *queues)}
        self.turns: deque[Line] = deque()
        self.short_of_threads: deque[Line] = deque()
        self.owed: dict[Line, None] = {}  # over their size because slots were free
        self.resuming: deque[Job[Any]] = deque()
        self.pumping: bool | None = False
        self.ahead = 0  # so many may be started before the pump that is arranged
        self.ahead_until = 0.0
        self.depth = 0  # frames below a callback of the loop
        self.slot_left = False  # by a job that was over in its first step, to whoever has started it
        self.disturbed = False  # set when a pump that runs has to look around again
        self.context = Context()  # the pump's: a callback keeps alive what is in its context
        self.pump = partial(dispatch.pump, self)
        self.pump_at = dispatch.pump_at  # a partial would cost 80 ns a job
        self.timers = Timers(loop, ports)
        self.later: dict[Job[Any], None] = {}
        self.live: dict[Job[Any], None] = {}
        self.stuck: dict[Job[Any], None] = {}
        self.stuck_without_slot: dict[Job[Any], None] = {}
        self.deadline_at = FOREVER
        self._deadline_timer: Cancellable | None = None
        self.entries: dict[Definition, Entry] = {}
        self.loose: dict[Any, Entry] = {}  # what stays of entries that are not kept
        self.at_once: dict[Any, Entry] = {}  # what came before and needs nothing special, while it may
        self.tallies: dict[str, Tally] = {}
        self.history = History(self.new_id)
        self.unfolded = 0  # attempts that were begun since what ended was last counted
        self.named: WeakValueDictionary[str, Job[Any]] = WeakValueDictionary()
        self.phase = "running"
        self.interrupts = False  # jobs that end from here on are interrupted, not retried
        self.stopping = False  # what `current_job().stopping` shows
        self.watched = False
        self.room_wanted = 0
        self.watchers: list[Callable[[], None]] = []
        self.on_end: list[Callable[[Job[Any], JobState], None]] = []
        self.middleware = tuple(middleware)
        self.context_of = context_of
        self.on_interrupt = on_interrupt
        self.complaints: dict[str, int] = {}
        self._complain = complain
        self.journal: Any = None
        self.helpers: dict[asyncio.Task[Any], None] = {}
        self.outside: dict[Any, None] = {}  # futures of other threads that have no job yet
        self.shared = SharedResources(self)
        factory = loop.get_task_factory()
        custom = factory is not None and factory is not getattr(asyncio, "eager_task_factory", None)
        self.eager = sys.version_info >= (3, 12) and not custom
        self.plain_tasks = ports.task_class is asyncio.Task and not custom
        self._factory = factory if custom else None
        self.observers = tuple(observers)
        self.measuring = [observer for observer in observers if hasattr(observer, "on_batch")]
        self.listen(observers)

    def listen(self, observers: Sequence[Any]) -> None:
        """Tell *observers* from here on."""
        self.tell = Broadcast(observers, self.clock, self.complain)
        self.tells_start = self.tell.wanted(AttemptStarted)
        self.tells_accept = self.tell.wanted(JobAccepted)
        self.odd_start = self.tells_start or not self.eager
        if self.tells_accept:
            self.at_once.clear()
        # One question at the end of a plain attempt instead of two.
        self.tells_end = self.tell.wanted(AttemptEnded) or self.tell.wanted(JobSettled)

    def _line(self, queue: Queue) -> Line:
        limits = self.limits
        return Line(
            queue.name,
            queue.concurrency,
            limits.queue_size if queue.size is None else queue.size,
            limits.overflow if queue.overflow is None else queue.overflow,
        )

    # -- small things the verbs ask for ------------------------------------------------------

    def entry_of(self, definition: Definition) -> Entry:
        """What this runtime keeps of *definition*. Raises ValueError for a queue that is not there."""
        entry = self.entries.get(definition)
        if entry is None:
            name = definition.options.queue
            line = self.lines.get(name)
            if line is None:
                raise ValueError(f"task {definition.name}: {did_you_mean('queue', name, self.lines)}")
            tally = self.tallies.get(definition.name)
            if tally is None:
                tally = self.tallies[definition.name] = Tally()
            entry = Entry(self, definition, line, tally, call_for(self, definition))
            entry.push = line.lanes.lines[entry.priority].append
            if definition.kept:
                self.entries[definition] = entry
            elif entry.plain:
                alike = (definition.name, name, definition.options.max_attempts)
                entry.join(self.loose.setdefault(alike, entry.shell))
        return entry

    def remember_at_once(self, task: Any, entry: Entry) -> None:
        """Let *task*, whose entry that is, come in by the fast path from here on, if it may."""
        if entry.at_once and self.takes_at_once:
            self.at_once[task] = entry

    @property
    def takes_at_once(self) -> bool:
        """Whether a job may come in by the fast path: nobody is told of it, and no stop has begun."""
        return self.phase == "running" and not self.tells_accept

    def make_task(
        self, coroutine: Coroutine[Any, Any, Any], name: str, context: Context
    ) -> asyncio.Task[Any]:
        """A Task for *coroutine*, as the loop's own factory or the ports would have it."""
        if self._factory is not None:
            task = self.loop.create_task(coroutine, context=context)
            task.set_name(name)
            return task
        if self.eager:
            task_class: Any = self.ports.task_class  # `eager_start` is known from Python 3.12 on
            eager: asyncio.Task[Any] = task_class(
                coroutine, loop=self.loop, name=name, context=context, eager_start=True
            )
            return eager
        return self.ports.task_class(coroutine, loop=self.loop, name=name, context=context)

    def complain(self, about: str, error: BaseException | None) -> None:
        """Count a fault of something outside the kernel; report the first of its kind."""
        first = about not in self.complaints
        if first and len(self.complaints) >= KEEP_FINISHED:
            about, first = "others", "others" not in self.complaints
        self.complaints[about] = self.complaints.get(about, 0) + 1
        if first:
            self._complain(about, error)

    def name_job(self, job: Job[Any]) -> str:
        """The id of *job*, 96 random bits made now; by it `find_job` knows the job from here on."""
        id = job._id
        if id is None:  # pragma: no branch (else another thread has asked since the caller looked)
            kept: Any = job._context
            ended = kept.at if isinstance(kept, Record) else kept
            job._id = id = self.history.late_id(ended) if type(ended) is float else self.new_id()
        self.named[id] = job
        return id

    def new_id(self) -> str:
        """An id that nobody can guess."""
        return self.ports.token(12).hex()

    def free_slot(self, line: Line) -> None:
        dispatch.free_slot(self, line)

    def thread_returned(self) -> None:
        dispatch.thread_returned(self)

    def list_line(self, line: Line) -> None:
        list_line(self, line)

    def fold(self) -> None:
        """Count the attempts that ended since the last time, and hand them to whoever measures."""
        self.unfolded = 0
        batch = self.history.fold((*self.entries.values(), *self.loose.values()))
        if batch is None:
            return
        for observer in self.measuring:
            try:
                observer.on_batch(batch)
            except BaseException as error:
                self.complain(f"observer {type(observer).__name__} failed on a batch", error)

    # -- who asks, and from where -------------------------------------------------------------

    def check_here(self) -> None:
        """Raise unless this is the loop and the process that the runtime was entered in."""
        running = _get_running_loop()
        if running is self.loop:
            return
        if os.getpid() != self.pid:
            raise ForkedRuntime(self.pid, os.getpid())
        where = "a thread without an event loop" if running is None else "another event loop"
        raise WrongLoop(f"called from {where}: use submit_threadsafe, or a runtime entered there")

    def inside(self) -> Job[Any] | None:
        """The job of this runtime whose attempt runs this code, its child tasks and threads included."""
        job = running_job.get()
        if job is None or job._entry.engine is not self:
            return None
        return job if job in self.live or job._state is RUNNING else None

    def check_open(self, *, nested: bool = False) -> None:
        """Raise RuntimeClosed unless jobs are taken; *nested* ones belong to a job that drains."""
        if self.phase == "running" or (self.phase == "draining" and nested):
            return
        if self.phase == "leaving" and (nested or self.inside() is not None):
            return
        raise RuntimeClosed(self.phase)

    # -- waiting for a job ----------------------------------------------------------------------

    def until_ended(self, job: Job[Any]) -> Generator[Any, None, None]:
        """Wait until *job* is over; inside an attempt of this runtime without its slot."""
        if _get_running_loop() is not self.loop:
            self.check_here()
        me = self.inside()
        if me is job:
            raise RuntimeError(f"{job!r} waits for itself: it would never end")
        if me is None:
            if self.pumping and self.ahead > 0 and job._state is AVAILABLE:
                dispatch.pump_ahead(self)
                if job._waiters is OVER:
                    return
            future: asyncio.Future[None] = self.loop.create_future()
            add_waiter(job, future)
            try:
                yield from future
            finally:
                if job._waiters is not OVER:
                    drop_waiter(job, future)
            return
        wait = Wait(self, me)
        add_waiter(job, wait)
        try:
            yield from wait.until_signalled().__await__()
        finally:
            if job._waiters is not OVER:
                drop_waiter(job, wait)

    def when_ended(self, job: Job[Any], callback: Callable[[Job[Any]], object]) -> None:
        """Call *callback* soon after *job* is over. What it raises is a complaint and nothing else."""
        self.check_here()
        told = _Told(self, callback)
        if job._waiters is OVER:
            told.job_ended(job)
        else:
            add_waiter(job, told)

    def step_out(self, me: Job[Any]) -> None:
        """The attempt of *me* begins to wait for other jobs: it holds no slot meanwhile."""
        more = me._get_more()
        more.waits += 1
        if more.retake is not None:
            # A sibling has come back and wants the slot while this one waits: it goes on without.
            if not more.retake.done():
                more.retake.set_result(None)
            more.retake = None
        elif more.holds:
            more.holds = False
            self.free_slot(me._entry.queue)
            if self.pumping is False:
                self.kick()

    def step_in(self, me: Job[Any], future: asyncio.Future[None]) -> None:
        """What the attempt of *me* waited for is there: resolve *future* when it holds a slot again.

        Called in the very step in which it is there, so that the attempt comes before the queue.
        """
        more = me._get_more()
        in_first_step = me._state is RUNNING and me._task is None
        if me not in self.live and not in_first_step:
            future.set_result(None)
            return
        more.waits -= 1
        goes_on = more.holds or me._stop is not None or self.phase == "closed"
        if more.waits or more.retake is not None or goes_on:
            future.set_result(None)
            return
        more.retake = future
        self.resuming.append(me)
        self.kick()

    def kick(self) -> None:
        dispatch.kick(self)

    # -- timers and deadlines ---------------------------------------------------------------------

    def wait_until(self, job: Job[Any], due: float, action: Callable[[Job[Any]], object]) -> None:
        """Keep *job*, scheduled or retryable, until *due* and then call *action* with it."""
        self.later[job] = None
        job._entry.queue.later += 1
        job._get_more().timer = self.timers.at(due, action, job)

    def leave_later(self, job: Job[Any]) -> None:
        """*job* waits for no time any more."""
        self.later.pop(job, None)
        line: Line = job._entry.queue
        line.later -= 1
        if job._state is JobState.RETRYABLE:
            line.retrying -= 1
        more = job._get_more()
        self.timers.cancel(more.timer)
        more.timer = None

    def retry(self, job: Job[Any], verdict: Verdict, ended: Ending) -> None:
        """Let *job* wait for its next attempt without a slot."""
        job._state = check_move(job._state, verdict.state)
        job._reason = verdict.reason
        job._entry.queue.retrying += 1
        if self.journal is not None:
            self.journal.retrying(job, ended, self.ports.time() + verdict.delay)
        self.wait_until(job, ended.ended_at + verdict.delay, self.become_available)

    def become_available(self, job: Job[Any]) -> None:
        """The time of a scheduled or retryable *job* has come: it stands in its line from now on."""
        self.leave_later(job)
        job._state = check_move(job._state, AVAILABLE)
        job._since = self.clock()
        self.watch_expiry(job)
        enqueue(self, job)

    def watch_expiry(self, job: Job[Any]) -> None:
        """From the moment it first becomes available *job* must start within its `expires_in`."""
        expires_in = job._entry.options.expires_in
        if expires_in is not None and job._started is None:  # a snooze gives its attempt back
            more = job._get_more()
            more.expiry = job._since + expires_in
            more.timer = self.timers.at(more.expiry, self._expire, job)

    def _expire(self, job: Job[Any]) -> None:
        self.withdraw(job, Reason.EXPIRED)  # its start and its end call this off

    def watch(self, job: Job[Any], deadline: float) -> None:
        """Look at *job*'s running attempt at *deadline*."""
        job._deadline = deadline
        if deadline < self.deadline_at:
            self.arm(deadline)

    def arm(self, deadline: float, now: float | None = None) -> None:
        """Have `check_deadlines` run at *deadline*, the earliest there is; it is *now*, if that is known."""
        delay = max(0.0, deadline - (self.clock() if now is None else now))
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self.deadline_at = deadline
        self._deadline_timer = self.ports.call_later(self.loop, delay, self.check_deadlines)

    def disarm(self) -> None:
        """Look at no deadline any more: nothing runs."""
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline_timer, self.deadline_at = None, FOREVER

    def check_deadlines(self) -> None:
        """Deal with every attempt that is past its deadline and wait for the next one.

        One timer for the earliest and a scan of what runs: a timer each would cost ten times as much.
        """
        self._deadline_timer = None
        now, self.deadline_at = self.deadline_at, float("-inf")  # nobody arms the timer while this runs
        try:
            now = self.clock()
            for job in [job for job in self.live if job._deadline <= now]:
                if job in self.live and job._deadline <= now:
                    self._overdue(job, now)
        finally:  # whatever was raised on the way, the other deadlines hold
            self.deadline_at = FOREVER
            following = min((job._deadline for job in self.live), default=FOREVER)
            if following < FOREVER:
                self.arm(following, now)
        if self.pumping is False:
            self.kick()

    def _overdue(self, job: Job[Any], now: float) -> None:
        if job._task is not None and job._task.done():
            self.reap(job)
        elif job._started is None and job._stop is None:
            job._deadline = now + job._entry.look_within
        elif job._stop is None and job._more is not None and job._more.marking:
            job._deadline = FOREVER  # its timeout begins with its function
        elif job._stop is None:
            due = job._started + job._entry.patience  # type: ignore[operator]
            if due > now:
                job._deadline = due  # it has begun since it was started: its timeout counts from there
            else:
                self._time_out(job, now)
        elif job._stop.stage == 1 and not self._in_thread(job):
            job._stop.stage = 2
            job._deadline = now + self.limits.cancel_hard
            self.send_cancel(job)
        else:
            self.abandon(job)

    def _time_out(self, job: Job[Any], now: float) -> None:
        """Declare it, whatever the job does: the reason, then the cancel, then those who wait."""
        job._stop = stop = Stop(Outcome.TIMED_OUT, str(Outcome.TIMED_OUT))
        error = timed_out(job)
        last = not may_run_again(Outcome.TIMED_OUT, error, job._entry.options, job._attempt)
        in_thread = self._in_thread(job)
        self.ask_to_stop(job, stop)
        started = job._started
        assert started is not None
        if self.tell.wanted(AttemptEnded):
            self.tell(
                AttemptEnded(now, job, job._attempt, Outcome.TIMED_OUT, now - started, error, str(error))
            )
        self.record(
            job, JobState.DISCARDED if last else JobState.RETRYABLE, Outcome.TIMED_OUT, now, stop.reason
        )
        stop.told = True
        if last:
            settle(self, job, JobState.DISCARDED, stop.reason, Outcome.TIMED_OUT)
            if in_thread:
                self.abandon(job)  # nothing can stop it: it counts as stuck from here on

    def record(
        self,
        job: Job[Any],
        state: JobState,
        outcome: Outcome | None,
        now: float,
        reason: str | None,
        *last: Outcome | None,
    ) -> None:
        """Note the end of an attempt, or of a job that had none; *last* are the fields behind the others."""
        began = job._started if outcome is not None else None
        waited = (now if began is None else began) - job._since
        ran = 0.0 if began is None else now - began
        if job._id is None and state is not JobState.RETRYABLE:
            job._id = self.new_id()
        said, shell = reason_said(job, reason), job._entry.shell
        record = (shell, job._id, state, outcome, job._attempt, waited, ran, now, said, *last)
        self.history.add(job._entry, record)

    def _in_thread(self, job: Job[Any]) -> bool:
        return job._more is not None and job._more.thread is ThreadUse.RUNNING

    def ask_to_stop(self, job: Job[Any], stop: Stop) -> None:
        """Write why, then cancel; look again after the grace period."""
        job._stop = stop
        self.watch(job, self.clock() + self.grace)
        if self._in_thread(job):
            job._deadline += self.limits.cancel_hard
        self.send_cancel(job)

    def send_cancel(self, job: Job[Any]) -> None:
        """Deliver one cancellation to the running attempt of *job*, if there is anything to cancel.

        Before its first step there is not: a Task cancelled there would run no line, so the reason
        alone is left for `attempt` to find. In its own first step `_watch_started` cancels it afterwards.
        """
        more = job._more
        if more is not None and more.stopping is not None:
            more.stopping.set()
        if job._task is None or job._started is None or self._in_thread(job):
            return
        if more is not None and more.leaving and job._stop is not None and job._stop.stage == 1:
            return  # its clean-up has begun already: it has the grace period for it
        job._task.cancel()

    def reap(self, job: Job[Any]) -> None:
        """End the attempt of a Task that somebody else cancelled before its first step."""
        job._started = self.clock()
        finish(self, job, None, asyncio.CancelledError(), self.clock())
        self.kick()

    def abandon(self, job: Job[Any]) -> None:
        """It was asked to stop and did not: end the job without it, and keep what is known of it."""
        stop = job._stop
        assert stop is not None
        stop.stage = 3
        self.live.pop(job, None)
        self.stuck[job] = None
        if self.tell.wanted(AttemptAbandoned):
            self.tell(AttemptAbandoned(self.clock(), job, job._attempt, stack_of(job)))
        self._remove_dirs(job)
        if job._state.is_final:  # its end was declared at its timeout, and may still be being written
            assert isinstance(job._value, JobTimedOut)
            job._value.stuck = True
        else:
            if stop.fate is not None:
                state, reason = JobState.CANCELLED, stop.fate
            elif stop.told or stop.outcome is Outcome.TIMED_OUT:
                state, reason = JobState.DISCARDED, str(Outcome.STUCK)
            else:
                requeued = self.interrupts and self.will_requeue(job)
                state, reason = JobState.AVAILABLE if requeued else JobState.CANCELLED, stop.reason
            # If its attempt was recorded when its end was told, this is the end of the job alone.
            outcome, last = (None, (None, Outcome.STUCK)) if stop.told else (Outcome.STUCK, ())
            self.record(job, state, outcome, self.clock(), reason, *last)
            settle(self, job, state, reason, Outcome.STUCK)
        more = job._get_more()
        if more.retake is not None:
            if not more.retake.done():
                more.retake.set_result(None)  # a child of it that goes on needs no slot any more
            more.retake = None
        self._give_slot_of_stuck(job)
        if more.after is not None:
            after, more.after = more.after, None
            after.attempt_ended(job)
        if self.watched:
            self.check_idle()

    def _give_slot_of_stuck(self, job: Job[Any]) -> None:
        """Give the slot of a stuck attempt back while few are stuck; else it stays taken."""
        if len(self.stuck_without_slot) >= max(1, int(self.limit * STUCK_SHARE)):
            return
        self.stuck_without_slot[job] = None
        more = job._get_more()
        if more.holds:
            more.holds = False
            self.free_slot(job._entry.queue)
            self.kick()

    def unstick(self, job: Job[Any]) -> None:
        """A stuck attempt has ended after all."""
        self.stuck.pop(job, None)
        if job in self.stuck_without_slot:
            self.stuck_without_slot.pop(job, None)
            waiting = next((one for one in self.stuck if one not in self.stuck_without_slot), None)
            if waiting is not None:
                self._give_slot_of_stuck(waiting)
        if job._get_more().holds:
            job._get_more().holds = False
            self.free_slot(job._entry.queue)
            self.kick()

    def _remove_dirs(self, job: Job[Any]) -> None:
        more = job._more
        if more is not None and more.dirs and more.thread is ThreadUse.NONE:
            import shutil

            dirs = tuple(more.dirs)

            def remove() -> None:
                for path in dirs:
                    shutil.rmtree(path, ignore_errors=True)

            self.ports.spawn(remove, "rmtree")

    # -- cancelling ---------------------------------------------------------------------------------

    def cancel(self, job: Job[Any], reason: str | None) -> bool:
        """End *job* wherever it stands; False if it is over or already stopping for the same end."""
        if (
            job._waiters is OVER
            or job._state.is_final
            or (job._state is not RUNNING and job._context is None)
        ):
            return False  # over, or settled already and only its row is still being written
        if _get_running_loop() is not self.loop:
            self.check_here()
        why = "cancelled" if reason is None else str(reason)
        if job._state is not RUNNING:
            self.withdraw(job, why)
        elif job._stop is None:
            self.ask_to_stop(job, Stop(Outcome.CANCELLED, why))
        elif job._stop.fate is None and job._stop.outcome is Outcome.TIMED_OUT:
            job._stop.fate = why
        else:
            return False
        return True

    def withdraw(self, job: Job[Any], reason: str, state: JobState = JobState.CANCELLED) -> None:
        """End a *job* that is not running: it never starts (again)."""
        line: Line = job._entry.queue
        if job._state is not AVAILABLE:
            self.leave_later(job)
        else:
            line.stale += 1
            if job._more is not None and job._more.front:
                line.nested -= 1
            if job._entry.threaded:
                line.threaded -= 1
        self.record(job, state, None, self.clock(), reason)
        settle(self, job, state, reason, None)
        line.sweep_stale()
        if self.room_wanted:
            self.offer_room()
        if len(self.history.recent) >= FOLD_AT:
            self.fold()  # last, for observers may do anything; attempts are counted by `pump_at`

    # -- room -----------------------------------------------------------------------------------------

    def offer_room(self) -> None:
        """Call those who wait for room, in their order, as far as there is any."""
        for line in self.lines.values():
            while (wanted := line.room.first_wants()) is not None and line.has_room(self, wanted):
                line.count_on_slots(self, wanted)
                line.take(wanted)
                line.room.call_first()

    # -- the journal's side ---------------------------------------------------------------------------

    def will_requeue(self, job: Job[Any]) -> bool:
        """Whether the journal keeps *job* to run again after an interruption."""
        more = job._more
        return (
            self.journal is not None and job._entry.durable and more is not None and more.payload is not None
        )

    def keep(self, job: Job[Any], ending: Ending) -> Awaitable[None] | None:
        """Let the journal see the end of *job*, where there is one that wants to."""
        journal = self.journal
        if journal is None or (job._state is JobState.COMPLETED and not job._entry.options.durable):
            return None
        if job._state is AVAILABLE:
            return None
        wait: Awaitable[None] | None = journal.settled(job, ending)
        return wait

    def after(
        self, wait: Awaitable[None], action: Callable[[Supervisor, Job[Any]], object], job: Job[Any]
    ) -> None:
        """Call *action* once *wait* is over, however it ended."""

        async def follow() -> None:
            try:
                await wait
            finally:
                action(self, job)

        _ = self.help(follow(), f"bgruntime journal {job._entry.name}")

    def help(
        self, coroutine: Coroutine[Any, Any, Any], name: str, context: Context | None = None
    ) -> asyncio.Task[Any]:
        """Run *coroutine* in a task that the engine owns and whose failure is reported."""
        task = self.make_task(coroutine, name, context or Context())
        self.helpers[task] = None
        task.add_done_callback(self._helped)
        return task

    def _helped(self, task: asyncio.Task[Any]) -> None:
        self.helpers.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.complain(f"{task.get_name()} failed", error)

    async def begin_durable(self, job: Job[Any]) -> None:
        """Let the journal mark the start of *job*; only then does its function run and its timeout start."""
        mark = self.journal.begin(job)
        if mark is not None:
            more = job._get_more()
            more.marking = True
            try:
                marked = await mark
            finally:
                more.marking = False
            job._started = self.clock()
            if marked is None:
                raise Snooze(SICK_SECONDS)
            if not marked:
                self._let_go(job)
        if job._entry.timeout is not None and job._stop is None:
            self.watch(job, self.clock() + job._entry.timeout)

    def _let_go(self, job: Job[Any]) -> None:
        """Another process has *job* now: it is over here, and nothing of it has run."""
        job._get_more().moved = True
        job._stop = Stop(Outcome.INTERRUPTED, Reason.INTERRUPTED)
        raise asyncio.CancelledError

    # -- watching -------------------------------------------------------------------------------------

    def note_end(self, job: Job[Any], state: JobState) -> None:
        """Tell those who watch the engine that a job is over."""
        for listener in self.on_end:
            listener(job, state)
        if self.watched:
            self.check_idle()

    def is_idle(self, *, besides: Container[Job[Any]] = ()) -> bool:
        """Whether no job is available, running or retryable; paused queues, stuck attempts do not count."""
        if any(job not in besides for job in self.live) or self.outside:
            return False
        return not any(
            (line.waiting or line.nested or line.retrying) and not line.paused for line in self.lines.values()
        ) and not (self.journal is not None and self.journal.waiting())

    def check_idle(self) -> None:
        """Ask every watcher to look again, soon."""
        for watcher in list(self.watchers):
            watcher()

    async def until_idle(
        self, *, besides: Container[Job[Any]] = (), give_up: asyncio.Future[None] | None = None
    ) -> bool:
        """Wait until the engine is idle, or *give_up* is done; returns which."""
        while not self.is_idle(besides=besides):
            if give_up is not None and give_up.done():
                return False
            future: asyncio.Future[None] = self.loop.create_future()
            look = partial(self._look, future, besides)
            self.watchers.append(look)
            self.watched = True
            if give_up is not None:
                give_up.add_done_callback(partial(_wake_future, future))
            try:
                await future
            finally:
                self.watchers.remove(look)
                self.watched = bool(self.watchers or self.on_end)
        return True

    def _look(self, future: asyncio.Future[None], besides: Container[Job[Any]]) -> None:
        if not future.done() and self.is_idle(besides=besides):
            future.set_result(None)

    # -- looking ----------------------------------------------------------------------------------------

    def unended(self) -> Iterator[Job[Any]]:
        """Every job that is accepted and not over, waiting ones first."""
        for line in self.lines.values():
            for job in line.lanes:
                if job._state is AVAILABLE and job._waiters is not OVER:
                    yield job
        yield from [job for job in self.later if job._waiters is not OVER]
        yield from [job for job in self.live if job._waiters is not OVER]


class Wait:
    """One wait of the attempt of *me*, or of anybody when that is None, that `signal` ends.

    Inside an attempt it holds no slot, and goes on when it has taken the next free one. When the
    attempt itself was told to stop it needs none: its clean-up goes on at once. When only this wait
    was cancelled, by a timeout of the job's own, it goes on with a slot.
    """

    __slots__ = ("_attempt", "_counted", "_engine", "_future", "_me", "_signalled")

    def __init__(self, engine: Supervisor, me: Job[Any] | None) -> None:
        self._engine = engine
        self._me = me
        self._attempt = 0 if me is None else me._started
        self._future: asyncio.Future[None] = engine.loop.create_future()
        self._signalled = False
        self._counted = False  # whether `step_in` has counted this wait as over
        if me is not None:
            engine.step_out(me)

    def signal(self) -> None:
        """What it waits for is there. Nobody minds a second call."""
        if self._signalled:
            return
        self._signalled = True
        if self._me is None or self._me._started != self._attempt:
            if not self._future.done():  # nobody's attempt, or one that has ended before its child
                self._future.set_result(None)
        elif not self._future.done():
            self._counted = True
            self._engine.step_in(self._me, self._future)
        # else: the wait was cancelled in this turn and `until_signalled` sees to the slot

    def job_ended(self, job: Job[Any]) -> None:
        self.signal()

    async def until_signalled(self) -> None:
        """Wait. Awaited once, at once."""
        me = self._me
        try:
            await self._future
        except BaseException:
            if me is not None and me._started == self._attempt:
                await self._back_after_cancel(me)
            raise

    async def _back_after_cancel(self, me: Job[Any]) -> None:
        engine = self._engine
        more = me._get_more()
        if me not in engine.live:
            return  # nothing that is left of an attempt needs a slot
        if self._counted:
            if not self._future.cancelled():
                return  # it had its slot already
            if more.retake is self._future:  # else a sibling that began to wait has passed it over
                more.retake = None
            more.waits += 1  # `step_in` below counts it down again
        self._signalled = True
        self._future = engine.loop.create_future()
        engine.step_in(me, self._future)
        while True:
            try:
                await asyncio.wait([self._future])  # which does not cancel it
                return
            except asyncio.CancelledError:
                if me._stop is not None or me not in engine.live:
                    if more.retake is self._future:
                        more.retake = None
                    raise
                # One more cancellation of the job's own: still no step without a slot.


def _each_its_own(clock: Callable[[], float]) -> Callable[[], float]:
    """*clock*, whose every reading is an object of its own, as those of the real one are."""
    return lambda: clock() + 0.0


class _Told:
    """Calls back, in a turn of its own, when a job is over."""

    __slots__ = ("_callback", "_context", "_engine")

    def __init__(self, engine: Supervisor, callback: Callable[[Job[Any]], object]) -> None:
        self._engine = engine
        self._callback = callback
        self._context = copy_context()

    def job_ended(self, job: Job[Any]) -> None:
        self._engine.loop.call_soon(self._call, job, context=self._context)

    def _call(self, job: Job[Any]) -> None:
        try:
            self._callback(job)
        except BaseException as error:  # a SystemExit would end the loop here
            self._engine.complain(f"a done callback of {job._entry.name} failed", error)
            if isinstance(error, KeyboardInterrupt):
                self._engine.on_interrupt(error)


def add_waiter(job: Job[Any], waiter: Any) -> None:
    """Have *waiter*, a future or something with `job_ended`, told when *job* is over."""
    waiters = job._waiters
    if waiters is None:
        job._waiters = [waiter]
    elif isinstance(waiters, list):
        waiters.append(waiter)
    else:
        job._waiters = [waiters, waiter]  # type: ignore[list-item]


def drop_waiter(job: Job[Any], waiter: Any) -> None:
    """*waiter* gave up."""
    assert isinstance(job._waiters, list)  # `add_waiter` has made it one
    job._waiters.remove(waiter)


def stack_of(job: Job[Any]) -> str:
    """Where the running attempt of *job* stands, as text, innermost last; without local variables."""
    summary = traceback.StackSummary()
    waiting: Any = None if job._task is None else job._task.get_coro()
    while waiting is not None and len(summary) < STACK_LIMIT:
        frame = (
            getattr(waiting, "cr_frame", None)
            or getattr(waiting, "gi_frame", None)
            or getattr(waiting, "ag_frame", None)
        )
        if frame is None:
            break
        code = frame.f_code
        if not frame.f_globals.get("__name__", "").startswith("bgruntime._engine"):
            summary.append(traceback.FrameSummary(code.co_filename, frame.f_lineno, code.co_qualname))
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return "".join(summary.format())


def _wake_future(future: asyncio.Future[None], _: object) -> None:
    if not future.done():
        future.set_result(None)
