"""A sketch keeps its word: 1 % for percentiles, to the last count for the rest, and merging loses nothing."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgruntime.extend import BOUNDS, Sketch

durations = st.lists(st.floats(min_value=1e-6, max_value=9e5), max_size=200)
shares = st.floats(min_value=0, max_value=1)


def exact(values: list[float], share: float) -> float:
    """The nearest-rank percentile."""
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda chance: chance.lognormvariate(-4, 1.5), id="lognormal"),
        pytest.param(lambda chance: chance.expovariate(20), id="exponential"),
        pytest.param(lambda chance: chance.uniform(0.001, 300), id="uniform"),
        pytest.param(lambda chance: chance.choice([0.002, 0.8, 40.0]), id="three peaks"),
    ],
)
def test_percentiles_of_a_million_known_values_are_within_one_per_cent(draw):
    chance = random.Random(7)
    values = [draw(chance) for _ in range(1_000_000)]
    sketch = Sketch()
    for start in range(0, len(values), 1000):
        sketch.extend(values[start : start + 1000])
    for share, found in zip((0.5, 0.95, 0.99, 0.999), sketch.quantiles(0.5, 0.95, 0.99, 0.999), strict=True):
        assert found == pytest.approx(exact(values, share), rel=0.01)
    assert sketch.size == len(values)
    assert sketch.greatest == max(values)
    assert sketch.mean == pytest.approx(sum(values) / len(values))


@given(durations.filter(bool), shares)
def test_any_percentile_of_any_values_is_within_one_per_cent(values, share):
    assert Sketch(values).quantile(share) == pytest.approx(exact(values, share), rel=0.0100001)


@given(st.lists(durations, min_size=1, max_size=6))
def test_merged_parts_are_the_whole(parts):
    merged = Sketch()
    for part in parts:
        merged.merge(Sketch(part))
    whole = Sketch([value for part in parts for value in part])
    assert merged == whole
    assert merged.size == whole.size
    assert merged.total == pytest.approx(whole.total)
    assert merged.quantiles(0.5, 0.99) == whole.quantiles(0.5, 0.99)


@given(durations)
def test_it_comes_back_from_its_bytes_as_it_was(values):
    sketch = Sketch(values)
    again = Sketch.from_bytes(sketch.to_bytes())
    assert again == sketch
    assert (again.size, again.total) == (sketch.size, sketch.total)


@pytest.mark.parametrize("data", [b"", b"short", b"\0" * 31, Sketch([1.0]).to_bytes() + b"x"])
def test_bytes_that_are_no_sketch_are_refused(data):
    with pytest.raises(ValueError, match="no sketch"):
        Sketch.from_bytes(data)


@given(st.lists(st.one_of(st.sampled_from(BOUNDS), st.floats(min_value=0, max_value=1e7)), max_size=100))
def test_the_counts_below_the_bounds_of_prometheus_are_exact(values):
    expected = tuple(sum(value <= bound for value in values) for bound in BOUNDS)
    assert Sketch(values).at_most(BOUNDS) == expected


def test_the_order_and_the_size_of_batches_do_not_matter():
    values = [random.Random(3).expovariate(1) for _ in range(500)]
    one_by_one = Sketch()
    for value in reversed(values):
        one_by_one.add(value)
    assert one_by_one == Sketch(values)


def test_an_empty_sketch_has_zeros_and_says_so():
    assert Sketch().quantiles(0.5, 0.99) == (0.0, 0.0)
    assert Sketch().mean == 0.0
    assert "nothing" in repr(Sketch())


def test_values_outside_the_range_keep_their_exact_extremes():
    sketch = Sketch([0.0, 1e-9, 1e9])
    assert (sketch.least, sketch.greatest, sketch.size) == (0.0, 1e9, 3)
    assert 0 <= sketch.quantile(0.5) <= 1e-6
    assert sketch.quantile(1.0) >= 1e6


def test_its_memory_is_bounded_whatever_it_is_given():
    chance = random.Random(1)
    sketch = Sketch(10 ** chance.uniform(-9, 9) for _ in range(200_000))
    assert len(sketch.counts) < 1_500


def test_what_was_written_of_more_buckets_than_are_there_is_refused() -> None:
    written = Sketch([0.1, 0.2, 0.4]).to_bytes()
    with pytest.raises(ValueError, match="no sketch"):
        Sketch.from_bytes(written[:-6])


def test_a_sketch_equals_no_other_kind_of_thing() -> None:
    assert Sketch([1.0]) != [1.0]
    assert Sketch([1.0]) == Sketch([1.0])


def test_a_sketch_shows_how_many_and_what_is_usual() -> None:
    assert repr(Sketch()) == "<Sketch of nothing>"
    assert repr(Sketch([2.0] * 5)) == "<Sketch of 5: p50 2, p99 2, max 2>"
