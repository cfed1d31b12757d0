"""Task, its options and the registry of names."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)
from weakref import WeakSet

from ._context import ResourceDefault
from ._model.jobs import Definition, Need
from ._model.policies import AttemptState, Backoff, ContextMode, TaskOptions
from ._parts.spelling import did_you_mean

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

ExceptionKinds = type[BaseException] | tuple[type[BaseException], ...]


class TenacityWait(Protocol):
    """Any wait of tenacity, as far as a type checker needs to know."""

    def __call__(self, retry_state: Any) -> float: ...


class OptionArguments(TypedDict, total=False):
    """The options that a task and a submission share."""

    queue: str
    timeout: float | None
    max_attempts: int
    backoff: Backoff | TenacityWait | float
    retry_on: ExceptionKinds
    give_up_on: ExceptionKinds
    priority: int
    durable: bool
    redrive: int | None
    expires_in: float | None
    redact: tuple[str, ...] | list[str]
    context: ContextMode
    carry: tuple[ContextVar[Any], ...] | list[ContextVar[Any]]


class TaskArguments(OptionArguments, total=False):
    """The options of `task`."""

    name: str | None


class SubmitArguments(OptionArguments, total=False):
    """The options of `Task.with_options`."""

    delay: float
    run_at: datetime | float | None
    id: str | None
    tags: tuple[str, ...] | list[str]


_SUBMIT_ONLY = frozenset({"delay", "run_at", "id", "tags"})
_SUBMIT_OPTIONS = frozenset(field.name for field in fields(TaskOptions))
_TASK_OPTIONS = _SUBMIT_OPTIONS - _SUBMIT_ONLY | {"name"}


class _NoCode:
    co_varnames: tuple[str, ...] = ()


_NO_CODE = _NoCode()


class Call(Generic[R_co]):
    """A task with its arguments, not submitted yet: for `Runtime.gather`."""

    __slots__ = ("args", "kwargs", "task")

    def __init__(self, task: Task[..., R_co], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.task = task
        self.args = args
        self.kwargs = kwargs

    def __repr__(self) -> str:
        return f"<Call of {self.task.name}>"


class Task(Generic[P, R_co]):
    """A named function with the options its jobs run under. Still callable as the plain function."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        functools.update_wrapper(self, definition.function)

    @property
    def name(self) -> str:
        """The name by which jobs, logs and the journal know it."""
        return self.definition.name

    @property
    def options(self) -> TaskOptions:
        """The options its jobs run under."""
        return self.definition.options

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        called: Coroutine[Any, Any, R_co] = self.definition.function(*args, **kwargs)
        return called

    def with_options(self, **options: Unpack[SubmitArguments]) -> Task[P, R_co]:
        """A copy to submit with other options; the task itself is not changed.

        Args:
            options: those of `task`, and for one submission `delay` (seconds), `run_at` (an aware
                datetime or seconds since the epoch), `id` and `tags`.

        Raises:
            ValueError: a value is out of its range.
            TypeError: an option is not known.
        """
        given = _checked(dict(options), _SUBMIT_OPTIONS)
        changed = replace(self.definition.options, **given)
        if "redact" in given:
            _check_redacted(self.definition.function, changed)
        if changed.durable and ("redact" in given or not self.definition.options.durable):
            _check_durable(self.definition.name, self.definition.function, changed, given_name=None)
        return type(self)(replace(self.definition, options=changed, kept=False))

    def bind(self, /, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]:
        """The task with its arguments, to submit later."""
        return Call(self, args, kwargs)

    def __set_name__(self, owner: type, name: str) -> None:
        parameters = list(
            getattr(inspect.unwrap(self.definition.function), "__code__", _NO_CODE).co_varnames[:1]
        )
        if parameters == ["self"]:
            raise TypeError(
                f"{owner.__qualname__}.{name}: @task is for functions; a method has no self in a job"
            )

    # Its function cannot be pickled by name: under that name stands the task.
    def __reduce__(self) -> str | tuple[Any, ...]:
        there = _found_at(self)
        if there is self:
            return cast("str", getattr(self, "__qualname__"))  # noqa: B009 -- it is the function's
        if isinstance(there, Task) and there.definition.function is self.definition.function:
            return _with_those_options, (there, self.options)
        return type(self), (self.definition,)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"


class AsyncTask(Task[P, R_co]):
    """What `task` makes of an async function: one itself for all who ask, such as Starlette."""

    def __init__(self, definition: Definition) -> None:
        super().__init__(definition)
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)

    async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        result: R_co = await self.definition.function(*args, **kwargs)
        return result


