"""Admit: may this submission become a job? Either it does, or it raises and nothing has happened."""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from .._model.errors import JournalUnavailable, PayloadError, QueueFull, RuntimeClosed
from .._model.events import JobAccepted, JobRejected
from .._model.jobs import Entry, Job
from .._model.outcomes import Reason
from .._model.states import JobState
from .._parts import contexts
from .._parts.waiters import Turn
from .dispatch import Line, Room, enqueue, expect

if TYPE_CHECKING:
    from .supervise import Supervisor

AVAILABLE = JobState.AVAILABLE
ON_DISK = "on disk"
FRAMES = 20  # at most, of the engine itself, between a submission and its last step
RECHECK_WALL_SECONDS, RECHECK_WALL_SHARE = 60.0, 0.1
_new = object.__new__
_UNTIL_DRAINED = frozenset({"running", "leaving", "draining"})
_PLAIN = frozenset({str, int, float, bool, bytes, type(None), list, dict, tuple, set})

# What lives no longer than the request or the transaction it came from, and what to pass instead.
_SHORT_LIVED = {
    ("starlette", "Request"): "the values you need from it (request.url, await request.json())",
    ("starlette", "WebSocket"): "the values you need from it",
    ("starlette", "HTTPConnection"): "the values you need from it",
    ("starlette", "UploadFile"): "its content, or the path of a copy: the file is closed with the request",
    ("sqlalchemy", "Session"): "the keys of the rows, and open a session in the job: Resource(make_session)",
    (
        "sqlalchemy",
        "AsyncSession",
    ): "the keys of the rows, and open a session in the job: Resource(make_session)",
    ("sqlalchemy", "scoped_session"): "the keys of the rows, and open a session in the job",
    ("sqlalchemy", "async_scoped_session"): "the keys of the rows, and open a session in the job",
}


def admit_at_once(
    entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any], waiters: Any = None
) -> Job[Any] | None:
    """Accept one job of an *entry* that may come at once, if nothing at all is in its way; else None.

    No line of it runs before the caller has gone on. This is `admit` written out for the plain case:
    saves about 400 ns a job.
    """
    engine: Supervisor = entry.engine
    line: Line = entry.queue
    if (line.at_once < 1 and line.reckon() < 1) or _get_running_loop() is not engine.loop:
        return None  # that the runtime takes jobs is why the entry was found
    for value in args:
        if type(value) not in _PLAIN:
            _check_argument(engine, entry, value)
    job: Job[Any] = _new(Job)  # pyright: ignore[reportUnknownVariableType]
    job._entry = entry
    job._args = args
    job._context = copy_context()
    job._waiters = waiters
    job._attempt = 0
    job._kwargs = job._id = job._more = job._task = job._started = None
    if kwargs:
        check_arguments(engine, entry, (), kwargs)
        job._kwargs = kwargs
    job._state = AVAILABLE
    job._since = engine.clock()
    if not line.listed:  # else somebody is about to look
        expect(engine, line)
    entry.submitted += 1  # from here on nothing can fail, at the end of the stack neither
    entry.push(job)
    line.at_once -= 1
    return job


def admit(
    engine: Supervisor, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any], waiters: Any = None
) -> Job[Any]:
    """Accept one job of *entry* now, or raise. No line of it runs before the caller has gone on."""
    if entry.at_once and engine.takes_at_once:
        job = admit_at_once(entry, args, kwargs, waiters)
        if job is not None:
            return job
    if engine.phase != "running" or _get_running_loop() is not engine.loop:
        engine.check_here()
        _check_open(engine, entry, nested=False)
    check_stack()
    check_submission(engine, entry, args, kwargs)
    line: Line = entry.queue
    if line.at_once < 1 and line.reckon() < 1:
        find_room(engine, entry)
    job = new_job(engine, entry, args, kwargs, waiters)
    place(engine, job)
    return job


def admit_nested(
    engine: Supervisor, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any], waiters: Any
) -> Job[Any]:
    """Accept a job of a fan-out inside a running job: before the queue, and outside its size."""
    engine.check_here()
    _check_open(engine, entry, nested=True)
    check_stack()
    check_arguments(engine, entry, args, kwargs)
    job = new_job(engine, entry, args, kwargs, waiters)
    job._get_more().front = True
    place(engine, job)
    return job


