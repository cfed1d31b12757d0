from __future__ import annotations

import dataclasses
import inspect
import math
import subprocess
import sys
from typing import Any

import pytest

import bgruntime
from bgruntime import Queue, Runtime, RuntimeSettings, Shutdown, task
from tests.door.turns import Gate, hold, until


@pytest.mark.parametrize(
    ("option", "value", "limit"),
    [
        ("concurrency", 0, "1"),
        ("concurrency", -1, "1"),
        ("queue_size", 0, "1"),
        ("queue_size", -5, "1"),
        ("threads", 0, "1"),
        ("threads", -1, "1"),
        ("wait_limit", -1, "0"),
        ("wait_limit", math.nan, "finite"),
        ("redrive", -1, "0"),
        ("cancel_grace", -1, "0"),
        ("cancel_grace", math.nan, "finite"),
        ("cancel_hard", -0.5, "0"),
    ],
)
def test_a_bad_value_is_a_value_error_that_names_it_and_the_limit(
    option: str, value: Any, limit: str
) -> None:
    with pytest.raises(ValueError, match=option) as caught:
        Runtime(**{option: value})
    assert str(value) in str(caught.value)
    assert limit in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("journal", 3),
        ("journal", ""),
        ("registry", {}),
        ("settings", {}),
        ("queues", Queue("mail")),
        ("queues", "mail"),
        ("observers", None),
        ("observers", print),
        ("middleware", print),
    ],
)
def test_what_is_no_such_thing_is_a_value_error_that_names_it(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option) as caught:
        Runtime(**{option: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", ["", None, 3, Queue("mail")])
def test_the_queue_of_a_task_is_given_by_its_name(value: Any) -> None:
    with pytest.raises(ValueError, match="queue") as caught:
        task(queue=value)(print)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("option", ["redact", "carry"])
def test_what_is_no_sequence_is_refused_by_name(option: str) -> None:
    with pytest.raises(ValueError, match=option):
        task(**{option: 3})(print)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["concurrency", "queue_size", "threads"])
@pytest.mark.parametrize("value", ["many", 1.5])
def test_what_is_no_whole_number_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=option):
        Runtime(**{option: value})


def test_an_overflow_policy_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match="overflow") as caught:
        Runtime(overflow="bounce")  # type: ignore[arg-type]
    for said in ("bounce", "wait", "reject", "drop_oldest"):
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("concurency", "concurrency"),
        ("queuesize", "queue_size"),
        ("observer", "observers"),
        ("thread", "threads"),
        ("shut_down", "shutdown"),
    ],
)
def test_an_unknown_option_answers_did_you_mean(wrong: str, right: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"(?i){wrong}.*did you mean.*{right}"):
        Runtime(**{wrong: 1})


def test_an_option_like_nothing_known_is_refused_by_its_name() -> None:
    with pytest.raises((TypeError, ValueError), match="xyzzy"):
        Runtime(xyzzy=1)  # type: ignore[call-arg]


def test_the_options_are_given_by_name_only() -> None:
    with pytest.raises(TypeError):
        Runtime(5)  # type: ignore[misc]


@pytest.mark.parametrize("option", ["drain", "cancel", "close"])
@pytest.mark.parametrize("value", [-1, math.nan])
def test_a_bad_limit_of_the_shutdown_is_a_value_error(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"(?s){option}.*{value}"):
        Shutdown(**{option: value})


def test_the_shutdown_has_the_limits_written_down() -> None:
    plain = Shutdown()
    assert (plain.drain, plain.cancel, plain.close) == (None, 5, 2)


def test_a_shutdown_is_a_value_that_cannot_change() -> None:
    plain = Shutdown(drain=3)
    assert plain == Shutdown(drain=3)
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        plain.drain = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("option", "value", "limit"),
    [("concurrency", 0, "1"), ("concurrency", -2, "1"), ("size", 0, "1"), ("size", -1, "1")],
)
def test_a_bad_value_of_a_queue_is_a_value_error(option: str, value: int, limit: str) -> None:
    with pytest.raises(ValueError, match=option) as caught:
        Queue("mail", **{option: value})
    assert str(value) in str(caught.value)
    assert limit in str(caught.value)


def test_a_queue_needs_a_name() -> None:
    with pytest.raises(ValueError, match="name"):
        Queue("")
    with pytest.raises(TypeError):
        Queue()  # type: ignore[call-arg]


def test_a_queue_with_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="bounce"):
        Queue("mail", overflow="bounce")  # type: ignore[arg-type]


