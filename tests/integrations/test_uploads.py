"""An uploaded file is private, bounded, and gone with its job, however that ends."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import threading
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, UploadFile
from starlette.exceptions import HTTPException

from bgruntime import AcceptUnknown, JobState, QueueFull, Runtime, Shutdown, task
from bgruntime.integrations import _uploads
from bgruntime.integrations.fastapi import (
    BodyLimit,
    RuntimeDep,
    Uploads,
    accepted,
    runtime_lifespan,
    safe_name,
)
from tests.door.turns import Gate, until
from tests.integrations.asgi import serve
from tests.journal.programs import kill, line_of, program, started

HOSTILE = [
    "../../etc/cron.d/x",
    "/etc/passwd",
    "..\\..\\boot.ini",
    "a\x00b.pdf",
    "new\r\nline: injected",
    "\x1b[31mred",
    "invoice\u202efdp.exe",
    "<script>alert(1)</script>",
    ". . .",
    "",
    "\ud800",
    "x" * 5000,
]


@task(durable=True, name="tests.uploads:size")
def size(path: Path) -> int:
    return path.stat().st_size


@task(durable=True, name="tests.uploads:fail")
async def fail(path: Path) -> None:
    if path.read_bytes() == b"bad" and not mended:
        raise ValueError("unreadable")


mended: list[bool] = []


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(_uploads, "LOOK_AFTER", 0.01)
    mended.clear()


def upload(body: bytes, name: str = "a.pdf") -> UploadFile:
    return UploadFile(io.BytesIO(body), filename=name)


def files(folder: Path) -> list[Path]:
    """All files below, whoever they belong to."""
    return [path for path in folder.rglob("*") if path.is_file()]


def form(body: bytes, name: str = "a.pdf") -> dict:
    head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return {
        "body": head.encode("utf-8", "surrogatepass") + body + b"\r\n--x--\r\n",
        "headers": {"content-type": "multipart/form-data; boundary=x"},
    }


def test_the_file_is_private_has_a_name_of_our_own_and_goes_with_its_job(run, tmp_path):
    async def main():
        gate, seen = Gate(), []

        @task
        async def look(path: Path, label: str) -> str:
            seen.append((path, path.read_bytes(), stat.S_IMODE(path.stat().st_mode)))
            await gate.wait()
            return label

        uploads = Uploads(tmp_path / "up")
        async with Runtime(observers=[uploads]) as rt:
            file = upload(b"text", "../../evil")
            job = await uploads.submit(rt, look, file, label="done")
            assert file.file.closed
            await until(lambda: seen)
            [(path, body, mode)] = seen
            assert (body, mode) == (b"text", 0o600)
            assert path.is_relative_to(tmp_path / "up")
            assert "evil" not in str(path)
            assert stat.S_IMODE((tmp_path / "up").stat().st_mode) == 0o700
            gate.open()
            assert await job == "done"
            assert files(tmp_path) == []

    run(main)


@pytest.mark.parametrize("end", ["returns", "raises", "is cancelled", "never starts", "times out", "drops"])
def test_it_goes_however_the_job_ends(run, tmp_path, end):
    async def main():
        gate = Gate()

        @task(timeout=0.01 if end == "times out" else None)
        async def work(path: Path) -> None:
            assert path.exists()
            if end == "raises":
                raise ValueError(path)
            if end != "returns":
                await gate.wait()

        uploads = Uploads(tmp_path / "up")
        async with Runtime(observers=[uploads], shutdown=Shutdown(drain=0.01, cancel=1)) as rt:
            if end == "never starts":
                rt.pause()
            job = await uploads.submit(rt, work, upload(b"text"))
            assert len(files(tmp_path)) == 1
            if end in ("is cancelled", "never starts"):
                job.cancel()
            if end != "drops":
                await job.wait()
                assert files(tmp_path) == []
        assert files(tmp_path) == []

    run(main)


def test_a_file_over_the_limit_is_a_413_and_nothing_of_it_stays(run, tmp_path):
    async def main():
        uploads = Uploads(tmp_path / "up", limit=10)

        async def pieces():
            for _ in range(3):
                yield b"1234"

        async with Runtime(observers=[uploads]) as rt:
            for too_long in (upload(b"x" * 11), pieces()):
                with pytest.raises(HTTPException, match="at most 10 bytes") as caught:
                    await uploads.submit(rt, size, too_long)
                assert caught.value.status_code == 413
            assert files(tmp_path) == []
            assert rt.stats().submitted == 0

    run(main)


async def pieces_of(body: bytes):
    for start in range(0, len(body), 4):
        yield body[start : start + 4]


@pytest.mark.parametrize("streamed", [False, True])
def test_all_files_together_have_at_most_the_total_and_one_that_is_refused_leaves_nothing(
    run, tmp_path, streamed
):
    async def main():
        gate = Gate()

        async def work(path: Path) -> None:
            await gate.wait()

        uploads = Uploads(tmp_path / "up", limit=10, total=20)
        async with Runtime(observers=[uploads]) as rt:

            async def submit(length: int):
                async with aclosing(pieces_of(b"x" * length)) as pieces:
                    return await uploads.submit(rt, work, pieces if streamed else upload(b"x" * length))

            jobs = [await submit(10), await submit(6)]
            with pytest.raises(HTTPException, match="at most 20 bytes together") as caught:
                await submit(8)
            assert (caught.value.status_code, caught.value.headers) == (503, {"Retry-After": "5"})
            assert sorted(path.stat().st_size for path in files(tmp_path)) == [6, 10]
            jobs.append(await submit(4))  # what was refused holds no space
            jobs[1].cancel()
            await jobs[1].wait()
            jobs.append(await submit(6))
            with pytest.raises(HTTPException):
                await submit(1)
            gate.open()
            for job in jobs:
                await job.wait()
            assert (await submit(10)).id
        assert rt.stats().submitted == 5

    run(main)


def test_uploads_that_come_at_once_have_no_more_than_the_total(run, tmp_path):
    async def main():
        gate = Gate()

        async def work(path: Path) -> None:
            await gate.wait()

        uploads = Uploads(tmp_path / "up", limit=10, total=50)
        async with Runtime(observers=[uploads]) as rt:
            answers = await asyncio.gather(
                *(uploads.submit(rt, work, upload(b"x" * 10)) for _ in range(20)), return_exceptions=True
            )
            assert sum(isinstance(answer, HTTPException) for answer in answers) == 15
            assert sum(path.stat().st_size for path in files(tmp_path)) == 50
            gate.open()

    run(main)


def test_what_an_earlier_run_and_other_processes_keep_counts_and_what_they_remove_does_not(
    run, tmp_path, clock
):
    async def main():
        mine, other = (Uploads(tmp_path / "up", limit=10, total=23) for _ in range(2))
        journal = tmp_path / "jobs.db"
        async with Runtime(journal=journal, observers=[mine]) as rt:
            await (await mine.submit(rt, fail, upload(b"bad"))).wait()  # kept, to be redriven
        async with (
            Runtime(journal=journal, observers=[mine]) as rt,
            Runtime(journal=journal, observers=[other]) as their,
        ):
            rt.pause()
            their.pause()
            await other.submit(their, size, upload(b"x" * 10))
            job = await mine.submit(rt, size, upload(b"x" * 10))
            for uploads, runtime in ((mine, rt), (other, their)):
                await clock.advance(1)
                with pytest.raises(HTTPException, match="23 are taken"):
                    await uploads.submit(runtime, size, upload(b"x"))
            (tmp_path / "up" / job.id).unlink()  # as another process does that has redriven it
            await clock.advance(1)
            await other.submit(their, size, upload(b"x" * 10))
            await clock.advance(1)
            with pytest.raises(HTTPException, match="23 are taken"):
                await mine.submit(rt, size, upload(b"x"))
            await rt.stop(drain=0)
            await their.stop(drain=0)

    run(main)


def test_the_total_is_a_gibibyte_or_what_eight_files_have(tmp_path):
    assert Uploads(tmp_path).total == 2**30
    assert Uploads(tmp_path, limit=2**30).total == 8 * 2**30
    with pytest.raises(ValueError, match="at least limit, 100, got 99"):
        Uploads(tmp_path, limit=100, total=99)


def test_a_stream_that_breaks_off_and_a_refused_submit_leave_nothing(run, tmp_path):
    async def main():
        uploads = Uploads(tmp_path / "up")
        gate = Gate()

        async def broken():
            yield b"a part"
            raise ConnectionResetError

        async def work(path: Path) -> None: ...

        async with Runtime(concurrency=1, queue_size=1, overflow="reject", observers=[uploads]) as rt:
            with pytest.raises(ConnectionResetError):
                await uploads.submit(rt, work, broken())
            await rt.submit(gate.wait)
            await until(lambda: gate.started)
            await rt.submit(gate.wait)
            file = upload(b"text")
            with pytest.raises(QueueFull):
                await uploads.submit(rt, work, file)
            assert file.file.closed
            assert files(tmp_path) == []
            gate.open()

    run(main)


def test_a_cancelled_upload_leaves_nothing(run, tmp_path):
    async def main():
        uploads = Uploads(tmp_path / "up")
        began = asyncio.Event()

        async def endless():
            yield b"a part"
            began.set()
            await asyncio.Event().wait()

        async with Runtime(observers=[uploads]) as rt:
            uploading = asyncio.ensure_future(uploads.submit(rt, size, endless()))
            await began.wait()
            assert len(files(tmp_path)) == 1
            uploading.cancel()
            await asyncio.wait([uploading])
            assert uploading.cancelled()
            assert files(tmp_path) == []

    run(main)


def test_a_durable_job_finds_its_file_and_it_goes_when_the_journal_says_that_it_is_over(run, tmp_path):
    async def main():
        uploads = Uploads(tmp_path / "up")
        async with Runtime(journal=tmp_path / "jobs.db", observers=[uploads]) as rt:
            job = await uploads.submit(rt, size, upload(b"12345"))
            assert await job == 5
            await until(lambda: not files(tmp_path / "up"))

    run(main)


def test_the_file_of_a_failure_stays_until_it_was_redriven(run, tmp_path, monkeypatch):
    monkeypatch.setattr(_uploads, "SWEEP_EVERY", 0.02)

    async def main():
        uploads = Uploads(tmp_path / "up")
        async with Runtime(journal=tmp_path / "jobs.db", observers=[uploads]) as rt:
            job = await uploads.submit(rt, fail, upload(b"bad"))
            await job.wait()
            await uploads.sweep()
            assert len(files(tmp_path / "up")) == 1
            mended.append(True)
            [again] = await rt.journal.redrive(job.id)
            await again
            await until(lambda: not files(tmp_path / "up"))

    run(main)


def test_a_durable_job_that_was_interrupted_keeps_its_file_for_the_next_process(run, tmp_path):
    async def main():
        uploads = Uploads(tmp_path / "up")
        rt = Runtime(journal=tmp_path / "jobs.db", observers=[uploads])
        async with rt:
            rt.pause()
            await uploads.submit(rt, size, upload(b"123"))
            await rt.stop(drain=0)
        assert len(files(tmp_path / "up")) == 1
        async with rt:
            await until(lambda: not files(tmp_path / "up"))

    run(main)


def test_when_it_is_not_known_whether_the_job_was_accepted_the_file_stays(run, tmp_path):
    async def main():
        uploads = Uploads(tmp_path / "up")

        class Unsure:
            async def submit(self, task, *args):
                raise AcceptUnknown("an id", "the disk hangs")

        async with Runtime(journal=tmp_path / "jobs.db", observers=[uploads]) as rt:
            with pytest.raises(AcceptUnknown):
                await uploads.submit(Unsure(), size, upload(b"123"))
            [path] = files(tmp_path / "up")
            await uploads.sweep()
            assert path.exists(), "it is young"
            os.utime(path, (0, 0))
            await uploads.sweep()
            assert not path.exists(), "nobody knows it any more"
            assert rt.stats().faults == {}

    run(main)


@pytest.mark.parametrize("waits_for", ["its last bytes", "room"])
def test_another_process_that_sweeps_leaves_a_file_alone_until_its_job_was_submitted(
    run, tmp_path, waits_for
):
    async def main():
        mine, other, gate = Uploads(tmp_path / "up"), Uploads(tmp_path / "up"), Gate()
        began, go_on = asyncio.Event(), asyncio.Event()

        async def pieces():
            yield b"123"
            began.set()
            if waits_for == "its last bytes":
                await go_on.wait()
            yield b"45"

        async def sweep_old_files():
            for path in files(tmp_path / "up"):
                os.utime(path, (0, 0))
            await other.sweep()

        journal = tmp_path / "jobs.db"
        async with (
            Runtime(concurrency=1, queue_size=1, journal=journal, observers=[mine]) as rt,
            Runtime(journal=journal, observers=[other]),
        ):
            await rt.submit(gate.wait)
            await until(lambda: gate.started)
            if waits_for == "room":
                await rt.submit(gate.wait)
            uploading = asyncio.ensure_future(mine.submit(rt, size, pieces()))
            await began.wait()
            if waits_for == "room":
                await until(lambda: list((tmp_path / "up").glob("upload-*")))
            await sweep_old_files()
            go_on.set()
            gate.open()
            job = await uploading
            assert await job == 5
            assert not list((tmp_path / "up").glob("*/*"))

    run(main)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_durable_upload_that_is_cancelled_while_it_is_moved_leaves_nothing(
    run, tmp_path, monkeypatch, when
):
    reached, go_on, moved = threading.Event(), threading.Event(), threading.Event()
    move = _uploads._move

    def held(arrived: Path, path: Path) -> None:
        try:
            if when == "after":
                move(arrived, path)
            reached.set()
            go_on.wait(10)
            if when == "before":
                with pytest.raises(FileNotFoundError):
                    move(arrived, path)
        finally:
            moved.set()

    monkeypatch.setattr(_uploads, "_move", held)

    async def main():
        uploads = Uploads(tmp_path / "up")
        async with Runtime(journal=tmp_path / "jobs.db", observers=[uploads]) as rt:
            uploading = asyncio.ensure_future(uploads.submit(rt, size, upload(b"123")))
            await until(reached.is_set)
            uploading.cancel()
            await asyncio.wait([uploading])
            assert uploading.cancelled()
            go_on.set()
            await until(moved.is_set)
            assert files(tmp_path / "up") == []

    run(main)


def test_a_file_that_somebody_else_removes_meanwhile_stops_no_sweep(run, tmp_path, monkeypatch):
    async def main():
        uploads = Uploads(tmp_path / "up")
        async with Runtime(journal=tmp_path / "jobs.db", observers=[uploads]):
            names = [f"upload-{number:032x}" for number in range(3)]
            for name in names:
                (tmp_path / "up" / name).touch()
                os.utime(tmp_path / "up" / name, (0, 0))
            scandir = os.scandir

            @contextmanager
            def removing(folder):
                with scandir(folder) as entries:
                    found = list(entries)
                (tmp_path / "up" / names[1]).unlink(missing_ok=True)
                yield found

            monkeypatch.setattr(_uploads.os, "scandir", removing)
            await uploads.sweep()
            monkeypatch.undo()
            assert files(tmp_path / "up") == []

    run(main)


KILLED = program("""
    import io
    from starlette.datastructures import UploadFile
    from bgruntime.integrations.starlette import Uploads

    async def work(path: Path) -> None:
        await asyncio.Event().wait()

    async def main():
        uploads = Uploads(sys.argv[1])
        async with Runtime(observers=[uploads]) as rt:
            await uploads.submit(rt, work, UploadFile(io.BytesIO(b"text")))
            print("kept", flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())
