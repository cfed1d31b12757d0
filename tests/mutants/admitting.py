"""Planted in what lets jobs in: room, policies, the gate at the end."""

from __future__ import annotations

from tests.mutants.bug import bug

ADMIT, DISPATCH, WAITERS = "_engine/admit.py", "_engine/dispatch.py", "_parts/waiters.py"

BUGS = (
    bug(
        "late_accept_during_stop",
        "P01",
        "Work taken after a stop began is work that nobody waits for any more.",
        "_engine/stop.py",
        'engine.phase = "leaving" if leaving else "draining"',
        'engine.phase = "leaving" if leaving else engine.phase',
    ),
    bug(
        "no_second_look_after_waiting_for_room",
        "P01",
        "The runtime may have stopped while a submit waited for room.",
        ADMIT,
        'if turn is Turn.CLOSED or engine.phase != "running":',
        "if turn is Turn.CLOSED:",
        (
            ADMIT,
            "    entry.queue.give(room_for(entry))\n    _check_open(engine, entry, nested=False)\n",
            "    entry.queue.give(room_for(entry))\n",
        ),
    ),
    bug(
        "one_place_of_the_queue_is_never_used",
        "P03",
        "A `<` for a `<=`: a queue of size 1 takes nothing once the slots are busy.",
        DISPATCH,
        "self.later + room.jobs - free <= self.size",
        "self.later + room.jobs - free < self.size",
    ),
    bug(
        "one_place_too_many",
        "P03",
        "The bound of a queue is a promise about memory.",
        DISPATCH,
        "self.later + room.jobs - free <= self.size",
        "self.later + room.jobs - free <= self.size + 1",
    ),
    bug(
        "two_queues_count_on_the_same_slots",
        "P03",
        "Each of them lets jobs in for a slot that only one can have.",
        DISPATCH,
        "free = engine.limit - engine.in_use - about_to_resume(engine) - taken",
        "free = engine.limit - engine.in_use",
    ),
    bug(
        "room_of_a_cancelled_waiter_is_lost",
        "P02",
        "A submit that is cancelled just when it is called keeps its room for ever.",
        ADMIT,
        "        if future.done() and not future.cancelled() and future.result() is Turn.YOURS:\n"
        "            give_back(engine, entry, jobs)\n        raise",
        "        raise",
    ),
    bug(
        "room_is_not_given_back_when_used",
        "P03",
        "Each submit that waited makes the queue one place smaller.",
        ADMIT,
        "    entry.queue.give(room_for(entry))\n    _check_open",
        "    _check_open",
    ),
    bug(
        "submit_nowait_overtakes",
        "P03",
        "Who waits for room starves behind those who never wait.",
        ADMIT,
        "queued_up = bool(line.room) and engine.inside() is None",
        "queued_up = False",
        (
            ADMIT,
            "    if line.waiting + line.later >= line.size or (engine.room_wanted and line.room and not engine.inside()):",
            "    if line.waiting + line.later >= line.size:",
        ),
    ),
    bug(
        "submit_overtakes",
        "P05",
        "A submit that comes later takes the room for which another one waits.",
        "_runtime.py",
        "elif line.waiting + line.later < line.size and not line.room:",
        "elif line.waiting + line.later < line.size:",
        (
            ADMIT,
            "    if line.waiting + line.later >= line.size or (engine.room_wanted and line.room and not engine.inside()):",
            "    if line.waiting + line.later >= line.size:",
        ),
    ),
    bug(
        "last_waiter_for_room_comes_first",
        "P05",
        "The line of those who wait for room is first come, first served.",
        WAITERS,
        "self._futures.popleft()[0].set_result(Turn.YOURS)",
        "self._futures.pop()[0].set_result(Turn.YOURS)",
    ),
    bug(
        "waiters_for_room_are_forgotten_at_a_stop",
        "P01",
        "A submit that waits when the runtime stops waits for ever.",
        WAITERS,
        "        while self._futures:\n            future, _ = self._futures.popleft()\n"
        "            if not future.done():\n                future.set_result(Turn.CLOSED)",
        "        self._futures.clear()",
    ),
    bug(
        "room_is_not_offered_when_a_job_is_withdrawn",
        "P03",
        "The place of a cancelled job stays empty while somebody waits for it.",
        "_engine/supervise.py",
        "        settle(self, job, state, reason, None)\n        if self.room_wanted:\n"
        "            self.offer_room()\n",
        "        settle(self, job, state, reason, None)\n",
    ),
    bug(
        "waiting_limit_is_ignored",
        "P03",
        "A submit with `wait_limit` must not wait longer than that.",
        ADMIT,
        "        future.set_result(Turn.TOO_LATE)",
        "        return",
    ),
    bug(
        "place_of_a_dropped_job_is_taken_twice",
        "P03",
        "A map whose job is dropped puts its next one into the place that was made for somebody else.",
        ADMIT,
        "    line.take(room)  # for the caller: the end of a job may bring in another one at once\n",
        "",
        (ADMIT, "    finally:\n        line.give(room)\n", "    finally:\n        pass\n"),
        ("_fanout.py", "if job._reason is Reason.DROPPED:", "if False:"),
    ),
    bug(
        "drop_oldest_takes_a_job_that_has_run",
        "P03",
        "A job that waits for its retry has effects already; dropping it leaves them half done.",
        ADMIT,
        "job._state is AVAILABLE and job._started is None and not",
        "job._state is AVAILABLE and not",
    ),
    bug(
        "drop_oldest_takes_the_most_important",
        "P03",
        "Under load the work that matters most is thrown away first.",
        "_parts/lanes.py",
        "for priority in reversed(range(PRIORITIES)):",
        "for priority in range(PRIORITIES):",
    ),
    bug(
        "drop_oldest_takes_the_newest",
        "P03",
        "What has waited longest is the least useful, and it is kept.",
        "_parts/lanes.py",
        "            yield from self.parked[priority]\n            yield from self.lines[priority]\n",
        "            yield from reversed((*self.parked[priority], *self.lines[priority]))\n",
    ),
    bug(
        "refused_coroutine_is_left_open",
        "P01",
        "Python warns of a coroutine that was never awaited, far from the refusal.",
        "_task.py",
        "    if inspect.iscoroutine(what) and what not in _accepted_coroutines:\n        what.close()",
        "    return",
    ),
    bug(
        "jobs_run_in_the_context_of_whoever_starts_them",
        "P27",
        "The request id in a job's log lines is that of somebody else's request.",
        ADMIT,
        "    job._args, job._kwargs = args, kwargs or None\n"
        "    job._context = contexts.fresh(entry.carry) if entry.fresh else copy_context()",
        "    job._args, job._kwargs = args, kwargs or None\n    job._context = engine.context.copy()",
    ),
)
