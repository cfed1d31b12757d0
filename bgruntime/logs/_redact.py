"""What must not reach a log: values under telling names, credentials in texts, the secrets of the job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from bgruntime.extend import MASK, secrets_here

from ._lines import EventDict, pairs_of

# Parts of names, as in OWASP's Logging Cheat Sheet under "data to exclude".
NAMES = """
    accesskey accesstoken apikey auth authorization authtoken bearer cardnumber clientsecret connectionstring
    cookie cookies credential credentials creditcard csrf csrftoken cvv databaseurl dsn idtoken iban jwt
    passphrase passwd password pin privatekey pwd refreshtoken secret secretkey secrets sessionid sessiontoken
    setcookie signature ssn token xapikey
""".split()

# What a credential looks like inside a text.
PATTERNS = re.compile(
    r"""(?P<head>(?i:\b(?:bearer|basic)\s+))[A-Za-z0-9._~+/=-]{8,}
    |(?P<user>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s@/]+(?=@)
    |(?P<name>(?i:\b(?:[a-z0-9_-]*(?:password|passwd|pwd|secret|token|api[_-]?key)))["']?\s*[=:]\s*["']?)[^\s"',;&)}\]]+
    """,
    re.VERBOSE,
)
DEPTH = 6
FREE = frozenset({"timestamp", "level", "logger", "event", "job_id", "task", "attempt"})
_SEPARATORS = re.compile(r"[^a-z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Redactor:
    """A structlog processor that masks values under telling names, at any depth, and credentials in texts.

    Args:
        names: further names of fields, in any case and with any separators.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset(NAMES) | {_squeezed(name) for name in names}

    def __call__(self, _: Any, __: str, event: EventDict) -> EventDict:
        secrets = secrets_here()
        scrub = secrets.scrub if secrets else str
        for key, value in event.items():
            if key not in FREE and self.is_telling(key):
                event[key] = MASK
            elif key not in FREE or not isinstance(value, (int, float)):
                event[key] = self._clean(value, scrub, DEPTH)
        return event

    def is_telling(self, name: str) -> bool:
        """Whether *name* says that a secret stands under it: `db_password`, `X-Api-Key`, `refreshToken`."""
        words = _words(name)
        runs = ("".join(words[start:]) for start in range(len(words)))
        return any(run in self._names for run in runs)

    def _clean(self, value: Any, scrub: Any, depth: int) -> Any:
        match value:
            case str():
                return _without_credentials(scrub(value))
            case None | bool():
                return value
            case int() | float():
                return value if scrub is str or scrub(text := str(value)) == text else MASK
            case _ if depth == 0:
                return "…"
            case Mapping():
                return {
                    key: MASK if self.is_telling(str(key)) else self._clean(one, scrub, depth - 1)
                    for key, one in pairs_of(value)
                }
            case list() | tuple() | set() | frozenset():
                return [self._clean(one, scrub, depth - 1) for one in cast("Iterable[Any]", value)]
            case _:
                return _without_credentials(scrub(_represented(value)))


def _represented(value: Any) -> str:
    try:
        return value.isoformat() if hasattr(value, "isoformat") else repr(value)
    except Exception as error:
        return f"<{type(value).__qualname__}: repr raised {type(error).__qualname__}>"


def _without_credentials(text: str) -> str:
    return PATTERNS.sub(lambda match: f"{match['head'] or match['user'] or match['name']}{MASK}", text)


def _words(name: str) -> list[str]:
    return [word for word in _SEPARATORS.split(_CAMEL.sub(" ", name).lower()) if word]


def _squeezed(name: str) -> str:
    return "".join(_words(name))
