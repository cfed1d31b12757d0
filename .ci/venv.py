"""Makes a virtual environment with this project and one group of tools in it, and prints its Python.

    python3 .ci/venv.py test        one group of [dependency-groups]: test, dev, bench or demo
    python3 .ci/venv.py lowest      the tests, with every dependency at its lower bound

Needs a Python of 3.11 or newer and either pip or ensurepip; nothing else. There is one
environment per version of Python, in .venvs/. When pyproject.toml has not changed since the
last time, nothing is done.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".venvs"
PIP = "pip>=25.1"  # the first that installs [dependency-groups]
OLDEST = (3, 11)


def main(group: str) -> None:
    """Print the path of a Python in which the project and `group` are installed."""
    if sys.version_info < OLDEST:
        sys.exit(
            f"bgruntime needs Python 3.11 or newer, {sys.executable} is {version()}: make PYTHON=python3.12 …"
        )
    venv = VENVS / (f"{version()}-lowest" if group == "lowest" else version())
    VENVS.mkdir(exist_ok=True)
    with open(VENVS / f"{venv.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two makes at once: the second waits for the first
        if read(venv / f"ready-{group}") != fingerprint():
            prepare(venv, group)
    print(venv / "bin" / "python")


def prepare(venv: Path, group: str) -> None:
    """Install everything, and leave a mark that says so."""
    say(f"installing bgruntime and what '{group}' needs into {venv.relative_to(ROOT)} (once, up to a minute)")
    if read(venv / "made-by") != maker():
        shutil.rmtree(venv, ignore_errors=True)
        create(venv)
        (venv / "made-by").write_text(maker())
    install(venv, group)
    (venv / f"ready-{group}").write_text(fingerprint())


def create(venv: Path) -> None:
    """Make an empty environment with a recent pip, by whichever way this Python offers."""
    if has("pip"):
        run(sys.executable, "-m", "venv", "--without-pip", venv)
        pip(sys.executable, "--python", venv / "bin" / "python", "install", PIP)
    elif has("ensurepip"):
        run(sys.executable, "-m", "venv", venv)
        pip(venv / "bin" / "python", "install", "--upgrade", PIP)
    else:
        sys.exit(f"{sys.executable} has neither pip nor ensurepip. On Debian: apt-get install python3-pip")


def install(venv: Path, group: str) -> None:
    """Install the project, editable, with a group of tools."""
    if group == "lowest":
        bounds = venv / "lowest.txt"
        bounds.write_text("\n".join(lower_bounds()) + "\n")
        pip(venv / "bin" / "python", "install", "--editable", ".", "--group", "test", "--constraint", bounds)
    else:
        pip(venv / "bin" / "python", "install", "--editable", ".", "--group", group)


def lower_bounds() -> list[str]:
    """Return every run-time dependency pinned to its lower bound."""
    import tomllib

    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    extras = project.get("optional-dependencies", {}).values()
    needs = itertools.chain(project["dependencies"], *extras)
    return [re.sub(r"\[.*?\]", "", need).replace(">=", "==", 1) for need in needs]


def fingerprint() -> str:
    """Return what an environment was made from: this file, the project's, and where it stands."""
    text = read(ROOT / "pyproject.toml") + read(Path(__file__)) + maker()
    return hashlib.sha256(text.encode()).hexdigest()


def maker() -> str:
    """Return which Python makes it and where: an environment cannot be moved."""
    return f"{os.path.realpath(sys.executable)} {sys.version} {ROOT}"


def version() -> str:
    return ".".join(map(str, sys.version_info[:3]))


def has(module: str) -> bool:
    """Is it really there? The empty folder that a removed package leaves behind is not."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def pip(python: str | Path, *args: str | Path) -> None:
    run(python, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", *args)


def run(*command: str | Path) -> None:
    """Run it from the top of the project; on failure show its output and stop."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed: {' '.join(map(str, command))}")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
