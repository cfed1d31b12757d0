"""The observer that watches, judges and has people told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from bgruntime.extend import (
    AlertRaised,
    AlertResolved,
    Check,
    Event,
    JobSettled,
    JobState,
    JobUncompleted,
    JournalDegraded,
    JournalRecovered,
    LoopBlocked,
    ObserverHost,
    ports,
)

from ._post import Post
from ._rules import DEFAULT_RULES, PER_TASK, SAMPLED, Alert, AlertRule, State
from ._watch import Reading, Watch

EVERY = 5.0  # seconds between two looks
FOREVER = float("inf")

Key = tuple[str, str | None]


@dataclass(slots=True)
class Raised:
    """An alert that goes on: since when by the wall clock, and when somebody was last told, if ever."""

    rule: AlertRule
    task: str | None
    since: float
    told_at: float | None = None
    last: Alert | None = None
    arrived: bool = False  # at one channel at least

    @property
    def pause(self) -> float:
        """Seconds from one notice to the next; what has reached nobody is told again within the window."""
        return self.rule.cooldown if self.arrived else min(self.rule.cooldown, self.rule.window)


class Alerts:
    """Watches the jobs of a runtime and tells people when something is wrong, and when it is over again.

    One notice when a rule begins to hold, a reminder at its cooldown while it goes on, one when it is
    over. Each channel has a queue, a task and a deadline of its own: it may hang, fail or flap, jobs do
    not notice. Leaving waits at most 5 seconds for what is under way. Given to
    `Runtime(observers=[...])` it starts before the runtime and ends after it.

    Args:
        rules: what to watch; by default a failure rate above 10 % over 5 minutes of at least 20 jobs,
            and three failures of one task in a row, whatever the window.
        channels: where to tell it: "log", a function of an `Alert`, plain or async, an object with
            ``async send(alert)``, or any URL that apprise knows (``bgruntime[alerts]``).
        silence: names of tasks nobody wants to hear of.
        every: seconds between two looks.

    Raises:
        ValueError: a channel is none of these, or two rules have one name.
    """

    listens_to = (JobUncompleted, LoopBlocked, JournalDegraded, JournalRecovered)

    def __init__(
        self,
        rules: Sequence[AlertRule] = DEFAULT_RULES,
        channels: Sequence[Any] = ("log",),
        *,
        silence: Iterable[str] = (),
        every: float = EVERY,
    ) -> None:
        names = [rule.name for rule in rules]
        if len(set(names)) < len(names):
            raise ValueError(f"two rules have one name: {', '.join(sorted(names))}")
        if not every > 0:
            raise ValueError(f"every is in seconds and must be more than 0, got {every!r}")
        self.rules = tuple(rules)
        self._post = Post(channels, self._complain, self._delivered)
        self._every = every
        self._silenced: dict[str, float] = dict.fromkeys(silence, FOREVER)
        self._host: ObserverHost | None = None
        self._forget()

    def _forget(self) -> None:
        self._ports = ports.current()
        self._watch = Watch(self.rules)
        self._raised: dict[Key, Raised] = {}

    # -- its life ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._forget()
        await self._post.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.look()
        finally:
            await self._post.__aexit__(kind, error, trace)

    def attach(self, host: ObserverHost, /) -> None:
        """Begin to watch the runtime behind *host*."""
        self._host = host
        self._post.turn_every(self._every, self._turn)

    def _turn(self) -> None:
        try:
            self.look()
        except Exception as error:
            self._complain("alerts failed to look", error)

    # -- what it hears -------------------------------------------------------------------------

    def on_batch(self, records: Sequence[Any], /) -> None:
        """Count attempts that have ended."""
        self._watch.count(records)

    def on_event(self, event: Event, /) -> None:
        """Remember what the newest failure said, that the loop was held, and how the journal is."""
        match event:
            case JobSettled(job=job, state=JobState.DISCARDED, error=error):
                self._watch.failed(job.task, type(error).__name__, event.message[:500])
            case LoopBlocked():
                job_id = f" (job {event.job.id}, {event.job.task})" if event.job is not None else ""
                self._watch.blocked(event.at, event.duration, f"{event.place}{job_id}")
            case JournalDegraded():
                self._watch.journal_problem = event.reason or "it cannot write"
            case JournalRecovered():
                self._watch.journal_problem = ""
            case _:
                pass

    # -- what it does about it -----------------------------------------------------------------

    def look(self) -> None:
        """Judge now: raise, remind and resolve. It happens by itself every few seconds."""
        host = self._host
        if host is None:
            return
        stats = host.counts()  # what has ended by now comes in through `on_batch` here
        now = self._ports.monotonic()
        for rule in self.rules:
            for task in self._subjects(rule):
                self._judge(rule, task, self._watch.read(rule, task, now, stats), now)
        self._watch.looked()

    def raised(self) -> tuple[Alert, ...]:
        """The alerts that go on now, as they were last told or would be."""
        return tuple(one.last for one in self._raised.values() if one.last is not None)

    def silence(self, task: str, seconds: float | None = None) -> None:
        """Tell nobody about *task*, for so many *seconds* or until `unsilence`."""
        self._silenced[task] = FOREVER if seconds is None else self._ports.monotonic() + seconds

    def unsilence(self, task: str) -> None:
        """Undo `silence`: what goes on is told at the next look."""
        self._silenced.pop(task, None)

    async def test(self) -> Mapping[str, str]:
        """Send a test alert to each channel, once; what went wrong by channel, "" where nothing did."""
        now = self._ports.time()
        alert = Alert("test", "test", "test", None, 0.0, 0.0, 0.0, now, now, message="this is a test")
        return await self._post.try_once(alert)

    def checks(self) -> Sequence[Check]:
        """A warning for each alert that goes on and for each channel that fails."""
        going_on = [
            Check(f"alert:{one.rule.name}", "warn", one.last.title.partition("] ")[2])
            for one in self._raised.values()
            if one.last is not None
        ]
        failing = [Check("alerts", "warn", problem) for problem in self._post.problems()]
        return [*going_on, *failing] or [Check("alerts", "pass")]

    def _subjects(self, rule: AlertRule) -> Iterator[str | None]:
        """Those of which *rule* may say something new."""
        if rule.metric not in PER_TASK:
            yield None
            return
        going_on = {task for name, task in self._raised if name == rule.name}
        for task in sorted(self._watch.changed | going_on, key=str):
            wanted = rule.task in (None, task) if task is not None else rule.task is None
            if wanted and (task is not None or rule.metric != "consecutive_failures"):
                yield task

    def _judge(self, rule: AlertRule, task: str | None, reading: Reading, now: float) -> None:
        key = (rule.name, task)
        going_on = self._raised.get(key)
        if going_on is None:
            if rule.holds(reading.value) and (reading.enough or rule.metric not in SAMPLED):
                going_on = self._raised[key] = Raised(rule, task, self._ports.time())
                self._tell(going_on, "raised", reading, now)
        elif rule.is_over(reading.value):
            del self._raised[key]
            self._tell(going_on, "resolved", reading, now)
        elif going_on.told_at is None:
            self._tell(going_on, "raised", reading, now)
        elif now - going_on.told_at >= going_on.pause:
            self._tell(going_on, "reminder", reading, now)

    def _tell(self, going_on: Raised, state: State, reading: Reading, now: float) -> None:
        alert = self._alert(going_on, state, reading)
        first = going_on.last is None
        going_on.last = replace(alert, state="raised")
        if first:
            self._emit(AlertRaised(now, alert))
        if state == "resolved":
            self._emit(AlertResolved(now, alert))
        if self._is_silenced(going_on.task, now) or (state == "resolved" and going_on.told_at is None):
            return
        going_on.told_at = now
        self._post.put(alert)

    def _alert(self, going_on: Raised, state: State, reading: Reading) -> Alert:
        rule, subject = going_on.rule, self._watch.subject(going_on.task)
        about_jobs = rule.metric in PER_TASK and state != "resolved"
        return Alert(
            rule=rule.name,
            metric=rule.metric,
            state=state,
            task=going_on.task,
            value=reading.value,
            threshold=rule.threshold,
            window=rule.window,
            since=going_on.since,
            at=self._ports.time(),
            jobs=reading.jobs,
            error=subject.error if about_jobs else "",
            message=subject.message if about_jobs else "",
            place=reading.place,
        )

    def _is_silenced(self, task: str | None, now: float) -> bool:
        return task is not None and self._silenced.get(task, -FOREVER) > now

    def _delivered(self, alert: Alert) -> None:
        going_on = self._raised.get((alert.rule, alert.task))
        if going_on is not None:
            going_on.arrived = True

    def _emit(self, event: Event) -> None:
        if self._host is not None:
            self._host.emit(event)

    def _complain(self, about: str, error: BaseException | None) -> None:
        if self._host is not None:
            self._host.complain(about, error)


__all__ = ["Alerts"]