def admit_reserved(
    engine: Supervisor, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any], waiters: Any = None
) -> Job[Any]:
    """Accept a job whose room was taken before."""
    entry.queue.give(room_for(entry))
    _check_open(engine, entry, nested=False)
    check_stack()
    job = new_job(engine, entry, args, kwargs, waiters)
    place(engine, job)
    return job


def admit_promised(
    engine: Supervisor, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Job[Any]:
    """Accept a job whose room was promised while the runtime took jobs: until the drain is over."""
    engine.check_here()
    entry.queue.give(room_for(entry))
    if engine.phase not in _UNTIL_DRAINED:
        _check_open(engine, entry, nested=False)
    check_stack()
    job = new_job(engine, entry, args, kwargs)
    place(engine, job)
    return job


def new_job(
    engine: Supervisor, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any], waiters: Any = None
) -> Job[Any]:
    """A job that stands nowhere yet. Whoever makes one has seen to it that the stack has room to place it."""
    job: Job[Any] = _new(Job)  # pyright: ignore[reportUnknownVariableType]
    job._entry = entry
    job._args, job._kwargs = args, kwargs or None
    job._context = contexts.fresh(entry.carry) if entry.fresh else copy_context()
    job._waiters = waiters
    job._attempt = 0
    job._id = job._more = job._task = job._started = None
    job._since = engine.clock()
    job._state = AVAILABLE
    entry.tally.submitted += 1
    return job


def _frames(frames: int) -> Callable[[], None]:
    """A function that needs so many *frames* of the stack, and does nothing with them."""

    def around(inner: Callable[[], None]) -> Callable[[], None]:
        return lambda: inner()

    function: Callable[[], None] = around(lambda: None)
    for _ in range(frames - 2):
        function = around(function)
    return function


# Raises RecursionError now, before anything has happened, if there is no room for the engine's frames. The
# fast path needs none: it does first what may fail. For the others it costs half a microsecond.
check_stack = _frames(FRAMES)
check_stack_for_many = _frames(2 * FRAMES)


def place(engine: Supervisor, job: Job[Any]) -> None:
    """Let an accepted *job* wait where it belongs: in its line, or for its time."""
    if job._entry.plain:
        enqueue(engine, job)
    else:
        _place_by_options(engine, job)
    if engine.tells_accept:
        engine.tell(JobAccepted(job._since, job))


def _place_by_options(engine: Supervisor, job: Job[Any]) -> None:
    options = job._entry.options
    more = job._get_more()
    more.tags = options.tags
    if job._id is None and options.id is not None:
        take_id(engine, job, options.id)
    job._since = now = engine.clock()
    run_at = options.run_at_s
    if options.delay or (run_at is not None and run_at > engine.ports.time()):
        job._state = JobState.SCHEDULED
        if run_at is None:
            engine.wait_until(job, now + options.delay, engine.become_available)
        else:
            _wait_for_wall_clock(engine, job, run_at)
    else:
        job._state = AVAILABLE
        engine.watch_expiry(job)
        enqueue(engine, job)


