"""What was counted in the last minutes and since the start, of one task or of all, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bgruntime.extend import BOUNDS, JobState, Outcome, Recent, Sketch, Spread, success_rate

MINUTE = 60.0  # seconds
MINUTES = 5  # closed ones that are kept beside the one that runs

_FINAL = frozenset({JobState.COMPLETED, JobState.DISCARDED, JobState.CANCELLED})

# Where the job went, how its attempt ended, and how its last one did, if that was counted before.
End = tuple[JobState, Outcome | None, Outcome | None]
Ends = dict[End, int]


@dataclass(slots=True)
class Slice:
    """One stretch of time: how attempts ended in it, how long they ran and what they had waited."""

    ends: Ends = field(default_factory=dict[End, int])
    run_time: Sketch = field(default_factory=Sketch)
    queue_wait: Sketch = field(default_factory=Sketch)

    def copy(self) -> Slice:
        return Slice(self.ends.copy(), self.run_time.copy(), self.queue_wait.copy())

    def merge(self, other: Slice) -> None:
        add_up(self.ends, other.ends)
        self.run_time.merge(other.run_time)
        self.queue_wait.merge(other.queue_wait)


@dataclass(slots=True)
class Closed:
    """A minute that is over, packed: a few hundred bytes."""

    number: int
    ends: Ends
    run_time: bytes
    queue_wait: bytes

    @classmethod
    def of(cls, number: int, minute: Slice) -> Closed:
        return cls(number, minute.ends, minute.run_time.to_bytes(), minute.queue_wait.to_bytes())


@dataclass(slots=True)
class Seen:
    """What a window had counted when somebody looked. The percentiles are worked out when they are read.

    For a thousand tasks that takes half a second, and most of those who look want something else.
    """

    total: Slice
    minute: Slice
    closed: Sequence[Closed]

    def ends(self) -> Ends:
        """How attempts ended since the start."""
        ends = self.total.ends.copy()
        add_up(ends, self.minute.ends)
        return ends

    def run_time(self) -> Spread:
        """How long attempts ran since the start, with the counts that Prometheus wants."""
        return Spread.later(lambda: Spread.of(_together(self.total.run_time, self.minute.run_time), BOUNDS))

    def queue_wait(self) -> Spread:
        """What attempts had waited since the start, with the counts that Prometheus wants."""
        return Spread.later(
            lambda: Spread.of(_together(self.total.queue_wait, self.minute.queue_wait), BOUNDS)
        )

    def recent(self) -> Recent:
        """What the last minutes have counted."""
        ends = self.minute.ends
        if self.closed:
            ends = ends.copy()
            for closed in self.closed:
                add_up(ends, closed.ends)
        states: dict[JobState, int] = {}
        timed_out = 0
        for (state, outcome, _), count in ends.items():
            states[state] = states.get(state, 0) + count
            timed_out += count if outcome is Outcome.TIMED_OUT else 0
        completed, failed = states.get(JobState.COMPLETED, 0), states.get(JobState.DISCARDED, 0)
        return Recent(
            completed=completed,
            failed=failed,
            cancelled=states.get(JobState.CANCELLED, 0),
            timed_out=timed_out,
            retried=states.get(JobState.RETRYABLE, 0),
            success_rate=success_rate(completed, failed),
            run_time=Spread.later(lambda: Spread.of(_together(*self._run_times()))),
            queue_wait=Spread.later(lambda: Spread.of(_together(*self._queue_waits()))),
        )

    def _run_times(self) -> Iterator[Sketch]:
        yield self.minute.run_time
        yield from (Sketch.from_bytes(closed.run_time) for closed in self.closed)

    def _queue_waits(self) -> Iterator[Sketch]:
        yield self.minute.queue_wait
        yield from (Sketch.from_bytes(closed.queue_wait) for closed in self.closed)


def finished(ends: Ends) -> dict[str, int]:
    """How many jobs ended with each outcome of their last attempt; without one, with each state."""
    counts: dict[str, int] = {}
    for (state, outcome, last), count in ends.items():
        if state in _FINAL:
            how = str(outcome or last or state)
            counts[how] = counts.get(how, 0) + count
    return counts


def add_up(ends: Ends, others: Ends) -> None:
    """Count *others* in *ends* as well."""
    for end, count in others.items():
        ends[end] = ends.get(end, 0) + count


def _together(*sketches: Sketch) -> Sketch:
    whole = Sketch()
    for one in sketches:
        whole.merge(one)
    return whole


def minute_of(now: float) -> int:
    """The minute that a time belongs to."""
    return int(now // MINUTE)


class Window:
    """Minute by minute for a while, and all together since the start."""

    __slots__ = ("_closed", "_minute", "_number", "_total")

    def __init__(self) -> None:
        self._total = Slice()
        self._minute = Slice()
        self._number = 0
        self._closed: deque[Closed] = deque(maxlen=MINUTES)

    def add(
        self, now: float, ends: Ends, run_times: Sequence[float], waits: Sequence[float], whole: Window
    ) -> None:
        """Count attempts that ended at about *now*, in seconds of any clock that does not go back.

        Those of the *whole* are counted on the way: to put a thousand windows together takes 0.1 s.
        """
        self._turn(now)
        whole._turn(now)
        minute, of_all = self._minute, whole._minute
        add_up(minute.ends, ends)
        add_up(of_all.ends, ends)
        minute.run_time.extend(run_times, of_all.run_time)
        minute.queue_wait.extend(waits, of_all.queue_wait)

    def seen(self, now: float) -> Seen:
        """What was counted since the start, in the minute that runs, and in the five before it."""
        self._turn(now)
        first = self._number - MINUTES
        closed = [minute for minute in self._closed if minute.number >= first]
        return Seen(self._total, self._minute.copy(), closed)

    def _turn(self, now: float) -> None:
        number = minute_of(now)
        if number <= self._number:
            return
        if self._minute.ends:
            total = self._total.copy()  # somebody who looked at it may not have read it yet
            total.merge(self._minute)
            self._total = total
            self._closed.append(Closed.of(self._number, self._minute))
            self._minute = Slice()
        self._number = number


__all__ = ["MINUTE", "End", "Ends", "Seen", "Window", "finished", "minute_of"]
