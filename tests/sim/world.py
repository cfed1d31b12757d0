"""
What the simulated clients asked for, what became of it, and who broke which promise.

A `Call` is one thing a client asked of the runtime. Bodies of jobs, clients and the observer
write into it what they see; the oracles read it. A broken promise is noted where it is seen,
also inside a job, where an assertion would be taken for the job's own failure.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from bgruntime import Job, Runtime, current_job
from bgruntime._engine.attempt import running_job
from bgruntime.testing import SimLoop

GRACE, HARD = 1.0, 1.0  # seconds: cancel_grace and cancel_hard of the simulated runtimes
BLINK = 1e-6  # seconds: less than anything the scenarios wait for
FOREVER = float("inf")
UNKNOWN = 1e12  # when a thread ends that has just begun

submitted_by: ContextVar[int] = ContextVar("submitted_by", default=0)
left_behind: ContextVar[int] = ContextVar("left_behind", default=0)


class Luggage:
    """An argument that somebody may forget to let go."""

    __slots__ = ("__weakref__",)


class Raised(NamedTuple):
    """What a body raised, without holding on to it: the frames of a traceback hold everything."""

    id: int
    kind: type[BaseException] | None = None
    cause: int = 0

    @classmethod
    def of(cls, exc: BaseException) -> Raised:
        return cls(id(exc), type(exc), id(exc.__cause__))


NOTHING = Raised(0)


class Call:
    """One thing a client asked for, and all that is known about it."""

    def __init__(self, world: World, kind: str, pace: float, way: str, owner: Call | None) -> None:
        self.world = world
        self.number = len(world.calls) + 1
        self.kind, self.pace, self.way, self.owner = kind, pace, way, owner
        self.queue = "default"
        self.priority = 5
        self.timeout: float | None = None
        self.max_attempts = 1
        self.not_before = 0.0
        self.delay = 0.0
        self.plain = True  # no delay, no expiry: it is eligible from its acceptance on
        self.threaded = kind.startswith("thread")
        self.expires_in = FOREVER
        self.asked_by = owner.number if owner is not None else -self.number
        self.fan: Fan | None = None
        self.job: Job[Any] | None = None
        self.luggage: weakref.ref[Luggage] | None = None
        # What the observer heard.
        self.accepted = self.settled = 0
        self.order = 0
        self.accepted_at = self.wakes_at = FOREVER
        self.started: list[float] = []
        self.declared = False
        # What the body saw.
        self.runs = 0
        self.running = False
        self.began = 0.0
        self.cancel_seen_at = FOREVER
        self.cancels_seen = 0
        self.was_told = False
        self.task: asyncio.Task[Any] | None = None
        self.begins_late = False  # it was started under a larger limit than there is now
        self.in_attempt: Job[Any] | None = None  # whose attempt its body is, also where `job` is not known
        self.slotless = False  # it was cancelled while it waited for jobs of its own
        self.waits = 0
        self.raised = NOTHING
        self.returned: Any = None
        self.has_returned = False
        self.free_at = FOREVER  # when the function of a thread really ended
        # What the clients did.
        self.asked_at_step, self.asked_at = world.loop.steps, world.now
        self.withdrawn = self.refused = False
        self.cancelled_at = FOREVER
        self.cancelled_before_start = False
        self.asked_while_running = False
        self.left_to_itself = True  # nobody else may cancel it
        self.stops_itself = False
        self.asker = asyncio.current_task()
        self.returned_in_time = False

    @property
    def __dict__(self):
        """What the look for secrets sees: else it would go through the whole world, for each error."""
        return {"number": self.number}

    def __repr__(self) -> str:
        return f"<{self.kind} {self.number} by {self.way} on {self.queue}, {self.runs} runs, {self.job!r}>"

    @property
    def over(self) -> bool:
        return self.job is not None and self.job.done()

    @property
    def state(self) -> str:
        return "unknown" if self.job is None else str(self.job.state)

    @property
    def due(self) -> float:
        """When the timeout of the attempt that runs is due, as far as its body can tell."""
        return FOREVER if self.timeout is None else self.began + self.timeout

    @property
    def knows_of_cancel(self) -> bool:
        """Its body, or what it waits in, was told to stop."""
        return self.cancel_seen_at < FOREVER or (self.task is not None and self.task.cancelling() > 0)

    @property
    def abandoned(self) -> bool:
        """Its body may go on alone: it was asked to stop for as long as one may be asked."""
        return self.running and self.world.now >= self._patience_ends - self.world.stalled - BLINK

    @property
    def surely_abandoned(self) -> bool:
        """It must be on its own by now, however late the loop was."""
        return self.running and self.world.now > self._patience_ends + self.world.stalled + BLINK

    @property
    def _patience_ends(self) -> float:
        return min(self.cancel_seen_at, self.due) + GRACE + HARD

    @property
    def stuck_with_slot(self) -> bool:
        """It was given up and goes on, and held a slot when it was."""
        return self.running and not self.waits and not self.slotless and self.abandoned

    @property
    def waits_for_room(self) -> bool:
        """Whoever asked for it is outside of jobs, and sleeps until there is room for it."""
        if self.owner is not None or self.way not in ("submit", "many"):
            return False
        if self.job is not None or self.refused or self.withdrawn or self.asker is None:
            return False
        future: Any = getattr(self.asker, "_fut_waiter", None)
        return future is not None and not future.done() and self.asked_at_step < self.world.loop.steps

    @property
    def holds_slot(self) -> bool:
        return self.running and not self.waits and not self.slotless and not self.abandoned

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around every run of the body."""
        self._begin()
        try:
            yield
        except BaseException as exc:
            if isinstance(exc, asyncio.CancelledError):
                self.saw_cancel()
            self.raised = Raised.of(exc)
            raise
        finally:
            self.was_told = self.knows_of_cancel
            self.running, self.task, self.in_attempt = False, None, None
            self.world.ended += 1

    def _begin(self) -> None:
        world = self.world
        if self.running:
            world.violate("P09", f"attempts of one job overlap: {self}")
        if self.withdrawn or self.refused:
            world.violate("P02", f"a job ran whose submit did not return: {self}")
        if self.cancelled_before_start:
            world.violate("P12", f"a job started after it was cancelled in the queue: {self}")
        if self.threaded and world.now < self.free_at < UNKNOWN:
            world.violate("P09", f"attempts of one job overlap in two threads: {self}")
        if self.over:
            world.violate("P09", f"a job started after its end: {self}")
        if world.now < self.not_before - BLINK:
            world.violate("P11", f"started {self.not_before - world.now:.6f} s early: {self}")
        self.in_attempt = running_job.get()
        self.begins_late = self.in_attempt in world.begin_late
        world.begin_late.discard(self.in_attempt)
        self.runs += 1
        self.task = None if self.threaded else asyncio.current_task()
        self.running, self.waits, self.slotless = True, 0, False
        self.began, self.cancel_seen_at, self.has_returned = world.now, FOREVER, False
        self.cancels_seen, self.raised = 0, NOTHING
        world.began += 1
        job = current_job()
        if job.attempt > self.max_attempts:
            world.violate("P07", f"attempt {job.attempt} of {self.max_attempts}: {self}")
        if submitted_by.get() != self.asked_by:
            world.violate(
                "P27", f"ran in the context of {submitted_by.get()}, not of {self.asked_by}: {self}"
            )
        if left_behind.get() == self.number:
            world.violate("P27", f"an attempt found what the one before left in its context: {self}")
        left_behind.set(self.number)
        paused_since = world.paused_since.get(self.queue, FOREVER)
        if not self.threaded and paused_since < world.now - world.stalled - BLINK:
            world.violate("P06", f"started although {self.queue} is paused: {self}")
        world.check_limits(self)
        self.begins_late = False

    def saw_cancel(self) -> None:
        """CancelledError has reached the body."""
        self.cancels_seen += 1
        self.cancel_seen_at = min(self.cancel_seen_at, self.world.now)
        if not self.may_be_cancelled():
            self.world.violate("P13", f"cancelled, and nobody asked for it: {self}")

    def may_be_cancelled(self) -> bool:
        world = self.world
        return (
            self.stops_itself
            or not self.left_to_itself
            or world.stopping
            or self.cancelled_at <= world.now
            or world.now >= self.due - world.stalled - BLINK
        )

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around every wait for jobs of the own runtime: no slot is held meanwhile."""
        self.waits += 1
        try:
            yield
        finally:
            self.waits -= 1
            # Cleaning up after a cancellation needs no slot.
            self.slotless = self.slotless or self.knows_of_cancel
            if not self.slotless:
                self.world.check_limits(self)


class Fan:
    """One map, gather or group: at most *limit* of its calls run at once."""

    def __init__(self, limit: int | None, *, falls_together: bool) -> None:
        self.limit = limit
        self.falls_together = falls_together  # the first failure ends all of it
        self.calls: list[Call] = []
        self.pulled = self.yielded = 0


class World:
    """The state of one simulated scenario as its clients know it."""

    def __init__(self, loop: SimLoop) -> None:
        self.loop = loop
        self.chance = loop.random
        self.calls: list[Call] = []
        self.violations: list[str] = []
        self.clients: list[asyncio.Task[Any]] = []
        self.cancelled_clients: list[asyncio.Task[Any]] = []
        self.limits: dict[str, int] = {}
        self.begin_late: weakref.WeakSet[Any] = weakref.WeakSet()  # jobs that a smaller limit came in between
        self.concurrency = 1
        self.threads = 1
        self.queue_size: dict[str, int] = {}
        self.paused: dict[str, int] = {}
        self.paused_since: dict[str, float] = {}
        self.threadsafe: list[tuple[Call, list[Any]]] = []
        self.rt: Runtime
        self.observed = False
        self.stopping_since = FOREVER
        self.quiet = False  # nothing is taken from outside any more
        self.closed_to_all = False
        self.fans: list[Fan] = []
        self.drops = self.waits = False
        self.wait_limit: float | None = None
        self.likes_threads = loop.seed % 5 == 1
        self.witness: Any = None
        self.over = False  # bodies that never end may end now
        self.stalled = 0.0
        self.began = self.ended = 0
        self.opened = self.closed = 0

    @property
    def now(self) -> float:
        return self.loop.time()

    @property
    def stopping(self) -> bool:
        return self.stopping_since < FOREVER

    def begin_to_stop(self) -> None:
        """From now on the runtime may be stopping."""
        self.stopping_since = min(self.stopping_since, self.now)

    def violate(self, promise: str, what: str) -> None:
        """Note that *promise* was broken; the next step fails the seed."""
        self.violations.append(f"{promise}: {what} (at {self.now:.6f} s, step {self.loop.steps})")

    def call(self, kind: str, way: str, owner: Call | None = None) -> Call:
        pace = self.chance.choice([0, 0, 0.1, 0.5, 1, 2])
        call = Call(self, kind, pace, way, owner)
        self.calls.append(call)
        return call

    def running(self, queue: str | None = None) -> int:
        """How many bodies surely hold a slot, in one queue or in all."""
        return sum(call.holds_slot and queue in (None, call.queue) for call in self.calls if call.running)

    def may_hold(self, queue: str | None = None) -> int:
        """How many may hold one: those who clean up or were only just given up included."""
        held = [call for call in self.calls if call.running and not call.waits and not call.surely_abandoned]
        return sum(queue in (None, call.queue) for call in held)

    def check_limits(self, call: Call) -> None:
        """A body has just begun, or goes on after a wait: no limit may be exceeded by it."""
        if call.threaded:
            busy = sum(self.now < other.free_at < FOREVER for other in self.calls)
            if busy > self.threads:
                self.violate("P06", f"{busy} threads run, {self.threads} are allowed: {call}")
            return
        if self.running() > self.concurrency:
            self.violate("P06", f"{self.running()} attempts run, {self.concurrency} are allowed: {call}")
        beyond = sum(other.stuck_with_slot for other in self.calls) - max(1, self.concurrency // 10)
        if self.running() + max(0, beyond) > self.concurrency:
            self.violate("P06", f"{beyond} stuck ones too many have given their slots back: {call}")
        limit = self.limits.get(call.queue)
        if limit is not None and not call.begins_late and self.running(call.queue) > limit:
            self.violate(
                "P06", f"{self.running(call.queue)} run on {call.queue}, {limit} are allowed: {call}"
            )
        fan = call.fan if self.observed else None  # else its jobs are not known
        if (
            fan is not None
            and fan.limit is not None
            and sum(c.running and not c.abandoned for c in fan.calls) > fan.limit
        ):
            self.violate("P06", f"more than {fan.limit} of one fan-out run: {call}")
