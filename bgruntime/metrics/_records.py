"""What this wing knows in one way: where things stand in a record, and how many tasks are told apart."""

from __future__ import annotations

from bgruntime.extend import Record

ENTRY, STATE, OUTCOME, WAITED, RAN, AT, LAST = map(
    Record._fields.index, ("entry", "state", "outcome", "waited", "ran", "at", "last")
)

SERIES = 1_000  # tasks that are told apart
OTHER = "other"  # those that are not, together


__all__ = ["AT", "ENTRY", "LAST", "OTHER", "OUTCOME", "RAN", "SERIES", "STATE", "WAITED"]
