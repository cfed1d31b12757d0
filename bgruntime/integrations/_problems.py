"""Errors as RFC 9457 wants them: application/problem+json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ExceptionHandler

from bgruntime import (
    AcceptUnknown,
    BgRuntimeError,
    JournalUnavailable,
    PayloadError,
    QueueFull,
    RuntimeClosed,
    UnknownTask,
)

RETRY_AFTER = 5  # seconds

STATUS: dict[type[BgRuntimeError], int] = {
    QueueFull: 503,
    RuntimeClosed: 503,
    JournalUnavailable: 503,
    AcceptUnknown: 503,
    PayloadError: 422,
    UnknownTask: 404,
}


class SafeJSON(JSONResponse):
    """JSON of whatever text there is: half a surrogate pair, which UTF-8 has no bytes for, is escaped."""

    def render(self, content: Any) -> bytes:
        """The bytes of *content*."""
        return bytes_of(json_of(content))


def json_of(content: Any) -> str:
    """*content* as JSON, as short as it goes."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def bytes_of(text: str) -> bytes:
    """The bytes of JSON."""
    return text.encode("utf-8", "backslashreplace")


class ProblemResponse(SafeJSON):
    """A problem as the body of a response."""

    media_type = "application/problem+json"


def problem(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> ProblemResponse:
    """The response that tells of a problem; *more* are members of the kind's own."""
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return ProblemResponse({**content, **more}, status, headers)


def problem_of(error: BgRuntimeError) -> ProblemResponse:
    """The response for a submission that was turned away. Raises *error* when that is not what it is."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), None)
    if status is None:
        raise error
    headers = {"Retry-After": str(RETRY_AFTER)} if status == 503 else None
    if isinstance(error, AcceptUnknown):
        return problem(
            status, "it is not known whether the job was accepted", headers=headers, job_id=error.id
        )
    if isinstance(error, JournalUnavailable):  # its text tells of the file
        return problem(status, "durable work cannot be accepted now", headers=headers)
    return problem(status, str(error), headers=headers)


def _handle(request: Request, error: Exception) -> Response:
    assert isinstance(error, BgRuntimeError)
    return problem_of(error)


exception_handlers: dict[Any, ExceptionHandler] = dict.fromkeys(STATUS, _handle)


__all__ = ["ProblemResponse", "SafeJSON", "exception_handlers", "problem", "problem_of"]
