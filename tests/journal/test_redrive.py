"""Redrive: by itself where a task asks for it, by hand whenever somebody does."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from bgruntime import Discard, JobState, PayloadError, Queue, Runtime, UnknownTask, task
from bgruntime.extend import RedriveExhausted
from bgruntime.journal import Journal, _journal, _recorder, _redrive

from .programs import program, ran, started
from .steps import Registry, Switch, durable, ordinary, until


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redrive that waits 50 ms where it would wait a second."""
    monkeypatch.setattr(_recorder, "FIRST_PAUSE_MS", 50)
    monkeypatch.setattr(_journal, "REDRIVE", 0.02)


class Ear:
    """Hears of failures that are given up."""

    listens_to = (RedriveExhausted,)

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_event(self, event: Any) -> None:
        self.heard.append((event.id, event.task))


def calling(switch: Switch) -> Any:
    """A function that uses the switch."""

    async def call(n: int) -> int:
        return switch.use(n)

    return call


KINDS = {"ordinary": ordinary, "durable": durable}


# By itself


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_redriven_by_itself_unless_somebody_said_so(run, path, quick, kind):
    async def main():
        switch = Switch()
        async with Runtime(journal=path) as rt:
            job = await rt.submit(KINDS[kind](calling(switch)), 1)
            await job.wait()
            kept = await rt.journal.get(job.id)
            assert (kept.state, kept.redrives_left, kept.next_redrive_at) == ("discarded", 0, None)
            other = await rt.submit(KINDS[kind](calling(switch), redrive=1), 2)
            await until(lambda: switch.used.count(2) == 2)
            assert switch.used.count(1) == 1
            await other.wait()

    run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_is_redriven_until_it_succeeds_and_keeps_its_id(run, path, quick, kind):
    async def main():
        switch = Switch()
        async with Runtime(journal=path) as rt:
            job = await rt.submit(KINDS[kind](calling(switch), redrive=5), 1)
            await job.wait()
            await until(lambda: len(switch.used) == 3)
            switch.works = True

            async def completed() -> bool:
                return (await rt.journal.get(job.id)).state == "completed"

            await until(completed)
            kept = await rt.journal.get(job.id)
            assert (kept.redrives, kept.redrives_left, kept.next_redrive_at) == (3, 0, None)
            assert job.state is JobState.DISCARDED  # the first job's outcome never changes
            assert await rt.journal.failures() == []
            await rt.drain()
        assert len(switch.used) == 4

    run(main)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_when_the_redrives_are_used_up_the_failure_is_discarded_and_told_once(run, path, quick, kind):
    async def main():
        switch, ear = Switch(), Ear()
        async with Runtime(journal=path, observers=[ear]) as rt:
            job = await rt.submit(KINDS[kind](calling(switch), redrive=2), 1)
            await until(lambda: ear.heard)
            kept = await rt.journal.get(job.id)
            assert (kept.state, kept.redrives, kept.redrives_left) == ("discarded", 2, 0)
            assert [one.message for one in kept.attempts] == ["no answer for 1"] * 3
            await asyncio.sleep(0.3)  # as long as three more redrives would take
        assert switch.used == [1, 1, 1]
        assert ear.heard == [(job.id, job.task)]

    run(main)


def test_the_runtime_has_a_number_of_redrives_for_tasks_that_have_none(run, path, quick):
    async def main():
        switch = Switch()
        async with Runtime(journal=path, redrive=1) as rt:
            await rt.submit(ordinary(calling(switch)), 1)
            await rt.submit(ordinary(calling(switch), redrive=0), 2)
            await until(lambda: switch.used.count(1) == 2)
        assert switch.used.count(2) == 1

    run(main)


