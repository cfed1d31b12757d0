"""Clearing the frames of an error takes locals from what is over, and nothing from what still runs."""

from __future__ import annotations

from bgruntime._parts.frames import clear_frames


def test_a_frame_that_still_runs_keeps_its_locals_and_the_finished_ones_below_it_lose_theirs() -> None:
    def fails() -> None:
        held = "held"
        raise LookupError(f"with what is {held}")

    mine = "mine"
    try:
        fails()
    except LookupError as error:
        clear_frames(error)
        trace = error.__traceback__
    assert trace is not None
    assert trace.tb_next is not None
    assert trace.tb_next.tb_frame.f_locals == {}
    assert trace.tb_frame.f_locals["mine"] == mine
