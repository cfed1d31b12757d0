"""Why jobs fail: by type of error, how often, and what the newest said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from bgruntime.extend import Failures

from ._records import OTHER

TYPES = 50  # of errors that are told apart for one task
MESSAGE_LIMIT = 500  # characters of the newest message that are kept


class Reasons:
    """The failures of one task, at most 50 types of error; what comes after those is `other`."""

    __slots__ = ("_by_error",)

    def __init__(self) -> None:
        self._by_error: dict[str, Failures] = {}

    def add(self, error: str, message: str, at: float) -> None:
        """Count one failure with this type of *error*."""
        if error not in self._by_error and len(self._by_error) >= TYPES:
            error = OTHER
        known = self._by_error.get(error)
        count = 1 if known is None else known.count + 1
        self._by_error[error] = Failures(error, count, message[:MESSAGE_LIMIT], at)

    def counted(self) -> dict[str, Failures]:
        """The failures by type of error, the most frequent first."""
        return dict(sorted(self._by_error.items(), key=lambda item: -item[1].count))


def together(all_reasons: Iterable[Reasons]) -> dict[str, Failures]:
    """The failures of several tasks by type of error, the most frequent first."""
    counts: Counter[str] = Counter()
    newest: dict[str, Failures] = {}
    for reasons in all_reasons:
        for error, failures in reasons.counted().items():
            counts[error] += failures.count
            if error not in newest or newest[error].at <= failures.at:
                newest[error] = failures
    return {error: replace(newest[error], count=count) for error, count in counts.most_common()}


__all__ = ["Reasons", "together"]
