"""No acknowledged job is lost to `kill -9`, and none runs in two living processes; and the judge can tell."""

from __future__ import annotations

import random
import sqlite3

import pytest

from .campaign import Campaign, judge
from .member import Note


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 3])
def test_killed_processes_lose_no_acknowledged_job_and_run_none_in_two_at_once(tmp_path, processes):
    verdict = Campaign(tmp_path, processes, random.Random(processes)).run(20)
    assert verdict.held, verdict
    assert verdict.acknowledged > 20
    assert verdict.again  # or nobody was killed in the middle of a job


@pytest.fixture
def journal(tmp_path):
    """A file with job 7 in it, and job 8 among those that are over."""
    path = tmp_path / "jobs.db"
    connection = sqlite3.connect(path)
    connection.executescript("""
        CREATE TABLE job(args TEXT); INSERT INTO job VALUES('{"number": 7}');
        CREATE TABLE ended(args TEXT); INSERT INTO ended VALUES('{"number": 8}');
    """)
    connection.close()
    return path


def test_the_judge_finds_what_was_lost(journal):
    notes = [Note(b"A", job, 1, 0) for job in (5, 6, 7, 8)]
    notes += [Note(b"S", job, 1, 10) for job in (5, 6)]
    notes.append(Note(b"E", 5, 1, 20))
    verdict = judge(notes, {1: 30}, journal)
    assert (verdict.lost, verdict.left, verdict.quarantined) == ([6], [7], 1)
    assert not verdict.held


@pytest.mark.parametrize(
    ("killed_at", "twice"), [({1: 15}, []), ({1: 25}, [5]), ({}, [5])], ids=["dead", "alive", "never killed"]
)
def test_the_judge_finds_what_ran_in_two_living_processes(journal, killed_at, twice):
    notes = [Note(b"S", 5, 2, 20), Note(b"S", 5, 1, 10), Note(b"E", 5, 2, 30)]
    assert judge(notes, killed_at, journal).twice == twice
