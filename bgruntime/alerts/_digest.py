"""What is still open, once a day: a digest of the failures in the journal."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from bgruntime.extend import ObserverHost, ports

from ._post import Post
from ._rules import Alert

DAY = 86_400.0
EVERY = 60.0  # seconds between two looks whether it is time
CAUSES = 20  # that are listed


class Digest:
    """An observer that tells people once a day which failures are open, the most frequent causes first.

    It goes by the clock of the journal: once in *every* so many seconds over all processes and restarts,
    and not at all while nothing is open or the runtime has no journal. The `Alert` has the state
    "digest", the number of open failures as its value and the causes as its text.

    Args:
        channels: where to tell it, as those of `Alerts`.
        every: seconds between two digests.

    Raises:
        ValueError: a channel is none of these, or *every* is not more than 0.
    """

    listens_to = (type(None),)  # to nothing

    def __init__(self, channels: Sequence[Any] = ("log",), *, every: float = DAY) -> None:
        if not every > 0:
            raise ValueError(f"every is in seconds and must be more than 0, got {every!r}")
        self._every = every
        self._host: ObserverHost | None = None
        self._post = Post(channels, self._complain)

    async def __aenter__(self) -> Self:
        await self._post.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._post.__aexit__(kind, error, trace)

    def attach(self, host: ObserverHost, /) -> None:
        """Tell of the journal of the runtime behind *host*."""
        self._host = host
        self._ports = ports.current()
        self._post.turn_every(min(EVERY, self._every), self._turn)

    def on_event(self, event: Any, /) -> None:
        """Hear nothing."""

    def _turn(self) -> None:
        self._post.begin_look(self._look, "bgruntime-digest")

    async def _look(self) -> None:
        assert self._host is not None
        journal = self._host.runtime.journal
        try:
            if journal is not None and await journal.is_time("digest", self._every):
                await self.tell()
        except Exception as error:
            self._complain("the digest failed", error)

    async def tell(self) -> Alert | None:
        """Tell now what is open; None where nothing is. Raises JournalUnavailable."""
        assert self._host is not None
        journal = self._host.runtime.journal
        count = await journal.count()
        if not count:
            return None
        groups = await journal.groups(limit=CAUSES)
        now = self._ports.time()
        lines = [
            f"{one.count} × {one.task}: {one.error} at {one.place or 'no line of its own'}" for one in groups
        ]
        alert = Alert(
            rule="digest",
            metric="open_failures",
            state="digest",
            task=None,
            value=count,
            threshold=0,
            window=self._every,
            since=min((one.first_seen for one in groups), default=now),
            at=now,
            message="\n".join(lines),
        )
        self._post.put(alert)
        return alert

    def _complain(self, about: str, error: BaseException | None) -> None:
        if self._host is not None:
            self._host.complain(about, error)


__all__ = ["Digest"]
