"""Redact: what may be said of an error to those who listen, without the job's secrets."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from .._model.jobs import Definition, Job, arguments_of
from .._parts.secrets import Secrets, secret_parts
from .._parts.texts import message_of

_NONE = Secrets()


def secrets_of(job: Job[Any]) -> Secrets:
    """What must be taken out of every text about *job*: the values of the parameters that its task redacts,
    and whatever hides a value as pydantic's SecretStr does. Known until the job is over.
    """
    args, kwargs = arguments_of(job)
    if not args and not kwargs:
        return _NONE
    return Secrets(*_hidden(job._entry.definition, args, kwargs))


def may_be_said(job: Job[Any], error: BaseException | None, reason: str | None) -> tuple[str, str | None]:
    """The text of *error* and the *reason*, without the secrets of *job*. Never raises."""
    if error is None and reason is None:
        return "", None
    try:
        secrets = secrets_of(job)
        message = "" if error is None else secrets.scrub(message_of(error))
        return message, None if reason is None else secrets.scrub(reason)
    except Exception as failed:  # an argument whose attributes raise: then nothing may be said
        return f"<not shown: {type(failed).__qualname__} while looking for secrets>", None


def _hidden(definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[object]:
    redacted = definition.options.redact
    if redacted:
        given = _by_name(definition.function, args, kwargs)
        yield from (given[name] for name in redacted if name in given)
    for value in (*args, *kwargs.values()):
        yield from secret_parts(value)


def _by_name(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        return dict(_signature(function).bind_partial(*args, **kwargs).arguments)
    except TypeError:
        return kwargs


@lru_cache(maxsize=1024)
def _signature(function: Any) -> inspect.Signature:
    return inspect.signature(function)