def check_submission(engine: Supervisor, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse what cannot be accepted whatever room there is. Raises PayloadError, ValueError."""
    check_arguments(engine, entry, args, kwargs)
    if entry.options.id is not None:
        _check_id(engine, entry.options.id)


def _check_id(engine: Supervisor, id: str) -> None:
    other = engine.named.get(id)
    if other is not None and not other.done():
        raise ValueError(f"id {id!r} is in use by {other!r}")


def take_id(engine: Supervisor, job: Job[Any], id: str) -> None:
    """Give *job* the *id* its submitter chose. Raises ValueError if a job that is not over has it."""
    _check_id(engine, id)
    job._id = id
    engine.named[id] = job


def _wait_for_wall_clock(engine: Supervisor, job: Job[Any], run_at: float) -> None:
    """Wait until the wall clock shows *run_at*. Somebody may set it meanwhile, so look now and then."""
    left = max(0.0, run_at - engine.ports.time())
    next_look = min(left, max(RECHECK_WALL_SECONDS, left * RECHECK_WALL_SHARE))

    def look(job: Job[Any]) -> None:
        if engine.ports.time() >= run_at:
            engine.become_available(job)
        else:
            engine.leave_later(job)
            _wait_for_wall_clock(engine, job, run_at)

    engine.wait_until(job, engine.clock() + next_look, look)


# -- room -------------------------------------------------------------------------------------------


def room_for(entry: Entry, jobs: int = 1) -> Room:
    """What so many jobs of *entry* need."""
    return Room(jobs, later=bool(entry.options.delay) or entry.options.run_at is not None)


def find_room(engine: Supervisor, entry: Entry, jobs: int = 1) -> None:
    """Return if *jobs* more may come in now, after dropping what the policy says; else QueueFull.

    Whoever waits for room comes first: nobody overtakes them.
    """
    line: Line = entry.queue
    room = room_for(entry, jobs)
    queued_up = bool(line.room) and engine.inside() is None
    if queued_up:
        raise full(engine, entry)
    dropped: list[Job[Any]] = []
    droppable: Iterator[Job[Any]] = iter(())
    if line.overflow == "drop_oldest":
        droppable = filter(_may_be_dropped, line.oldest_of_lowest())
    stale = line.stale
    try:  # all that would have to go is found before the first goes
        while not line.has_room(engine, room):
            oldest = next(droppable, None)
            if oldest is None:
                raise full(engine, entry)
            dropped.append(oldest)
            line.stale += 1
    finally:
        line.stale = stale
    line.take(room)  # for the caller: the end of a job may bring in another one at once
    try:
        for job in dropped:
            if job._state is AVAILABLE:  # else the end of one before has ended it
                engine.withdraw(job, Reason.DROPPED)
    finally:
        line.give(room)
    line.count_on_slots(engine, room)


async def wait_for_room(engine: Supervisor, entry: Entry, jobs: int = 1, limit: float | None = None) -> None:
    """Take room for *jobs* more, waiting for it if the queue's policy is to wait.

    The room is the caller's on return: it admits with `admit_reserved`, or gives the room back with
    `give_back`. A caller that is cancelled has taken nothing.

    Raises:
        QueueFull: there is none, after *limit* seconds; at once inside a job of this runtime.
        RuntimeClosed: the runtime stopped meanwhile.
    """
    line: Line = entry.queue
    room = room_for(entry, jobs)
    waits = line.overflow == "wait" and engine.inside() is None
    if not waits or (not line.room and line.has_room(engine, room)):
        find_room(engine, entry, jobs)
        line.take(room)
        return
    future: asyncio.Future[Turn] = engine.loop.create_future()
    line.room.add(future, room)
    engine.room_wanted += 1
    line.want_room(1)
    timer = None
    if limit is not None:
        timer = engine.timers.at(engine.clock() + limit, _too_late, future)
    try:
        turn = await future
    except asyncio.CancelledError:
        if future.done() and not future.cancelled() and future.result() is Turn.YOURS:
            give_back(engine, entry, jobs)
        raise
    finally:
        line.room.leave(future)
        engine.room_wanted -= 1
        line.want_room(-1)
        if timer is not None:
            engine.timers.cancel(timer)
        if engine.room_wanted:
            engine.offer_room()  # the next in the line may want less than this one did
    if turn is Turn.TOO_LATE:
        raise full(engine, entry, f" and none left within {limit:g} s")
    if turn is Turn.CLOSED or engine.phase != "running":
        if turn is Turn.YOURS:
            give_back(engine, entry, jobs)
        raise RuntimeClosed(engine.phase)


def give_back(engine: Supervisor, entry: Entry, jobs: int) -> None:
    """Give back room that was taken and is not used."""
    entry.queue.give(room_for(entry, jobs))
    engine.offer_room()


def _too_late(future: asyncio.Future[Turn]) -> None:
    if not future.done():
        future.set_result(Turn.TOO_LATE)


def _may_be_dropped(job: Job[Any]) -> bool:
    return job._state is AVAILABLE and job._started is None and not job._entry.options.durable


def full(engine: Supervisor, entry: Entry, why: str = "") -> QueueFull:
    """The error of a submission for which there is no room; it is counted."""
    _reject(engine, entry, "queue_full")
    return QueueFull(entry.queue.name, entry.queue.size, why)


def check_open_here(engine: Supervisor, entry: Entry) -> None:
    """Raise unless this is the loop of the runtime, and it takes jobs."""
    engine.check_here()
    _check_open(engine, entry, nested=False)


def _check_open(engine: Supervisor, entry: Entry, *, nested: bool) -> None:
    try:
        engine.check_open(nested=nested)
    except RuntimeClosed:
        _reject(engine, entry, "closed")
        raise


def _reject(engine: Supervisor, entry: Entry, reason: str) -> None:
    entry.tally.rejected += 1
    if engine.tell.wanted(JobRejected):
        engine.tell(JobRejected(engine.clock(), entry.name, reason))


# -- arguments ----------------------------------------------------------------------------------------


def check_arguments(engine: Supervisor, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse arguments that will be dead when the job runs. Raises PayloadError."""
    for value in args:
        if type(value) not in _PLAIN:
            _check_argument(engine, entry, value)
    for value in kwargs.values():
        if type(value) not in _PLAIN:
            _check_argument(engine, entry, value)


def _check_argument(engine: Supervisor, entry: Entry, value: Any) -> None:
    instead = _what_instead(type(value))  # pyright: ignore[reportUnknownArgumentType]
    if instead is not None:
        _reject(engine, entry, "payload")
        what = with_article(type(value).__name__)
        raise PayloadError(
            f"job of {entry.name}: {what} does not outlive the request it belongs to and "
            f"cannot be an argument; pass {instead}"
        )


def with_article(name: str) -> str:
    """*name* after "a" or "an", as one would say it."""
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"


def _what_instead(kind: type[Any]) -> str | None:
    for base in kind.__mro__:
        found = _SHORT_LIVED.get((base.__module__.partition(".")[0], base.__name__))
        if found is not None:
            return found
    return None


# -- durable --------------------------------------------------------------------------------------------

_TURN = 0.0005  # seconds of encoding after which the loop has its turn


async def _encoded(
    engine: Supervisor, entry: Entry, calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]
) -> list[Any]:
    """The arguments of all *calls* as the journal keeps them."""
    payloads: list[Any] = []
    until = engine.clock() + _TURN
    for args, kwargs in calls:
        payloads.append(engine.journal.encode(entry.definition, args, kwargs))
        if engine.clock() > until:
            await asyncio.sleep(0)
            until = engine.clock() + _TURN
    return payloads


