"""What has happened within the last so many seconds, in slices, with sums that are always up to date."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from bgruntime.extend import Sketch

SLICES = 30


@dataclass(slots=True)
class Slice:
    number: int
    completed: int = 0
    failed: int = 0
    run_time: Sketch | None = None


@dataclass(slots=True)
class Window:
    """The ends of jobs in the last *seconds*, to within a thirtieth; in bounded memory."""

    seconds: float
    with_run_time: bool = False
    completed: int = 0
    failed: int = 0
    _slices: deque[Slice] = field(default_factory=deque[Slice])

    def slice_of(self, at: float) -> int:
        """The number of the slice that the time *at* belongs to."""
        return int(at * SLICES // self.seconds)

    def add(self, at: float, completed: int, failed: int, run_times: Sequence[float]) -> None:
        """Count the ends of jobs at about *at*, by a clock that does not go back."""
        number = self.slice_of(at)
        if not self._slices or self._slices[-1].number < number:
            self._slices.append(Slice(number))
        newest = self._slices[-1]
        newest.completed += completed
        newest.failed += failed
        self.completed += completed
        self.failed += failed
        if self.with_run_time and run_times:
            newest.run_time = newest.run_time or Sketch()
            newest.run_time.extend(run_times)

    def forget(self, now: float) -> None:
        """Let go of what is older than the window."""
        oldest = self.slice_of(now) - SLICES
        while self._slices and self._slices[0].number < oldest:
            gone = self._slices.popleft()
            self.completed -= gone.completed
            self.failed -= gone.failed

    @property
    def ended(self) -> int:
        """How many jobs completed or failed."""
        return self.completed + self.failed

    @property
    def failure_rate(self) -> float:
        """The share of failed jobs, 0 without any."""
        return self.failed / self.ended if self.ended else 0.0

    def p95(self) -> tuple[float, int]:
        """The 95th percentile of the run time in seconds, and of how many attempts."""
        whole = Sketch()
        for one in self._slices:
            if one.run_time is not None:
                whole.merge(one.run_time)
        return whole.quantile(0.95), whole.size


__all__ = ["Window"]
