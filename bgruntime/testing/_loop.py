"""
SimLoop: an event loop in which time and chance belong to the test.

One callback per step, chosen by a policy and a seed; time is a number that jumps to the next
timer when nothing is ready; a program that waits for nothing is a `SimDeadlock`. Equal seeds
give equal runs, in any process: `trace_hash` is the proof.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
import threading
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack

from bgruntime.testing import _adapters
from bgruntime.testing._asyncgens import AsyncgenRow
from bgruntime.testing._errors import SimDeadlock, SimLivelock
from bgruntime.testing._policies import Policy, callback_of, policy_named, task_of
from bgruntime.testing._refusals import Refusals
from bgruntime.testing._stacks import told
from bgruntime.testing._tasks import SimFuture, SimTask
from bgruntime.testing._threads import InlineThread, current_thread, run_inside

if TYPE_CHECKING:
    from bgruntime.extend import ports

    SimPorts = ports.Ports

BLINK = 1e-6  # seconds: what is left of a wait that shall not be cut short once more
EPOCH = 1_700_000_000.0  # the wall clock's reading when a simulation starts
RECENT = 12  # steps shown when a run fails

OnStep = Callable[["SimLoop"], object]
T = TypeVar("T")
Args = TypeVarTuple("Args")


class SimLoop(Refusals):
    """
    An asyncio event loop that runs a program the way its seed says.

    *policy* is ``soft`` (each order it gives is possible in production), ``fifo`` (the stock
    order) or ``tasks`` (more orders than asyncio promises). *on_step* is called with the loop
    before every step: check what must always hold there, cancel a task, `stall` the loop,
    move the wall clock. *on_rest* is called when nothing is ready and time is about to jump:
    check there what must hold whenever the program has done all it can. *early* lets timers
    fire up to so many seconds too soon, as uvloop's do; *step_time* is what one step costs in
    seconds; *latency* is the range, in seconds,
    from which the delays of threads are drawn. More than *max_steps* steps are a
    `SimLivelock`.
    """

    _closed = True  # what the finaliser sees if a bad option keeps the loop from being made

    def __init__(
        self,
        seed: int = 0,
        *,
        policy: str | Policy = "soft",
        on_step: OnStep | None = None,
        on_rest: OnStep | None = None,
        max_steps: int = 200_000,
        early: float = 0.0,
        step_time: float = 0.0,
        latency: tuple[float, float] = (0.0001, 0.05),
    ) -> None:
        self._pick = policy_named(policy)
        super().__init__()
        self.seed = seed
        self.random = Random(f"{seed}/program")
        self.on_step = on_step
        self.on_rest = on_rest
        self.max_steps = max_steps
        self.early = early
        self.step_time = step_time
        self.latency = latency
        self.steps = 0
        self.threads = 0
        self.unhandled: list[dict[str, Any]] = []
        self.recent: deque[str] = deque(maxlen=RECENT)
        self._chance = Random(f"{seed}/schedule")
        self._shuffles_timers = policy != "fifo"
        self._now = 0.0
        self._wall = EPOCH
        self._hash = hashlib.blake2b(digest_size=16)
        self._numbers = itertools.count(1)
        self._signals: dict[int, tuple[Callable[..., object], tuple[Any, ...]]] = {}
        self._ready: list[asyncio.Handle] = []  # taken from anywhere, so not a deque
        self._scheduled: list[asyncio.TimerHandle] = []
        self._timer_cancelled_count = 0
        self._asyncgens = AsyncgenRow()
        self._ports: SimPorts | None = None

    # What a test asks for -------------------------------------------------------------

    @property
    def bgruntime_ports(self) -> SimPorts:
        """The clocks, chance and threads a Runtime on this loop uses: all of them simulated."""
        if self._ports is None:
            from bgruntime.testing._ports import ports_of  # it needs the product; we do not

            self._ports = ports_of(self)
        return self._ports

    def trace_hash(self) -> str:
        """A digest of every step and its instant: equal runs have equal ones."""
        return self._hash.hexdigest()

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def wall_time(self) -> float:
        """The simulated wall clock, in seconds since the epoch."""
        return self._wall + self._now

    def step_wall_clock(self, seconds: float) -> None:
        """Move the wall clock, and only it, forwards or back."""
        self._wall += seconds

    def stall(self, seconds: float) -> None:
        """Let *seconds* pass in which nothing runs, as if a callback had blocked."""
        self._now += max(seconds, 0.0)

    def spawn(self, target: Callable[[], object], *, then: Callable[[], object] | None = None) -> None:
        """Run *target* as an inline thread at a random instant soon, *then* when it has ended."""
        self.threads += 1
        self.call_later(self._chance.uniform(*self.latency), self._run_thread, target, then)

    def raise_signal(self, number: int) -> None:
        """Deliver a signal to its handler, as the operating system would."""
        callback, args = self._signals[number]
        self.call_soon(callback, *args)

    def stacks(self) -> str:
        """Where every task stands, and the last steps taken."""
        tasks = sorted(asyncio.all_tasks(self), key=_number)
        return "\n".join(
            [
                f"at {self._now:.6f} s, after {self.steps:,} steps; {len(tasks)} tasks:",
                *map(told, tasks),
                "last steps: " + ", ".join(self.recent),
            ]
        )

    # What asyncio asks for ------------------------------------------------------------

    def create_future(self) -> SimFuture:
        return SimFuture(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> Any:  # type: ignore[override]
        self._check_closed()
        if self.get_task_factory() is not None:
            return super().create_task(coro, **options)
        return SimTask(coro, loop=self, **options)

    def set_task_factory(self, factory: Any) -> None:
        stock: Any = asyncio  # the checkers look at it as it was in 3.11
        if factory is not None and factory is getattr(stock, "eager_task_factory", None):
            factory = stock.create_eager_task_factory(SimTask)
        super().set_task_factory(factory)

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Args]], object],
        *args: *Args,
        context: Context | None = None,
    ) -> asyncio.Handle:
        thread = current_thread()
        if thread is not None:
            return self.call_at(thread.next_instant(), callback, *args, context=context)
        if self._thread_id not in (None, threading.get_ident()):
            raise self.refusal("a real thread")
        return super().call_soon_threadsafe(callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Args]], T], *args: *Args
    ) -> asyncio.Future[T]:
        future = self.create_future()

        def work() -> None:
            if not future.cancelled():
                self.call_soon_threadsafe(_settle, future, *_outcome(func, args))

        self.spawn(work)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""

    def add_signal_handler(self, sig: int, callback: Callable[[Unpack[Args]], object], *args: *Args) -> None:
        self._signals[sig] = (callback, args)

    def remove_signal_handler(self, sig: int) -> bool:
        return self._signals.pop(sig, None) is not None

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.unhandled.append(context)

    def run_forever(self) -> None:
        with _adapters.installed():
            super().run_forever()

    def _write_to_self(self) -> None:
        """Nothing sleeps here that would have to be woken."""

    # A step ---------------------------------------------------------------------------

    def _run_once(self) -> None:
        self._make_ready()
        if not self._ready:
            return
        handle = self._ready.pop(self._pick(self._ready, self._chance))
        if handle.cancelled():
            return
        self._record(handle)
        if self.on_step is not None:
            self.on_step(self)
            if handle.cancelled():
                return
        handle._run()
        del handle  # a traceback that leads back to this frame shall not lead to what the step held
        self._now += self.step_time

    def _make_ready(self) -> None:
        self._forget_cancelled()
        horizon = self._now
        if not self._ready and not self._stopping and not self._anything_due(horizon):
            horizon = self._rest()
        if self._anything_due(horizon):
            self._ready.extend(self._due(horizon))

    def _anything_due(self, horizon: float) -> bool:
        return bool(self._scheduled) and self._scheduled[0].when() <= horizon

    def _rest(self) -> float:
        """Let time jump, and return up to when timers fire now."""
        if self.on_rest is not None:
            self.on_rest(self)
            self._forget_cancelled()
        if self._ready:
            return self._now
        if not self._scheduled:
            raise SimDeadlock(f"nothing is left that could wake anybody\n{self.stacks()}")
        due = self._scheduled[0].when()
        left = due - self._now
        early = self._chance.uniform(0.0, min(self.early, left / 2)) if left > BLINK else 0.0
        self._now = max(self._now, due - early)
        return max(self._now, due)

    def _forget_cancelled(self) -> None:
        scheduled = self._scheduled
        while scheduled and scheduled[0].cancelled():
            self._timer_cancelled_count -= 1
            _off_the_heap(heapq.heappop(scheduled))
        if self._timer_cancelled_count > 100 and 2 * self._timer_cancelled_count > len(scheduled):
            self._compact()

    def _compact(self) -> None:
        for handle in self._scheduled:
            if handle.cancelled():
                _off_the_heap(handle)
        self._scheduled = [handle for handle in self._scheduled if not handle.cancelled()]
        heapq.heapify(self._scheduled)
        self._timer_cancelled_count = 0

    def _due(self, horizon: float) -> list[asyncio.TimerHandle]:
        due: list[asyncio.TimerHandle] = []
        while self._scheduled and self._scheduled[0].when() <= horizon:
            handle = heapq.heappop(self._scheduled)
            _off_the_heap(handle)
            due.append(handle)
        if len(due) > 1 and self._shuffles_timers:
            # asyncio keeps no order among equal deadlines.
            self._chance.shuffle(due)
            due.sort(key=asyncio.TimerHandle.when)
        return due

    def _record(self, handle: asyncio.Handle) -> None:
        self.steps += 1
        if self.steps > self.max_steps:
            raise SimLivelock(f"more than {self.max_steps:,} steps\n{self.stacks()}")
        step = f"{_label(handle)}@{self._now:.6f}"
        self.recent.append(step)
        self._hash.update(step.encode())

    # Threads --------------------------------------------------------------------------

    def _run_thread(self, target: Callable[[], object], then: Callable[[], object] | None) -> None:
        thread = InlineThread(self._now, self._chance, self.latency)
        with _off_the_loop():
            run_inside(thread, target)
        self.call_at(thread.next_instant(), self._end_thread, then)

    def _end_thread(self, then: Callable[[], object] | None) -> None:
        self.threads -= 1
        if then is not None:
            then()

    def next_number(self) -> int:
        """A number no other task or future of this loop has."""
        return next(self._numbers)


@contextmanager
def _off_the_loop() -> Generator[None]:
    running = events._get_running_loop()
    events._set_running_loop(None)
    try:
        yield
    finally:
        events._set_running_loop(running)


def _outcome(func: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Exception | None]:
    try:
        return func(*args), None
    except Exception as exc:
        return None, exc


def _settle(future: asyncio.Future[Any], value: Any, exc: BaseException | None) -> None:
    if future.cancelled():
        return
    if exc is None:
        future.set_result(value)
    else:
        future.set_exception(exc)


def _off_the_heap(handle: Any) -> None:
    handle._scheduled = False  # or its cancellation would be counted


def _number(task: asyncio.Task[Any]) -> int:
    return task.number if isinstance(task, SimTask) else 0


def _label(handle: asyncio.Handle) -> str:
    task = task_of(handle)
    if isinstance(task, SimTask):
        return f"{task.number}:{task.get_name()}"
    # A foreign task's default name counts in the process, a repr has addresses.
    subject = callback_of(handle) if task is None else task.get_coro()
    return str(getattr(subject, "__qualname__", type(subject).__name__))
