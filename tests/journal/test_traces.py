"""What is kept of an error: where it passed and what it said, with all that it was made of."""

from __future__ import annotations

from typing import Any

from bgruntime import Runtime
from bgruntime.extend import Secrets
from bgruntime.journal import _traces
from bgruntime.journal._traces import Trace

from .steps import ordinary


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_group_of_errors_says_what_each_of_them_said_without_secrets(run, path):
    async def main():
        async def fail(password: str) -> None:
            raise ExceptionGroup("three went wrong", [LookupError("no"), ValueError(f"not {password}")])

        async with Runtime(journal=path) as rt:
            job = await rt.submit(ordinary(fail, redact=("password",)), "correct horse")
            await job.wait()
            kept = await rt.journal.get(job.id)
        assert kept.error == "ExceptionGroup"
        assert "three went wrong" in kept.message
        assert "\n  LookupError: no\n  ValueError: not " in kept.message
        assert "correct horse" not in kept.message + kept.traceback

    run(main)


def test_of_many_different_tracebacks_only_the_newest_stay_in_memory(monkeypatch: Any) -> None:
    monkeypatch.setattr(_traces, "REMEMBERED", 3)
    monkeypatch.setattr(_traces, "_bodies", {})
    kinds = [type(f"Kind{n}", (Exception,), {}) for n in range(5)]
    traces = [Trace(raised(kind("no")), Secrets()) for kind in kinds]
    bodies = [trace.body() for trace in traces]
    assert list(_traces._bodies) == [trace.hash() for trace in traces[2:]]
    assert traces[0].body() == bodies[0]  # written out again
