"""The application that every tutorial writes, and what it gets wrong: uploads, names, answers, what is told.

The numbers S… are those of the list of defects of such sample code; here each is shown not to be ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import sqlite3
import threading
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, UploadFile

from bgruntime import Resource, Runtime, task, tempdir
from bgruntime.integrations import _uploads
from bgruntime.integrations.fastapi import (
    BackgroundJobs,
    BodyLimit,
    RuntimeDep,
    Uploads,
    accepted,
    runtime_lifespan,
    safe_name,
    status_router,
)
from bgruntime.logs import configure
from tests.door.turns import until
from tests.integrations.asgi import serve
from tests.logs.lines import Stream

ROOT = Path(__file__).resolve().parents[2]
seen: list[tuple[Path, bytes]] = []
gate = asyncio.Event()


@task(durable=True, name="tests.upload:read")
async def read(path: Path) -> None:
    seen.append((path, path.read_bytes()))
    if path.read_bytes() == b"slow":
        await gate.wait()


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    global gate
    monkeypatch.setattr(_uploads, "LOOK_AFTER", 0.01)
    gate = asyncio.Event()
    seen.clear()


class Site:
    """The application, its runtime and its folder; everybody may look at the status pages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uploads = Uploads(folder / "up", limit=4_000_000)
        self.rt = Runtime(journal=folder / "jobs.db", observers=[self.uploads])
        self.app = FastAPI(lifespan=runtime_lifespan(self.rt))
        self.app.add_middleware(BodyLimit, limit=5_000_000)
        self.app.include_router(status_router())

        @self.app.post("/upload", status_code=202)
        async def upload(file: UploadFile, rt: RuntimeDep, request: Request):
            job = await self.uploads.submit(rt, read, file)
            return accepted(request, job, name=safe_name(file.filename))

    def kept(self) -> list[Path]:
        return [path for path in (self.folder / "up").rglob("*") if path.is_file()]


async def send(client, body: bytes, name: str = "a.pdf"):
    head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return await client.post(
        "/upload",
        body=head.encode() + body + b"\r\n--x--\r\n",
        headers={"content-type": "multipart/form-data; boundary=x"},
    )


def test_s01_a_file_name_leads_nowhere_outside_the_folder(run, tmp_path):
    async def main():
        site = Site(tmp_path / "site")
        (tmp_path / "victim").write_text("mine")
        async with serve(site.app) as client:
            for name in ("../../victim", str(tmp_path / "victim"), "..%2f..%2fvictim", "jobs.db"):
                assert (await send(client, b"theirs", name)).status == 202
            await until(lambda: len(seen) == 4)
        assert (tmp_path / "victim").read_text() == "mine"
        assert all(path.parent == site.folder / "up" for path, _ in seen)
        assert all(re.fullmatch(r"upload-[0-9a-f]{32}", path.name) for path, _ in seen)

    run(main)


def test_s02_two_files_of_one_name_are_two_files(run, tmp_path):
    async def main():
        site = Site(tmp_path)
        async with serve(site.app) as client:
            assert (await send(client, b"slow")).status == 202
            await until(lambda: seen)
            assert (await send(client, b"other")).status == 202
            await until(lambda: len(seen) == 2 and len(site.kept()) == 1)
            assert [body for _, body in seen] == [b"slow", b"other"]
            assert seen[0][0].read_bytes() == b"slow", "the end of one is not the end of the other"
            gate.set()

    run(main)


def test_s03_the_end_of_a_job_removes_nothing_but_its_own_upload(run, tmp_path):
    async def main():
        site = Site(tmp_path / "site")
        precious = tmp_path / "precious"
        precious.write_text("mine")
        async with serve(site.app):
            for id in ("../../precious", str(precious), "upload-../../precious"):
                await (await site.rt.submit(read.with_options(id=id), precious))
            await site.uploads.sweep()
        assert precious.read_text() == "mine"

    run(main)


