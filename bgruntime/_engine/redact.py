"""Redact: what may be said of an error to those who listen, without the job's secrets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from .._model.jobs import Definition, Job, arguments_of
from .._model.outcomes import Outcome, Reason
from .._parts.secrets import Secrets, secret_parts
from .._parts.texts import message_of

_NONE = Secrets()
_OWN_WORDS = frozenset(map(str, (*Outcome, *Reason, "self")))


class _Everything(Secrets):
    """Takes all of a text out."""

    def scrub(self, text: str) -> str:
        return ""


_EVERYTHING = _Everything()


class Said(NamedTuple):
    """What may be said: the text of the error, the reason, and what takes secrets out of other texts."""

    message: str = ""
    reason: str | None = None
    scrub: Callable[[str], str] = str


def secrets_of(job: Job[Any]) -> Secrets:
    """What must be taken out of every text about *job*: the values of the parameters that its task redacts,
    and whatever hides a value as pydantic's SecretStr does. Known until its last attempt has ended.
    """
    more = job._more
    if more is not None and more.secrets is not None:
        found: Secrets = more.secrets
        return found
    args, kwargs = arguments_of(job)
    if not args and not kwargs:
        return _NONE
    return Secrets(*_hidden(job._entry.definition, args, kwargs))


def keep_secrets(job: Job[Any]) -> Secrets:
    """`secrets_of` *job*, remembered: its attempt goes on and may speak after its arguments are let go.

    Never raises: of a job whose arguments cannot be looked at, nothing may be said at all.
    """
    more = job._get_more()
    if more.secrets is None:
        try:
            more.secrets = secrets_of(job)
        except Exception:
            more.secrets = _EVERYTHING
    kept: Secrets = more.secrets
    return kept


def may_be_said(job: Job[Any], error: BaseException | None, reason: str | None = None) -> Said:
    """What may be said of *error* and *reason*, without the secrets of *job*. Never raises."""
    if error is None and reason is None:
        return Said()
    try:
        secrets = secrets_of(job)
        message = "" if error is None else message_of(error, secrets.scrub)
        return Said(message, None if reason is None else secrets.scrub(reason), secrets.scrub)
    except Exception as failed:  # an argument whose attributes raise: then nothing may be said
        return Said(f"<not shown: {type(failed).__qualname__} while looking for secrets>", None, _nothing)


def reason_said(job: Job[Any], reason: str | None) -> str | None:
    """What may be said of the *reason* that somebody gave, to `Discard` or a cancel: no secrets of *job*.

    The words of the runtime's own stay what they are, and cost no look for secrets.
    """
    if reason is None or type(reason) is Reason or (type(reason) is str and reason in _OWN_WORDS):
        return reason
    return may_be_said(job, None, reason).reason


def _nothing(text: str) -> str:
    return ""


def _hidden(definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[object]:
    redacted = definition.options.redact
    if redacted:
        given = _by_name(definition, args, kwargs)
        yield from (given[name] for name in redacted if name in given)
    for value in (*args, *kwargs.values()):
        yield from secret_parts(value)


def _by_name(definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    # Remembered only of what lives as long as the program: a partial would be kept with its arguments.
    signature = _signature if definition.kept else inspect.signature
    try:
        return dict(signature(definition.function).bind_partial(*args, **kwargs).arguments)
    except TypeError:
        return kwargs


@lru_cache(maxsize=1024)
def _signature(function: Any) -> inspect.Signature:
    return inspect.signature(function)
