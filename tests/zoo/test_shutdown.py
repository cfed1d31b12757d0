"""P15 in real processes: whatever its jobs do, the process ends at a signal, in time and with a report."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.zoo.member import LIMITS

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0  # seconds for a process to start or to end on a busy machine
SLACK = 2.0  # seconds beyond the limits, for the same reason; the 100 ms of P15 are measured elsewhere

SUBMISSIVE = [
    "tidy",
    "cleans_up_slowly",
    "fails_when_cancelled",
    "exits_when_cancelled",
    "groups_when_cancelled",
]
REFUSING = ["swallower", "swallowing_spinner", "cancels_itself", "sleeping_thread"]
OBEYING = ["spinner", "shielded", "anyio_shielded", "endless_finally"]
ZOO = ["ends_in_the_drain", *SUBMISSIVE, *REFUSING, *OBEYING]

SERVERS = ["plain", "uvicorn"]
LOOPS = ["stock", "uvloop"]
SIGNALS = {"SIGTERM": [signal.SIGTERM], "twice": [signal.SIGTERM, signal.SIGTERM], "SIGINT": [signal.SIGINT]}

pytestmark = pytest.mark.slow


class Ended(NamedTuple):
    """How a process went: its report, how long it lived after the first signal, and how it ended."""

    report: dict[str, Any]
    seconds: float
    code: int
    error: str


def end(server: str, loop: str, animals: list[str], signals: list[int]) -> Ended:
    """Fill a process with *animals*, send it the signals, and wait for its end."""
    command = [sys.executable, "-W", "error", "-m", "tests.zoo.member", server, loop, *animals]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    child = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n", child.communicate(timeout=PATIENCE)
        began = time.monotonic()
        for number in signals:
            child.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(0.3)
        out, error = child.communicate(timeout=PATIENCE)
        seconds = time.monotonic() - began
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    reports = [line for line in out.splitlines() if line.startswith("{")]
    assert len(reports) == 1, (out, error)
    return Ended(json.loads(reports[0]), seconds, child.returncode, error)


def everybody(report: dict[str, Any]) -> list[str]:
    return sorted([*report["completed"], *report["cancelled"], *report["stuck"]])


def limit(signals: list[int]) -> float:
    drains = LIMITS.drain if signals == [signal.SIGTERM] else 0.3
    return drains + LIMITS.cancel + LIMITS.close


@pytest.mark.parametrize("signals", SIGNALS.values(), ids=SIGNALS)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("server", SERVERS)
def test_p15_a_process_with_the_whole_zoo_ends_at_a_signal(server, loop, signals):
    ended = end(server, loop, ZOO, signals)
    report = ended.report
    assert ended.seconds < limit(signals) + SLACK, ended
    assert report["duration"] < limit(signals) + SLACK / 2
    assert everybody(report) == sorted(ZOO), ended
    assert report["lost"] == report["requeued"] == []
    assert report["cleaned"] == ["cleans_up_slowly", "tidy"]
    assert set(REFUSING) <= set(report["stuck"])
    if signals[0] == signal.SIGTERM:
        assert "ends_in_the_drain" in report["completed"]
    assert "Traceback" not in ended.error, ended.error
    assert ended.code in ({0} if server == "plain" else {0, -signals[0]})


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("server", SERVERS)
def test_p15_a_job_that_holds_the_loop_delays_the_end_by_what_it_holds(server, loop):
    ended = end(server, loop, ["holds_the_loop", "tidy"], [signal.SIGTERM])
    assert ended.seconds < limit([signal.SIGTERM]) + SLACK
    assert ended.report["cleaned"] == ["tidy"]
    assert ended.report["lost"] == []


@pytest.mark.parametrize(
    "animal", [*REFUSING, "endless_finally", "exits_when_cancelled", "anyio_shielded", "tidy"]
)
def test_p15_one_of_each_alone(animal):
    """In the crowd one animal could hide what another one does."""
    server, loop = (SERVERS[len(animal) % 2], LOOPS[len(animal) // 2 % 2])
    ended = end(server, loop, [animal], [signal.SIGTERM, signal.SIGTERM])
    assert ended.seconds < limit([signal.SIGTERM, signal.SIGTERM]) + SLACK
    assert everybody(ended.report) == [animal]
    assert (animal in REFUSING) == (ended.report["stuck"] == [animal])
    assert "Traceback" not in ended.error, ended.error