@pytest.mark.slow
def test_each_redrive_waits_twice_as_long_as_the_one_before(run, path, monkeypatch):
    monkeypatch.setattr(_journal, "REDRIVE", 0.02)
    monkeypatch.setattr(_recorder, "FIRST_PAUSE_MS", 80)

    async def main():
        switch = Switch()
        async with Runtime(journal=path) as rt:
            job = await rt.submit(ordinary(calling(switch), redrive=10), 1)
            pauses = []
            for used in (1, 2, 3):

                async def waiting(used: int = used) -> Any:
                    kept = await rt.journal.get(job.id)
                    return kept if kept and kept.redrives == used - 1 and kept.state == "retryable" else None

                kept = await until(waiting)
                pauses.append(round(kept.next_redrive_at - kept.failed_at, 3))
                await until(lambda used=used: len(switch.used) > used)
        assert pauses == [0.08, 0.16, 0.32]

    run(main)


def test_what_said_that_it_shall_not_run_again_is_not_redriven_by_itself(run, path, quick):
    async def main():
        ran = []

        async def give_up() -> None:
            ran.append(1)
            raise Discard("no use")

        async with Runtime(journal=path, redrive=3) as rt:
            job = await rt.submit(ordinary(give_up))
            await job.wait()
            assert (await rt.journal.get(job.id)).state == "discarded"

    run(main)


async def _none_open(rt: Runtime) -> bool:
    return not await rt.journal.failures()


def version(name: str, kind: type, switch: Switch) -> Any:
    """A task as one version of a program has it: the next one takes something else."""

    async def call(n: Any) -> Any:
        return switch.use(n)

    call.__annotations__ = {"n": kind}
    return task(call, name=name, redrive=3)


def test_arguments_that_no_longer_fit_are_quarantined_and_the_others_go_on(run, path, quick):
    async def main():
        switch = Switch()
        name = f"changed-{uuid.uuid4().hex[:12]}"
        old, call = version(name, int, switch), ordinary(calling(switch), redrive=3)
        async with Runtime(journal=path) as rt:
            poisoned = [await rt.submit(old, n) for n in range(3)]
            for n in range(3):
                await rt.submit(call, 10 + n)
        used = len(switch.used)
        switch.works = True
        version(name, str, switch)
        async with Runtime(journal=path) as rt:
            await until(lambda: {10, 11, 12} <= set(switch.used[used:]))
            await until(lambda: _open_count(rt, 3))
            for job in poisoned:
                kept = await rt.journal.get(job.id)
                assert (kept.state, kept.reason) == ("quarantined", "arguments no longer fit")
                with pytest.raises(PayloadError, match="no longer fit"):
                    await rt.journal.redrive(job.id)

    run(main)


def test_a_failure_that_cannot_be_submitted_is_in_nobodys_way(run, path, quick):
    async def main():
        switch = Switch()
        lonely = ordinary(calling(switch), redrive=3, queue="elsewhere")
        call = ordinary(calling(switch), redrive=3)
        async with Runtime(journal=path, queues=[Queue("elsewhere")]) as rt:
            poisoned = [await rt.submit(lonely, n) for n in range(150)]  # more than are taken at a time
            await rt.submit(call, 1000)
            await rt.stop()
        switch.works = True
        switch.used.clear()
        async with Runtime(journal=path) as rt:  # which has no such queue
            await until(lambda: 1000 in switch.used)
            kept = await rt.journal.get(poisoned[0].id)
            assert (kept.state, kept.redrives) == ("retryable", 0)
        assert switch.used == [1000]

    run(main)


@pytest.mark.parametrize("overflow", ["wait", "reject"])
def test_a_full_queue_and_a_stop_put_redrives_off_and_are_no_errors(run, path, quick, monkeypatch, overflow):
    async def main():
        told, gate, tries = [], asyncio.Event(), []
        asyncio.get_running_loop().set_exception_handler(lambda _, said: told.append(said))
        switch = Switch()
        submit = _redrive.Redriver._submit

        async def counted(self, failed):
            tries.append(failed)
            return await submit(self, failed)

        monkeypatch.setattr(_redrive.Redriver, "_submit", counted)
        async with Runtime(journal=path, concurrency=1, queue_size=1, overflow=overflow) as rt:
            failed = await rt.submit(ordinary(calling(switch), redrive=3), 1)
            hold = ordinary(gate.wait)
            await failed.wait()
            await rt.submit(hold)
            await until(lambda: rt.stats().running == 1)
            if not tries:
                await rt.submit(hold)
            await until(lambda: tries)
            await rt.stop(drain=0, cancel=1)
        assert told == []

    run(main)


