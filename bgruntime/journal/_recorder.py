"""From the end of a job to what is kept of it. The only place that knows both."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from bgruntime import Job
from bgruntime.extend import (
    Definition,
    Ended,
    JobState,
    JournalHost,
    Outcome,
    Reason,
    Secrets,
    arguments_of,
    definition_of,
    name_of,
    ports,
    trace_of,
)

from ._batch import Ending
from ._codec import Codec
from ._keys import milliseconds
from ._ledger import Entry
from ._states import FIRST_PAUSE_MS, Row
from ._texts import message_of, storable
from ._traces import Trace

ERRORS = 50  # attempts of which the error is kept

ROWS = {
    JobState.DISCARDED: Row.DISCARDED,
    JobState.CANCELLED: Row.CANCELLED,
    JobState.COMPLETED: Row.COMPLETED,
}


class Recorder:
    """Writes down how jobs fail; keeps what is known of their attempts until then."""

    def __init__(self, host: JournalHost, next_key: Callable[[], int]) -> None:
        self._host = host
        self._next_key = next_key
        self._codecs: dict[tuple[str, Any, tuple[str, ...]], Codec] = {}
        self._of_tasks: dict[Definition, Codec] = {}
        self._attempts: WeakKeyDictionary[Job[Any], list[dict[str, Any]]] = WeakKeyDictionary()

    def codec(self, definition: Definition) -> Codec:
        """What writes and reads the arguments of this task."""
        found = self._of_tasks.get(definition)
        if found is not None:
            return found
        key = (definition.name, definition.function, definition.options.redact)
        found = self._codecs.get(key) or Codec(*key)
        if definition.kept:
            self._codecs[key] = self._of_tasks[definition] = found
        return found

    def attempt(self, job: Job[Any], ended: Ended) -> dict[str, Any]:
        """One failed attempt in short."""
        secrets = self._secrets(job) if ended.error is not None else Secrets()
        error, message = told(ended, secrets)
        return {
            "attempt": job.attempt,
            "outcome": str(ended.outcome or ended.reason),
            "error": error,
            "message": message,
            "at": ports.current().time(),
        }

    def remember(self, job: Job[Any], ended: Ended) -> None:
        """An attempt of an ordinary job failed and another one follows."""
        attempts = self._attempts.setdefault(job, [])
        if len(attempts) < ERRORS:
            attempts.append(self.attempt(job, ended))

    def wants(self, job: Job[Any], ended: Ended) -> bool:
        """Is this end of an ordinary job kept?"""
        return job.state is JobState.DISCARDED or (
            job.state is JobState.CANCELLED and isinstance(ended.reason, Reason)
        )

    def ordinary(self, job: Job[Any], ended: Ended, origin: int | None) -> Ending:
        """What is kept of an ordinary job that failed; `origin` is the failure it was redriven from."""
        definition = definition_of(job)
        described = self.codec(definition).describe(*arguments_of(job))
        obstacle = described.obstacle or self._obstacle(definition)
        record, trace = self._record(job, ended, described.secrets, obstacle, self._attempts.pop(job, []))
        record.update(
            key=self._next_key(),
            args=described.text,
            options=options_of(definition, trace_of(job)),
            origin=origin,
            run=None,
            owner=None,
        )
        return Ending(record=record, trace=trace)

    def durable(self, job: Job[Any], ended: Ended, entry: Entry, future: Any = None) -> Ending:
        """What is kept of a durable job; its arguments are in its row."""
        record, trace = self._record(job, ended, Secrets(), None, entry.errors or [])
        record.update(
            key=entry.key,
            args=None,
            options=None,
            durable=1,
            crashes=entry.crashes,
            created_ms=entry.created_ms,
            origin=entry.origin,
        )
        return Ending(record=record, trace=trace, future=future)

    def _record(
        self,
        job: Job[Any],
        ended: Ended,
        secrets: Secrets,
        obstacle: str | None,
        attempts: list[dict[str, Any]],
    ) -> tuple[dict[str, Any], Trace | None]:
        now = milliseconds(ports.current().time())
        row = ROWS[job.state]
        trace = Trace(ended.error, secrets) if ended.error is not None and row is Row.DISCARDED else None
        error, message = told(ended, secrets)
        if row is not Row.COMPLETED:
            last = self.attempt(job, ended) | {"message": message}
            attempts = [*attempts[:ERRORS], last] if job.attempt else attempts
        budget = self._budget(job, ended, obstacle) if row is Row.DISCARDED else 0
        return {
            "id": storable(job.id),
            "task": storable(job.task),
            "state": int(Row.RETRYABLE if budget else row),
            "final": int(row),
            "reason": storable(secrets.scrub(job.reason or "")),
            "error": storable(error),
            "message": trace.message if trace is not None else message,
            "place": storable(trace.place) if trace is not None else "",
            "trace": None,
            "attempt": job.attempt,
            "crashes": 0,
            "errors": json.dumps(attempts) if attempts else None,
            "durable": 0,
            "obstacle": obstacle,
            "budget": budget,
            "again": budget > 0,
            "pause": FIRST_PAUSE_MS,
            "due_ms": now + FIRST_PAUSE_MS if budget else None,
            "created_ms": now,
            "failed_ms": now,
        }, trace

    def _budget(self, job: Job[Any], ended: Ended, obstacle: str | None) -> int:
        """How often it is redriven by itself: not what said of itself that it shall not run again."""
        if obstacle is not None or ended.outcome is Outcome.DISCARDED:
            return 0
        wanted = definition_of(job).options.redrive
        return self._host.default_redrive() if wanted is None else wanted

    def _obstacle(self, definition: Definition) -> str | None:
        if definition.coroutine is not None:
            return "a coroutine object runs once"
        known = self._host.definition(definition.name)
        if known is None or known.function is not definition.function:
            return "a function that is no task has no name to find it by"
        return None

    def _secrets(self, job: Job[Any]) -> Secrets:
        definition = definition_of(job)
        if definition.options.durable:
            return Secrets()
        return self.codec(definition).secrets(*arguments_of(job))


def told(ended: Ended, secrets: Secrets) -> tuple[str, str]:
    """The name of the error and what it says, without the secrets."""
    if ended.error is None:
        return "", secrets.scrub(str(ended.reason or ""))
    return name_of(type(ended.error)), message_of(ended.error, secrets.scrub)


def options_of(definition: Definition, trace: str = "") -> str | None:
    """The options that a job of it keeps when it is written down; None when there are none to speak of."""
    options = definition.options
    kept: dict[str, Any] = {"priority": options.priority, "timeout": options.timeout, "queue": options.queue}
    if options.tags:
        kept["tags"] = list(options.tags)
    if options.expires_in is not None:
        kept["expires_in"] = options.expires_in
    if options.max_attempts != 1:
        kept["max_attempts"] = options.max_attempts
    if trace:
        kept["trace"] = trace
    return json.dumps(kept)
