from __future__ import annotations

import asyncio
import contextvars
import copy
import datetime
import functools
import math
import os
import pickle
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import bgruntime
from bgruntime import Runtime, Task, task

ROOT = Path(__file__).parents[2]
HERE = {**os.environ, "PYTHONPATH": str(ROOT)}
REFUSED = (ValueError, TypeError, bgruntime.BgRuntimeError)


@task
async def shout(word: str, *, times: int = 1) -> str:
    """Says the word loudly."""
    return word.upper() * times


@task
def whisper(word: str) -> str:
    return word.lower()


def test_a_task_of_a_coroutine_function_is_called_as_that_function() -> None:
    assert asyncio.run(shout("hey", times=2)) == "HEYHEY"


def test_a_task_of_a_plain_function_is_called_as_that_function() -> None:
    assert whisper("HEY") == "hey"


def test_a_task_looks_like_the_function_it_wraps() -> None:
    assert isinstance(shout, Task)
    assert shout.__name__ == "shout"
    assert shout.__doc__ == "Says the word loudly."
    assert shout.__wrapped__ is not shout


def test_a_task_is_named_after_its_module_and_qualname() -> None:
    assert shout.name == f"{__name__}:shout"


def test_a_task_of_a_nested_function_has_the_whole_qualname() -> None:
    @task
    async def inner() -> None: ...

    assert inner.name == (
        f"{__name__}:test_a_task_of_a_nested_function_has_the_whole_qualname.<locals>.inner"
    )


def test_a_name_given_is_the_name() -> None:
    @task(name="mail.given-name")
    async def anything() -> None: ...

    assert anything.name == "mail.given-name"


def test_the_repr_of_a_task_has_its_name() -> None:
    assert shout.name in repr(shout)


def test_in_a_script_the_module_part_is_the_stem_of_the_file(tmp_path: Path) -> None:
    script = tmp_path / "nightly.py"
    script.write_text("from bgruntime import task\n@task\ndef tidy(): ...\nprint(tidy.name)\n")
    done = subprocess.run([sys.executable, str(script)], env=HERE, capture_output=True, text=True, check=True)
    assert done.stdout == "nightly:tidy\n"


def test_in_a_module_run_with_m_the_module_part_is_its_spec(tmp_path: Path) -> None:
    package = tmp_path / "nightjobs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tidying.py").write_text(
        "from bgruntime import task\n@task\ndef tidy(): ...\nprint(tidy.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "nightjobs.tidying"],
        cwd=tmp_path,
        env=HERE,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "nightjobs.tidying:tidy\n"


def test_defining_the_same_function_again_replaces_it(tmp_path: Path) -> None:
    source = tmp_path / "reloaded.py"
    source.write_text("from bgruntime import task\n@task\ndef f(): return 1\n")
    first = runpy.run_path(str(source), run_name="reloaded")["f"]
    source.write_text("from bgruntime import task\n@task\ndef f(): return 2\n")
    second = runpy.run_path(str(source), run_name="reloaded")["f"]
    assert first.name == second.name == "reloaded:f"
    assert (first(), second()) == (1, 2)


def test_defining_the_same_function_under_a_given_name_again_replaces_it(
    tmp_path: Path,
) -> None:
    source = tmp_path / "reloaded.py"
    source.write_text("from bgruntime import task\n@task(name='again')\ndef f(): return 1\n")
    runpy.run_path(str(source), run_name="reloaded")
    second = runpy.run_path(str(source), run_name="reloaded")["f"]
    assert second.name == "again"


def test_two_functions_under_one_given_name_are_refused_at_decoration() -> None:
    @task(name="door.taken")
    async def first() -> None: ...

    async def second() -> None: ...

    with pytest.raises(REFUSED, match=r"door\.taken"):
        task(second, name="door.taken")
    assert first.name == "door.taken"


@pytest.mark.parametrize(
    ("option", "value", "limit"),
    [
        ("timeout", 0, "0"),
        ("timeout", -1, "0"),
        ("timeout", math.nan, "finite"),
        ("max_attempts", 0, "1"),
        ("max_attempts", -3, "1"),
        ("priority", -1, "0"),
        ("priority", 10, "9"),
        ("expires_in", -1, "0"),
        ("expires_in", math.nan, "finite"),
        ("redrive", -1, "0"),
    ],
)
def test_a_bad_value_is_a_value_error_that_names_it_and_the_limit(
    option: str, value: Any, limit: str
) -> None:
    async def anything() -> None: ...

    with pytest.raises(ValueError, match=option) as caught:
        task(anything, **{option: value})
    assert str(value) in str(caught.value)
    assert limit in str(caught.value)


def test_a_context_other_than_the_two_is_a_value_error_that_names_them() -> None:
    async def anything() -> None: ...

    with pytest.raises(ValueError, match="context") as caught:
        task(anything, context="sender")  # type: ignore[call-overload]
    for said in ("sender", "submitter", "fresh"):
        assert said in str(caught.value)


@pytest.mark.parametrize("option", ["retry_on", "give_up_on"])
def test_what_is_no_exception_type_is_refused(option: str) -> None:
    async def anything() -> None: ...

    with pytest.raises((TypeError, ValueError), match=option):
        task(anything, **{option: ("OSError",)})  # type: ignore[call-overload]


def test_a_single_exception_type_is_as_good_as_a_tuple_of_one_or_refused_at_once() -> None:
    async def anything() -> None: ...

    try:
        made = task(anything, retry_on=OSError)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        assert "retry_on" in str(error)
    else:
        assert isinstance(made, Task)


def test_a_backoff_that_cannot_be_called_is_refused() -> None:
    async def anything() -> None: ...

    with pytest.raises((TypeError, ValueError), match="backoff"):
        task(anything, backoff="soon")  # type: ignore[call-overload]


def test_what_is_carried_must_be_context_variables() -> None:
    async def anything() -> None: ...

    with pytest.raises((TypeError, ValueError), match="carry"):
        task(anything, context="fresh", carry=("request_id",))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("timout", "timeout"), ("max_attempt", "max_attempts"), ("prioriti", "priority")],
)
def test_an_unknown_option_of_task_answers_did_you_mean(wrong: str, right: str) -> None:
    async def anything() -> None: ...

    with pytest.raises((TypeError, ValueError), match=f"(?i){wrong}.*did you mean.*{right}"):
        task(anything, **{wrong: 3})
    with pytest.raises((TypeError, ValueError), match=f"(?i){wrong}.*did you mean.*{right}"):
        task(**{wrong: 3})


