"""No acknowledged job is lost to a power cut under FULL; and the disk that is cut can tell."""

from __future__ import annotations

import _sqlite3
import ctypes
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from .disk import Disk, Event

ROOT = Path(__file__).resolve().parents[2]
reachable = hasattr(ctypes.CDLL(_sqlite3.__file__), "sqlite3_vfs_find")


def cut(*options: str) -> dict[str, object]:
    """The verdict on some cuts, in a process of their own: SQLite keeps the recorder to its end."""
    command = [sys.executable, "-m", "tests.kills.powercuts", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not reachable, reason="this Python's SQLite is not a library of its own")
def test_a_power_cut_takes_no_acknowledged_job_and_brings_no_cancelled_one_back():
    verdict = cut("--cuts", "60")
    assert verdict["held"], verdict
    assert verdict["cuts"] == 60
    assert verdict["acknowledged"] > 60


@pytest.mark.slow
@pytest.mark.skipif(not reachable, reason="this Python's SQLite is not a library of its own")
def test_what_is_not_synced_is_lost_and_found_to_be():
    assert cut("--cuts", "60", "--synchronous", "NORMAL")["lost"]


def test_a_cut_keeps_what_was_synced_and_any_part_of_the_rest():
    disk = Disk()
    for event in (Event("write", "f", 0, b"a" * 8), Event("sync", "f"), Event("write", "f", 4, b"b" * 8)):
        disk.take(event)
    found = {disk.cut(random.Random(seed))["f"] for seed in range(50)}
    assert found == {b"a" * 8, b"a" * 4 + b"b" * 8}


def test_a_cut_forgets_a_file_that_was_deleted():
    disk = Disk()
    for event in (Event("write", "f", 0, b"a"), Event("sync", "f"), Event("delete", "f")):
        disk.take(event)
    assert disk.cut(random.Random(0)) == {}
