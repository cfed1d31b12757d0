"""Names for rows: a number that orders them by time, and the id that people see."""

from __future__ import annotations

from bgruntime.extend import ports

EPOCH_MS = 1_600_000_000_000  # 2020-09-13; 41 bits of milliseconds from here last until 2090
SLOTS = 1024
SEQUENCE = 4096
RANDOM_BYTES = 8
DRAWN = 64  # ids for which chance is asked at a time
ID_LENGTH = 16 + 2 * RANDOM_BYTES


class Keys:
    """Gives row keys that rise, fit into 63 bits, and are unique among the processes of one journal.

    41 bits of milliseconds, 10 of the process's slot, 12 of a counter. A row is known by its key
    before it is written, so writing it again after an unknown outcome is harmless, and a key is
    never used twice, so a late write cannot hit somebody else's row.
    """

    __slots__ = ("_milliseconds", "_ports", "_random", "_sequence", "slot")

    def __init__(self, slot: int, *, after: int = 0) -> None:
        self._ports = ports.current()
        self._random: list[str] = []
        self.slot = slot % SLOTS
        self._milliseconds = (after >> 22) + 1 if after else 0
        self._sequence = -1

    def next(self) -> int:
        """A key above all that were given before, also when the clock on the wall was set back."""
        now = int(self._ports.time() * 1000) - EPOCH_MS
        if now > self._milliseconds:
            self._milliseconds, self._sequence = now, 0
        else:
            self._sequence += 1
            if self._sequence == SEQUENCE:
                self._milliseconds, self._sequence = self._milliseconds + 1, 0
        return self._milliseconds << 22 | self.slot << 12 | self._sequence

    def next_id(self) -> str:
        """The id of a row with a new key: 32 hexadecimal digits, the last 16 of them random."""
        if not self._random:
            drawn = self._ports.token(RANDOM_BYTES * DRAWN).hex(":", RANDOM_BYTES)
            self._random = drawn.split(":")
        return f"{self.next():016x}{self._random.pop()}"


def key_of(id: str) -> int | None:
    """The key inside an id that `Keys.next_id` made; None for any other text."""
    if len(id) != ID_LENGTH:
        return None
    try:
        return int(id[:16], 16) & 0x7FFF_FFFF_FFFF_FFFF
    except ValueError:
        return None


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, never before the instant that was meant."""
    return -int(-seconds * 1000 // 1)
