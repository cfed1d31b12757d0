"""Where alerts go: the log, a function, an object with `send`, or any URL that apprise knows."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import warnings
from collections.abc import Callable
from typing import Any, cast

from bgruntime.extend import Channel, ports

from ._rules import Alert

HANGING = 3  # threads that one channel may leave behind


class LogChannel:
    """Writes each alert to the logger `bgruntime.alerts`: an ERROR when raised, an INFO when it is over."""

    def __init__(self) -> None:
        self._log = logging.getLogger("bgruntime.alerts")

    async def send(self, alert: Alert, /) -> None:
        """Write one line."""
        level = logging.INFO if alert.state in ("resolved", "test", "digest") else logging.ERROR
        self._log.log(level, "alert.%s %s", alert.state, alert.title, extra=_fields(alert))


class CallChannel:
    """Calls a function with each alert: a coroutine function on the loop, a plain one in a thread."""

    def __init__(self, function: Callable[[Alert], Any]) -> None:
        self._function = function
        self._threads = Threads()
        call = getattr(function, "__call__", None)  # noqa: B004 - a partial or an object with __call__
        self._is_async = inspect.iscoroutinefunction(inspect.unwrap(function)) or inspect.iscoroutinefunction(
            getattr(function, "func", call)
        )

    async def send(self, alert: Alert, /) -> None:
        """Call the function."""
        if self._is_async:
            await self._function(alert)
            return
        result = await self._threads.call(functools.partial(self._function, alert))
        if inspect.isawaitable(result):
            await result


class AppriseChannel:
    """Sends each alert to an apprise URL: `mailto://`, `slack://`, `dingtalk://`, `json://`, ….

    Raises:
        ModuleNotFoundError: apprise is not installed.
        ValueError: apprise does not know such a URL.
    """

    def __init__(self, url: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # it imports imghdr where there is one
                import apprise
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"the alert channel {scheme_of(url)} needs apprise: pip install 'bgruntime[alerts]'",
                name=error.name,
            ) from error
        self._kinds = apprise.NotifyType
        # The service itself and not `Apprise.notify`, whose pool of threads holds the interpreter's exit.
        server: Any = apprise.Apprise
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its plugins are imported here
            service = server.instantiate(url, suppress_exceptions=True)
        if not service:
            raise ValueError(f"apprise knows no such alert channel: {scheme_of(url)}")
        self._service = service
        self._threads = Threads()

    async def send(self, alert: Alert, /) -> None:
        """Send it from a thread. Raises OSError when the other side did not take it."""
        kinds = self._kinds
        kind = {"resolved": kinds.SUCCESS, "test": kinds.INFO, "digest": kinds.INFO}.get(
            alert.state, kinds.FAILURE
        )
        sent = await self._threads.call(
            functools.partial(self._service.notify, body=alert.text, title=alert.title, notify_type=kind)
        )
        if not sent:
            raise OSError("the other side did not take it")


class Threads:
    """Runs plain functions in daemon threads; one that hangs is left behind, at most three are."""

    def __init__(self) -> None:
        self._running = 0

    async def call(self, function: Callable[[], Any]) -> Any:
        """What *function* returns, or what it raises."""
        if self._running >= HANGING:
            raise TimeoutError(f"{self._running} earlier calls still hang")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._running += 1

        def report(value: Any, error: BaseException | None) -> None:
            self._running -= 1
            if future.done():
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))

        def work() -> None:
            value, error = None, None
            try:
                value = function()
            except BaseException as raised:
                error = raised
            try:
                loop.call_soon_threadsafe(report, value, error)
            except RuntimeError:
                return  # the loop was closed: nobody waits any more

        ports.current().spawn(work, "bgruntime-alert")
        return await future


def channel_of(given: Any) -> Channel:
    """The channel that *given* stands for: "log", a URL, a function, or a channel already.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(given, str):
        if given == "log":
            return LogChannel()
        if "://" in given:
            return AppriseChannel(given)
        raise ValueError(
            f"a channel is 'log', a URL, a function or an object with send(alert), got {given!r}"
        )
    if callable(getattr(given, "send", None)):
        return cast("Channel", given)
    if callable(given):
        return CallChannel(given)
    raise ValueError(f"a channel is 'log', a URL, a function or an object with send(alert), got {given!r}")


def name_of_channel(given: Any) -> str:
    """What a channel is called in reports: never a URL, which holds credentials."""
    if isinstance(given, str):
        return given if given == "log" else scheme_of(given)
    return str(getattr(given, "__qualname__", type(given).__qualname__))


def scheme_of(url: str) -> str:
    """`slack://…` of a URL that holds credentials."""
    return f"{url.partition('://')[0]}://…"


def _fields(alert: Alert) -> dict[str, Any]:
    told = alert.as_dict()
    return {
        "event": f"alert.{alert.state}",
        "title": alert.title,
        "alert_rule": told["rule"],
        "task": told["task"],
        **{name: told[name] for name in ("metric", "value", "threshold", "window", "jobs")},
        **({"error_type": told["error"], "error": told["message"]} if told["error"] else {}),
    }


__all__ = ["AppriseChannel", "CallChannel", "LogChannel", "channel_of", "name_of_channel"]