class PlainTask(Task[P, R_co]):
    """What `task` makes of a plain function, to type checkers: calling it gives the value itself."""

    if TYPE_CHECKING:

        def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...  # type: ignore[override]

        def with_options(self, **options: Unpack[SubmitArguments]) -> PlainTask[P, R_co]: ...


def _found_at(task: Task[..., Any]) -> Any:
    """What stands under the name of the function of *task* in its module; None where nothing does."""
    there: Any = sys.modules.get(getattr(task, "__module__", ""))
    for part in getattr(task, "__qualname__", "<none>").split("."):
        there = getattr(there, part, None)
    return there


def _with_those_options(task: Task[P, R_co], options: TaskOptions) -> Task[P, R_co]:
    return type(task)(replace(task.definition, options=options, kept=False))


class Registry:
    """Tasks by name, so that another process can find what a journal names."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[..., Any]] = {}

    def add(self, task: Task[..., Any]) -> None:
        """Keep *task* under its name.

        Raises:
            ValueError: a different function has that name already.
        """
        other = self._tasks.get(task.name)
        if other is not None and _home(other.definition.function) != _home(task.definition.function):
            raise ValueError(
                f"two functions under one task name {task.name!r}: {_home(other.definition.function)} and "
                f"{_home(task.definition.function)}"
            )
        self._tasks[task.name] = task

    def get(self, name: str) -> Task[..., Any] | None:
        """The task of that name, or None."""
        return self._tasks.get(name)

    def __iter__(self) -> Iterator[Task[..., Any]]:
        return iter(list(self._tasks.values()))

    def __len__(self) -> int:
        return len(self._tasks)


TASKS = frozenset({AsyncTask, PlainTask})
registry = Registry()


@overload
def task(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...  # type: ignore[overload-overlap]
@overload
def task(fn: Callable[P, R], /) -> PlainTask[P, R]: ...
@overload
def task(**options: Unpack[TaskArguments]) -> _Decorator: ...
@overload
def task(fn: Callable[P, Coroutine[Any, Any, R]], /, **options: Unpack[TaskArguments]) -> Task[P, R]: ...  # type: ignore[overload-overlap]
@overload
def task(fn: Callable[P, R], /, **options: Unpack[TaskArguments]) -> PlainTask[P, R]: ...
def task(fn: Any = None, /, **options: Any) -> Any:
    """Make a function a task: something whose calls can be submitted as jobs.

    An async function runs on the runtime's loop, a plain one in the runtime's own threads.

    Args:
        name: how jobs, logs and the journal call it; ``module:qualname`` unless given.
        queue: the queue its jobs wait in.
        timeout: seconds an attempt may take; None for no limit.
        max_attempts: how many runs a job may have, at least 1.
        backoff: what gives the seconds between attempts: a callable from `AttemptState`, any
            tenacity wait, or a number; full-jitter exponential unless given.
        retry_on: the exceptions after which another attempt makes sense.
        give_up_on: those after which none does, whatever `retry_on` says.
        priority: 0 to 9, 0 first.
        durable: whether its jobs are on disk before `submit` returns, and survive a crash.
        redrive: how often a journaled failure is run again by itself.
        expires_in: seconds within which a job must have started, from when it becomes available.
        redact: names of parameters whose values must never be stored or logged.
        context: "submitter", a copy of the context of whoever submits, or "fresh".
        carry: the context variables that a fresh context takes over.

    Raises:
        ValueError: a value is out of its range, or the name belongs to another function.
        TypeError: an option is not known, or *fn* cannot be a job.
    """
    given = _checked(options, _TASK_OPTIONS)
    if fn is None:
        return functools.partial(_make_task, given)
    return _make_task(given, fn)


def _show(function: Any, parameters: Iterable[tuple[str, Any]]) -> None:
    """Let the signature of *function* name its options with their defaults, where it takes any."""
    kept = [one for one in inspect.signature(function).parameters.values() if one.kind is not one.VAR_KEYWORD]
    named = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in parameters
    ]
    function.__signature__ = inspect.Signature([*kept, *named])


_show(
    task,
    [("name", None), *((one.name, one.default) for one in fields(TaskOptions) if one.name in _TASK_OPTIONS)],
)
_show(cast("Any", Task).with_options, ((name, ...) for name in sorted(_SUBMIT_OPTIONS)))


class _Decorator:
    """What ``@task(...)`` decorates with. Typing only."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[P, R], /) -> PlainTask[P, R]: ...
    def __call__(self, fn: Any, /) -> Any:
        raise AssertionError("typing only")


