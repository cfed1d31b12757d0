"""Row keys rise, whatever the clock does, and stand inside the ids that people see."""

from __future__ import annotations

from dataclasses import replace

from bgruntime.extend import ports
from bgruntime.journal._keys import EPOCH_MS, Keys, key_of, milliseconds


class Wall:
    """A clock on the wall that the test sets."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def keys(self, slot: int, *, after: int = 0) -> Keys:
        with ports.use(replace(ports.current(), time=lambda: self.seconds)):
            return Keys(slot, after=after)


def test_keys_rise_within_one_millisecond_and_past_the_end_of_the_counter():
    keys = Wall(1_700_000_000.0).keys(slot=7)
    given = [keys.next() for _ in range(10_000)]
    assert given == sorted(set(given))


def test_keys_rise_when_the_wall_clock_is_set_back():
    wall = Wall(1_700_000_000.0)
    keys = wall.keys(slot=7)
    before = keys.next()
    wall.seconds = 1_600_000_000.0
    assert keys.next() > before


def test_keys_rise_above_those_that_are_in_the_file():
    key = Wall(1_900_000_000.0).keys(slot=1023).next()
    assert Wall(1_700_000_000.0).keys(slot=0, after=key).next() > key


def test_two_processes_never_give_the_same_key():
    wall = Wall(1_700_000_000.0)
    first, second = wall.keys(slot=1), wall.keys(slot=2)
    assert not {first.next() for _ in range(5000)} & {second.next() for _ in range(5000)}


def test_keys_fit_into_63_bits_until_2089():
    assert Wall(EPOCH_MS / 1000 + 2**41 / 1000 - 1).keys(slot=1023).next() < 2**63


def test_an_id_tells_its_key_and_cannot_be_guessed():
    keys = Wall(1_700_000_000.0).keys(slot=7)
    ids = [keys.next_id() for _ in range(1000)]
    assert [key_of(id) for id in ids] == sorted(key_of(id) for id in ids)
    assert len({id[16:] for id in ids}) == 1000
    assert all(len(id) == 32 for id in ids)


def test_a_text_that_is_no_id_of_ours_has_no_key():
    assert key_of("order-1") is None
    assert key_of("g" * 32) is None


def test_an_instant_is_never_rounded_down():
    assert [milliseconds(seconds) for seconds in (1.0, 1.0001, 0.9999, 0.0)] == [1000, 1001, 1000, 0]
