"""The shop window shows all of the public face, and nothing else."""

from __future__ import annotations
import __future__

import subprocess
import sys
import types

import pytest

import bgruntime
from bgruntime import extend

THE_FACE = """
    Runtime Queue Shutdown ShutdownReport RuntimeStats Health RuntimeSettings run
    task Task Call Job JobState Fanout
    current_job JobContext Resource tempdir
    Retry Snooze Cancel Discard
    BgRuntimeError QueueFull RuntimeClosed WrongLoop ForkedRuntime PayloadError UnknownTask
    JournalUnavailable AcceptUnknown
    JobTimedOut JobExited JobDiscarded JobCancelled JobInterrupted
""".split()

FOR_AUTHORS = "Channel Journal Middleware Observer ports".split()

FutureFeature = type(__future__.annotations)
WINDOWS = pytest.mark.parametrize("window", [bgruntime, extend], ids=["bgruntime", "bgruntime.extend"])


def shown(window: types.ModuleType) -> set[str]:
    """The public names that stand in a window's namespace, submodules and future statements aside."""
    return {
        name
        for name, value in vars(window).items()
        if not name.startswith(("_", "@"))  # with @: what pytest plants into the package of a plugin
        and not isinstance(value, FutureFeature)
        and not (isinstance(value, types.ModuleType) and value.__name__ == f"{window.__name__}.{name}")
    }


def natural(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, each by name: the order ruff keeps."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("name", THE_FACE)
def test_the_face_is_importable_from_the_package(name):
    assert name in bgruntime.__all__
    assert getattr(bgruntime, name) is not None


@pytest.mark.parametrize("name", FOR_AUTHORS)
def test_what_authors_of_parts_need_is_importable_from_extend(name):
    assert name in extend.__all__
    assert getattr(extend, name) is not None


@WINDOWS
def test_everything_announced_is_there(window):
    assert [name for name in window.__all__ if not hasattr(window, name)] == []


@WINDOWS
def test_everything_there_is_announced(window):
    assert shown(window) - set(window.__all__) == set()


@WINDOWS
def test_the_announcement_is_sorted_and_says_nothing_twice(window):
    assert list(window.__all__) == sorted(set(window.__all__), key=natural)


@WINDOWS
def test_every_announced_name_is_listed_by_dir(window):
    assert set(window.__all__) <= set(dir(window))


def test_a_star_import_works_and_brings_just_what_is_announced():
    code = "from bgruntime import *; print(*sorted(n for n in globals() if not n.startswith('__')))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == {name for name in bgruntime.__all__ if not name.startswith("__")}


def test_a_name_that_is_not_there_is_an_attribute_error():
    name = "no_such_thing"
    with pytest.raises(AttributeError, match=name):
        getattr(bgruntime, name)


def test_all_errors_of_the_face_have_one_root():
    shown_things = [getattr(bgruntime, name) for name in bgruntime.__all__]
    errors = [thing for thing in shown_things if isinstance(thing, type) and issubclass(thing, BaseException)]
    assert len(errors) >= 14
    assert [error for error in errors if not issubclass(error, bgruntime.BgRuntimeError)] == []
