"""What the journal and the observers may ask of a runtime."""

from __future__ import annotations

import os
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ._engine.adopt import adopt, reserve
from ._engine.look import job_of_task
from ._engine.supervise import Supervisor
from ._model.events import Event
from ._model.jobs import Adopted, Definition, Job
from ._task import Task

if TYPE_CHECKING:
    from ._model.stats import RuntimeStats
    from ._runtime import Runtime


class Host:
    """One runtime, as its journal and its observers see it.

    See `bgruntime.extend.JournalHost` and `bgruntime.extend.ObserverHost`.
    """

    def __init__(self, runtime: Runtime, engine: Supervisor) -> None:
        self._runtime = runtime
        self._engine = engine
        self._trace: Callable[[Job[Any]], str] | None = None

    @property
    def runtime(self) -> Runtime:
        return self._runtime

    @property
    def journal(self) -> Any:
        return self._engine.journal

    def counts(self) -> RuntimeStats:
        from ._engine.count import stats_of

        return stats_of(self._engine)

    def definition(self, name: str) -> Definition | None:
        task = self._runtime.registry.get(name)
        return None if task is None else task.definition

    def names(self) -> Sequence[str]:
        return [task.name for task in self._runtime.registry]

    def durable(self) -> Sequence[Definition]:
        definitions = (task.definition for task in self._runtime.registry)
        lines = self._engine.lines
        return [one for one in definitions if one.options.durable and one.options.queue in lines]

    def default_redrive(self) -> int:
        return self._engine.limits.redrive

    async def reserve(self, definition: Definition, wanted: int) -> int:
        return await reserve(self._engine, definition, wanted)

    def adopt(self, definition: Definition, jobs: Sequence[Adopted], reserved: int) -> None:
        adopt(self._engine, definition, jobs, reserved)

    async def submit(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job[Any]:
        task: Task[..., Any] = Task(replace(definition, kept=False))
        job: Job[Any] = await self._runtime.submit(task, *args, **kwargs)
        return job

    def emit(self, event: Event) -> None:
        if self._engine.tell.wanted(type(event)):
            self._engine.tell(event)

    def complain(self, about: str, error: BaseException | None) -> None:
        self._engine.complain(about, error)

    def trace_by(self, source: Callable[[Job[Any]], str]) -> None:
        self._trace = source

    def trace(self, job: Job[Any]) -> str:
        try:
            return "" if self._trace is None else self._trace(job)
        except Exception as error:
            self._engine.complain("the source of traces failed", error)
            return ""

    def job_of(self, task: Any) -> Job[Any] | None:
        return job_of_task(self._engine, task)

    def nudge(self) -> None:
        self._engine.check_idle()


def loop_of(runtime: Runtime) -> AbstractEventLoop | None:
    """The loop that *runtime* was entered on; None before that, and in a forked process. From any thread."""
    engine = runtime._engine
    return None if engine is None or engine.pid != os.getpid() else engine.loop


__all__ = ["Host", "loop_of"]
