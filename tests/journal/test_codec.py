"""What arguments become when they are written, and how they are refused when that would lose something."""

from __future__ import annotations

import functools
import json
from collections import OrderedDict, defaultdict
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bgruntime import PayloadError
from bgruntime.journal._codec import DEPTH, LIMIT, Codec, hints_of, survived


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


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        (int, "five", r"\(str\) .*Input should be a valid integer"),
        (int, None, r"\(NoneType\) .*Input should be a valid integer"),
        (tuple[int, ...], [1], r"\(list\) comes back as tuple, as it is annotated"),
        (Any, (1,), r"\(tuple\) comes back as list; annotate the parameter"),
    ],
)
def test_a_refusal_says_what_does_not_fit(kind: Any, value: Any, why: str) -> None:
    def work(thing: Any) -> None: ...

    work.__annotations__["thing"] = kind
    with pytest.raises(PayloadError, match=f"argument 'thing' {why}"):
        codec(work).encode((value,), {})


def test_arguments_that_do_not_fit_are_described_by_their_places_and_names_without_what_is_redacted() -> None:
    def work(password: str) -> None: ...

    told = codec(work, redact=("password",)).describe((), {"password": "correct horse", "colour": "red"})
    assert told.text == '{"password": "[redacted]", "colour": "red"}'
    assert told.obstacle == "password redacted"
    told = codec(work, redact=("password",)).describe(("a", "b"), {})
    assert told.text == '{"0": "a", "1": "b"}'
    assert told.obstacle == "arguments that cannot be written as JSON"


class Vague:
    """Equal to itself and to nothing else, and made of plain things."""

    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)


def nan() -> float:
    return float("nan")


def test_what_came_back_is_what_went_in_as_far_as_can_be_told() -> None:
    assert survived({"a": [nan(), (1.5, nan())]}, {"a": [nan(), (1.5, nan())]})
    assert not survived({"a": [nan(), 1.0]}, {"a": [nan(), 2.0]})
    assert not survived({"a": [nan()]}, {"a": [nan(), nan()]})
    assert not survived({"a": nan(), "b": 1}, {"b": 1, "a": nan()})  # jobs see the order
    assert not survived([nan()], (nan(),))
    assert survived(Vague(x=nan(), y=Vague(z="a")), Vague(x=nan(), y=Vague(z="a")))
    assert not survived(Vague(x=1), Vague(x=2))
    assert not survived([nan(), "a"], [nan(), "b"])
    assert not survived([Touchy()], [Touchy()])


def test_what_goes_round_in_a_circle_is_refused_and_not_followed_without_end() -> None:
    one, other = Vague(), Vague()
    one.me, other.me = one, other  # type: ignore[attr-defined]
    assert not survived(one, other)


def test_not_a_number_is_an_argument_like_any_other() -> None:
    def work(x: float, rest: list[float], thing: Any) -> None: ...

    written = codec(work).encode((nan(), [1.0, float("inf"), nan()], nan()), {})
    assert repr(written.kwargs) == "{'x': nan, 'rest': [1.0, inf, nan], 'thing': nan}"
    assert repr(codec(work).decode(written.text)) == f"((), {written.kwargs})"


class Parcel(NamedTuple):
    content: bytes
    weight: float


@pytest.mark.parametrize("content", [b"", b"abc", b"abcd", b"\xff\x00\xfe"])
def test_bytes_come_back_as_they_were_wherever_they_are_annotated(content: bytes) -> None:
    def work(
        raw: bytes, many: list[bytes], by: dict[bytes, int], parcel: Parcel, *, no: bytes | None
    ) -> None: ...

    given = {"raw": content, "many": [content, b""], "by": {content: 1}, "parcel": Parcel(content, 1.5)}
    assert back_and_forth(work, **given, no=content) == ((), given | {"no": content})
    assert back_and_forth(work, **given, no=None) == ((), given | {"no": None})
    with pytest.raises(PayloadError, match=r"argument 'thing' \(bytes\) comes back as str; annotate"):
        codec(untyped).encode((content,), {})


def untyped(thing): ...


class Color(StrEnum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Color.RED, "str"),
        (Level.LOW, "int"),
        (defaultdict(list, a=[1]), "dict"),
        (OrderedDict(a=1), "dict"),
        ({"by": [{"color": Color.RED}]}, "changed"),
        ([1, Level.LOW], "changed"),
    ],
)
def test_what_comes_back_equal_and_of_another_class_is_refused_where_nothing_says_which(value, kind) -> None:
    def anything(thing: Any) -> None: ...
    def holds(thing: dict[str, Any]) -> None: ...
    def bare(thing: list) -> None: ...

    for work in (untyped, anything):
        with pytest.raises(
            PayloadError, match=rf"argument 'thing' \({type(value).__name__}\) .*{kind}; annotate"
        ):
            codec(work).encode((value,), {})
    for work, inside in ((holds, {"x": value}), (bare, [value])):
        with pytest.raises(PayloadError, match="argument 'thing' .* comes back changed"):
            codec(work).encode((inside,), {})


