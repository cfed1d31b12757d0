"""One call for an application: our lines, those of `logging` and those of uvicorn, all in one form."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, TextIO, cast

import structlog

from bgruntime import current_job
from bgruntime.extend import secrets_here

from ._joblog import set_level
from ._lines import Console, EventDict, Json, stamp
from ._redact import Redactor
from ._sink import Pipe, RotatingFile, Sink
from ._traces import written

UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access")
MIB = 1024 * 1024


def job_fields(_: Any, __: str, event: EventDict) -> EventDict:
    """A structlog processor: inside a job it adds job_id, task and attempt, where they are not there yet.

    It works in the job's own task, in the tasks and in the thread that it runs in.
    """
    try:
        job = current_job()
    except RuntimeError:
        return event
    event.setdefault("job_id", job.id)
    event.setdefault("task", job.task)
    event.setdefault("attempt", job.attempt)
    return event


class Logging:
    """What `configure` has set up; leaving it as a context manager puts back what was there before."""

    def __init__(self, pipe: Pipe, handler: logging.Handler) -> None:
        self._pipe = pipe
        self._handler = handler
        root = logging.getLogger()
        self._before = (root.level, root.handlers[:], {name: _kept(name) for name in UVICORN})
        self._structlog = structlog.get_config() if structlog.is_configured() else None

    @property
    def dropped(self) -> int:
        """How many lines found no room in the queue."""
        return self._pipe.dropped

    @property
    def failed(self) -> int:
        """How many lines a sink did not take."""
        return self._pipe.failed

    def flush(self, timeout: float = 2.0) -> bool:
        """Wait until every line so far is written, at most *timeout* seconds; whether it is."""
        return self._pipe.flush(timeout)

    def close(self) -> None:
        """Write what is left, for at most 2 seconds, and put back what was there before."""
        root = logging.getLogger()
        level, handlers, loggers = self._before
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, (its_handlers, propagates) in loggers.items():
            logger = logging.getLogger(name)
            logger.handlers[:], logger.propagate = its_handlers, propagates
        if self._structlog is None:
            structlog.reset_defaults()
        else:
            structlog.configure(**self._structlog)
        set_level(None)
        self._pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def configure(
    *,
    json: bool | None = None,
    level: int | str = "INFO",
    stream: TextIO | None = None,
    file: str | os.PathLike[str] | None = None,
    max_bytes: int = 50 * MIB,
    keep: int = 5,
    redact: Iterable[str] = (),
    queue_size: int = 10_000,
) -> Logging:
    """Set up logging for an application: structlog, `logging` and uvicorn all write the same kind of line.

    For applications, not for libraries: it replaces the handlers of the root logger. Lines leave
    through a bounded queue and a thread; one event is one line; values under telling names (password,
    token, …), credentials in texts and the secrets of the running job are masked; tracebacks show no
    local variables. Inside a job every line has job_id, task and attempt.

    Args:
        json: one JSON object a line; the default is to do so unless the stream is a terminal.
        level: from which level on lines are written; "DEBUG" shows the start and the end of every job.
        stream: where lines go, stderr unless given; with *file* only if given.
        file: a path to write to, turned when it has *max_bytes*; *keep* old ones are kept.
        redact: further names of fields whose values are masked.
        queue_size: how many lines may wait for a slow sink; what comes beyond is dropped and counted.

    Raises:
        ValueError: there is no such level.

    Returns:
        What was set up: `flush` it, or `close` it to have everything as it was.
    """
    number = _level_number(level)
    sinks: list[Sink | TextIO] = [] if file is None else [RotatingFile(file, max_bytes, keep)]
    if stream is not None or file is None:
        sinks.append(sys.stderr if stream is None else stream)
    as_json = json if json is not None else not _is_terminal(sinks)
    renderer = Json() if as_json else Console(colors=_is_terminal(sinks))
    handler = _PipeHandler(renderer, redact)
    pipe = handler.pipe = Pipe(sinks, size=queue_size, told=handler.line_of_dropped)
    logs = Logging(pipe, handler)
    _to_root(handler, number)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=False,
    )
    set_level(number)
    return logs


class _PipeHandler(logging.Handler):
    """Renders a record here, where the job's context is, and hands the line to the pipe."""

    pipe: Pipe

    def __init__(self, renderer: Json | Console, redact: Iterable[str]) -> None:
        super().__init__()
        self._renderer = renderer
        self._redact = Redactor(redact)

    def emit(self, record: logging.LogRecord) -> None:
        """Put the line of *record* into the pipe; one that cannot be rendered is still said."""
        try:
            line = self._line(record)
        except Exception as error:
            line = self._unrenderable(record, error)
        self.pipe.put(line)

    def _unrenderable(self, record: logging.LogRecord, error: Exception) -> str:
        """The line in place of one that cannot be rendered, of which nothing goes around the redactor."""
        event: EventDict = {"event": "log.unrenderable", "level": "error"}
        try:
            return self._rendered({**event, "error_type": type(error).__name__}, record.name)
        except Exception:  # the redactor itself fails: then only that is said
            return self._renderer(None, "", stamp(None, "", event))

    def line_of_dropped(self, count: int) -> str:
        """The line that says how many were dropped."""
        return self._rendered({"event": "log.dropped", "level": "warning", "count": count}, "bgruntime")

    def _line(self, record: logging.LogRecord) -> str:
        message: Any = record.msg
        if isinstance(message, dict):
            event: EventDict = dict(cast("dict[str, Any]", message))
        else:
            event = structlog.contextvars.get_contextvars() | {"event": record.getMessage()}
            event |= {key: value for key, value in vars(record).items() if key not in _OF_RECORDS}
        exc_info = event.pop("exc_info", None) or record.exc_info
        if exc_info:
            event["exception"] = written(_error_of(exc_info), secrets_here().scrub)
        if event.pop("stack_info", None) or record.stack_info:
            event["stack"] = str(record.stack_info or "")
        event["level"] = record.levelname.lower()
        return self._rendered(event, record.name)

    def _rendered(self, event: EventDict, logger: str) -> str:
        event["logger"] = logger
        event = self._redact(None, "", job_fields(None, "", event))
        return self._renderer(None, "", stamp(None, "", event))


_OF_RECORDS = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
    "_logger",
    "_name",
    "_from_structlog",
    "_record",
}


def _error_of(exc_info: Any) -> BaseException:
    if isinstance(exc_info, BaseException):
        return exc_info
    found: Any = sys.exc_info()[1] if exc_info is True else exc_info[1]
    return found if isinstance(found, BaseException) else RuntimeError("no exception")


def _to_root(handler: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in UVICORN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def _kept(name: str) -> tuple[list[logging.Handler], bool]:
    logger = logging.getLogger(name)
    return logger.handlers[:], logger.propagate


def _level_number(level: int | str) -> int:
    number = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else level
    if number is None:
        raise ValueError(f"level is DEBUG, INFO, WARNING, ERROR, CRITICAL or a number, got {level!r}")
    return number


def _is_terminal(sinks: list[Sink | TextIO]) -> bool:
    return all(getattr(sink, "isatty", lambda: False)() for sink in sinks)