def _make_task(given: Mapping[str, Any], fn: Callable[..., Any]) -> Task[..., Any]:
    options = dict(given)
    given_name = options.pop("name", None)
    if given_name is not None and not (isinstance(given_name, str) and given_name):
        raise ValueError(f"name is a string that is not empty, got {given_name!r}")
    definition = define(fn, TaskOptions(**options), name=given_name, kept=True)
    if definition.options.durable:
        _check_durable(definition.name, fn, definition.options, given_name)
    made: Task[..., Any] = (PlainTask if definition.threaded else AsyncTask)(definition)
    registry.add(made)
    return made


def define(
    fn: Callable[..., Any], options: TaskOptions, *, name: str | None = None, kept: bool = False
) -> Definition:
    """How the engine sees *fn*.

    Raises:
        TypeError: *fn* is not callable, or is a generator function.
    """
    if isinstance(fn, Task):
        raise TypeError(f"{fn!r} is a task already")
    if not callable(fn):
        raise TypeError(f"a task is a function or another callable, got {fn!r}")
    core = _core(fn)
    if inspect.isgeneratorfunction(core) or inspect.isasyncgenfunction(core):
        raise TypeError(
            f"{_home(fn)} is a generator function: a job returns one value; make it a plain or async function"
        )
    _check_redacted(fn, options)
    # What says that it returns an awaitable is called on the loop, where it can make one.
    threaded = not (inspect.iscoroutinefunction(core) or _returns_awaitable(core))
    return Definition(
        name=name or _home(fn),
        function=fn,
        options=options,
        threaded=threaded,
        resources=_needs(fn, threaded=threaded),
        kept=kept,
    )


_accepted_coroutines: WeakSet[Any] = WeakSet()
_DEFAULTS = TaskOptions()
_MOST_REMEMBERED = 1024
_remembered: dict[Callable[..., Any], Definition] = {}


