"""Row keys rise, whatever the clock does, and stand inside the ids that people see."""

from __future__ import annotations

from dataclasses import replace

from bgruntime.extend import ports
from bgruntime.journal._keys import EPOCH_MS, Keys, id_of, key_of, milliseconds


def at(seconds: float):
    return ports.use(replace(ports.current(), time=lambda: seconds))


def test_keys_rise_within_one_millisecond_and_past_the_end_of_the_counter():
    keys = Keys(slot=7)
    with at(1_700_000_000.0):
        given = [keys.next() for _ in range(10_000)]
    assert given == sorted(set(given))


def test_keys_rise_when_the_wall_clock_is_set_back():
    keys = Keys(slot=7)
    with at(1_700_000_000.0):
        before = keys.next()
    with at(1_600_000_000.0):
        assert keys.next() > before


def test_keys_rise_above_those_that_are_in_the_file():
    newest = Keys(slot=1023)
    with at(1_900_000_000.0):
        key = newest.next()
    with at(1_700_000_000.0):
        assert Keys(slot=0, after=key).next() > key


def test_two_processes_never_give_the_same_key():
    first, second = Keys(slot=1), Keys(slot=2)
    with at(1_700_000_000.0):
        assert not {first.next() for _ in range(5000)} & {second.next() for _ in range(5000)}


def test_keys_fit_into_63_bits_until_2089():
    with at(EPOCH_MS / 1000 + 2**41 / 1000 - 1):
        assert Keys(slot=1023).next() < 2**63


def test_an_id_tells_its_key_and_cannot_be_guessed():
    first, second = id_of(12345), id_of(12345)
    assert key_of(first) == key_of(second) == 12345
    assert first != second


def test_a_text_that_is_no_id_of_ours_has_no_key():
    assert key_of("order-1") is None
    assert key_of("g" * 32) is None


def test_an_instant_is_never_rounded_down():
    assert [milliseconds(seconds) for seconds in (1.0, 1.0001, 0.9999, 0.0)] == [1000, 1001, 1000, 0]