def test_a_queue_takes_its_limits_by_name_and_has_none_by_default() -> None:
    queue = Queue("mail")
    assert (queue.name, queue.concurrency, queue.size, queue.overflow) == (
        "mail",
        None,
        None,
        None,
    )
    with pytest.raises(TypeError):
        Queue("mail", 3)  # type: ignore[misc]


def test_two_queues_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="mail"):
        Runtime(queues=[Queue("mail"), Queue("mail", size=3)])


def test_what_is_no_queue_is_refused() -> None:
    with pytest.raises((TypeError, ValueError), match="queues"):
        Runtime(queues=["mail"])  # type: ignore[list-item]


def test_the_repr_is_an_instrument_panel(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with Runtime(concurrency=2, queue_size=1000) as rt:
            jobs = await rt.submit_many(hold, [(gate, n) for n in range(3)])
            await until(lambda: len(gate.started) == 2)
            assert repr(rt) == "<Runtime running: 2/2 slots in use, 1/1000 queued>"
            gate.open()
            for job in jobs:
                await job

    run(main)


def test_a_runtime_that_was_never_entered_has_a_repr_too() -> None:
    assert "<Runtime" in repr(Runtime(concurrency=3))
    assert "running" not in repr(Runtime())


def test_the_defaults_are_those_written_down(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            assert repr(rt) == "<Runtime running: 0/100 slots in use, 0/10000 queued>"

    run(main)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in {
        "CONCURRENCY": "7",
        "QUEUE_SIZE": "21",
        "OVERFLOW": "reject",
        "WAIT_LIMIT": "2.5",
        "THREADS": "3",
        "CANCEL_GRACE": "1.5",
        "CANCEL_HARD": "0.5",
    }.items():
        monkeypatch.setenv(f"BGRUNTIME_{name}", value)
    return monkeypatch


@pytest.mark.usefixtures("environment")
def test_settings_come_from_the_environment() -> None:
    settings = RuntimeSettings()
    assert settings.concurrency == 7
    assert settings.queue_size == 21
    assert settings.overflow == "reject"
    assert settings.wait_limit == 2.5
    assert settings.threads == 3
    assert settings.cancel_grace == 1.5
    assert settings.cancel_hard == 0.5


@pytest.mark.usefixtures("environment")
def test_a_runtime_takes_its_values_from_the_settings(run: Any) -> None:
    async def main() -> None:
        async with Runtime(settings=RuntimeSettings()) as rt:
            assert repr(rt) == "<Runtime running: 0/7 slots in use, 0/21 queued>"

    run(main)


@pytest.mark.usefixtures("environment")
def test_a_value_given_in_code_goes_before_the_settings(run: Any) -> None:
    async def main() -> None:
        async with Runtime(concurrency=2, settings=RuntimeSettings()) as rt:
            assert repr(rt) == "<Runtime running: 0/2 slots in use, 0/21 queued>"

    run(main)


def test_a_default_that_is_given_beside_the_settings_wins_too(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"CONCURRENCY": 7, "QUEUE_SIZE": 8, "OVERFLOW": "reject", "WAIT_LIMIT": 9, "THREADS": 3}
    for name, value in {**values, "JOURNAL": "env.db", "CANCEL_GRACE": 1, "SHUTDOWN__DRAIN": 20}.items():
        monkeypatch.setenv(f"BGRUNTIME_{name}", str(value))
    rt = Runtime(
        concurrency=100,
        queue_size=10_000,
        overflow="wait",
        wait_limit=None,
        journal=None,
        cancel_grace=5,
        shutdown=Shutdown(),
        settings=RuntimeSettings(),
    )
    limits = rt._limits
    assert (limits.concurrency, limits.queue_size, limits.overflow) == (100, 10_000, "wait")
    assert (limits.wait_limit, limits.cancel_grace, rt._journal_path) == (None, 5, None)
    assert rt.shutdown == Shutdown()
    assert limits.threads == 3, "what was not given comes from the settings"


def test_the_defaults_of_the_runtime_can_be_read_in_its_signature() -> None:
    parameters = inspect.signature(Runtime).parameters
    assert parameters["concurrency"].default == 100
    assert str(parameters["overflow"]) == "overflow: 'Overflow' = 'wait'"
    assert str(parameters["shutdown"].default) == repr(Shutdown())
    assert {type(one.default) for one in parameters.values()} == {int, str, type(None), tuple, Shutdown}
    assert {one.kind for one in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}


def test_the_options_of_a_task_can_be_read_in_its_signature_with_their_defaults() -> None:
    first, *options = inspect.signature(task).parameters.values()
    assert str(first.replace(annotation=first.empty)) == "fn=None"
    assert first.kind is inspect.Parameter.POSITIONAL_ONLY
    written = {one.name: one.default for one in options if one.name != "backoff"}
    assert written == {
        "name": None,
        "queue": "default",
        "timeout": 300.0,
        "max_attempts": 1,
        "retry_on": (Exception,),
        "give_up_on": (),
        "priority": 5,
        "durable": False,
        "redrive": None,
        "expires_in": None,
        "redact": (),
        "context": "submitter",
        "carry": (),
    }
    assert {one.kind for one in options} == {inspect.Parameter.KEYWORD_ONLY}


def test_the_options_of_a_copy_can_be_read_in_its_signature() -> None:
    @task
    def job() -> None: ...

    options = inspect.signature(job.with_options).parameters
    assert {"delay", "run_at", "timeout", "priority", "expires_in", "id", "tags"} <= options.keys()
    assert "name" not in options


def test_the_settings_have_the_defaults_of_the_runtime() -> None:
    settings = RuntimeSettings()
    assert settings.concurrency == 100
    assert settings.queue_size == 10_000
    assert settings.overflow == "wait"
    assert settings.wait_limit is None
    assert settings.threads == 40
    assert settings.journal is None
    assert settings.redrive == 0
    assert settings.cancel_grace == 5
    assert settings.cancel_hard == 5


def test_the_shutdown_comes_from_the_environment_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BGRUNTIME_SHUTDOWN", '{"drain": 20, "cancel": 4, "close": 1}')
    assert RuntimeSettings().shutdown == Shutdown(drain=20, cancel=4, close=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("CONCURRENCY", "0"), ("CONCURRENCY", "many"), ("OVERFLOW", "bounce")],
)
def test_a_bad_value_in_the_environment_is_a_value_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"BGRUNTIME_{name}", value)
    with pytest.raises(ValueError, match=name.lower()):
        Runtime(settings=RuntimeSettings())


