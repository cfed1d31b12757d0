"""What arguments become when they are written, and how they are refused when that would lose something."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from bgruntime import PayloadError
from bgruntime.journal._codec import LIMIT, Codec


class Opaque:
    """Nothing can write it."""


class Point:
    """Compares by identity."""

    def __init__(self, x: int) -> None:
        self.x = x


class Touchy:
    def __eq__(self, other: object) -> bool:
        raise LookupError("not to be compared")

    __hash__ = None  # type: ignore[assignment]


def codec(function: Any, **options: Any) -> Codec:
    return Codec("tests:work", function, **options)


def back_and_forth(function: Any, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    written = codec(function).encode(args, kwargs)
    assert codec(function).decode(written.text) == (written.args, written.kwargs)
    return written.args, written.kwargs


def test_arguments_beyond_the_limit_are_refused_with_both_numbers() -> None:
    def work(text: str) -> None: ...

    with pytest.raises(
        PayloadError, match=rf"262,1\d\d bytes of arguments; the limit is {LIMIT:,}\. Pass a path"
    ):
        codec(work).encode(("x" * LIMIT,), {})


def test_any_number_of_positional_arguments_comes_back_as_they_were() -> None:
    def work(first: str, *paths: Path, loud: bool = False) -> None: ...

    given = ("a", Path("b"), Path("c"))
    assert back_and_forth(work, *given, loud=True) == (given, {"loud": True})


def test_arguments_that_a_function_with_others_takes_no_more_are_refused() -> None:
    def before(first: int, *rest: int) -> None: ...
    def after(first: int, second: int, *rest: int) -> None: ...

    with pytest.raises(PayloadError, match="the arguments no longer fit: .*second"):
        codec(after).decode(codec(before).encode((1,), {}).text)


def test_one_annotation_that_means_nothing_to_a_writer_leaves_the_others_their_types() -> None:
    def work(path: Path, opaque: Opaque) -> None: ...

    args, kwargs = back_and_forth(work, path=Path("a"), opaque=[1, 2])
    assert (args, kwargs) == ((), {"path": Path("a"), "opaque": [1, 2]})


def test_the_function_inside_a_partial_says_the_types() -> None:
    def work(path: Path, n: int) -> None: ...

    _, kwargs = back_and_forth(functools.partial(work, n=1), Path("a"))
    assert kwargs == {"path": Path("a")}


def test_annotations_that_cannot_be_resolved_leave_the_others_their_types() -> None:
    def work(path: Any, thing: Any) -> None: ...

    work.__annotations__ = {"path": Path, "thing": "NowhereDefined"}
    _, kwargs = back_and_forth(work, Path("a"), [1])
    assert kwargs == {"path": Path("a"), "thing": [1]}


def test_a_callable_whose_annotations_are_nonsense_is_written_without_types() -> None:
    def work(thing: Any) -> None: ...

    class Callable:
        def __call__(self, thing: Any) -> None: ...

    Callable.__call__.__annotations__["thing"] = "NowhereDefined"
    _, kwargs = back_and_forth(Callable(), [1])
    assert kwargs == {"thing": [1]}


def test_what_cannot_be_compared_with_what_comes_back_is_refused() -> None:
    def work(thing: Any) -> None: ...

    with pytest.raises(PayloadError, match="argument 'thing'"):
        codec(work).encode((Touchy(),), {})


def test_arguments_that_do_not_fit_are_described_by_their_places_and_names_without_what_is_redacted() -> None:
    def work(password: str) -> None: ...

    told = codec(work, redact=("password",)).describe((), {"password": "correct horse", "colour": "red"})
    assert told.text == '{"password": "[redacted]", "colour": "red"}'
    assert told.obstacle == "password redacted"
    told = codec(work, redact=("password",)).describe(("a", "b"), {})
    assert told.text == '{"0": "a", "1": "b"}'
    assert told.obstacle == "arguments that cannot be written as JSON"
