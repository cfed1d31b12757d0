"""`simulate` finds, tells and replays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bgruntime.testing import SimLoop, run_seed, simulate


class Stock:
    """A user's race: it reads, waits, and writes what it has read."""

    def __init__(self) -> None:
        self.left = 1
        self.sold = 0

    async def buy(self) -> None:
        if self.left:
            await asyncio.sleep(0.1)
            self.left -= 1
            self.sold += 1


async def two_buyers() -> None:
    stock = Stock()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)

    async def buyer() -> None:
        await asyncio.sleep(loop.random.uniform(0, 1))
        await stock.buy()

    await asyncio.gather(buyer(), buyer())
    assert stock.sold == 1, f"sold {stock.sold} of 1"


def first_failing_seed() -> int:
    return next(seed for seed in range(100) if run_seed(two_buyers, seed).failure is not None)


def test_a_race_is_found_and_its_seed_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BGRUNTIME_SEED", raising=False)
    seed = first_failing_seed()
    assert seed > 0
    with pytest.raises(AssertionError, match="sold 2 of 1") as failure:
        simulate(two_buyers, 100)
    (note,) = failure.value.__notes__
    assert note.startswith(f"seed {seed}; replay it with: BGRUNTIME_SEED={seed} pytest ")
    assert note.endswith("tests/sim/test_simulate.py::test_a_race_is_found_and_its_seed_told")


def test_outside_pytest_the_command_is_the_one_that_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    monkeypatch.setattr("sys.orig_argv", ["python", "my script.py"])
    failure = run_seed(two_buyers, first_failing_seed()).failure
    assert failure is not None
    assert failure.__notes__[0].endswith(" python 'my script.py'")


def test_the_environment_picks_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = first_failing_seed()
    monkeypatch.setenv("BGRUNTIME_SEED", str(seed))
    with pytest.raises(AssertionError):
        simulate(two_buyers, 1)
    monkeypatch.setenv("BGRUNTIME_SEED", "0")
    assert simulate(two_buyers, 100).seeds == 1


def test_the_environment_sets_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGRUNTIME_SEEDS", "7")
    assert simulate(lambda: asyncio.sleep(2), 3).seeds == 7


@pytest.mark.parametrize("seeds", [0, [], -1])
def test_no_seed_at_all_is_an_error(seeds: Any) -> None:
    with pytest.raises(ValueError, match="no seed was run"):
        simulate(lambda: asyncio.sleep(0), seeds=seeds)


def test_no_seed_by_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGRUNTIME_SEEDS", "0")
    with pytest.raises(ValueError, match="BGRUNTIME_SEEDS=0"):
        simulate(lambda: asyncio.sleep(0), seeds=3)


def test_seeds_may_be_any_iterable() -> None:
    done = simulate(lambda: asyncio.sleep(2), [5, 17])
    assert (done.seeds, done.seconds) == (2, 4)


def test_equal_campaigns_have_equal_digests() -> None:
    assert simulate(lambda: asyncio.sleep(2), 5) == simulate(lambda: asyncio.sleep(2), 5)


def test_ctrl_c_leaves_at_once() -> None:
    async def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(main, 3)