def test_settings_are_loaded_only_when_they_are_asked_for() -> None:
    probe = (
        "import sys, bgruntime\n"
        "assert 'pydantic_settings' not in sys.modules\n"
        "bgruntime.RuntimeSettings\n"
        "assert 'pydantic_settings' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)


def test_an_unknown_queue_is_an_error_at_submit_that_names_the_known_ones(run: Any) -> None:
    called: list[int] = []

    @task(queue="mial")
    async def send() -> None:
        called.append(1)

    async def main() -> None:
        async with Runtime(queues=[Queue("mail")]) as rt:
            for submit in (rt.submit_nowait,):
                with pytest.raises((ValueError, LookupError, bgruntime.BgRuntimeError)) as seen:
                    submit(send)
            with pytest.raises((ValueError, LookupError, bgruntime.BgRuntimeError)) as seen:
                await rt.submit(send)
            assert "mial" in str(seen.value)
            assert "mail" in str(seen.value)

    run(main)
    assert called == []


def test_a_named_queue_has_its_own_concurrency(run: Any) -> None:
    narrow = task(hold.__wrapped__, name="door.narrow", queue="narrow", timeout=None)

    async def main() -> None:
        gate, wide = Gate(), Gate()
        async with Runtime(concurrency=10, queues=[Queue("narrow", concurrency=2)]) as rt:
            await rt.submit_many(narrow, [(gate, n) for n in range(5)])
            await rt.submit_many(hold, [(wide, n) for n in range(5)])
            await until(lambda: len(wide.started) == 5)
            assert gate.started == [0, 1]
            gate.open()
            wide.open()
        assert sorted(gate.finished) == [0, 1, 2, 3, 4]
        assert gate.most == 2

    run(main)


def test_a_named_queue_has_its_own_size_and_policy(run: Any) -> None:
    small = task(hold.__wrapped__, name="door.small", queue="small", timeout=None)

    async def main() -> None:
        gate = Gate()
        queue = Queue("small", concurrency=1, size=1, overflow="reject")
        async with Runtime(queues=[queue]) as rt:
            await rt.submit(small, gate, 0)
            await rt.submit(small, gate, 1)
            with pytest.raises(bgruntime.QueueFull, match="small"):
                await rt.submit(small, gate, 2)
            other = await rt.submit(hold, gate, 3)
            gate.open()
            assert await other == 3
        assert sorted(gate.finished) == [0, 1, 3]

    run(main)
