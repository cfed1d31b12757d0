"""Durable jobs through simulated crashes: nothing acknowledged is lost, nothing runs in two places."""

from __future__ import annotations

import pytest
import structlog

from . import journal


@pytest.fixture(autouse=True)
def _structlog_left_as_found():
    yield
    structlog.reset_defaults()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_seed_of_crashes_and_restarts_holds(seed):
    failure = journal.run(seed)
    if failure is not None:
        raise failure
    assert journal.book.acknowledged


@pytest.mark.slow
def test_some_dozens_of_seeds_hold():
    found = journal.first_failure(range(100, 150))
    assert found is None, found


def test_the_same_seed_is_the_same_run():
    books = []
    for _ in range(2):
        assert journal.run(11) is None
        books.append((journal.book.kinds, journal.book.acknowledged, journal.book.finished))
    assert books[0] == books[1]


@pytest.mark.parametrize(
    ("before", "after", "promise"),
    [
        ({1: (5, 2, 1, 0, 0, 0)}, {1: (5, 2, 1, 2, 0, 0)}, "P22"),  # somebody else's row
        ({1: (5, None, 1, 0, 0, 0)}, {1: (5, 3, 1, 0, 0, 0)}, "P22"),  # no new run
        ({1: (5, 3, 1, 0, 0, 0)}, {}, "P08"),  # gone and not ended
    ],
)
def test_what_a_commit_may_not_do_is_noticed(monkeypatch, tmp_path, before, after, promise):
    book = journal.Book(0, tmp_path / "jobs.db")
    book.acknowledged.add(5)
    monkeypatch.setattr(journal, "book", book, raising=False)
    monkeypatch.setattr(book, "ended", dict)
    rows = [{key: journal.Row(*row) for key, row in state.items()} for state in (before, after)]
    journal.check_commit(3, *rows, alive={2, 3})
    assert book.violations
    assert book.violations[0].startswith(promise)