""")


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_keeps_is_not(run, tmp_path):
    async def main():
        with started(KILLED, tmp_path / "up") as other:
            assert await asyncio.to_thread(line_of, other) == "kept"
            async with Runtime(observers=[Uploads(tmp_path / "up")]):
                assert len(files(tmp_path / "up")) == 1
            await asyncio.to_thread(kill, other)
            assert len(files(tmp_path / "up")) == 1
            async with Runtime(observers=[Uploads(tmp_path / "up")]):
                assert files(tmp_path / "up") == []
        assert list((tmp_path / "up").iterdir()) == []

    run(main)


@pytest.mark.parametrize("trap", ["a link", "open to others"])
def test_a_folder_that_is_not_private_is_refused_before_anything_starts(run, tmp_path, trap):
    folder = tmp_path / "up"
    if trap == "a link":
        (tmp_path / "elsewhere").mkdir(0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o777)

    async def main():
        with pytest.raises(PermissionError, match="mode 0700"):
            async with Runtime(observers=[Uploads(folder)]):
                pass

    run(main)


def test_without_a_running_runtime_it_says_what_is_missing(run, tmp_path):
    async def main():
        uploads = Uploads(tmp_path / "up")
        async with Runtime() as rt:
            with pytest.raises(RuntimeError, match=r"Runtime\(observers=\[uploads\]\)"):
                await uploads.submit(rt, size, upload(b""))
        with pytest.raises(ValueError, match="at least 1, got 0"):
            Uploads(tmp_path, limit=0)

    run(main)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_shown_without_its_sting_and_opens_nothing(name):
    shown = safe_name(name)
    assert 0 < len(shown) <= 100
    assert shown.isprintable()
    assert not {"/", "\\", "\u202e", "\x1b"} & set(shown)
    assert shown.strip(".")
    shown.encode()


def test_a_name_that_is_none_is_left_as_it_is():
    assert safe_name("Jahresbericht 2026 – Übersicht.pdf") == "Jahresbericht 2026 – Übersicht.pdf"
    assert safe_name(None) == "unnamed"
    assert safe_name("报告.html") == "报告.html"


def application(uploads: Uploads, rt: Runtime) -> FastAPI:
    app = FastAPI(lifespan=runtime_lifespan(rt))
    app.add_middleware(BodyLimit, limit=2000)

    @app.post("/upload", status_code=202)
    async def keep(file: UploadFile, rt: RuntimeDep, request: Request):
        return accepted(request, await uploads.submit(rt, size, file), name=safe_name(file.filename))

    return app


def test_in_an_application_whatever_the_file_is_called_it_lands_in_the_folder_and_nowhere_else(run, tmp_path):
    async def main():
        uploads = Uploads(tmp_path / "up", limit=100)
        rt = Runtime(journal=tmp_path / "jobs.db", observers=[uploads])
        async with serve(application(uploads, rt)) as client:
            for name in ("../../x", "/tmp/x", "a.pdf", "a.pdf"):
                answer = await client.post("/upload", **form(b"text", name))
                assert answer.status == 202, answer.body
                assert await rt.job(answer.json()["job_id"]).wait() is None
                assert rt.job(answer.json()["job_id"]).state is JobState.COMPLETED
                assert "/" not in answer.json()["name"]
            await until(lambda: not files(tmp_path / "up"))
            assert (await client.post("/upload", **form(b"x" * 101))).status == 413
            assert files(tmp_path / "up") == []

    run(main)


@pytest.mark.parametrize("announced", [None, "0", "9" * 5000, "0" * 5000, "+5", ""])
def test_a_body_over_the_limit_is_refused_before_it_was_received(run, tmp_path, announced):
    async def main():
        uploads = Uploads(tmp_path / "up")
        rt = Runtime(journal=tmp_path / "jobs.db", observers=[uploads])
        async with serve(application(uploads, rt)) as client:
            asked = form(b"x" * 3000)
            if announced is not None:
                asked["headers"]["content-length"] = announced
            answer = await client.post("/upload", **asked)
            assert (answer.status, answer.headers["content-type"]) == (413, "application/problem+json")
            assert answer.json()["detail"] == "a body here has at most 2000 bytes"
            assert files(tmp_path / "up") == []

    run(main)
