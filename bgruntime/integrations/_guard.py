"""Who may do what on the status pages, and from where."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Literal

from starlette.exceptions import HTTPException
from starlette.requests import Request

Action = Literal["view", "view_arguments", "cancel", "redrive", "discard", "purge", "pause", "resume"]
Auth = Callable[[Request], Awaitable[object | None]]
Allow = Callable[[object, Action, Request], Awaitable[bool]]

HEADER = "X-Bgruntime"
READING = frozenset({"view", "view_arguments"})

audit = logging.getLogger("bgruntime.audit")


class Guard:
    """Asks *auth* who a request is from, and *allow* whether that one may do it.

    What changes something must come from the same origin and carry a header that no form can send.
    """

    def __init__(self, auth: Auth, allow: Allow | None) -> None:
        self._auth = auth
        self._allow = allow

    async def check(self, request: Request, action: Action) -> object:
        """Who it is.

        Raises:
            HTTPException: 401 when nobody, 403 when not allowed to or from elsewhere.
        """
        if action not in READING:
            check_origin(request)
        principal = await self._auth(request)
        if principal is None:
            raise HTTPException(401, "say who you are", {"WWW-Authenticate": 'Session realm="bgruntime"'})
        if not await self.may(principal, action, request):
            raise HTTPException(403, f"you may not {action.replace('_', ' ')} here")
        if action not in READING:
            audit.info(
                "%s by %r: %s", action, principal, request.url.path.encode("ascii", "replace").decode()
            )
        return principal

    async def may(self, principal: object, action: Action, request: Request) -> bool:
        """Whether *principal* may."""
        return self._allow is None or await self._allow(principal, action, request)


def check_origin(request: Request) -> None:
    """Raise 403 unless the request can only have been made on purpose, from here or by a program."""
    headers = request.headers
    if HEADER not in headers:
        raise HTTPException(403, f"what changes something carries the header {HEADER}: 1")
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        same = site == "same-origin"
    else:
        host = headers.get("host", "").lower()
        same = origin is None or origin.partition("://")[2].lower() == host
    if not same:
        raise HTTPException(403, "what changes something comes from the same origin")


__all__ = ["HEADER", "Action", "Allow", "Auth", "Guard", "check_origin"]