# Several processes


@pytest.mark.parametrize("kind", KINDS)
def test_two_runtimes_on_one_file_redrive_each_failure_once(run, path, quick, kind):
    async def main():
        switch = Switch()
        call = KINDS[kind](calling(switch), redrive=1)
        async with Runtime(journal=path) as one, Runtime(journal=path) as two:
            for n in range(30):
                await (await (one if n % 2 else two).submit(call, n)).wait()
            await until(lambda: len(switch.used) >= 60)
            await until(lambda: _all_used_up(one))
            assert sorted(switch.used) == sorted([*range(30), *range(30)])
            assert sorted([one.journal.leader.leads, two.journal.leader.leads]) == [False, True]

    run(main)


async def _all_used_up(rt: Runtime) -> bool:
    return await rt.journal.count(state="discarded") == 30


def test_a_redrive_by_hand_in_two_runtimes_at_once_runs_each_failure_once(run, path):
    async def main():
        switch = Switch()
        call = ordinary(calling(switch))
        async with Runtime(journal=path) as one, Runtime(journal=path) as two:
            for n in range(250):
                await (await one.submit(call, n)).wait()
            await one.journal.stats()
            switch.works = True
            switch.used.clear()
            first, second = await asyncio.gather(one.journal.redrive(), two.journal.redrive())
            assert len(first) + len(second) == 250
            await asyncio.gather(one.drain(), two.drain())
            assert sorted(switch.used) == list(range(250))
            await until(lambda: _none_open(one))

    run(main)


DYING = program("""
log = Path(sys.argv[2])

@task(name="dies-when-redriven", redrive=int(sys.argv[3]))
async def die() -> None:
    with log.open("a") as file:
        file.write("run\\n")
    if log.read_text().count("run") > 1:
        os._exit(9)
    raise ValueError("the first time")

async def main():
    async with Runtime(journal=sys.argv[1]) as rt:
        if not log.exists():
            await (await rt.submit(die)).wait()
        while True:
            [kept] = await rt.journal.failures()
            if kept.state == "quarantined":
                print(kept.reason, kept.redrives, kept.crashes, kept.redrives_left, flush=True)
                return
            await asyncio.sleep(0.02)

asyncio.run(main())
""")


@pytest.mark.slow
@pytest.mark.parametrize("budget", [1, 2])
def test_a_failure_whose_redrives_kill_the_process_is_redriven_as_often_as_was_asked_and_quarantined(
    path, tmp_path, budget
):
    log = tmp_path / "runs"
    for _ in range(budget):
        with started(DYING, path, log, budget) as process:
            assert process.wait(timeout=30) == 9
    assert ran(DYING, path, log, budget) == f"crash loop {budget} {budget} 0\n"
    assert log.read_text() == "run\n" * (1 + budget)


# By hand


@pytest.mark.parametrize("kind", KINDS)
def test_one_failure_is_redriven_by_its_id_as_a_new_job(run, path, kind):
    async def main():
        switch = Switch()
        call = KINDS[kind](calling(switch))
        async with Runtime(journal=path) as rt:
            jobs = [await rt.submit(call, n) for n in range(3)]
            for job in jobs:
                await job.wait()
            switch.works = True
            [again] = await rt.journal.redrive(jobs[1].id)
            assert again.id != jobs[1].id
            assert await again == 1
            await until(lambda: _state_is(rt, jobs[1].id, "completed"))
            assert {one.id for one in await rt.journal.failures()} == {jobs[0].id, jobs[2].id}
            assert switch.used[3:] == [1]

    run(main)


async def _state_is(rt: Runtime, id: str, state: str) -> bool:
    return (await rt.journal.get(id)).state == state


