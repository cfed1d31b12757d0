"""
Modes for tests of code that submits: run at submit, run when told, or only take note.

Inside the ``with`` a mode holds for every `Runtime`; the code under test stays as it is.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ParamSpec
from unittest import mock

from bgruntime import Job, Runtime, RuntimeClosed, Task
from bgruntime.extend import Reservation

POLL = 0.001  # seconds between two looks
UNDER_WAY = frozenset({"available", "running"})

P = ParamSpec("P")
Target = Task[P, Any] | Callable[P, Any]


@dataclass(frozen=True, slots=True)
class Submission:
    """One call that was submitted: of which task, with what, and its job."""

    task: str
    arguments: dict[str, Any]
    job: Job[Any]

    def __str__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.task}({given})"


class Submissions:
    """What was submitted while the mode was on, in order. Jobs of `map`, `gather` and `group` are not.

    A call of `submit_threadsafe` is noted once the loop has turned and there is a job.
    """

    def __init__(self) -> None:
        self.all: list[Submission] = []

    def of(self, target: Target[...], /, *args: Any, **kwargs: Any) -> list[Submission]:
        """Those of one task whose arguments include the ones given here."""
        name, wanted = _name(target), _named(target, args, kwargs, partly=True)
        return [one for one in self.all if one.task == name and _includes(one.arguments, wanted)]

    async def _submit(self, real: Any, rt: Runtime, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        return self._took(target, args, kwargs, await real(rt, target, *args, **kwargs))

    def _submit_nowait(self, real: Any, rt: Runtime, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        return self._took(target, args, kwargs, real(rt, target, *args, **kwargs))

    async def _submit_many(self, real: Any, rt: Runtime, target: Any, /, calls: Any) -> Any:
        calls = [tuple(call) for call in calls]
        jobs = await real(rt, target, calls)
        for args, job in zip(calls, jobs, strict=True):
            _ = self._took(target, args, {}, job)
        return jobs

    async def _submit_outside(
        self,
        real: Any,
        rt: Runtime,
        target: Any,
        args: Any,
        kwargs: Any,
        waiters: Any,
        *,
        owned: bool = False,
    ) -> Any:
        """What `submit`, `submit_threadsafe` and groups go through; only the second is noted here."""
        if waiters is None or owned:
            return await real(rt, target, args, kwargs, waiters, owned=owned)

        def follow(rt: Runtime, target: Any, *args: Any, **kwargs: Any) -> Any:
            return real(rt, target, args, kwargs, waiters)

        return await self._submit(follow, rt, target, *args, **kwargs)

    def _reserve(self, real: Any, rt: Runtime, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        return real(rt, target, *args, **kwargs)

    def _submit_reserved(self, real: Any, reservation: Any) -> Any:
        function = reservation._entry.definition.function
        return self._took(function, reservation._args, reservation._kwargs, real(reservation))

    def _took(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], job: Job[Any]) -> Job[Any]:
        self.all.append(Submission(job.task, _named(target, args, kwargs), job))
        return job


class InlineSubmissions(Submissions):
    """What was submitted; each job had run when its submit returned."""

    async def _submit(self, real: Any, rt: Runtime, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        job = await super()._submit(real, rt, _at_once(target), *args, **kwargs)
        await _has_run(job)
        return job

    async def _submit_many(self, real: Any, rt: Runtime, target: Any, /, calls: Any) -> Any:
        jobs = await super()._submit_many(real, rt, _at_once(target), calls)
        for job in jobs:
            await _has_run(job)
        return jobs


class ManualSubmissions(Submissions):
    """What was submitted; nothing runs until `drain`."""

    def __init__(self) -> None:
        super().__init__()
        self._runtimes: dict[Runtime, None] = {}

    async def drain(self) -> list[Job[Any]]:
        """Run what waits, and what that submits; return the jobs that have run, in the order of submission.

        A job that failed and may be tried again waits for its time, and a scheduled one for its own.
        """
        waiting = {one.job for one in self.all if str(one.job.state) in UNDER_WAY}
        attempts = {one.job: one.job.attempt for one in self.all}
        for rt in self._runtimes:
            rt.resume()
        try:
            while any(str(one.job.state) in UNDER_WAY for one in self.all):  # noqa: ASYNC110 -- no event has it
                await asyncio.sleep(POLL)
        finally:
            for rt in self._runtimes:
                rt.pause()
        jobs = [one.job for one in self.all]
        return [job for job in jobs if job in waiting or job.attempt > attempts.get(job, 0)]

    async def _submit(self, real: Any, rt: Runtime, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        self._hold(rt)
        return await super()._submit(real, rt, target, *args, **kwargs)

    def _submit_nowait(self, real: Any, rt: Runtime, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        self._hold(rt)
        return super()._submit_nowait(real, rt, target, *args, **kwargs)

    async def _submit_many(self, real: Any, rt: Runtime, target: Any, /, calls: Any) -> Any:
        self._hold(rt)
        return await super()._submit_many(real, rt, target, calls)

    def _reserve(self, real: Any, rt: Runtime, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        self._hold(rt)
        return super()._reserve(real, rt, target, *args, **kwargs)

    def _hold(self, rt: Runtime) -> None:
        if rt not in self._runtimes:
            self._runtimes[rt] = None
            rt.pause()

    def _let_go(self) -> None:
        for rt in self._runtimes:
            with suppress(RuntimeClosed):  # it was left inside of the mode
                rt.resume()


@contextmanager
def recorded() -> Generator[Submissions]:
    """Jobs run as always; what is submitted is noted."""
    with _mode(Submissions()) as noted:
        yield noted


@contextmanager
def inline() -> Generator[InlineSubmissions]:
    """Jobs run at submit: when ``await rt.submit(…)`` returns, the job has run once.

    Delays are left out. `submit_nowait` cannot wait: its job runs in the next turns of the loop.
    """
    with _mode(InlineSubmissions()) as noted:
        yield noted


@contextmanager
def manual() -> Generator[ManualSubmissions]:
    """Jobs are collected and wait for ``await submitted.drain()``; what is left runs after the ``with``."""
    with _mode(ManualSubmissions()) as noted:
        try:
            yield noted
        finally:
            noted._let_go()


def assert_submitted(target: Target[...], /, *args: Any, **kwargs: Any) -> list[Submission]:
    """Return the submissions of a task with these arguments, among others; fail if there is none.

    >>> with manual():
    ...     await sign_up("a@example.org")
    ...     assert_submitted(send_email, "a@example.org")
    """
    found = _noted().of(target, *args, **kwargs)
    if not found:
        raise AssertionError(
            f"{_told(target, args, kwargs)} was not submitted; what was:{_list(_noted().all)}"
        )
    return found


def assert_not_submitted(target: Target[...], /, *args: Any, **kwargs: Any) -> None:
    """Fail if a task was submitted with these arguments, among others."""
    found = _noted().of(target, *args, **kwargs)
    if found:
        raise AssertionError(f"{_told(target, args, kwargs)} was submitted:{_list(found)}")


# Inside -----------------------------------------------------------------------------------

_modes: list[Submissions] = []


@contextmanager
def _mode(noted: Any) -> Generator[Any]:
    reservation: Any = Reservation
    with (
        mock.patch.multiple(
            Runtime,
            submit=_instead(Runtime.submit, noted._submit),
            submit_nowait=_instead(Runtime.submit_nowait, noted._submit_nowait),
            submit_many=_instead(Runtime.submit_many, noted._submit_many),
            reserve=_instead(Runtime.reserve, noted._reserve),
            _submit=_instead(Runtime._submit, noted._submit_outside),  # pyright: ignore[reportPrivateUsage]
        ),
        mock.patch.object(reservation, "submit", _instead(reservation.submit, noted._submit_reserved)),
    ):
        _modes.append(noted)
        try:
            yield noted
        finally:
            _modes.remove(noted)


def _instead(real: Any, noting: Any) -> Any:
    def method(rt: Any, /, *args: Any, **kwargs: Any) -> Any:
        return noting(real, rt, *args, **kwargs)

    return method


def _noted() -> Submissions:
    if not _modes:
        raise RuntimeError("nothing is noted outside of recorded(), inline() and manual()")
    return _modes[-1]


async def _has_run(job: Job[Any]) -> None:
    """Wait until the job is over, or waits for another attempt."""
    over = asyncio.ensure_future(job.wait())  # noqa: TID251 -- cancelled below
    try:
        while str(job.state) in UNDER_WAY:
            await asyncio.wait([over], timeout=POLL)
    finally:
        over.cancel()


def _at_once(target: Any) -> Any:
    return target.with_options(delay=0.0, run_at=None) if isinstance(target, Task) else target  # pyright: ignore[reportUnknownVariableType]


def _name(target: Any) -> str:
    if isinstance(target, Task):
        return target.name
    return f"{target.__module__}:{target.__qualname__}"


def _named(
    target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, partly: bool = False
) -> dict[str, Any]:
    """Arguments by the names of their parameters."""
    if inspect.iscoroutine(target):
        return {}
    signature = inspect.signature(target)
    bound = signature.bind_partial(*args, **kwargs) if partly else signature.bind(*args, **kwargs)
    if not partly:
        bound.apply_defaults()
    return dict(bound.arguments)


def _includes(arguments: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(name in arguments and arguments[name] == value for name, value in wanted.items())


def _told(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    given = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
    return f"{_name(target)}({given})"


def _list(submissions: list[Submission]) -> str:
    return "".join(f"\n  {one}" for one in submissions) or " nothing"
