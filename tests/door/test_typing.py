"""Both type checkers accept and refuse what `tests/typing` says, line by line."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLAIMS = ROOT / "tests" / "typing"
IGNORE = re.compile(r"  # type: ignore\[.*\]")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def mypy(file: Path, folder: Path) -> set[int]:
    """The lines of `file` that mypy objects to."""
    command = ["mypy", "--strict", "--no-error-summary", "--show-error-end", "--no-incremental"]
    config = folder / "mypy.ini"
    config.write_text("[mypy]\npython_version = 3.11\n")
    done = python(*command, "--config-file", str(config), str(file))
    assert done.returncode in (0, 1), done.stderr
    found = re.findall(rf"^{re.escape(file.name)}:(\d+):.*: error: ", done.stdout, re.MULTILINE)
    assert bool(found) == bool(done.returncode), done.stdout
    return {int(line) for line in found}


def pyright(file: Path, folder: Path) -> set[int]:
    """The lines of `file` that pyright objects to."""
    (folder / "pyrightconfig.json").write_text(json.dumps({"pythonVersion": "3.11"}))
    done = python("pyright", "--outputjson", "--project", str(folder), "--pythonpath", sys.executable)
    assert done.returncode in (0, 1), done.stderr + done.stdout
    said = json.loads(done.stdout)["generalDiagnostics"]
    return {
        each["range"]["start"]["line"] + 1
        for each in said
        if each["severity"] == "error" and Path(each["file"]).name == file.name
    }


def python(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        cwd=Path(arguments[-1]).parent if module == "mypy" else ROOT,
        env=environment(),
        timeout=280,
    )


def environment() -> dict[str, str]:
    return {**os.environ, "MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)}


CHECKERS = {"mypy": mypy, "pyright": pyright}


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize("name", ["accepted.py", "refused.py"])
def test_a_checker_objects_to_the_lines_that_are_marked_and_to_no_other(
    checker: str, name: str, tmp_path: Path
) -> None:
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed: it comes with the dependency group dev")
    lines = (CLAIMS / name).read_text().splitlines()
    marked = {number for number, line in enumerate(lines, 1) if IGNORE.search(line)}
    copy = tmp_path / name
    copy.write_text("\n".join(IGNORE.sub("", line) for line in lines) + "\n")
    found = CHECKERS[checker](copy, tmp_path)
    assert {number: lines[number - 1].strip() for number in found ^ marked} == {}