def definition_of(what: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Definition:
    """How the engine sees what was given to `submit` in place of a task.

    Raises:
        TypeError: it is no function and no coroutine object, or a coroutine object with arguments
            or one that was accepted before.
    """
    if isinstance(what, Task):
        return what.definition
    if inspect.iscoroutine(what):
        return _of_coroutine(what, args, kwargs)
    if inspect.isawaitable(what):
        raise TypeError(
            f"submit takes a task, a function or a coroutine object, got {what!r}, which has started already"
        )
    # Only module-level functions are remembered: a lambda made per call would pile up.
    memorable = inspect.isfunction(what) and "<" not in what.__qualname__
    if memorable and what in _remembered:
        return _remembered[what]
    kept = memorable and len(_remembered) < _MOST_REMEMBERED
    made = define(what, _DEFAULTS, kept=kept)
    if kept:
        _remembered[what] = made
    return made


def _of_coroutine(coroutine: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Definition:
    if coroutine in _accepted_coroutines or inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED:
        raise TypeError(
            f"the coroutine object {coroutine.__qualname__} was submitted or started before: it can run once"
        )
    if args or kwargs:
        raise TypeError(
            f"the coroutine object {coroutine.__qualname__} has its arguments already; "
            "submit the function instead"
        )
    frame = coroutine.cr_frame
    module = frame.f_globals.get("__name__", "?") if frame is not None else "?"
    name = f"{_module_name(module)}:{coroutine.__qualname__}"

    def once() -> Any:
        return coroutine

    return Definition(name=name, function=once, options=_DEFAULTS, coroutine=coroutine)


def mark_accepted(coroutine: Any) -> None:
    """Remember that *coroutine* belongs to a job now."""
    _accepted_coroutines.add(coroutine)


def close_refused(what: Any) -> None:
    """Close *what* if it is a coroutine object that no job owns, so that nobody warns of it."""
    if inspect.iscoroutine(what) and what not in _accepted_coroutines:
        what.close()


def _checked(options: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    for name in options:
        if name not in known:
            raise TypeError(did_you_mean("option", name, known))
    if "backoff" in options:
        options["backoff"] = _backoff(options["backoff"])
    return options


def _backoff(given: Any) -> Backoff:
    if isinstance(given, int | float) and not isinstance(given, bool):
        if not 0 <= given < float("inf"):
            raise ValueError(f"backoff is in seconds and must be at least 0, got {given!r}")
        return lambda state: float(given)
    tenacity = sys.modules.get("tenacity")
    if tenacity is not None and isinstance(given, tenacity.wait.wait_base):
        return functools.partial(_tenacity_wait, tenacity, given)
    if not callable(given):
        raise ValueError(f"backoff is a callable from attempt state to seconds, or a number, got {given!r}")
    chosen: Backoff = cast(Any, given)
    return chosen


def _tenacity_wait(tenacity: Any, wait: Any, state: AttemptState) -> float:
    """What a tenacity wait makes of *state*, shown to it in the form that it knows."""
    seen = tenacity.RetryCallState(retry_object=None, fn=None, args=(), kwargs={})
    seen.attempt_number = state.attempt
    if state.error is not None:
        seen.set_exception((type(state.error), state.error, None))
    seen.start_time, seen.outcome_timestamp = 0.0, state.elapsed
    return float(wait(seen))


def _core(fn: Callable[..., Any]) -> Any:
    """What decides of which kind *fn* is: the function in a partial, the ``__call__`` of an object."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if inspect.isroutine(fn) or inspect.isclass(fn):
        return fn
    return type(fn).__call__


def _home(fn: Any) -> str:
    """``module:qualname`` of *fn*."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    qualname = getattr(fn, "__qualname__", None)
    if qualname is None:
        fn = type(fn)  # pyright: ignore[reportUnknownVariableType]
        qualname = fn.__qualname__
    return f"{_module_name(getattr(fn, '__module__', None) or '?')}:{qualname}"


def _module_name(module: str) -> str:
    """*module*, or what ``__main__`` is called when it is imported under its own name."""
    if module != "__main__":
        return module
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else module


def _needs(fn: Callable[..., Any], *, threaded: bool) -> tuple[Need, ...]:
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # some builtins have none
        return ()
    needs: list[Need] = []
    for position, parameter in enumerate(parameters):
        default = parameter.default
        if isinstance(default, ResourceDefault):
            by_position = position if parameter.kind is not parameter.KEYWORD_ONLY else None
            per_runtime = default.scope == "runtime"
            in_thread = threaded and not per_runtime and not default.is_async
            needs.append(Need(parameter.name, by_position, default.factory, per_runtime, in_thread))
    return tuple(needs)


def _check_durable(name: str, fn: Callable[..., Any], options: TaskOptions, given_name: str | None) -> None:
    if given_name is None and "<" in name:
        raise ValueError(f"durable task {name} needs a name that another process can find: task(name=...)")
    if options.redact:
        raise ValueError(
            f"durable task {name} cannot redact {', '.join(options.redact)}: its arguments must be stored"
        )
    secrets = [parameter for parameter, kind in _annotations(fn).items() if _is_secret(kind)]
    if secrets:
        raise ValueError(
            f"durable task {name} cannot store the secret {', '.join(secrets)}: pass a key to it instead"
        )


def _annotations(fn: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of *fn*, resolved where they can be."""
    core = _core(fn)
    raw: dict[str, Any] = dict(getattr(core, "__annotations__", {}))
    space = getattr(core, "__globals__", {})
    for name, kind in raw.items():
        if isinstance(kind, str):
            try:
                raw[name] = eval(kind, space)  # the user's own source, as typing.get_type_hints does
            except Exception:
                continue
    return raw


def _check_redacted(fn: Callable[..., Any], options: TaskOptions) -> None:
    if not options.redact:
        return
    parameters = inspect.signature(fn).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in options.redact:
        if name not in parameters:
            raise ValueError(did_you_mean(f"parameter of {_home(fn)} in redact", name, parameters))


def _returns_awaitable(core: Any) -> bool:
    kind = _annotations(core).get("return")
    if isinstance(kind, str):
        return kind.partition("[")[0].rpartition(".")[2] in ("Awaitable", "Coroutine", "Future", "Task")
    kind = getattr(kind, "__origin__", kind)
    return isinstance(kind, type) and issubclass(kind, Awaitable)


def _is_secret(kind: Any) -> bool:
    if isinstance(kind, str):
        return "SecretStr" in kind or "SecretBytes" in kind
    if isinstance(kind, type):
        return any(base.__name__ in ("SecretStr", "SecretBytes", "Secret") for base in kind.__mro__)
    return any(_is_secret(part) for part in getattr(kind, "__args__", ()))
