"""Every public name says what the caller may rely on."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import Enum

import pytest

import bgruntime
from bgruntime import extend

WINDOWS = [bgruntime, extend]
SHORTEST = 15  # characters; less is no promise


def public_things() -> Iterator[tuple[str, object]]:
    """Every class and function in the windows, and what their classes define in public."""
    for window in WINDOWS:
        for name in window.__all__:
            thing = getattr(window, name)
            if inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing):
                yield f"{window.__name__}.{name}", thing
            if inspect.isclass(thing):
                yield from ((f"{window.__name__}.{name}.{member}", value) for member, value in members(thing))


def members(cls: type) -> Iterator[tuple[str, object]]:
    """The public methods and properties that a class of ours defines itself."""
    for name, value in vars(cls).items():
        inner = value.__func__ if isinstance(value, staticmethod | classmethod) else value
        if not name.startswith("_") and (inspect.isfunction(inner) or isinstance(inner, property)):
            yield name, value


THINGS = dict(public_things())


def promise(thing: object) -> str:
    """The docstring, unless it was inherited or written by `dataclass` or `Enum`."""
    text = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    made_up = inspect.isclass(thing) and (
        text.startswith(f"{thing.__name__}(") or (issubclass(thing, Enum) and text == Enum.__doc__)
    )
    inherited = inspect.isclass(thing) and "__doc__" not in vars(thing)
    return "" if made_up or inherited else text


def test_there_is_a_face_to_read():
    assert len(THINGS) >= 40


@pytest.mark.parametrize("name", THINGS)
def test_a_public_name_makes_a_promise(name):
    text = promise(THINGS[name])
    assert len(text) >= SHORTEST, f"{name} has no docstring worth reading: {text!r}"
    first = text.split("\n\n")[0]
    assert first.endswith((".", ":", "::", "?", "!", "`", ")")), f"{name}: no sentence: {first!r}"


def test_the_windows_themselves_say_what_they_show():
    assert [window.__name__ for window in WINDOWS if len(promise(window)) < SHORTEST] == []


# ── the test of the test ──


def test_a_docstring_made_by_dataclass_or_inherited_is_none():
    from dataclasses import dataclass

    @dataclass
    class Bare:
        x: int

    class Parent:
        """Says what a parent promises."""

    class Child(Parent):
        pass

    assert promise(Bare) == promise(Child) == ""
    assert promise(Parent) == "Says what a parent promises."


def test_public_methods_and_properties_are_read_and_private_ones_are_not():
    class Thing:
        def method(self) -> None: ...

        @property
        def fact(self) -> int:
            return 1

        @classmethod
        def make(cls) -> None: ...

        def _private(self) -> None: ...

    assert [name for name, _ in members(Thing)] == ["method", "fact", "make"]
