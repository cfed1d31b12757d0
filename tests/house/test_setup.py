"""What stands around the code: commands, bounds, scripts."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCRIPTS = [ROOT / ".ci" / "run", *sorted((ROOT / ".ci").glob("*.sh"))]
TOP = {"pyproject.toml", "bgruntime", "benchmarks", "tests", "examples", "README.md"}
TOP |= {"Makefile", "LICENSE", "CHANGELOG.md", "docs"}


def requirements() -> list[str]:
    groups = [need for group in PROJECT["dependency-groups"].values() for need in group]
    extras = [
        need for extra in PROJECT["project"].get("optional-dependencies", {}).values() for need in extra
    ]
    return [need for need in [*PROJECT["project"]["dependencies"], *extras, *groups] if isinstance(need, str)]


@pytest.mark.parametrize("need", requirements())
def test_every_requirement_has_a_lower_bound_and_no_upper_one(need):
    assert re.fullmatch(r"[a-z0-9-]+(\[[a-z,]+\])?(>=|==)[0-9.]+(; .+)?", need)


def test_help_lists_every_command():
    shown = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert re.findall(r"make ([\w-]+)", shown) == (
        "help demo documents test check prove cov bench bench-full docs".split()
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_scripts_are_sound_bash(script):
    subprocess.run(["bash", "-n", script], check=True)


def test_the_package_tells_type_checkers_that_it_is_typed():
    assert (ROOT / "bgruntime" / "py.typed").exists()
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"]


def test_the_changelog_tells_of_this_version():
    assert f"\n## {PROJECT['project']['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_nothing_else_stands_at_the_top():
    ours = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not ours:
        pytest.skip("not a git checkout")
    top = {line.partition("/")[0] for line in ours.splitlines()}
    assert {name for name in top if not name.startswith(".")} - TOP == set()
