"""The documentation is true: its code runs, its commands exist, its links lead somewhere.

A Python block is a script of its own and runs as it stands. One that cannot run says so and why:

    ```python no-run: needs a mail server
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LIMIT = 30.0  # seconds a block may run

SHELLS = {"sh", "bash", "shell", "console"}
PYTHONS = re.compile(r"^python3?(\.\d+)?$")
ORDINARY = {"bash", "cd", "cp", "curl", "docker", "export", "git", "kill", "ls", "mkdir", "uv", "uvicorn"}
FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>[^`\n]*)\n(?P<body>.*?)^ *(?P=fence)`* *$", re.M | re.S
)
LINK = re.compile(
    r"(?<!\!)\[[^\]]+\]\((?P<target>[^)\s#]*)(?P<anchor>#[^)\s]+)?\)|!\[[^\]]*\]\((?P<image>[^)\s]+)\)"
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    info: str
    body: str

    @property
    def language(self) -> str:
        return self.info.split(maxsplit=1)[0] if self.info else ""

    @property
    def note(self) -> str:
        """What stands after the language: nothing, or why the block is not run."""
        return self.info[len(self.language) :].strip()

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block: the lines after a prompt, or all when there is none."""
        lines = [line for line in self.body.replace("\\\n", " ").splitlines() if line.strip()]
        prompted = [line.strip()[2:] for line in lines if line.strip().startswith("$ ")]
        return prompted or [line for line in lines if not line.lstrip().startswith("#")]


def blocks_of(text: str, page: str = "page.md") -> list[Block]:
    """The fenced blocks of a page, in their order."""
    found = []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        body = re.sub(rf"(?m)^{match['indent']}", "", match["body"])
        found.append(Block(page, line, match["info"].strip(), body))
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page.read_text(), page.relative_to(ROOT).as_posix())]


def blocks(*languages: str) -> pytest.MarkDecorator:
    chosen = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", chosen, ids=lambda block: block.name)


def why_not_run(block: Block) -> str | None:
    """The reason a block gives for not being run; None when it is to be run."""
    if not block.note:
        return None
    marked = re.fullmatch(r"no-run: (?P<reason>\S.{4,})", block.note)
    assert marked, f"{block.name}: say '```python no-run: the reason', not {block.info!r}"
    return marked["reason"]


def objections(command: str) -> list[str]:
    """What is wrong with a shell command: a target, a file, a module or an extra that is not there."""
    words = shlex.split(command, comments=True)
    while words and (re.match(r"^[A-Z_]+=", words[0]) or words[0] in {"env", "time", "sudo", "exec"}):
        words.pop(0)
    if not words:
        return []
    program, *rest = words
    wrong = [f"no such file: {word}" for word in rest if names_a_file(word) and not (ROOT / word).exists()]
    if program == "make":
        targets = [word for word in rest if not word.startswith("-") and "=" not in word]
        wrong += [f"no such target: make {target}" for target in targets if target not in make_targets()]
    elif PYTHONS.match(program) and rest[:1] == ["-m"]:
        wrong += [] if find_module(rest[1]) else [f"no such module: {rest[1]}"]
        if rest[1] == "pip":
            wrong += pip_objections(rest[2:])
    elif PYTHONS.match(program):
        wrong += [
            f"no such file: {word}"
            for word in rest[:1]
            if word.endswith(".py") and not (ROOT / word).exists()
        ]
    elif program in {"pip", "pip3"}:
        wrong += pip_objections(rest)
    elif program == "bgruntime":
        wrong += [] if "bgruntime" in project().get("scripts", {}) else ["no such program: bgruntime"]
    elif program not in ORDINARY:
        wrong.append(f"unknown program: {program}")
    return list(dict.fromkeys(wrong))


def pip_objections(words: list[str]) -> list[str]:
    """The extras a `pip install bgruntime[…]` asks for that the project does not have."""
    asked = [extra for word in words for extra in re.findall(r"^bgruntime\[(.+)\]", word)]
    extras = project().get("optional-dependencies", {})
    return [f"no such extra: {e}" for names in asked for e in names.split(",") if e.strip() not in extras]


