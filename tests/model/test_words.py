"""What the nouns refuse, and what they say of themselves."""

from __future__ import annotations

from typing import Any

import pytest

from bgruntime import ForkedRuntime, Job, JobState, ShutdownReport
from bgruntime._model.outcomes import Outcome, Stop
from bgruntime._model.policies import TaskOptions, default
from bgruntime._model.states import TRANSITIONS, check_move


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"tags": "newsletter"}, "tags is a sequence of items, got the single 'newsletter'"),
        ({"tags": (1, 2)}, "redact and tags hold strings"),
        ({"backoff": 3}, "backoff is a callable .* got 3"),
        ({"carry": ("language",)}, r"carry holds ContextVars, got \('language',\)"),
        ({"id": ""}, "id is a string that is not empty, got ''"),
        ({"id": 7}, "id is a string that is not empty, got 7"),
        ({"run_at": "noon"}, "run_at is a datetime or seconds since the epoch, got 'noon'"),
        ({"run_at": 5.0, "delay": 1.0}, "give delay or run_at, not both"),
    ],
)
def test_options_that_mean_nothing_are_refused_with_what_was_given(
    options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        TaskOptions(**options)


def test_carried_variables_need_a_context_that_does_not_carry_all_of_them() -> None:
    from contextvars import ContextVar

    language: ContextVar[str] = ContextVar("language")
    with pytest.raises(ValueError, match='carry goes with context="fresh"'):
        TaskOptions(carry=(language,))
    assert TaskOptions(carry=(language,), context="fresh").carry == (language,)


def test_run_at_is_kept_as_seconds_since_the_epoch() -> None:
    assert TaskOptions(run_at=5).run_at_s == 5


def test_a_default_hashes_and_looks_like_its_value() -> None:
    assert {default("wait"): 1} == {"wait": 1}
    assert repr(default("wait")) == "'wait'"


@pytest.mark.parametrize("old", JobState)
def test_a_move_that_is_not_in_the_table_is_a_bug_that_is_raised(old: JobState) -> None:
    for new in JobState:
        if new in TRANSITIONS[old]:
            assert check_move(old, new) is new
        else:
            with pytest.raises(AssertionError, match=f"cannot go from {old} to {new}"):
                check_move(old, new)


def test_a_job_is_made_by_a_runtime_only() -> None:
    with pytest.raises(TypeError, match="submit"):
        Job()


def test_a_forked_child_is_told_whose_runtime_it_is() -> None:
    assert "process 11 " in str(ForkedRuntime(11, 12))
    assert "child 12:" in str(ForkedRuntime(11, 12))


def test_a_stop_shows_the_end_it_asks_for_and_why() -> None:
    assert repr(Stop(Outcome.CANCELLED, "no longer wanted")) == "<Stop cancelled: no longer wanted>"


def test_a_report_of_a_stop_counts_what_became_of_the_jobs() -> None:
    report = ShutdownReport(completed=("a", "b"), stuck=("c",), duration=1.234)
    assert str(report) == "stopped in 1.23 s: 2 completed, 0 cancelled, 0 requeued, 1 stuck, 0 lost"
