"""Tell listeners by kind of event, and survive them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

SLOW_SECONDS = 0.001
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
FAULTS_BEFORE_PAUSE = 5


class Listener:
    """One listener and how it has behaved. One that keeps failing is paused and tried again."""

    __slots__ = (
        "faults",
        "hear",
        "kinds",
        "name",
        "pause",
        "paused_until",
        "row",
        "slow",
        "steady",
        "target",
    )

    def __init__(self, target: Any, *, steady: bool = False) -> None:
        self.target = target
        self.hear: Callable[[Any], object] = getattr(target, "on_event", target)
        self.kinds: tuple[type, ...] = tuple(getattr(target, "listens_to", ()) or ())
        self.name = getattr(target, "__name__", type(target).__name__)
        self.steady = steady
        self.faults = 0
        self.slow = 0
        self.row = 0
        self.pause = FIRST_PAUSE
        self.paused_until = 0.0

    def wants(self, kind: type[Any]) -> bool:
        return not self.kinds or issubclass(kind, self.kinds)


class Broadcast:
    """Passes each event to those who want its kind, in order.

    Nobody's fault reaches the teller: it is counted, reported once through *complain*, and one
    that fails five times running is left out for a while, longer each time. A call that takes more
    than a millisecond is counted as slow.
    """

    def __init__(
        self,
        targets: Iterable[Any],
        clock: Callable[[], float],
        complain: Callable[[str, BaseException | None], None],
    ) -> None:
        self.listeners = [
            Listener(target, steady=getattr(target, "never_paused", False)) for target in targets
        ]
        self._clock = clock
        self._complain = complain
        self._by_kind: dict[type[Any], Sequence[Listener]] = {}

    def wanted(self, kind: type[Any]) -> bool:
        """Whether anybody wants events of *kind*: ask before building one."""
        return bool(self._of(kind))

    def __call__(self, event: Any, kind: type[Any] | None = None) -> None:
        """Tell *event* to those who want its kind, or the narrower *kind* that it is an example of."""
        for listener in self._of(type(event) if kind is None else kind):  # pyright: ignore[reportUnknownArgumentType]
            self._tell(listener, event)

    def slow(self) -> dict[str, int]:
        """By name, how often a listener has held the loop for more than a millisecond."""
        return {
            f"observer {one.name} held the loop for more than 1 ms": one.slow
            for one in self.listeners
            if one.slow
        }

    def _of(self, kind: type[Any]) -> Sequence[Listener]:
        found = self._by_kind.get(kind)
        if found is None:
            found = self._by_kind[kind] = [one for one in self.listeners if one.wants(kind)]
        return found

    def _tell(self, listener: Listener, event: Any) -> None:
        began = self._clock()
        if began < listener.paused_until:
            return
        try:
            listener.hear(event)
        except BaseException as error:
            self._count(listener, error, began)
        else:
            if listener.row:
                listener.row = 0
            elif listener.pause > FIRST_PAUSE and began > listener.paused_until + listener.pause:
                listener.pause = FIRST_PAUSE  # it has worked for as long as it was last left out
        if self._clock() - began > SLOW_SECONDS:
            listener.slow += 1

    def _count(self, listener: Listener, error: BaseException, now: float) -> None:
        listener.faults += 1
        listener.row += 1
        self._complain(f"observer {listener.name} failed", error)
        if listener.row >= FAULTS_BEFORE_PAUSE and not listener.steady:
            listener.paused_until = now + listener.pause
            listener.pause = min(listener.pause * 2, LONGEST_PAUSE)
            listener.row = 0
