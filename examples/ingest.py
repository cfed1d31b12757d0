"""A folder of documents into a full-text index, then one question to it.

Documents are parsed in the runtime's threads; one that cannot be read fails and one that
hangs times out, and neither stops the others. By default the documents are the sources of
the running Python's standard library.

    python examples/ingest.py [FOLDER] [WORDS]
"""

from __future__ import annotations

import ast
import asyncio
import sqlite3
import sys
import sysconfig
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar, NamedTuple

from rich.progress import Progress

import bgruntime
from bgruntime import Job, Runtime, task

# A document that is dubious Python is still a document: its warnings are not ours.
warnings.filterwarnings("ignore", category=SyntaxWarning, module="<unknown>")

# Early releases of Python 3.11 raise SystemError when two threads are in ast.parse at once.
one_parser = threading.Lock()

SUFFIXES = {".py", ".txt", ".md", ".rst", ".html"}
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "__pycache__", "node_modules"}


class Document(NamedTuple):
    path: str
    title: str
    text: str


class Hit(NamedTuple):
    path: str
    title: str
    excerpt: str


class Index:
    """A full-text index in one SQLite file, open to any thread; jobs name it by its file."""

    opened: ClassVar[dict[Path, Index]] = {}

    def __init__(self, file: Path) -> None:
        self.file = file
        self.opened[file] = self
        self._database = sqlite3.connect(file, check_same_thread=False)
        self._database.execute("CREATE VIRTUAL TABLE documents USING fts5(path, title, text)")
        self._lock = threading.Lock()

    def add(self, document: Document) -> None:
        with self._lock:
            self._database.execute("INSERT INTO documents VALUES (?, ?, ?)", document)

    def search(self, words: str, limit: int = 3) -> list[Hit]:
        """The documents that hold all the words, best first; a word in a title counts most."""
        quoted = " ".join(f'"{word}"' for word in words.replace('"', " ").split())
        question = """
            SELECT path, title, snippet(documents, 2, '[', ']', ' … ', 8) FROM documents
            WHERE documents MATCH ? ORDER BY bm25(documents, 2, 10, 1) LIMIT ?
        """
        with self._lock:
            return [Hit(*row) for row in self._database.execute(question, (quoted, limit))]

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._database.execute("SELECT count(*) FROM documents").fetchone()
        return int(count)

    def close(self) -> None:
        del self.opened[self.file]
        with self._lock:
            self._database.commit()
            self._database.close()


class Page(HTMLParser):
    """The words of an HTML page, without its tags."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.feed(source)
        self.close()

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def docstring(source: str) -> str:
    with one_parser:
        return ast.get_docstring(ast.parse(source)) or ""


def parse(path: Path) -> Document:
    """Read one UTF-8 document; raises whatever makes it unreadable."""
    source = path.read_text(encoding="utf-8")
    if not source:
        raise ValueError("nothing in it")
    if path.suffix == ".html":
        source = " ".join(Page(source).words)
    heading = docstring(source) if path.suffix == ".py" else source
    title = next((line.strip("#= ") for line in heading.splitlines() if line.strip("#= ")), path.stem)
    return Document(str(path), title, source)


@task(timeout=2)
def ingest_document(path: Path, index: Path) -> int:
    """Parse one document in a thread and add it to the index; its length in characters."""
    document = parse(path)
    Index.opened[index].add(document)
    return len(document.text)


def documents(folder: Path) -> Iterator[Path]:
    """The files under the folder that are worth reading, in no order."""
    for path in folder.rglob("*"):
        wanted = path.suffix in SUFFIXES and SKIPPED.isdisjoint(path.relative_to(folder).parts)
        if wanted and path.is_file() and path.stat().st_size:
            yield path


def find_documents(folder: Path) -> list[Path]:
    return sorted(documents(folder))


async def ingest(
    rt: Runtime, paths: Iterable[Path], index: Index, ended: Callable[[], object] = lambda: None
) -> dict[Path, Job[int]]:
    """Ingest all the documents and return their jobs; calls `ended` as each one ends."""
    jobs = {path: await rt.submit(ingest_document, path, index.file) for path in paths}
    for end in asyncio.as_completed([job.wait() for job in jobs.values()]):
        await end
        ended()
    return jobs


def standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


async def main(folder: Path, words: str) -> None:
    with tempfile.TemporaryDirectory() as place, closing(Index(Path(place, "index.sqlite"))) as index:
        async with Runtime(threads=4) as rt:
            paths = await (await rt.submit(find_documents, folder))
            with Progress() as progress:
                bar = progress.add_task(f"{len(paths)} documents", total=len(paths))
                jobs = await ingest(rt, paths, index, lambda: progress.advance(bar))
        for path, job in jobs.items():
            if error := job.exception():
                print(f"{job.reason}: {path}: {error}")
        print(f"{len(index)} documents indexed; about {words!r}:")
        for hit in index.search(words):
            print(f"  {Path(hit.path).relative_to(folder)}: {hit.title}")


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1:] else standard_library()
    bgruntime.run(main(folder, " ".join(sys.argv[2:]) or "event loop"))