def test_an_unknown_option_of_with_options_answers_did_you_mean() -> None:
    with pytest.raises((TypeError, ValueError), match="(?i)prioriti.*did you mean.*priority"):
        shout.with_options(prioriti=3)  # type: ignore[call-arg]


def test_an_option_like_nothing_known_is_refused_by_its_name() -> None:
    with pytest.raises((TypeError, ValueError), match="xyzzy"):
        task(xyzzy=3)  # type: ignore[call-overload]


def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


@pytest.mark.parametrize("function", [generator, async_generator])
def test_a_generator_function_is_refused_at_decoration(function: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="generator"):
        task(function)


@pytest.mark.parametrize("thing", [3, "text", [1]])
def test_what_is_no_function_is_refused_by_its_kind(thing: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"(?i)function|callable"):
        task(thing)


def test_decorating_a_task_again_is_refused_or_gives_a_task_of_the_same_function() -> None:
    try:
        again = task(whisper)  # type: ignore[call-overload]
    except REFUSED as error:
        assert "whisper" in str(error)
    else:
        assert again("HEY") == "hey"


def test_a_durable_task_needs_a_name_that_another_process_can_find() -> None:
    async def local() -> None: ...

    with pytest.raises(REFUSED, match="(?s)locals.*name="):
        task(local, durable=True)
    with pytest.raises(REFUSED, match="(?s)lambda.*name="):
        task(lambda: None, durable=True)


def test_a_durable_task_of_a_local_function_with_a_name_given_is_fine() -> None:
    async def local() -> None: ...

    assert task(local, durable=True, name="door.findable").name == "door.findable"


def test_a_durable_task_that_redacts_is_refused() -> None:
    async def login(password: str) -> None: ...

    with pytest.raises(REFUSED, match="(?s)durable.*redact|redact.*durable"):
        task(login, durable=True, name="door.login", redact=("password",))


def test_a_durable_task_with_a_secret_parameter_is_refused_by_its_name() -> None:
    async def login(password: SecretStr) -> None: ...

    with pytest.raises(REFUSED, match="password"):
        task(login, durable=True, name="door.login-secret")


def test_a_durable_task_with_an_optional_secret_is_refused_too() -> None:
    async def login(token: SecretStr | None = None) -> None: ...

    with pytest.raises(REFUSED, match="token"):
        task(login, durable=True, name="door.login-optional-secret")


def test_redact_must_name_parameters_of_the_function() -> None:
    async def login(password: str) -> None: ...

    with pytest.raises(REFUSED, match="pasword"):
        task(login, redact=("pasword",))


def test_a_method_can_be_a_task(run: Any) -> None:
    class Mailer:
        prefix = "to "

        def address(self, name: str) -> str:
            return self.prefix + name

    bound = task(Mailer().address)

    async def main() -> str:
        async with Runtime() as rt:
            return await (await rt.submit(bound, "ann"))

    assert run(main) == "to ann"