def test_s04_a_body_is_bounded_and_read_in_pieces_off_the_loop(run, tmp_path):
    class Source(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert 0 < size <= 1024 * 1024
            threads.add(threading.get_ident())
            return super().read(size)

    threads: set[int] = set()

    async def main():
        site = Site(tmp_path)
        async with serve(site.app) as client:
            assert (await send(client, b"x" * 5_000_001)).status == 413
            assert (await send(client, b"x" * 4_000_001)).status == 413
            assert site.kept() == []
            await site.uploads.submit(site.rt, read, UploadFile(Source(b"x" * 3_000_000)))
            assert threading.get_ident() not in threads
            assert len(threads) >= 1

    run(main)


def test_s05_a_name_in_the_journal_is_looked_up_among_tasks_and_calls_nothing_else(run, tmp_path):
    async def main():
        site = Site(tmp_path)
        trace = tmp_path / "trace"
        rt = site.rt
        async with rt:
            rt.pause()
            ids = [(await site.uploads.submit(rt, read, UploadFile(io.BytesIO(b"a")))).id for _ in range(3)]
            await rt.stop(drain=0)
        names = ("os:system", "tests.stories.test_an_upload:serve", "__builtins__:exec")
        with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as connection, connection:
            for id, name in zip(ids, names, strict=True):
                connection.execute(
                    "UPDATE job SET task = ?, args = ? WHERE id = ?",
                    (name, f'{{"command": "touch {trace}"}}', id),
                )
        async with rt:
            await (await site.uploads.submit(rt, read, UploadFile(io.BytesIO(b"b"))))
            kept = [await rt.journal.get(id) for id in ids]
            assert [one.state for one in kept] == ["available"] * 3
        assert not trace.exists()

    run(main)


def test_s08_a_line_of_the_log_is_one_line_whoever_wrote_its_text(run):
    async def fail(text: str) -> None:
        raise ValueError(text)

    async def main():
        async with Runtime() as rt:
            job = await rt.submit(fail, "ada\r\n2026 [info] forged \x1b[2J\u2028 line")
            await job.wait()

    stream = Stream()
    logs = configure(json=False, stream=stream)
    try:
        run(main)
    finally:
        logs.close()
    forged = [line for line in stream.lines if "forged" in line]
    assert forged
    # below the line stands the traceback, and all of it is indented
    assert not any(line.startswith("2026 [info] forged") for line in stream.lines)
    assert "\x1b[2J" not in stream.getvalue()
    assert "\u2028" not in stream.getvalue()


def test_s09_without_auth_numbers_are_all_there_is(run, tmp_path):
    async def main():
        site = Site(tmp_path)
        async with serve(site.app) as client:
            answer = await send(client, b"private text", "private name.pdf")
            await until(lambda: seen)
            shown = b""
            for page in ("livez", "readyz", "health", "metrics/tasks", "metrics"):
                shown += (await client.get(f"/bgruntime/{page}")).body
            shown += (await client.get(f"/bgruntime/jobs/{answer.json()['job_id']}")).body
            assert b"private" not in shown
            assert str(tmp_path).encode() not in shown
            for page in ("jobs", "failures", f"jobs/{answer.json()['job_id']}/details"):
                assert (await client.get(f"/bgruntime/{page}")).status == 404
            for page in ("pause", "failures/redrive", "failures/purge"):
                given = {"X-Bgruntime": "1"}
                assert (await client.post(f"/bgruntime/{page}", json_body={}, headers=given)).status == 404

    run(main)


def test_s10_no_file_of_ours_holds_credentials():
    with_password = re.compile(r"\b[a-z+]+://[^/\s:@'\"{}<>]+:[^/\s:@'\"{}<>]+@")
    files = [path for room in ("bgruntime", "examples", "docs") for path in (ROOT / room).rglob("*")]
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in files
        if path.suffix in (".py", ".md")
        for match in with_password.finditer(path.read_text())
    ]
    assert found == []


def test_s11_nothing_that_a_client_says_is_an_address_we_would_call():
    app = FastAPI()
    app.include_router(status_router(auth=lambda request: None))
    document = app.openapi()
    assert len(document["paths"]) > 10
    said = [
        name
        for path in document["paths"].values()
        for operation in path.values()
        for name in (one["name"] for one in operation.get("parameters", ()))
    ]
    for schema in document["components"]["schemas"].values():
        said += schema.get("properties", {})
    assert not [name for name in said if re.search(r"ur[il]|host|address|webhook|callback", name, re.I)]


def test_s12_an_answer_that_names_the_file_is_json_and_harmless(run, tmp_path):
    async def main():
        site = Site(tmp_path)
        async with serve(site.app) as client:
            answer = await send(client, b"x", "../<script>alert(1)</script>\u202egnp.exe")
            assert answer.headers["content-type"] == "application/json"
            assert answer.json()["name"] == "script>gnp.exe"
            await until(lambda: seen)
            where = answer.headers["location"].removeprefix("http://app.example")
            page = await client.get(where)
            assert page.headers["x-content-type-options"] == "nosniff"

    run(main)


def test_s23_what_was_answered_with_202_is_on_disk_and_has_an_id_to_ask_for(run, tmp_path):
    async def main():
        site = Site(tmp_path)
        async with serve(site.app) as client:
            site.rt.pause()
            id = (await send(client, b"text")).json()["job_id"]
            with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as other:
                assert other.execute("SELECT task FROM job WHERE id = ?", (id,)).fetchall() == [(read.name,)]
            assert [path.read_bytes() for path in site.kept()] == [b"text"]
            assert (await client.get(f"/bgruntime/jobs/{id}")).json()["state"] == "available"
            site.rt.resume()
            await until(lambda: seen)

    run(main)


def test_s24_one_job_that_fails_stops_none_of_the_others(run):
    async def main():
        done = []
        app = FastAPI(lifespan=runtime_lifespan(Runtime()))

        async def fail() -> None:
            raise ValueError("the first one")

        @app.post("/")
        async def endpoint(jobs: BackgroundJobs):
            jobs.add_task(fail)
            jobs.add_task(done.append, "the second one")

        async with serve(app) as client:
            assert (await client.post("/")).status == 200
        assert done == ["the second one"]

    run(main)


@pytest.mark.parametrize("started", [True, False])
def test_s41_what_belongs_to_a_job_goes_with_it_started_or_not(run, tmp_path, started):
    folders: list[Path] = []

    async def work(path: Path, scratch: Path = Resource(tempdir)) -> None:
        folders.append(scratch)
        assert path.exists()
        await asyncio.Event().wait()

    async def main():
        site = Site(tmp_path)
        async with site.rt as rt:
            if not started:
                rt.pause()
            job = await site.uploads.submit(rt, work, UploadFile(io.BytesIO(b"text")))
            if started:
                await until(lambda: folders)
            job.cancel()
            await job.wait()
            assert site.kept() == []
            assert len(folders) == started
            assert not any(folder.exists() for folder in folders)

    run(main)
