"""What was counted in the last minutes and since the start, of one task or of all, in bounded memory."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bgruntime.extend import BOUNDS, JobState, Outcome, Recent, Sketch, Spread, success_rate

MINUTE = 60.0  # seconds
MINUTES = 5  # closed ones that are kept beside the one that runs

_FINAL = frozenset({JobState.COMPLETED, JobState.DISCARDED, JobState.CANCELLED})

# Where the job went, how its attempt ended, and how its last one did, if that was counted before.
End = tuple[JobState, Outcome | None, Outcome | None]
Ends = Counter[End]


@dataclass(slots=True)
class Slice:
    """One stretch of time: how attempts ended in it, how long they ran and what they had waited."""

    ends: Ends = field(default_factory=Counter[End])
    run_time: Sketch = field(default_factory=Sketch)
    queue_wait: Sketch = field(default_factory=Sketch)

    def merge(self, other: Slice) -> None:
        self.ends.update(other.ends)
        self.run_time.merge(other.run_time)
        self.queue_wait.merge(other.queue_wait)

    def state(self, state: JobState) -> int:
        return sum(count for (where, _, _), count in self.ends.items() if where is state)

    def finished(self) -> dict[str, int]:
        """How many jobs ended with each outcome of their last attempt; without one, with each state."""
        counts: Counter[str] = Counter()
        for (state, outcome, last), count in self.ends.items():
            if state in _FINAL:
                counts[str(outcome or last or state)] += count
        return dict(counts)

    def outcome(self, outcome: Outcome) -> int:
        return sum(count for (_, how, _), count in self.ends.items() if how is outcome)


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

    def opened(self) -> Slice:
        return Slice(self.ends, Sketch.from_bytes(self.run_time), Sketch.from_bytes(self.queue_wait))


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

    def add(self, now: float, ends: Ends, run_times: Sequence[float], waits: Sequence[float]) -> None:
        """Count attempts that ended at about *now*, in seconds of any clock that does not go back."""
        self._turn(now)
        self._minute.ends.update(ends)
        self._minute.run_time.extend(run_times)
        self._minute.queue_wait.extend(waits)

    def total(self) -> Slice:
        """Everything since the start."""
        whole = Slice()
        whole.merge(self._total)
        whole.merge(self._minute)
        return whole

    def recent(self, now: float) -> Slice:
        """The minute that runs and the five before it."""
        self._turn(now)
        first = self._number - MINUTES
        recent = Slice()
        for closed in self._closed:
            if closed.number >= first:
                recent.merge(closed.opened())
        recent.merge(self._minute)
        return recent

    def _turn(self, now: float) -> None:
        number = minute_of(now)
        if number <= self._number:
            return
        if self._minute.ends:
            self._total.merge(self._minute)
            self._closed.append(Closed.of(self._number, self._minute))
            self._minute = Slice()
        self._number = number


def recent_of(slice_: Slice) -> Recent:
    """What the last minutes have counted, as it is shown."""
    completed, failed = slice_.state(JobState.COMPLETED), slice_.state(JobState.DISCARDED)
    return Recent(
        completed=completed,
        failed=failed,
        cancelled=slice_.state(JobState.CANCELLED),
        timed_out=slice_.outcome(Outcome.TIMED_OUT),
        retried=slice_.state(JobState.RETRYABLE),
        success_rate=success_rate(completed, failed),
        run_time=Spread.of(slice_.run_time),
        queue_wait=Spread.of(slice_.queue_wait),
    )


def spread_of(sketch: Sketch) -> Spread:
    """The spread of all values, with the counts that Prometheus wants."""
    return Spread.of(sketch, BOUNDS)


def merged(slices: Iterable[Slice]) -> Slice:
    """All *slices* as one."""
    whole = Slice()
    for one in slices:
        whole.merge(one)
    return whole


__all__ = ["End", "Slice", "Window", "merged", "minute_of", "recent_of", "spread_of"]