async def admit_durable(
    engine: Supervisor,
    entry: Entry,
    calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]],
    limit: float | None,
    waiters: Any = None,
) -> list[Job[Any]]:
    """Accept durable jobs: they are on disk, all or none, when this returns.

    A cancelled call withdraws them: what was written is taken back by the journal.
    """
    check_stack()
    journal = engine.journal
    if journal is None:
        _reject(engine, entry, "journal")
        raise JournalUnavailable(
            f"task {entry.name} is durable and this runtime has no journal: Runtime(journal=...)"
        )
    if len(calls) == 1:
        payloads = [journal.encode(entry.definition, *calls[0])]
    else:
        payloads = await _encoded(engine, entry, calls)
        engine.check_open()  # a stop may have begun meanwhile
    line: Line = entry.queue
    room = room_for(entry, len(calls))
    if not line.room and line.has_room(engine, room):
        line.take(room)  # what `wait_for_room` would do
    else:
        await wait_for_room(engine, entry, len(calls), limit)
    jobs: list[Job[Any]] = []
    accepted = False
    try:
        for payload in payloads:
            job = new_job(engine, entry, payload.args, payload.kwargs, waiters)
            job._get_more().payload = ON_DISK  # and not the text as well, for as long as it waits
            if entry.options.id is None:
                job._id = id = journal.new_id()
                engine.named[id] = job
            else:
                take_id(engine, job, entry.options.id)
            jobs.append(job)
        await journal.accept(jobs, payloads)
        accepted = True
        engine.check_open()
    except BaseException:
        for job in jobs:
            engine.named.pop(job.id, None)
            job._context = job._args = job._kwargs = None
            entry.tally.submitted -= 1
        if accepted:
            journal.withdraw(jobs)
        give_back(engine, entry, len(calls))
        raise
    line.give(room)
    for job in jobs:
        place(engine, job)
    return jobs
