"""Percentiles of many numbers in little memory, exact to merge."""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from math import ceil

RATIO = 1.0198  # between two edges, so that the middle of a bucket is at most 1 % off
SMALLEST, LARGEST = 1e-6, 1e6

# What Prometheus counts by; each of them is an edge, so that the counts below it are exact.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

_HEAD = struct.Struct("<dddI")
_PAIR = struct.Struct("<HI")
_MOST = 2**32 - 1


def _edges() -> tuple[float, ...]:
    """The upper edges of all buckets but the last: a geometric row that stops at each of BOUNDS."""
    edges = [SMALLEST]
    stops = iter((*BOUNDS, LARGEST))
    stop = next(stops)
    while edges[-1] < LARGEST:
        following = edges[-1] * RATIO
        if following >= stop * 0.999_999:
            following, stop = stop, next(stops, LARGEST * 2)
        edges.append(following)
    return tuple(edges)


EDGES = _edges()


class Sketch:
    """Counts, mean, extremes and percentiles of the numbers it was given, most of them seconds.

    A percentile is at most 1 % away from the true one between 1 µs and 11 days; count, sum, least and
    greatest are exact. Sketches of parts, merged, are the sketch of the whole, to the last count.
    Memory: at most about 1,500 counts, whatever it is given, in practice about a hundred.
    """

    __slots__ = ("counts", "greatest", "least", "size", "total")

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.counts: dict[int, int] = {}
        self.size = 0
        self.total = 0.0
        self.least = float("inf")
        self.greatest = 0.0
        self.extend(values)

    def add(self, value: float) -> None:
        """Count one *value*."""
        self.extend((value,))

    def extend(self, values: Iterable[float], *others: Sketch) -> None:
        """Count many values, the more, the cheaper for each; in *others* too, which costs little more."""
        ordered = sorted(values)
        if not ordered:
            return
        sketches = (self, *others)
        total, least, greatest = sum(ordered), ordered[0], ordered[-1]
        for sketch in sketches:
            sketch.size += len(ordered)
            sketch.total += total
            sketch.least = min(sketch.least, least)
            sketch.greatest = max(sketch.greatest, greatest)
        all_counts = [sketch.counts for sketch in sketches]
        last = len(EDGES) - 1
        at, end = 0, len(ordered)
        while at < end:
            # One step for each bucket that is hit: half the cost of looking each value up.
            bucket = bisect_left(EDGES, ordered[at])
            above = end if bucket > last else bisect_right(ordered, EDGES[bucket], at)
            for counts in all_counts:
                counts[bucket] = counts.get(bucket, 0) + above - at
            at = above

    def copy(self) -> Sketch:
        """The sketch as it is now: a tenth of the cost of merging it into an empty one."""
        twin = object.__new__(type(self))
        twin.counts = self.counts.copy()
        twin.size, twin.total = self.size, self.total
        twin.least, twin.greatest = self.least, self.greatest
        return twin

    def merge(self, other: Sketch) -> None:
        """Count all that *other* has counted."""
        counts = self.counts
        for bucket, count in other.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count
        self.size += other.size
        self.total += other.total
        self.least = min(self.least, other.least)
        self.greatest = max(self.greatest, other.greatest)

    @property
    def mean(self) -> float:
        """The arithmetic mean; 0 when there is nothing."""
        return self.total / self.size if self.size else 0.0

    def quantiles(self, *shares: float) -> tuple[float, ...]:
        """The values below which these *shares*, from 0 to 1, of all values lie; 0 when there is nothing."""
        if not self.size:
            return (0.0,) * len(shares)
        buckets = sorted(self.counts)
        up_to = list(accumulate(map(self.counts.__getitem__, buckets)))
        return tuple(self._within(buckets[bisect_left(up_to, self._rank(share))]) for share in shares)

    def quantile(self, share: float) -> float:
        """The value below which this *share*, from 0 to 1, of all values lies."""
        return self.quantiles(share)[0]

    def at_most(self, bounds: Iterable[float] = BOUNDS) -> tuple[int, ...]:
        """How many values are at most as great as each of *bounds*; exact for those of `BOUNDS`."""
        buckets = sorted(self.counts)
        up_to = [0, *accumulate(map(self.counts.__getitem__, buckets))]
        return tuple(up_to[bisect_right(buckets, bisect_left(EDGES, bound))] for bound in bounds)

    def _rank(self, share: float) -> int:
        return max(1, min(self.size, ceil(share * self.size)))

    def _within(self, bucket: int) -> float:
        """The value that stands for a bucket: as far, in proportion, from one edge as from the other."""
        if bucket == 0:
            middle = SMALLEST / 2
        elif bucket >= len(EDGES):
            middle = LARGEST
        else:
            low, high = EDGES[bucket - 1], EDGES[bucket]
            middle = 2 * low * high / (low + high)
        return max(self.least, min(self.greatest, middle))

    def to_bytes(self) -> bytes:
        """A short form to keep; `from_bytes` gives the sketch back."""
        pairs = b"".join(_PAIR.pack(bucket, min(count, _MOST)) for bucket, count in self._pairs())
        return _HEAD.pack(self.total, self.least, self.greatest, len(self.counts)) + pairs

    @classmethod
    def from_bytes(cls, data: bytes) -> Sketch:
        """The sketch that was written as *data*.

        Raises:
            ValueError: it was not.
        """
        try:
            total, least, greatest, length = _HEAD.unpack_from(data)
            pairs = list(_PAIR.iter_unpack(data[_HEAD.size :]))
        except struct.error as error:
            raise ValueError(f"{len(data)} bytes that are no sketch") from error
        if len(pairs) != length or any(bucket > len(EDGES) for bucket, _ in pairs):
            raise ValueError(f"{len(data)} bytes that are no sketch")
        sketch = cls()
        sketch.counts = dict(pairs)
        sketch.size = sum(sketch.counts.values())
        sketch.total, sketch.least, sketch.greatest = total, least, greatest
        return sketch

    def _pairs(self) -> Iterator[tuple[int, int]]:
        yield from sorted(self.counts.items())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sketch):
            return NotImplemented
        return (self.counts, self.least, self.greatest) == (other.counts, other.least, other.greatest)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if not self.size:
            return "<Sketch of nothing>"
        p50, p99 = self.quantiles(0.5, 0.99)
        return f"<Sketch of {self.size}: p50 {p50:.4g}, p99 {p99:.4g}, max {self.greatest:.4g}>"


__all__ = ["BOUNDS", "Sketch"]
