"""
A pure model of one queue: no loop, no callbacks, only what the documentation promises.

Jobs are given as scripts; the model says in which state each of them is at any time. All
instants differ (see `Script`), so there is one right answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

End = Literal["value", "fail", "hang", "snooze"]

BACKOFF, SNOOZE = 2.0, 3.0  # seconds
TIMEOUT = 5.0
FOREVER = float("inf")
NEVER_EQUAL = 0.000_137  # seconds by which jobs differ, so that no two things happen at once


@dataclass(frozen=True, slots=True)
class Script:
    """What a job does in each of its runs, and what it was submitted with."""

    number: int
    runs: tuple[tuple[End, float], ...]
    max_attempts: int = 1
    delay: float = 0.0
    expires_in: float = FOREVER

    def run(self, n: int) -> tuple[End, float]:
        """How run *n* ends, counted from 0, and after how many seconds; the last one is repeated."""
        end, seconds = self.runs[min(n, len(self.runs) - 1)]
        return end, seconds + self.number * NEVER_EQUAL


@dataclass(slots=True)
class ModelJob:
    """Where one job stands."""

    script: Script
    state: str
    since: float  # when it became available, or will
    attempt: int = 0
    runs: int = 0
    ends_at: float = FOREVER
    end: End | Literal["timeout"] = "value"

    @property
    def over(self) -> bool:
        return self.state in ("completed", "cancelled", "discarded")

    @property
    def expires_at(self) -> float:
        fresh = self.state == "available" and self.runs == 0
        return self.since + self.script.expires_in if fresh else FOREVER

    @property
    def next_change(self) -> float:
        if self.state == "running":
            return self.ends_at
        if self.state in ("scheduled", "retryable"):
            return self.since
        return self.expires_at


@dataclass(slots=True)
class Model:
    """One queue with so many slots and so much room."""

    concurrency: int
    size: int
    now: float = 0.0
    paused: bool = False
    jobs: list[ModelJob] = field(default_factory=list)

    def in_state(self, *states: str) -> list[ModelJob]:
        return [job for job in self.jobs if job.state in states]

    def has_room(self, script: Script) -> bool:
        """A job that can start at once needs no room; the others wait in it, beyond the free slots."""
        free = 0 if self.paused else max(0, self.concurrency - len(self.in_state("running")))
        waiting, later = len(self.in_state("available")), len(self.in_state("scheduled", "retryable"))
        if not script.delay and free > waiting:
            return True
        return waiting + later - free < self.size

    def submit(self, script: Script) -> bool:
        """Whether it was accepted."""
        if not self.has_room(script):
            return False
        state = "scheduled" if script.delay else "available"
        delay = script.delay + script.number * NEVER_EQUAL if script.delay else 0.0
        self.jobs.append(ModelJob(script, state, self.now + delay))
        self._start_what_may()
        return True

    def cancel(self, job: ModelJob) -> bool:
        """Whether that made a difference."""
        if job.over:
            return False
        job.state = "cancelled"
        self._start_what_may()
        return True

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self._start_what_may()

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        target = self.now + seconds
        while (due := min((job.next_change for job in self.jobs), default=FOREVER)) <= target:
            self.now = due
            for job in self.jobs:
                if job.next_change <= due:
                    self._change(job)
            self._start_what_may()
        self.now = target

    def _change(self, job: ModelJob) -> None:
        if job.state in ("scheduled", "retryable"):
            job.state = "available"
        elif job.state == "available":
            job.state = "cancelled"  # expired
        else:
            self._end(job)

    def _end(self, job: ModelJob) -> None:
        match job.end:
            case "value":
                job.state = "completed"
            case "snooze":
                job.attempt -= 1
                self._again(job, SNOOZE)
            case _ if job.attempt < job.script.max_attempts:
                self._again(job, BACKOFF)
            case _:
                job.state = "discarded"

    def _again(self, job: ModelJob, delay: float) -> None:
        job.state, job.since = "retryable", self.now + delay

    def _start_what_may(self) -> None:
        while not self.paused and len(self.in_state("running")) < self.concurrency:
            waiting = sorted(self.in_state("available"), key=lambda job: job.since)
            if not waiting:
                return
            self._start(waiting[0])

    def _start(self, job: ModelJob) -> None:
        end, seconds = job.script.run(job.runs)
        hangs = end == "hang" or seconds >= TIMEOUT
        job.end = "timeout" if hangs else end
        job.ends_at = self.now + (TIMEOUT if hangs else seconds)
        job.state = "running"
        job.attempt += 1
        job.runs += 1