@pytest.mark.parametrize("kind", KINDS)
def test_a_redrive_that_fails_again_leaves_the_failure_open_under_its_id(run, path, kind):
    async def main():
        switch = Switch()
        async with Runtime(journal=path) as rt:
            job = await rt.submit(KINDS[kind](calling(switch)), 1)
            await job.wait()
            [again] = await rt.journal.redrive(job.id)
            await again.wait()
            [kept] = await rt.journal.failures()
            assert (kept.id, kept.state, kept.redrives) == (job.id, "discarded", 0)
            assert len(kept.attempts) == 2
            assert [one.id for one in await rt.journal.redrive()] != []

    run(main)


def test_a_redrive_takes_what_the_filters_name_and_a_dry_run_only_says_what_that_is(run, path):
    async def main():
        switch, other = Switch(), Switch()

        async def decode(text: str) -> bytes:
            return text.encode("ascii")

        call, broken = ordinary(calling(switch), name="call-somebody"), ordinary(decode, name="decode-it")
        async with Runtime(journal=path) as rt:
            called = [await rt.submit(call, n) for n in range(5)]
            decoded = [await rt.submit(broken, "é") for _ in range(2)]
            for job in (*called, *decoded):
                await job.wait()
            switch.works = other.works = True
            ids = {job.id for job in called}
            assert set(await rt.journal.redrive(task="call-somebody", dry_run=True)) == ids
            assert set(await rt.journal.redrive(error="ConnectionError", dry_run=True)) == ids
            assert len(await rt.journal.redrive(dry_run=True)) == 7
            assert await rt.journal.redrive(since=called[0]._since + 10**10, dry_run=True) == []
            assert len(switch.used) == 5
            again = await rt.journal.redrive(error="ConnectionError")
            assert sorted([await job for job in again]) == list(range(5))
            await until(lambda: _open_count(rt, 2))
            assert {one.task for one in await rt.journal.failures()} == {"decode-it"}

    run(main)


async def _open_count(rt: Runtime, number: int) -> bool:
    return await rt.journal.count() == number


def test_a_redrive_of_everything_is_more_than_one_page_and_runs_each_once(run, path):
    async def main():
        switch = Switch()
        async with Runtime(journal=path, concurrency=50) as rt:
            jobs = await rt.submit_many(ordinary(calling(switch)), [(n,) for n in range(350)])
            for job in jobs:
                await job.wait()
            await rt.journal.redrive()
            await rt.drain()
            assert sorted(switch.used) == sorted([*range(350), *range(350)])  # once more, though all failed
            assert await rt.journal.count() == 350
            switch.works = True
            await rt.journal.redrive()
            await rt.drain()
            await until(lambda: _none_open(rt))

    run(main)


def test_what_cannot_be_redriven_says_why(run, path):
    async def main():
        async def fail(thing: Any) -> None:
            raise ValueError("no")

        async with Runtime(journal=path) as rt:
            odd = await rt.submit(ordinary(fail), object())
            plain = await rt.submit(fail, 1)  # no task
            await odd.wait()
            await plain.wait()
            with pytest.raises(LookupError, match="nothing"):
                await rt.journal.redrive("nothing")
            for job, obstacle in ((odd, "cannot be written"), (plain, "no task")):
                assert obstacle in (await rt.journal.get(job.id)).obstacle
                with pytest.raises(LookupError, match=obstacle):
                    await rt.journal.redrive(job.id)
            assert await rt.journal.redrive() == []

    run(main)


def test_a_failure_of_a_task_that_is_unknown_here_stays_as_it_is(run, path):
    async def main():
        switch = Switch()
        async with Runtime(journal=path) as rt:
            job = await rt.submit(ordinary(calling(switch)), 1)
            await job.wait()
        async with Runtime(journal=path, registry=Registry()) as rt:
            assert await rt.journal.redrive() == []
            with pytest.raises(UnknownTask, match=job.task):
                await rt.journal.redrive(job.id)
            await until(lambda: _is_free(rt, job.id))

    run(main)


async def _is_completed(rt: Runtime, id: str) -> bool:
    return (await rt.journal.get(id)).obstacle == "it is completed"


async def _is_free(rt: Runtime, id: str) -> bool:
    return (await rt.journal.redrive(id, dry_run=True)) == [id]


