"""What a job may know of itself, and what is opened for it."""

from __future__ import annotations

import atexit
import inspect
import shutil
import tempfile
from asyncio import _get_running_loop
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from ._engine.attempt import running_job
from ._engine.redact import keep_secrets
from ._engine.surround import enter, exits_of
from ._engine.threads import to_the_end
from ._model.jobs import Job
from ._model.states import JobState
from ._parts import ports
from ._parts.flags import Flag
from ._parts.secrets import Secrets

T = TypeVar("T")
NO_SECRETS = Secrets()


class Stopping:
    """Whether this job was asked to stop. Threads `wait` for it, async code awaits it."""

    __slots__ = ("_flag",)

    def __init__(self, flag: Flag) -> None:
        self._flag = flag

    def is_set(self) -> bool:
        """Whether it was: by a timeout, a cancellation, or because the runtime is stopping."""
        return self._flag.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until it is, at most *timeout* seconds; returns whether it is.

        Raises:
            RuntimeError: this thread runs an event loop, which would be blocked: await it there.
        """
        if _get_running_loop() is not None:
            raise RuntimeError(
                "stopping.wait() blocks its thread, and this one runs an event loop: "
                "await current_job().stopping instead, inside asyncio.timeout() for a limit"
            )
        return self._flag.wait(timeout)

    def __await__(self) -> Generator[Any, None, None]:
        return self._flag.__await__()

    def __repr__(self) -> str:
        return f"<Stopping {'set' if self.is_set() else 'not set'}>"


class JobContext:
    """The running job, seen from inside. `current_job` gives it."""

    __slots__ = ("_job",)

    def __init__(self, job: Job[Any]) -> None:
        self._job = job

    @property
    def id(self) -> str:
        """The id of the job, the same as its handle's."""
        return self._job.id

    @property
    def task(self) -> str:
        """The name of its task."""
        return self._job.task

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._job.attempt

    @property
    def tags(self) -> tuple[str, ...]:
        """The words it was submitted with."""
        return self._job.tags

    def remaining(self) -> float | None:
        """Seconds until its timeout, at least 0; None when it has none."""
        job = self._job
        timeout = job._entry.timeout
        if timeout is None:
            return None
        if job._started is None or job._stop is not None:
            return 0.0
        now: float = job._entry.engine.clock()
        return max(0.0, job._started + timeout - now)

    @property
    def stopping(self) -> Stopping:
        """Set before any cancellation, and when the runtime begins to drain for its stop.

        A plain function asks ``is_set()`` or blocks in ``wait(timeout)``; an async one awaits it.
        """
        more = self._job._get_more()
        if more.stopping is None:
            more.stopping = Flag()
            if self._job._stop is not None or self._job._entry.engine.stopping:
                more.stopping.set()
        return Stopping(more.stopping)

    def progress(self, fraction: float, note: str = "") -> None:
        """Say how far the job is: *fraction* from 0 to 1.

        Raises:
            ValueError: *fraction* is outside 0 to 1.
        """
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"fraction is from 0 to 1, got {fraction!r}")
        self._job._get_more().progress = (float(fraction), str(note))

    @property
    def log(self) -> Any:
        """A structlog logger bound to the job's id, task and attempt."""
        import structlog

        return structlog.get_logger("bgruntime.job").bind(
            job_id=self.id, task=self.task, attempt=self.attempt
        )

    async def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Enter *manager* now and leave it when the attempt ends, however it ends."""
        return cast("T", await enter(exits_of(self._job), "enter", manager))

    async def tempdir(self) -> Path:
        """A private directory that goes with the attempt."""
        return cast("Path", await enter(exits_of(self._job), "tempdir", tempdir()))

    def __repr__(self) -> str:
        return f"<JobContext of {self._job!r}>"


def current_job() -> JobContext:
    """The job that runs this code, in its own task, in a child task of it or in its thread.

    Raises:
        RuntimeError: no job runs this code.
    """
    job = running_job.get()
    if job is None or not _is_alive(job):
        raise RuntimeError("current_job() is for code that runs inside a job")
    return context_of(job)


def secrets_here() -> Secrets:
    """What the job that runs this code must not say, to be taken out of texts; nothing outside of jobs."""
    job = running_job.get()
    return NO_SECRETS if job is None or not _is_alive(job) else keep_secrets(job)


def context_of(job: Job[Any]) -> JobContext:
    """The one context object of *job*."""
    more = job._get_more()
    if more.context is None:
        more.context = JobContext(job)
    found: JobContext = more.context
    return found


def _is_alive(job: Job[Any]) -> bool:
    engine = job._entry.engine
    return job._state is JobState.RUNNING or job in engine.live or job in engine.stuck


class ResourceDefault:
    """What stands as the default of a parameter that is opened for the job."""

    __slots__ = ("factory", "scope")

    def __init__(self, factory: Callable[[], Any], scope: str) -> None:
        self.factory = factory
        self.scope = scope

    @property
    def is_async(self) -> bool:
        """Whether it can only be entered on the loop."""
        factory = inspect.unwrap(self.factory)
        if inspect.isclass(factory):
            return hasattr(factory, "__aenter__") and not hasattr(factory, "__enter__")
        return inspect.isasyncgenfunction(factory)

    def __repr__(self) -> str:
        return f"Resource({getattr(self.factory, '__qualname__', self.factory)}, scope={self.scope!r})"


def Resource(  # noqa: N802 - it is written where a value of T stands, like a constructor
    factory: Callable[[], AbstractAsyncContextManager[T]] | Callable[[], AbstractContextManager[T]],
    *,
    scope: Literal["attempt", "runtime"] = "attempt",
) -> T:
    """The default of a parameter that gets what *factory*'s context manager, async or plain, yields.

    Args:
        factory: called without arguments for each attempt, or once.
        scope: "attempt" closes it with the attempt, in the same thread for a plain function;
            "runtime" opens it once, shares it, and closes it when the runtime stops.

    Raises:
        ValueError: *scope* is neither, or *factory* is not callable.
    """
    if scope not in ("attempt", "runtime"):
        raise ValueError(f"scope is 'attempt' or 'runtime', got {scope!r}")
    if not callable(factory):
        raise ValueError(f"factory is called without arguments and gives a context manager, got {factory!r}")
    return cast("T", ResourceDefault(factory, scope))


class tempdir:  # noqa: N801 - used like a function: Resource(tempdir)
    """A private temporary directory, for ``with``, ``async with`` and `Resource`. It yields its `Path`.

    Its removal ignores what cannot be removed. What is left when the interpreter exits goes then.
    """

    __slots__ = ("_path",)

    def __init__(self) -> None:
        self._path = ""

    def __enter__(self) -> Path:
        self._path = tempfile.mkdtemp(prefix="bgruntime-")
        _left.add(self._path)
        job = running_job.get()
        if job is not None:
            job._get_more().add_dir(self._path)
        return Path(self._path)

    def __exit__(self, *about: object) -> None:
        job = running_job.get()
        if job is not None:
            job._get_more().drop_dir(self._path)
        _remove(self._path)

    async def __aenter__(self) -> Path:
        return self.__enter__()

    async def __aexit__(self, *about: object) -> None:
        job = running_job.get()
        if job is not None:
            job._get_more().drop_dir(self._path)
        await to_the_end(ports.current(), partial(_remove, self._path), "tempdir")


_left: set[str] = set()


def _remove(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
    _left.discard(path)


@atexit.register
def _remove_left() -> None:
    for path in list(_left):
        _remove(path)
