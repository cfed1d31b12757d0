"""Planted in timers and deadlines."""

from __future__ import annotations

from tests.mutants.bug import bug

TIMERS, SUPERVISE = "_parts/timers.py", "_engine/supervise.py"

BUGS = (
    bug(
        "timers_early",
        "P11",
        "uvloop fires early: a job with a delay starts before its time.",
        TIMERS,
        "if not self._heap or self._heap[0][0] > now:",
        "if not self._heap or self._heap[0][0] > now + 0.0005:",
    ),
    bug(
        "timeouts_early",
        "P11",
        "A job that needs all of its time is called off just before its end.",
        SUPERVISE,
        "            for job in [job for job in self.live if job._deadline <= now]:\n"
        "                if job in self.live and job._deadline <= now:",
        "            for job in [job for job in self.live if job._deadline <= now + 0.0005]:\n"
        "                if job in self.live and job._deadline <= now + 0.0005:",
    ),
    bug(
        "timers_without_a_bound_per_turn",
        "P25",
        "Ten thousand jobs scheduled for midnight hold the loop at midnight.",
        TIMERS,
        "for _ in range(PER_TURN):",
        "while True:",
    ),
    bug(
        "rest_of_the_timers_is_forgotten",
        "P06",
        "What is due beyond the bound of one turn never comes.",
        TIMERS,
        "                self._armed_for = now\n                self._armed = self._loop.call_soon(\n"
        "                    self._fire, context=NEUTRAL.copy()\n                )  # the rest, in the next turn",
        "                self._armed_for = now",
    ),
    bug(
        "cancelled_timers_pile_up",
        "P18",
        "Every job that ends before its time leaves a timer behind until then.",
        TIMERS,
        "if self._dead > 64 and self._dead * 2 > len(self._heap):",
        "if self._dead > 64 * 2**20:",
    ),
    bug(
        "cancelled_timer_fires",
        "P12",
        "A scheduled job that was cancelled becomes available at its time.",
        TIMERS,
        "        timer.action = timer.item = None\n        self._dead += 1",
        "        self._dead += 1",
    ),
    bug(
        "earlier_timer_does_not_arm",
        "P06",
        "A short delay behind a long one waits for the long one.",
        TIMERS,
        "if due < self._armed_for:",
        "if due < self._armed_for and self._armed is None:",
    ),
    bug(
        "deadline_is_never_re_armed",
        "P10",
        "After the first timeout there are no more timeouts.",
        SUPERVISE,
        "            if following < FOREVER:\n                self.arm(following, now)\n",
        "",
    ),
    bug(
        "earlier_deadline_does_not_arm",
        "P10",
        "A job with a short timeout runs as long as the longest.",
        SUPERVISE,
        "        job._deadline = deadline\n        if deadline < self.deadline_at:\n",
        "        job._deadline = deadline\n        if self.deadline_at == FOREVER:\n",
    ),
    bug(
        "no_deadline_on_the_fast_path",
        "P10",
        "The plain start forgets the timeout.",
        "_engine/dispatch.py",
        "                        if deadline < engine.deadline_at:\n                            engine.arm(deadline)",
        "                        if deadline < 0:\n                            engine.arm(deadline)",
    ),
    bug(
        "no_deadline_on_the_lazy_path",
        "P10",
        "A start without an eager task forgets the timeout.",
        "_engine/supervise.py",
        "                job._deadline = due  # it has begun since it was started: its timeout counts from there\n",
        "                job._deadline = FOREVER\n",
    ),
    bug(
        "deadline_of_the_attempt_before",
        "P10",
        "A second attempt has what the first one left of its time.",
        "_engine/dispatch.py",
        "        engine.watch(job, job._started + timeout)\n    else:\n        job._deadline = _FOREVER",
        "        engine.watch(job, job._since + timeout)\n    else:\n        job._deadline = _FOREVER",
        (
            "_engine/supervise.py",
            "            due = job._started + job._entry.patience",
            "            due = job._since + job._entry.patience",
        ),
    ),
    bug(
        "timeout_by_the_wall_clock",
        "P26",
        "An hour's step of the clock times out everything at once.",
        SUPERVISE,
        "            now = self.clock()\n            for job in [job for job in self.live",
        "            now = self.ports.time() - 1_700_000_000.0\n            for job in [job for job in self.live",
    ),
)