@pytest.mark.parametrize("what", ["redrive", "discard"])
def test_what_came_to_another_end_since_the_filters_were_asked_is_left_as_it_is(run, path, monkeypatch, what):
    """Between the question and the change anything may happen, in this process or in another one."""

    async def main():
        switch = Switch()
        call = ordinary(calling(switch))
        async with Runtime(journal=path) as rt, Journal(path) as journal:
            jobs = [await rt.submit(call, n) for n in range(3)]
            for job in jobs:
                await job.wait()
            await rt.journal._writer.flush()
            step = journal._writer.step

            async def late(function: Any, *args: Any) -> Any:
                switch.works = True
                [again] = await rt.journal.redrive(jobs[0].id)
                await again
                await until(lambda: _is_completed(rt, jobs[0].id))  # which is noted a moment later
                if what == "redrive":
                    switch.works = False
                    [again] = await rt.journal.redrive(jobs[1].id)
                    await again.wait()
                    await rt.journal._writer.flush()
                return await step(function, *args)

            monkeypatch.setattr(journal._writer, "step", late)
            changed = await getattr(journal, what)(task=jobs[0].task)
            assert changed == ([jobs[2].id] if what == "redrive" else 2)
            kept = [await journal.get(job.id) for job in jobs]
            assert kept[0].obstacle == "it is completed"
            if what == "redrive":
                assert [one.state for one in kept[1:]] == ["discarded", "retryable"]

    run(main)


def test_without_a_runtime_a_redrive_is_asked_for_and_a_runtime_does_it(run, path, quick):
    async def main():
        switch = Switch()
        call = ordinary(calling(switch))
        async with Runtime(journal=path) as rt:
            jobs = [await rt.submit(call, n) for n in range(3)]
            for job in jobs:
                await job.wait()
        switch.works = True
        async with Journal(path) as journal:
            assert await journal.redrive(jobs[0].id) == [jobs[0].id]
            assert set(await journal.redrive(task=call.name)) == {job.id for job in jobs}
        async with Runtime(journal=path) as rt:
            await until(lambda: _none_open(rt))
        assert sorted(switch.used[3:]) == [0, 1, 2]

    run(main)


def test_a_shutdown_in_the_middle_of_a_redrive_gives_the_failures_back(run, path):
    async def main():
        switch, gate = Switch(), asyncio.Event()

        async def call(n: int) -> None:
            if switch.used:
                await gate.wait()
            switch.use(n)

        called = ordinary(call)
        async with Runtime(journal=path, concurrency=1) as rt:
            job = await rt.submit(called, 1)
            await job.wait()
            await rt.journal.redrive(job.id)
            await until(lambda: rt.stats().running)
            with pytest.raises(LookupError, match="now"):
                await rt.journal.redrive(job.id)
            await rt.stop(drain=0, cancel=1)
        async with Runtime(journal=path) as rt:
            switch.works = True
            gate.set()
            [again] = await rt.journal.redrive(job.id)
            await again
            await until(lambda: _none_open(rt))

    run(main)


def test_what_a_shutdown_interrupted_is_redriven_with_everything_else(run, path):
    async def main():
        seen = []

        async def work(n: int) -> None:
            seen.append(n)
            if len(seen) == 1:
                await asyncio.Event().wait()

        working = ordinary(work)
        async with Runtime(journal=path) as rt:
            await rt.submit(working, 1)
            await until(lambda: seen)
            await rt.stop(drain=0, cancel=1)
        async with Runtime(journal=path) as rt:
            [kept] = await rt.journal.failures(reason="interrupted")
            assert (kept.state, kept.args) == ("cancelled", {"n": 1})
            [again] = await rt.journal.redrive()
            await again
            await until(lambda: _state_is(rt, kept.id, "completed"))
        assert seen == [1, 1]

    run(main)


def test_a_redrive_that_somebody_else_began_just_now_is_no_success(run, path, monkeypatch):
    async def main_():
        async with Journal(path) as journal:

            async def found(id: str) -> None:  # and a moment later it is taken
                pass

            monkeypatch.setattr(journal, "_check_redrivable", found)
            with pytest.raises(LookupError, match="cannot be redriven: it is being redriven now"):
                await journal.redrive("taken")

    run(main_)