def names_a_file(word: str) -> bool:
    return re.match(r"^(\./)?(\.ci|benchmarks|bgruntime|docs|examples|tests)/", word) is not None


def find_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None and (
            name.partition(".")[0] != "bgruntime" or importlib.util.find_spec(f"{name}.__main__") is not None
        )
    except ModuleNotFoundError:
        return False


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))


def project() -> dict[str, Any]:
    """The table [project] of pyproject.toml."""
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


# ── the documentation ──


def test_the_readme_starts_with_code_that_is_run():
    runnable = [b for b in BLOCKS if b.page == "README.md" and b.language == "python" and not why_not_run(b)]
    assert runnable


@blocks("python")
def test_a_python_block_runs(block, tmp_path):
    if reason := why_not_run(block):
        compile(block.body, block.name, "exec")
        pytest.skip(reason)
    script = tmp_path / "block.py"
    script.write_text(block.body)
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, f"{block.name}\n{done.stdout}\n{done.stderr}"
    # One in a log line is that of a job, and set in.
    assert not re.search("^Traceback", done.stderr, re.MULTILINE), f"{block.name}\n{done.stderr}"


@blocks(*SHELLS)
def test_the_commands_of_a_shell_block_exist(block):
    assert {command: objections(command) for command in block.commands if objections(command)} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_inside_the_project_leads_somewhere(page):
    prose = FENCE.sub("", page.read_text())
    targets = [match["target"] or match["image"] for match in LINK.finditer(prose)]
    inside = [target for target in targets if target and not re.match(r"^[a-z]+:", target)]
    assert [target for target in inside if not (page.parent / target).exists()] == []


# ── the test of the test ──

PAGE = """
# Title

```python
print("one")
```

1. A list

   ```python no-run: needs a mail server
   print("two")
   ```

````text
```python
not a block of its own
```
````

```console
$ make test
12 passed
$ python -m bgruntime \\
    failures
```
"""


def test_the_blocks_of_a_page_are_found_with_their_lines_and_notes():
    one, two, text, shell = blocks_of(PAGE)
    assert (one.line, one.language, one.body) == (4, "python", 'print("one")\n')
    assert (two.language, two.body, why_not_run(two)) == ("python", 'print("two")\n', "needs a mail server")
    assert text.language == "text"
    assert [" ".join(command.split()) for command in shell.commands] == [
        "make test",
        "python -m bgruntime failures",
    ]


@pytest.mark.parametrize("note", ["no-run", "no-run:", "no-run: x", "skip: because I say so"])
def test_a_block_that_is_not_run_must_give_its_reason(note):
    (block,) = blocks_of(f"```python {note}\npass\n```\n")
    with pytest.raises(AssertionError, match="the reason"):
        why_not_run(block)


@pytest.mark.parametrize(
    ("command", "objection"),
    [
        ("make everything", "no such target: make everything"),
        ("python examples/no_such.py", "no such file: examples/no_such.py"),
        ("python no_such.py", "no such file: no_such.py"),
        ("python -m no_such_module", "no such module: no_such_module"),
        ("python -m bgruntime.no_such", "no such module: bgruntime.no_such"),
        ("pip install 'bgruntime[no-such]'", "no such extra: no-such"),
        ("python3 -m pip install bgruntime[no-such]", "no such extra: no-such"),
        ("bash .ci/no-such", "no such file: .ci/no-such"),
        ("frobnicate --all", "unknown program: frobnicate"),
    ],
)
def test_a_command_that_cannot_work_is_found(command, objection):
    assert objection in objections(command)


@pytest.mark.parametrize(
    "command",
    [
        "make test",
        "make test PYTHON=python3.13",
        "make bench-full",
        "make -s help",
        "PIP_QUIET=1 pip install bgruntime",
        "cd project  # here",
    ],
)
def test_a_command_that_works_is_left_in_peace(command):
    assert objections(command) == []
