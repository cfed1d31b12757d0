"""Ids that need no table: a number and the proof that it was given out here."""

from __future__ import annotations

from hashlib import blake2b

DIGITS = 12
PROOF_BYTES = 12


class SequenceIds:
    """Turns numbers into strings that nobody without the *key* can guess, and back."""

    __slots__ = ("_key", "_mask")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._mask = int.from_bytes(key[:6], "big")

    def encode(self, number: int) -> str:
        """The id of *number*: 48 bits that hide it and 96 that prove it."""
        return f"{number ^ self._mask:0{DIGITS}x}{self._proof(number)}"

    def decode(self, id: str) -> int | None:
        """The number that *id* was made of; None if it was not made with this key."""
        try:
            number = int(id[:DIGITS], 16) ^ self._mask
        except ValueError:
            return None
        return number if id == self.encode(number) else None

    def _proof(self, number: int) -> str:
        return blake2b(number.to_bytes(8, "big"), key=self._key, digest_size=PROOF_BYTES).hexdigest()
