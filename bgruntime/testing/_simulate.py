"""
`simulate`: run a program under many seeds, stop at the first that fails, say how to replay it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shlex
import sys
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

from bgruntime.testing import _adapters
from bgruntime.testing._errors import SimUnhandled
from bgruntime.testing._loop import OnStep, SimLoop
from bgruntime.testing._policies import Policy

ONE_SEED = "BGRUNTIME_SEED"
HOW_MANY = "BGRUNTIME_SEEDS"

Main = Callable[[], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Simulation:
    """One seed's run: what came out, and the hash that proves a replay is the same run."""

    seed: int
    steps: int
    seconds: float  # virtual
    trace_hash: str
    value: Any
    failure: BaseException | None


@dataclass(frozen=True, slots=True)
class Simulated:
    """All seeds held: how many, how much of what, and one digest over all trace hashes."""

    seeds: int
    steps: int
    seconds: float  # virtual
    digest: str


class Simulate(Protocol):
    """What the fixture `sim` is: see `simulate`."""

    def __call__(
        self,
        main: Main,
        seeds: int | Iterable[int] = 100,
        *,
        policy: str | Policy = "soft",
        on_step: OnStep | None = None,
        max_steps: int = 200_000,
        **options: Any,
    ) -> Simulated: ...


def simulate(
    main: Main,
    seeds: int | Iterable[int] = 100,
    *,
    policy: str | Policy = "soft",
    on_step: OnStep | None = None,
    max_steps: int = 200_000,
    **options: Any,
) -> Simulated:
    """
    Run ``main()`` once per seed on a fresh `SimLoop`; raise the first failure as it came.

    The failure carries a note with the seed and the command that replays it. A number of
    seeds means 0, 1, 2 …; none at all is a ValueError. *options* go to `SimLoop`. The
    environment rules over the argument: ``BGRUNTIME_SEED=7`` runs that one,
    ``BGRUNTIME_SEEDS=20000`` so many.

    A seed fails by an exception out of ``main``, out of *on_step*, by `SimDeadlock`,
    `SimLivelock`, or a call of the loop's exception handler. Tasks left over are cancelled at
    the end, as `asyncio.run` does.
    """
    digest = blake2b(digest_size=16)
    count, steps, seconds = 0, 0, 0.0
    with _adapters.installed():
        for seed in seeds_to_run(seeds):
            run = run_seed(main, seed, policy=policy, on_step=on_step, max_steps=max_steps, **options)
            if run.failure is not None:
                raise run.failure
            digest.update(run.trace_hash.encode())
            count, steps, seconds = count + 1, steps + run.steps, seconds + run.seconds
    if not count:
        told = os.environ.get(HOW_MANY)
        raise ValueError(f"no seed was run: seeds={seeds!r}" + (f", {HOW_MANY}={told}" if told else ""))
    return Simulated(count, steps, seconds, digest.hexdigest())


def run_seed(main: Main, seed: int, **options: Any) -> Simulation:
    """Run ``main()`` under one seed; a failure is returned, with its note, and not raised."""
    with _quiet_collector():
        run = _run_seed(main, seed, options)
        gc.collect(1)  # what the run has left behind; automatic collections are rare in here
    return run


def _run_seed(main: Main, seed: int, options: dict[str, Any]) -> Simulation:
    loop = SimLoop(seed, **options)
    value, failure = None, None
    try:
        value = _run(loop, main)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        failure = exc
    finally:
        _dispose(loop)
    if failure is None and loop.unhandled:
        failure = _unhandled(loop.unhandled[0])
    if failure is not None:
        failure.add_note(replay_note(seed))
    return Simulation(seed, loop.steps, loop.time(), loop.trace_hash(), value, failure)


def seeds_to_run(seeds: int | Iterable[int]) -> Iterable[int]:
    """The seeds that the environment asks for, or else the ones given."""
    if one := os.environ.get(ONE_SEED):
        return [int(one)]
    if isinstance(seeds, int):
        return range(int(os.environ.get(HOW_MANY, seeds)))
    return seeds


def replay_note(seed: int) -> str:
    """What a failure says of its seed, and the command that runs it again."""
    test, _, _phase = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")
    command = shlex.join(["pytest", test] if test else sys.orig_argv)
    return f"seed {seed}; replay it with: {ONE_SEED}={seed} {command}"


# One run ----------------------------------------------------------------------------------


def _run(loop: SimLoop, main: Main) -> Any:
    asyncio.set_event_loop(loop)
    value = loop.run_until_complete(loop.create_task(main(), name="main"))
    _cancel_what_is_left(loop)
    loop.run_until_complete(loop.shutdown_asyncgens())
    gc.collect(0)  # what is lost in a cycle is reported while the loop still listens
    return value


def _cancel_what_is_left(loop: SimLoop) -> None:
    tasks = _tasks_of(loop)
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    for task in tasks:
        if not task.cancelled() and (exc := task.exception()) is not None:
            message = "a task left over failed while it was cancelled"
            loop.call_exception_handler({"message": message, "exception": exc, "task": task})


def _tasks_of(loop: SimLoop) -> list[asyncio.Task[Any]]:
    return sorted(asyncio.all_tasks(loop), key=lambda task: getattr(task, "number", 0))


def _dispose(loop: SimLoop) -> None:
    """Take the world down without running it: a failed seed must not spoil the next."""
    heard = list(loop.unhandled)
    for task in _tasks_of(loop):
        _end(task)
    asyncio.set_event_loop(None)
    loop.close()
    loop.unhandled[:] = heard


def _end(task: Any) -> None:
    task._log_destroy_pending = False
    # A coroutine may refuse to close, or raise whatever its clean-up raises.
    with suppress(BaseException):
        task.get_coro().close()


def _unhandled(context: dict[str, Any]) -> SimUnhandled:
    failure = SimUnhandled(f"the loop's exception handler was called: {context['message']}")
    failure.__cause__ = context.get("exception")
    return failure


@contextmanager
def _quiet_collector() -> Generator[None]:
    """No collection while a seed runs: when one strikes depends on the whole process."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
