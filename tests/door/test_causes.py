"""What a failed job says of its cause, to whoever lists jobs, awaits them, or fans out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bgruntime import Runtime, task


@task(redact=["password"])
async def log_in(user: str, password: str = "") -> None:
    raise PermissionError(f"{user} may not,\n not with {password}")


@task
async def plain(n: int = 0) -> int:
    return n


@task
async def with_a_timeout(timeout: int) -> int:
    return timeout


def test_a_listed_job_shows_the_kind_and_the_text_of_its_error_without_secrets(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            await rt.submit(log_in, "ada", password="hunter22")
            await rt.drain()
            [job] = rt.jobs(state="discarded")
            assert "(failed: PermissionError: ada may not, not with " in repr(job)
            assert "hunter22" not in repr(job)
            with pytest.raises(asyncio.InvalidStateError, match="PermissionError: ada may not"):
                job.exception()

    run(main)


def test_the_handle_of_a_failed_job_shows_the_kind_of_its_error(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            job = await rt.submit(log_in, "ada", password="hunter22")
            await job.wait()
            assert repr(job).endswith("discarded, attempt 1/1, (failed: PermissionError)>")

    run(main)


def test_a_long_error_is_cut_in_the_list(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            await rt.submit(log_in, "x" * 10_000)
            await rt.drain()
            assert len(repr(rt.jobs(state="discarded")[0])) < 400

    run(main)


@pytest.mark.parametrize("option", ["timeout", "delay", "priority", "max_attempts", "id"])
def test_an_option_given_as_an_argument_is_told_to_go_through_with_options(run: Any, option: str) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            submitted: Any = plain
            with pytest.raises(TypeError) as raised:
                await (await rt.submit(submitted, 1, **{option: 5}))
            [note] = raised.value.__notes__
            assert f"with_options({option}=" in note

    run(main)


def test_a_parameter_that_is_called_like_an_option_is_a_parameter(run: Any) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            assert await (await rt.submit(with_a_timeout, timeout=5)) == 5
            wrong: Any = plain
            with pytest.raises(TypeError) as raised:
                await (await rt.submit(wrong, colour=1))
            assert not hasattr(raised.value, "__notes__")

    run(main)


@pytest.mark.parametrize("ordered", [True, False])
def test_an_exception_that_map_returns_says_which_item_it_belongs_to(run: Any, ordered: bool) -> None:
    async def odd(n: int) -> int:
        if n % 2:
            raise ValueError(n)
        return n

    async def main() -> None:
        async with Runtime() as rt:
            found = await rt.map(odd, [0, 1, 2, 3], ordered=ordered, on_error="return")
            errors = {error.args[0]: error.__notes__ for error in found if isinstance(error, ValueError)}
            assert errors == {n: [f"of the fan-out's item {n}, counted from 0"] for n in (1, 3)}
            with pytest.raises(ValueError, match="1") as raised:
                await rt.map(odd, [0, 1])
            assert raised.value.__notes__ == ["of the fan-out's item 1, counted from 0"]

    run(main)


def test_one_exception_object_raised_for_many_items_does_not_grow(run: Any) -> None:
    always = RuntimeError("always the same")

    async def fail(n: int) -> None:
        raise always

    async def main() -> None:
        async with Runtime() as rt:
            for _ in range(3):
                await rt.map(fail, range(3), on_error="return")
        assert len(always.__notes__) == 1

    run(main)