def test_what_is_very_deep_comes_back_as_it_was() -> None:
    deep: list[Any] = [1]
    for _ in range(DEPTH + 20):
        deep = [deep]
    assert back_and_forth(untyped, thing=deep) == ((), {"thing": deep})


def test_what_is_annotated_comes_back_as_it_is_annotated() -> None:
    def work(
        color: Color,
        text: str,
        by: dict[str, list[int]],
        number: float,
        level: Level,
        pair: tuple[float, Any],
    ) -> None: ...

    given = {"color": Color.RED, "text": Color.RED, "by": defaultdict(list, a=[Level.LOW]), "number": 1}
    _, taken = back_and_forth(work, **given, level=Level.LOW, pair=(1, "x"))
    assert [type(value) for value in taken.values()] == [Color, str, dict, float, Level, tuple]


def test_what_is_too_large_is_described_in_short_and_without_its_secrets() -> None:
    def work(thing, name, secret, ratio): ...

    for thing, told in (
        (b"x" * 20_000_000, f"b'{'x' * 500}'… (+19,999,500 bytes)"),
        ("y" * 300_000, f"'{'y' * 500}'… (+299,500 characters)"),
        (list(range(200_000)), "[0, 1, 2, 3, 4, 5, ...]"),
        ([{"id": n, "v": n / 7, "t": None} for n in range(50_000)], "[{'id': 0, 't': None, 'v': 0.0}, {"),
        (Vague(x="z" * 300_000), "<Vague>"),
        ((b"x" * 300_000, Path("a"), True), f"(b'{'x' * 30}', <{type(Path()).__name__}>, True)"),
    ):
        described = codec(work, redact=("secret",)).describe((thing, "hunter2!", "hidden", 1.5), {})
        kept = json.loads(described.text)
        assert told in kept["thing"]["repr"]
        assert (kept["secret"], kept["ratio"]) == ("[redacted]", 1.5)
        assert len(described.text) < 2_000
    assert (
        codec(work).describe(("a" * 300_000, 1, 2, 3), {}).obstacle == "more than 262,144 bytes of arguments"
    )
    plain = codec(work).describe(("a" * 200_000, 1, 2, 3), {})
    assert (plain.obstacle, len(plain.text)) == (
        None,
        200_000 + len('{"thing":"","name":1,"secret":2,"ratio":3}'),
    )


def test_what_cannot_be_looked_at_is_described_all_the_same() -> None:
    class Blind(list):  # type: ignore[type-arg]
        def __len__(self) -> int:
            raise LookupError("not to be counted")

    class Unsliced(str):
        def __getitem__(self, place: Any) -> str:
            raise LookupError("not to be cut")

    def work(thing): ...

    assert json.loads(codec(work).describe((Blind([1]),), {}).text) == {"thing": [1]}
    assert "'xxxx" in codec(work).describe((Unsliced("x" * 300_000),), {}).text


def test_beside_a_secret_that_is_too_large_to_look_for_nothing_is_told() -> None:
    def work(thing, secret): ...

    described = codec(work, redact=("secret",)).describe(("number 7", list(range(10**6))), {})
    assert json.loads(described.text) == {"thing": "[redacted]", "secret": "[redacted]"}
    assert described.obstacle == "secret redacted"


def test_only_the_argument_that_is_at_fault_is_named() -> None:
    def work(fine: int, thing: Any, path: Any) -> None: ...

    with pytest.raises(PayloadError, match=r"argument 'thing' \(Point\) .*cannot be written as JSON"):
        codec(work).encode((1, Point(1), Path("a")), {})
    with pytest.raises(PayloadError, match=r"argument 'path' \(\w*Path\) comes back as str; annotate"):
        codec(work).encode((1, [2], Path("a")), {})


def test_a_call_that_lacks_an_argument_is_a_type_error_as_it_is_for_the_function() -> None:
    def work(first: int, second: int) -> None: ...

    with pytest.raises(TypeError, match="second"):
        codec(work).encode((), {"first": 1})


def test_arguments_that_are_well_each_for_itself_and_not_together_are_refused() -> None:
    """No single one can be blamed."""

    def work(first: int, second: int) -> None: ...

    class Moody(Codec):
        def _fault_of(self, name: str, value: Any) -> str | None:
            return None

    with pytest.raises(PayloadError, match="the arguments cannot be written: "):
        Moody("tests:work", work).encode((Point(1), 2), {})


def test_a_callable_whose_annotations_cannot_even_be_asked_for_is_written_without_types() -> None:
    class Odd:
        __annotations__ = 5  # type: ignore[assignment]

        def __call__(self, thing): ...

    class Work:
        __call__ = Odd()

    assert hints_of(Work()) == {}
