"""
Planted in the journal, and looked for by the simulation that crashes and restarts it.

``python -m tests.mutants.journal`` prints for each the first seed that catches it, and exits with 1
if one is not caught or can no longer be planted. ``python -m tests.mutants.journal NAME …`` takes
only those.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.mutants.__main__ import PATIENCE, Verdict, line, plant, sum_of
from tests.mutants.bug import Bug, bug

BATCH, CLAIMS, JOURNAL = "journal/_batch.py", "journal/_claims.py", "journal/_journal.py"
LEDGER, OWNERS, SESSION, WRITER = (
    "journal/_ledger.py",
    "journal/_owners.py",
    "journal/_session.py",
    "journal/_writer.py",
)
SEEDS = 400

BUGS = (
    bug(
        "acknowledged_before_the_commit",
        "P08",
        "A kill between the answer and the disk loses a job that somebody was told is safe.",
        WRITER,
        "        self._in_flight = batch\n",
        "        self._in_flight = batch\n        self._ledger.written(batch)\n",
    ),
    bug(
        "claimed_without_a_new_run",
        "P22",
        "Two owners of a row one after the other cannot be told apart.",
        CLAIMS,
        "UPDATE job SET owner = ?, run = run + 1 WHERE owner IS NULL",
        "UPDATE job SET owner = ? WHERE owner IS NULL",
    ),
    bug(
        "update_without_a_fence",
        "P22",
        "A process that was taken for dead overwrites what its heir has written.",
        BATCH,
        "WHERE key = ?5 AND run = ?6 AND owner = ?7",
        "WHERE key = ?5 AND ?6 AND ?7",
    ),
    bug(
        "delete_without_a_fence",
        "P22",
        "A process that was taken for dead deletes the row of a job that its heir is running.",
        BATCH,
        'DELETE_JOB = "DELETE FROM job WHERE key = ? AND run = ? AND owner = ?"',
        'DELETE_JOB = "DELETE FROM job WHERE key = ? AND ? AND ?"',
    ),
    bug(
        "adopted_job_starts_unchecked",
        "P08",
        "A job that kills its process starts again before anybody has noted that it did.",
        JOURNAL,
        "        if not entry.adopted:\n",
        "        if entry.run:\n",
    ),
    bug(
        "living_owner_is_buried",
        "P22",
        "A job runs in two processes at once.",
        CLAIMS,
        "return [other for other in others(connection, owner) if other.is_dead(directory)]",
        "return others(connection, owner)",
        (CLAIMS, "    if found is None or not found.is_dead(directory):\n", "    if found is None:\n"),
    ),
    bug(
        "completed_when_it_starts",
        "P08",
        "A kill in the middle of a job loses it.",
        JOURNAL,
        "            self._ledger.touch(entry)\n            return None\n        return self._marked(job.id, entry)",
        "            self._ledger.complete(entry)\n            return None\n        return self._marked(job.id, entry)",
    ),
    bug(
        "failure_is_not_kept",
        "P17",
        "A durable job that fails for good is nowhere.",
        BATCH,
        "    if kept:\n        _write_records(connection, batch, kept)\n",
        "",
    ),
    bug(
        "a_death_costs_an_attempt",
        "P08",
        "A deploy uses up the attempts of whatever was running.",
        CLAIMS,
        "crashes = crashes + (state = 2),",
        "crashes = crashes + (state = 2), attempt = attempt + 1,",
    ),
    bug(
        "deaths_are_not_counted",
        "P08",
        "A job that kills its process does so for ever.",
        CLAIMS,
        "crashes = crashes + (state = 2),",
        "crashes = crashes,",
    ),
    bug(
        "deaths_of_waiting_jobs_count",
        "P08",
        "Two kills quarantine jobs that have never started.",
        CLAIMS,
        "crashes = crashes + (state = 2),",
        "crashes = crashes + 1,",
    ),
    bug(
        "quarantined_at_the_first_death",
        "P08",
        "One power cut stops everything that was running from running again.",
        CLAIMS,
        "CRASHES = 2  #",
        "CRASHES = 1  #",
    ),
    bug(
        "cancellation_is_not_waited_for",
        "P12",
        "A job that was cancelled, and said to be, runs after a restart.",
        JOURNAL,
        "            self._ledger.end(entry, self._recording().durable(job, ended, entry, future))\n        return future",
        "            self._ledger.end(entry, self._recording().durable(job, ended, entry, future))\n        return None",
    ),
    bug(
        "cancelled_submit_is_not_taken_back",
        "P02",
        "A job runs whose submitter was never told of it.",
        JOURNAL,
        "                self._ledger.end(entry, Ending(withdrawn=True))\n",
        "                pass\n",
    ),
    bug(
        "the_dead_are_not_buried",
        "P08",
        "What a killed process had is never run.",
        "journal/_feed.py",
        "            await self._bury(gone, directory)\n",
        "            pass\n",
    ),
    bug(
        "nothing_is_released_when_signing_off",
        "P08",
        "What a stopped process had not done is never run.",
        OWNERS,
        "    connection.execute(RELEASE_ALL, (owner.id,))\n",
        "",
    ),
    bug(
        "taken_for_dead_and_writing_on",
        "P08",
        "Rows of an owner that was struck off belong to nobody and are never run.",
        SESSION,
        "                self._check_signed_in(connection)\n",
        "",
    ),
    bug(
        "half_of_a_submit_many",
        "P08",
        "Some jobs of one submit are on disk and others are not.",
        BATCH,
        "for row in accept.rows])",
        "for row in accept.rows[:2]])",
    ),
    bug(
        "rows_of_the_owner_before",
        "P08",
        "After it has signed in again, a process writes jobs for the one it was.",
        LEDGER,
        "        batch = Batch(self.owner)\n",
        "        self.first = getattr(self, 'first', self.owner)\n        batch = Batch(self.first)\n",
    ),
)


def hunt(seeds: int, bug: Bug) -> Verdict:
    """Plant *bug* and run seeds until one fails."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        try:
            plant(bug, Path(folder))
        except ValueError as error:
            return Verdict(bug, None, f"cannot be planted any more: {error}")
        command = [sys.executable, "-W", "ignore", "-m", "tests.sim.journal", "--hunt", str(seeds)]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return Verdict(bug, None, f"no verdict within {PATIENCE:g} s")
    if done.returncode:
        return Verdict(bug, None, f"the simulation does not even run: {done.stderr.strip()[-300:]}")
    found, _, told = done.stdout.strip().splitlines()[-1].partition(" ")
    return Verdict(bug, int(found), told) if found != "none" else Verdict(bug, None, "NOT CAUGHT")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    chosen = [bug for bug in BUGS if not options.names or bug.name in options.names]
    began = time.perf_counter()
    verdicts = []
    with ThreadPoolExecutor(options.processes) as pool:
        for verdict in pool.map(partial(hunt, options.seeds), chosen):
            verdicts.append(verdict)
            print(line(verdict), flush=True)
    print(sum_of(verdicts, time.perf_counter() - began))
    return 0 if all(verdict.seed is not None for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
