"""Documents in SQLite, with their embeddings beside them in sqlite-vec."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import apsw
import sqlite_vec

from .minilm import LENGTH

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS document(id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS piece(id INTEGER PRIMARY KEY, document TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS piece_document ON piece(document);
CREATE VIRTUAL TABLE IF NOT EXISTS vector USING vec0(
  piece INTEGER PRIMARY KEY, owner TEXT PARTITION KEY, embedding float[{LENGTH}] distance_metric=cosine);
"""
NEAREST = """
SELECT document.id, document.name, piece.text, vector.distance
FROM vector JOIN piece ON piece.id = vector.piece JOIN document ON document.id = piece.document
WHERE vector.embedding MATCH ? AND vector.k = ? AND vector.owner = ? ORDER BY vector.distance
"""


@dataclass(frozen=True)
class Hit:
    """A piece of a document; `distance` is 0 for the same meaning and 1 for nothing in common."""

    document: str
    name: str
    text: str
    distance: float


class Index:
    """What was indexed, by owner. Threads and processes may share the file."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = apsw.Connection(str(path))  # Python's own sqlite3 may come without extensions
        self._database.set_busy_timeout(10_000)
        self._database.enable_load_extension(True)
        self._database.load_extension(sqlite_vec.loadable_path())
        self._database.enable_load_extension(False)
        self._database.transaction_mode = "IMMEDIATE"
        self._database.pragma("journal_mode", "wal")
        self._database.execute(SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *about: object) -> None:
        with self._lock:
            self._database.close()

    def put(self, document: str, owner: str, name: str, pieces: Sequence[str], vectors: Any) -> None:
        """Have *document* in the index, once, however often this is called with it."""
        run = self._database.execute
        with self._lock, self._database:  # one transaction
            self._remove(document)
            run("INSERT INTO document VALUES(?, ?, ?)", (document, owner, name))
            for text, vector in zip(pieces, vectors, strict=True):
                run("INSERT INTO piece(document, text) VALUES(?, ?)", (document, text))
                row = (self._database.last_insert_rowid(), owner, vector.tobytes())
                run("INSERT INTO vector(piece, owner, embedding) VALUES(?, ?, ?)", row)

    def _remove(self, document: str) -> None:
        run = self._database.execute
        run("DELETE FROM vector WHERE piece IN (SELECT id FROM piece WHERE document = ?)", (document,))
        run("DELETE FROM piece WHERE document = ?", (document,))
        run("DELETE FROM document WHERE id = ?", (document,))

    def search(self, owner: str, vector: Any, limit: int) -> list[Hit]:
        """The pieces nearest to *vector*, of the documents of *owner*."""
        with self._lock:
            rows = self._database.execute(NEAREST, (vector.tobytes(), limit, owner))
            return [Hit(*row) for row in rows]

    def names(self, owner: str) -> list[str]:
        """The names of all documents of *owner*."""
        with self._lock:
            rows = self._database.execute("SELECT name FROM document WHERE owner = ? ORDER BY name", (owner,))
            return [str(name) for (name,) in rows]
