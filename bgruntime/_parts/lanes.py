"""A waiting line with ten priorities, first come first served within one, and no starvation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

PRIORITIES = 10
AGED_EVERY = 8


class Lanes(Generic[T]):
    """Items by priority, 0 first. Every eighth `pop` takes what has waited longest, whatever its priority.

    Nothing is removed from the middle: whoever pops skips what has gone stale, and `sweep` lets
    go of it when there is much. `age` tells the time at which an item began to wait.

    While every item has the *usual* priority and none is mixed, the line of that is `single` and everything
    else is empty: the hot path appends to and pops from it without a call (saves about 150 ns a job).
    """

    __slots__ = ("_age", "_pops", "_usual", "front", "lines", "parked", "single")

    def __init__(self, age: Callable[[T], float], usual: int) -> None:
        self._age = age
        self._usual = usual
        self._pops = 0
        self.front: deque[T] = deque()
        self.lines: tuple[deque[T], ...] = tuple(deque() for _ in range(PRIORITIES))
        self.parked: tuple[deque[T], ...] = tuple(deque() for _ in range(PRIORITIES))
        self.single: deque[T] | None = self.lines[usual]

    def __len__(self) -> int:
        if self.single is not None:
            return len(self.single)
        return len(self.front) + sum(map(len, self.lines)) + sum(map(len, self.parked))

    def __iter__(self) -> Iterator[T]:
        yield from self.front
        for parked, line in zip(self.parked, self.lines, strict=True):
            yield from parked
            yield from line

    @property
    def has_parked(self) -> bool:
        """Whether something is set aside."""
        return any(self.parked)

    def push(self, item: T, priority: int, *, mixed: bool = False) -> None:
        """Put *item* behind everything of its priority. A *mixed* one may have to be parked later."""
        if mixed or priority != self._usual:
            self.single = None
        self.lines[priority].append(item)

    def push_front(self, item: T) -> None:
        """Put *item* before every priority, behind what was put there before it."""
        self.front.append(item)
        self.single = None

    def park(self, item: T, priority: int) -> None:
        """Set *item*, just popped, aside until `pop(parked=True)`; its place in the order is kept."""
        self.parked[priority].append(item)
        self.single = None

    def pop(self, *, parked: bool) -> T | None:
        """The next item, or None. *parked* says whether what was set aside may go now."""
        if self.single is not None:
            return self.single.popleft() if self.single else None
        if self.front:
            return self.front.popleft()
        heads = [line for line in self._heads(parked=parked) if line]
        if not heads:
            self._try_single()
            return None
        self._pops += 1
        if self._pops % AGED_EVERY == 0:
            return min(heads, key=lambda line: self._age(line[0])).popleft()
        return heads[0].popleft()

    def _heads(self, *, parked: bool) -> Iterator[deque[T]]:
        """The lines in order of priority; what was set aside is older than the rest of its own."""
        for aside, line in zip(self.parked, self.lines, strict=True):
            if parked and aside:
                yield aside
            else:
                yield line

    def _try_single(self) -> None:
        if not self.front and not any(self.parked) and not any(self.lines):
            self.single = self.lines[self._usual]

    def oldest_of_lowest(self) -> Iterator[T]:
        """The items without those at the front, the lowest priority first, of one the oldest first."""
        for priority in reversed(range(PRIORITIES)):
            yield from self.parked[priority]
            yield from self.lines[priority]

    def trim(self, stale: Callable[[T], bool]) -> int:
        """Let go of what has gone stale at the head of a line; returns how many."""
        gone = 0
        for line in (*self.parked, *self.lines):
            while line and stale(line[0]):
                line.popleft()
                gone += 1
        return gone

    def oldest(self, wanted: Callable[[T], bool]) -> T | None:
        """The item that has waited longest among those *wanted*."""
        lines = (self.front, *self.parked, *self.lines)
        firsts = (next(filter(wanted, line), None) for line in lines if line)
        return min((item for item in firsts if item is not None), key=self._age, default=None)

    def sweep(self, stale: Callable[[T], bool]) -> None:
        """Let go of what has gone stale."""
        for line in (self.front, *self.lines, *self.parked):
            kept = [item for item in line if not stale(item)]
            line.clear()
            line.extend(kept)
