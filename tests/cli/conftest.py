from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a journal may be; and nothing says how wide the terminal is, or which journal is meant."""
    for name in ("COLUMNS", "BGRUNTIME_JOURNAL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "jobs.db"
