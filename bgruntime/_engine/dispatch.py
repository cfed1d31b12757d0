"""Dispatch: which job gets the next free slot, and its start."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .._model.jobs import Job, ThreadUse
from .._model.outcomes import Reason
from .._model.policies import USUAL_PRIORITY, Overflow
from .._model.states import JobState
from .._parts.lanes import Lanes
from .._parts.waiters import Waiters
from .attempt import attempt
from .history import FOLD_AT
from .settle import settle

if TYPE_CHECKING:
    from .supervise import Supervisor

STARTS_PER_TURN = 64
PARKED_PER_TURN = 256
SLICE_SECONDS = 0.001
AHEAD_FRAMES = 8  # above the loop: five of the user's own, and those through which `pump_ahead` is called
SWEEP_FROM = 256

AVAILABLE, RUNNING = JobState.AVAILABLE, JobState.RUNNING
_FOREVER = float("inf")
_Task = asyncio.Task
_EagerTask: Any = asyncio.Task  # its `eager_start` is known from Python 3.12 on


class Room(NamedTuple):
    """Places for so many *jobs* in one queue; *later* says that they wait for a time first."""

    jobs: int = 1
    later: bool = False


class Line:
    """One queue at work: who waits in it, and how many of its jobs stand where.

    `waiting` jobs are available, `nested` too but belong to a fan-out inside a running job and do
    not count against `size`; `later` are scheduled, retryable or about to be accepted, and of the
    last `reserved` will be available at once. Of all that are available `threaded` need a thread.
    `stale` ones were settled where they stand. `at_once` more may come in without any question, at
    least; 0 or less says: ask `reckon`.
    """

    __slots__ = (
        "_later",
        "_wanted",
        "at_once",
        "closed",
        "in_use",
        "lanes",
        "limit",
        "listed",
        "name",
        "nested",
        "overflow",
        "paused",
        "reserved",
        "retrying",
        "room",
        "size",
        "stale",
        "threaded",
    )

    def __init__(self, name: str, limit: int | None, size: int, overflow: Overflow) -> None:
        self.name = name
        self.limit = limit
        self.size = size
        self.overflow = overflow
        self.lanes: Lanes[Job[Any]] = Lanes(lambda job: job._since, USUAL_PRIORITY)
        self.room: Waiters[Room] = Waiters()
        self.in_use = self.nested = self.reserved = self.retrying = self.stale = 0
        self._later = self._wanted = 0
        self.at_once = size
        self.threaded = 0
        self.listed = self.paused = self.closed = False

    @property
    def waiting(self) -> int:
        return len(self.lanes) - self.nested - self.stale

    @property
    def later(self) -> int:
        return self._later

    @later.setter
    def later(self, jobs: int) -> None:
        self._later = jobs
        self.reckon()

    def want_room(self, submissions: int) -> None:
        """So many *submissions* more, or less, wait for room: nobody overtakes them."""
        self._wanted += submissions
        self.reckon()

    def reckon(self) -> int:
        """Find out how many may come in without any question; 0 or less when none may."""
        single = self.lanes.single
        if self._wanted:
            left = 0
        elif single is not None:  # `waiting` written out, saves three calls
            left = self.size - self._later - len(single) + self.nested + self.stale
        else:
            left = self.size - self._later - self.waiting
        self.at_once = left
        return left

    @property
    def capped(self) -> bool:
        """Whether no job of it may start now, whatever is free elsewhere."""
        return self.paused or self.closed or (self.limit is not None and self.in_use >= self.limit)

    def free(self, engine: Supervisor) -> int:
        """How many slots there are for it now: free ones that nobody else is about to take."""
        if self.capped:
            return 0
        taken = sum(line.about_to_start(engine) for line in engine.lines.values() if line is not self)
        free = engine.limit - engine.in_use - about_to_resume(engine) - taken
        if self.limit is not None:
            free = min(free, self.limit - self.in_use)
        return max(0, free - self.nested)

    def about_to_start(self, engine: Supervisor) -> int:
        """How many of its jobs would start now if there were slots for all."""
        if self.capped:
            return 0
        ready = self.waiting + self.reserved + self.nested
        ready -= max(0, self.threaded - (engine.threads - engine.threads_in_use))
        return ready if self.limit is None else min(ready, self.limit - self.in_use)

    def has_room(self, engine: Supervisor, room: Room) -> bool:
        """Whether there is *room*: in a free slot for each job, or within `size` beyond the free slots.

        One that waits for a time first takes no slot now: it counts as one that waits.
        """
        if self.waiting + self.later + room.jobs <= self.size:
            return True  # however many slots are free
        free = self.free(engine)
        if not room.later and free - self.waiting - self.reserved >= room.jobs:
            return True
        return self.waiting + self.later + room.jobs - free <= self.size

    def count_on_slots(self, engine: Supervisor, room: Room) -> None:
        """*room* is given: what of it is beyond `size` starts before the jobs of other queues do."""
        if not room.later and self.waiting + self.reserved + room.jobs > self.size:
            engine.owed[self] = None

    def take(self, room: Room) -> None:
        """Count *room* as taken, for jobs that are about to be accepted."""
        self._later += room.jobs
        self.at_once -= room.jobs
        if not room.later:
            self.reserved += room.jobs

    def give(self, room: Room) -> None:
        """Count *room* as free again: its jobs are in the line now, or will never be."""
        self._later -= room.jobs
        if not self._wanted:  # else nobody may come in without a question
            self.at_once += room.jobs
        if not room.later:
            self.reserved -= room.jobs

    def sweep_stale(self) -> None:
        """Let go of the jobs that were settled where they stand, once they are many."""
        if self.stale > SWEEP_FROM and self.stale * 2 > len(self.lanes):
            self.lanes.sweep(_is_stale)
            self.stale = 0

    def oldest_of_lowest(self) -> Iterator[Job[Any]]:
        """Its jobs, the lowest priority first, of one the oldest first; without those of fan-outs in jobs."""
        self.stale -= self.lanes.trim(_is_stale)
        return self.lanes.oldest_of_lowest()


def _is_stale(job: Job[Any]) -> bool:
    """Whether *job*, in the lanes, was settled where it stands."""
    return job._state is not AVAILABLE or job._context is None


def enqueue(engine: Supervisor, job: Job[Any]) -> None:
    """Put an available *job* in its line, and see to it that somebody looks."""
    line: Line = job._entry.queue
    more = job._more
    if more is not None and more.front:
        line.nested += 1
        line.lanes.push_front(job)
    else:
        line.at_once -= 1
        line.lanes.push(job, job._entry.priority, mixed=job._entry.threaded)
        if line.at_once < 0 and line.waiting + line.reserved > line.size:
            engine.owed[line] = None
    if job._entry.threaded:
        line.threaded += 1
    list_line(engine, line)
    kick(engine)


def list_line(engine: Supervisor, line: Line) -> None:
    """Give *line* its turn again if it has something to start and may."""
    if not line.listed and not line.capped and len(line.lanes) > line.stale:
        line.listed = engine.disturbed = True
        engine.turns.append(line)


def unlist_line(engine: Supervisor, line: Line) -> None:
    """Take *line* out of the turns: it is paused or closed."""
    if line.listed:
        line.listed = False
        engine.disturbed = True
        engine.turns.remove(line)


def kick(engine: Supervisor) -> None:
    """Have `pump` run soon if there may be something to start; when it runs already, look around again."""
    engine.disturbed = True
    if engine.pumping is False and engine.in_use < engine.limit and (engine.turns or engine.resuming):
        engine.loop.call_soon(engine.pump, context=engine.context)
        engine.pumping = True


def expect(engine: Supervisor, line: Line) -> None:
    """Have somebody look at *line*, in which a job will be when this returns; if it raises, nobody does."""
    if not line.listed and not line.capped:
        if engine.pumping is False and engine.in_use < engine.limit:
            engine.loop.call_soon(engine.pump, context=engine.context)
            engine.pumping = True
        line.listed = engine.disturbed = True
        engine.turns.append(line)


def pump(engine: Supervisor) -> None:
    """Start eligible jobs: the loop calls this."""
    if not engine.depth:
        engine.depth = _depth_here()
    now = engine.clock()
    engine.ahead_until = now + SLICE_SECONDS
    if engine.turns or engine.resuming or engine.room_wanted:
        engine.ahead = max(0, pump_at(engine, now, engine.ahead_until))
    else:  # somebody has come before it, `pump_ahead` perhaps
        engine.ahead = STARTS_PER_TURN
        engine.pumping = False


def pump_ahead(engine: Supervisor) -> None:
    """Start eligible jobs before the `pump` that is arranged does: somebody awaits one of them now.

    It saves a turn of the loop, and mostly the wait. It takes what the last pump has left of its budget and
    its slice, so that no more is done in a turn.

    Only a few frames above the loop: deeper down a job would lack the room that it has when the loop
    starts it, and whoever awaits there may be a Task that was started eagerly by an observer, an iterator
    or the like, in the midst of something that the engine does.
    """
    if engine.loop.get_task_factory() is not None or _is_as_deep_as(engine.depth + AHEAD_FRAMES):
        return
    now = engine.clock()
    if now <= engine.ahead_until:
        engine.ahead = max(0, pump_at(engine, now, engine.ahead_until, engine.ahead, arranged=True))


def _is_as_deep_as(frames: int) -> bool:
    """Whether there are so many *frames* below the one that asks."""
    if sys.version_info >= (3, 12):  # which makes no frame object, and no exception: a fourth of the time
        return sys._getframemodulename(frames + 1) is not None
    try:
        return sys._getframe(frames + 1) is not None
    except ValueError:
        return False


def _depth_here() -> int:
    """How many frames there are below the one that asks."""
    frame, depth = sys._getframe(1), 0
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


def pump_at(
    engine: Supervisor,
    now: float,
    until: float | None = None,
    budget: int = STARTS_PER_TURN,
    *,
    arranged: bool = False,
) -> int:
    """Start eligible jobs while a slot is free, at most *budget* of them, and none once it is past *until*.

    The end of an attempt calls this, so that its slot is used again at once. *arranged* says that the loop
    is going to call `pump` in any case. Returns what is left of the budget, not above 0 when it is over.
    """
    if until is None:
        until = now + SLICE_SECONDS
    turns = engine.turns
    engine.pumping = None  # neither idle nor scheduled: whoever ends inside must not come here again
    left = budget
    if engine.owed:
        left = _start_owed(engine, left, until)
    while left > 0 and engine.in_use < engine.limit:
        if engine.resuming and resume_one(engine):
            continue
        if not turns:
            break
        line: Line = turns[0]
        single = line.lanes.single
        if single is not None and not single:  # `_next_of` would find the same
            line.listed = False
            turns.popleft()
            continue
        if single and line.limit is None and engine.plain_tasks:
            engine.disturbed = len(turns) > 1  # then the next one comes from the next queue
            if engine.disturbed:
                turns.rotate(-1)
            if engine.eager:
                left = _start_eagerly(engine, line, single, left, until)
            else:
                left = _start_lazily(engine, line, single, left, now)
            continue
        job = _next_of(engine, line)
        if job is None:
            if line.listed:
                left = -left  # the search goes on in the next turn
        elif job._state is not AVAILABLE:
            line.stale -= 1
        else:
            start(engine, job)
            left = _one_less(left, job, until)
    if arranged:
        engine.pumping = True
    elif left <= 0 and engine.in_use < engine.limit and (turns or engine.resuming):
        engine.pumping = True
        engine.loop.call_soon(engine.pump, context=engine.context)
    else:
        engine.pumping = False
    engine.unfolded += budget - abs(left)
    if engine.unfolded >= FOLD_AT:
        engine.unfolded = 0
        engine.loop.call_soon(engine.fold, context=engine.context)  # it may take as long as all of this
    if engine.room_wanted:
        engine.offer_room()
    return left


def _one_less(left: int, job: Job[Any], until: float) -> int:
    """What is left of a budget of starts now that *job* was started; below 0 when the slice is over."""
    began = job._started
    return left - 1 if began is None or began <= until else 1 - left


def _start_eagerly(engine: Supervisor, line: Line, single: deque[Job[Any]], left: int, until: float) -> int:
    """Start jobs of *line* for as long as nothing is odd; returns what is left of the budget.

    This is `start` and `_next_of` written out for a queue without a limit of its own, and for first
    attempts of jobs that need nothing special: saves about 500 ns a job. Whatever changes the scene, in
    the first step of a job or otherwise, sets `disturbed`. A job that is over in its first step leaves its
    slot to the next one.
    """
    loop, live = engine.loop, engine.live
    line.in_use += 1  # for whichever job is in its first step
    engine.in_use += 1
    for left in range(left - 1, -1, -1):  # noqa: B020
        job = single.popleft()
        if job._state is not AVAILABLE:
            line.stale -= 1
        elif job._more is not None:
            line.in_use -= 1
            engine.in_use -= 1
            start(engine, job)
            if engine.in_use >= engine.limit:
                return left
            line.in_use += 1
            engine.in_use += 1
            if job._started is not None and job._started > until:
                left = -left
                break
        else:
            job._state = RUNNING
            job._attempt = 1
            entry = job._entry
            task = _EagerTask(
                attempt(engine, job),
                loop=loop,
                name=entry.name,
                context=job._context.copy(),
                eager_start=True,
            )
            began: Any = job._started
            if engine.slot_left:
                engine.slot_left = False
            else:
                if not task.done():
                    job._task = task
                    live[job] = None
                    if job._more is None:
                        job._deadline = deadline = began + entry.patience
                        if deadline < engine.deadline_at:
                            engine.arm(deadline)  # pyright: ignore[reportUnknownArgumentType]
                    else:
                        _watch_started(engine, job)
                    if engine.in_use >= engine.limit:
                        return left
                line.in_use += 1
                engine.in_use += 1
            if began > until:
                left = -left
                break
        if not single or engine.disturbed:
            break
    line.in_use -= 1
    engine.in_use -= 1
    return left


def _start_lazily(engine: Supervisor, line: Line, single: deque[Job[Any]], left: int, now: float) -> int:
    """The same where a Task takes its first step in a later turn of the loop: Python 3.11."""
    loop, live = engine.loop, engine.live
    for left in range(left - 1, -1, -1):  # noqa: B020
        job = single.popleft()
        if job._state is not AVAILABLE:
            line.stale -= 1
        elif job._more is not None:
            start(engine, job)
        else:
            line.in_use += 1
            engine.in_use += 1
            job._state = RUNNING
            job._attempt = 1
            entry = job._entry
            job._deadline = deadline = now + entry.look_within
            if deadline < engine.deadline_at:
                engine.arm(deadline)
            live[job] = None
            job._task = _Task(attempt(engine, job), loop=loop, name=entry.name, context=job._context.copy())
        if not single or engine.disturbed or engine.in_use >= engine.limit:
            return left
    return 0


def _start_owed(engine: Supervisor, left: int, until: float) -> int:
    """Start first, where a queue is over its size because slots were free, what counts on those.

    Returns what is left of the budget of starts.
    """
    for line in list(engine.owed):
        while left > 0 and line.listed and line.waiting > line.size and engine.in_use < engine.limit:
            engine.turns.remove(line)
            engine.turns.appendleft(line)
            job = _next_of(engine, line)
            if job is None:
                if line.listed:
                    left = -left  # the search goes on in the next turn
                break
            if job._state is not AVAILABLE:
                line.stale -= 1
                continue
            start(engine, job)
            left = _one_less(left, job, until)
        if line.waiting + line.reserved <= line.size:
            del engine.owed[line]
    return left


def start(engine: Supervisor, job: Job[Any]) -> None:
    """Begin an attempt of *job* in a Task of its own and a context of its own.

    Where the interpreter allows it the first step runs here, so that the job may be over on return.
    """
    entry = job._entry
    line: Line = entry.queue
    more = job._more
    if more is not None and not _may_start(engine, job):
        return
    line.in_use += 1
    engine.in_use += 1
    job._state = RUNNING
    job._attempt += 1
    job._started = None
    if more is not None:
        more.stop = None
    context = job._context
    assert context is not None
    if engine.eager and engine.plain_tasks:
        task: asyncio.Task[Any] = _EagerTask(
            attempt(engine, job), loop=engine.loop, name=entry.name, context=context.copy(), eager_start=True
        )
    else:
        task = engine.make_task(attempt(engine, job), entry.name, context.copy())
    if engine.slot_left:
        engine.slot_left = False
        free_slot(engine, line)
    if job._state is not RUNNING:  # it was over in its first step; its Task may go on, if a factory wraps it
        return
    job._task = task
    engine.live[job] = None
    _watch_started(engine, job)


def _watch_started(engine: Supervisor, job: Job[Any]) -> None:
    """Set the deadline of an attempt that was begun and goes on."""
    timeout = job._entry.timeout
    if job._stop is not None:
        # It was cancelled, or the runtime was stopped, from inside its own first step.
        engine.send_cancel(job)
        engine.watch(job, engine.clock() + engine.grace)
    elif job._started is None:
        # Its first step is still to come, and a Task that somebody cancels before that runs no line
        # of it: look whether it has begun. (A callback of the Task would cost 500 ns a job.)
        engine.watch(job, engine.clock() + job._entry.look_within)
    elif job._more is not None and job._more.marking:
        job._deadline = _FOREVER  # its timeout begins with its function
    elif timeout is not None:
        engine.watch(job, job._started + timeout)
    else:
        job._deadline = _FOREVER


def _next_of(engine: Supervisor, line: Line) -> Job[Any] | None:
    """The next job of *line* that may start now; without one the line loses its turn.

    Where many must be set aside to find it the line stays listed: the search goes on in the next turn.
    """
    threads = engine.threads_in_use < engine.threads
    left = PARKED_PER_TURN
    while not line.capped:
        job = line.lanes.pop(parked=threads)
        if job is None:
            break
        if job._state is AVAILABLE and job._entry.threaded and not threads:
            line.lanes.park(job, job._entry.priority)
            left -= 1
            if left:
                continue
            engine.turns.rotate(-1)
            return None
        engine.turns.rotate(-1)
        return job
    if not threads and line.lanes.has_parked and line not in engine.short_of_threads:
        engine.short_of_threads.append(line)
    line.listed = False
    engine.turns.popleft()
    return None


def _may_start(engine: Supervisor, job: Job[Any]) -> bool:
    """Take *job*, which is not of the plain kind, out of the counts; False if it has expired."""
    more = job._more
    assert more is not None
    line: Line = job._entry.queue
    if more.front:
        line.nested -= 1
    if job._entry.threaded:
        line.threaded -= 1
    if more.expiry is not None:
        engine.timers.cancel(more.timer)
        expired, more.expiry = engine.clock() >= more.expiry, None
        if expired:
            engine.record(job, JobState.CANCELLED, None, engine.clock(), Reason.EXPIRED)
            settle(engine, job, JobState.CANCELLED, Reason.EXPIRED, None)
            return False
    if job._entry.threaded:
        engine.threads_in_use += 1
        more.thread = ThreadUse.RESERVED
    more.holds = True
    return True


def about_to_resume(engine: Supervisor) -> int:
    """How many attempts that waited for other jobs would take a slot now."""
    lines = [job._entry.queue for job in engine.resuming]
    return sum(line.limit is None or line.in_use < line.limit for line in lines)


def resume_one(engine: Supervisor) -> bool:
    """Give a slot back to an attempt that waited for other jobs; False if none may have one now."""
    for _ in range(len(engine.resuming)):
        job = engine.resuming.popleft()
        more = job._more
        if more is None or more.retake is None or more.retake.done():
            continue
        line: Line = job._entry.queue
        if line.limit is not None and line.in_use >= line.limit:  # a pause holds up starts, not this
            engine.resuming.append(job)
            continue
        line.in_use += 1
        engine.in_use += 1
        more.holds = True
        more.retake.set_result(None)
        more.retake = None
        return True
    return False


def free_slot(engine: Supervisor, line: Line) -> None:
    """Take back a slot; the caller sees to it that `pump` runs."""
    line.in_use -= 1
    engine.in_use -= 1
    if not line.listed:
        list_line(engine, line)


def thread_returned(engine: Supervisor) -> None:
    """A thread's function has really ended: its thread slot is free again."""
    engine.threads_in_use -= 1
    while engine.short_of_threads:
        list_line(engine, engine.short_of_threads.popleft())
    kick(engine)
