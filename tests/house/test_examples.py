"""Every example runs to its end, and says no word of warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APPLICATION = ROOT / "examples" / "documents"  # has tests of its own
EXAMPLES = sorted(one for one in (ROOT / "examples").rglob("*.py") if APPLICATION not in one.parents)
FRAMEWORKS = {"plain_asyncio.py", "starlette_app.py", "litestar_app.py", "quart_app.py", "aiohttp_app.py"}
NAMED = {"quickstart.py", "notify.py", "ingest.py", "durable.py"} | FRAMEWORKS
LIMIT = 50.0  # seconds


def test_there_are_examples():
    assert {example.name for example in EXAMPLES} >= NAMED


QUICK = {"quickstart.py", "plain_asyncio.py"}


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(example, marks=[pytest.mark.slow] if example.name not in QUICK else [], id=example.name)
        for example in EXAMPLES
    ],
)
def test_an_example_runs_and_warns_of_nothing(example, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", example],
        cwd=tmp_path,  # what it writes, it writes beside nobody's files
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    said = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, said
    for word in ("Warning:", "Traceback", "Exception ignored", "never retrieved", "was destroyed"):
        assert word not in done.stderr, said
    assert done.stdout.strip(), "an example shows something"
    if example.name in FRAMEWORKS:
        assert "welcome, ada@example.org\n" in done.stdout, "the job ran, though nobody waited for it"