def test_with_options_gives_a_copy_and_leaves_the_task_as_it_was(run: Any) -> None:
    late = shout.with_options(priority=0, timeout=5, tags=("copy",), id="copy-1")
    assert isinstance(late, Task)
    assert late is not shout
    assert late.name == shout.name

    async def main() -> None:
        async with Runtime() as rt:
            copy, plain = await rt.submit(late, "a"), await rt.submit(shout, "b")
            assert (copy.id, list(copy.tags)) == ("copy-1", ["copy"])
            assert plain.id != "copy-1"
            assert list(plain.tags) == []
            assert (await copy, await plain) == ("A", "B")

    run(main)


def test_options_of_a_copy_are_kept_by_a_copy_of_the_copy(run: Any) -> None:
    twice = shout.with_options(tags=("kept",)).with_options(id="second")

    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(twice, "a")
            assert (job.id, list(job.tags)) == ("second", ["kept"])
            await job

    run(main)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("delay", -1),
        ("delay", math.nan),
        ("timeout", 0),
        ("priority", 10),
        ("expires_in", -1),
    ],
)
def test_a_bad_value_for_a_copy_is_a_value_error(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"(?s){option}.*{value}"):
        shout.with_options(**{option: value})


def test_a_delay_and_a_time_together_are_refused() -> None:
    when = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    with pytest.raises((TypeError, ValueError), match=r"(?s)delay.*run_at|run_at.*delay"):
        shout.with_options(delay=1, run_at=when)


def test_a_bound_call_runs_with_its_arguments(run: Any) -> None:
    call = shout.bind("a", times=3)
    assert isinstance(call, bgruntime.Call)

    async def main() -> Any:
        async with Runtime() as rt:
            return await rt.gather(call, shout.bind("b"))

    assert run(main) == ["AAA", "B"]


def test_a_call_bound_to_arguments_that_do_not_fit_ends_in_a_type_error(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(TypeError):
                await rt.gather(shout.bind())  # type: ignore[call-arg]
            with pytest.raises(TypeError):
                await rt.gather(shout.bind("a", loud=True))  # type: ignore[call-arg]

    run(main)


def test_decorating_needs_no_running_loop_and_touches_no_context() -> None:
    before = contextvars.copy_context()

    @task(max_attempts=2)
    async def anything() -> None: ...

    assert dict(contextvars.copy_context()) == dict(before)


def test_a_partial_can_be_a_task_under_a_name(run: Any) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    add_two = task(functools.partial(add, 2), name="door.add-two")

    async def main() -> int:
        async with Runtime() as rt:
            return await (await rt.submit(add_two, 3))

    assert run(main) == 5


def test_a_function_may_call_its_parameters_what_it_likes(run: Any) -> None:
    names = "self task fn function args kwargs timeout name priority queue limit context call job rt".split()
    wanted = dict.fromkeys(names, 1)

    @task
    async def take(**given: int) -> dict[str, int]:
        return given

    @task
    def take_plainly(**given: int) -> dict[str, int]:
        return given

    async def main() -> None:
        assert await take(**wanted) == wanted
        async with Runtime() as rt:
            for one in (take, take_plainly):
                assert await (await rt.submit(one, **wanted)) == wanted
                assert await rt.submit_nowait(one.with_options(priority=1), **wanted) == wanted
                assert await asyncio.wrap_future(rt.submit_threadsafe(one, **wanted)) == wanted
                assert await rt.gather(one.bind(**wanted)) == [wanted]
                async with rt.group() as group:
                    job = await group.submit(one, **wanted)
                assert job.result() == wanted

    run(main)
    assert take_plainly(**wanted) == wanted


@pytest.mark.parametrize("one", [shout, whisper], ids=["async", "plain"])
def test_a_task_is_pickled_by_its_name_as_the_function_would_be(one: Any) -> None:
    assert pickle.loads(pickle.dumps(one)) is one
    assert copy.deepcopy(one) is one


def test_a_copy_with_other_options_is_pickled_with_them() -> None:
    again = pickle.loads(pickle.dumps(shout.with_options(priority=1, tags=["x"])))
    assert (again.name, again.options.priority, again.options.tags) == (shout.name, 1, ("x",))
    assert asyncio.run(again("hey")) == "HEY"


def test_a_task_of_a_function_that_stands_under_its_own_name_is_pickled_with_it() -> None:
    again = pickle.loads(pickle.dumps(task(name="the-length")(len)))
    assert again.name == "the-length"
    assert again("four") == 4


def test_a_task_that_no_module_has_is_refused_by_pickle() -> None:
    @task
    def inner() -> None: ...

    with pytest.raises((pickle.PicklingError, AttributeError), match="inner"):
        pickle.dumps(inner)
