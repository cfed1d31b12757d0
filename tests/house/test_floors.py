"""Who may import whom, room by room. Read from the source with `ast`; nothing is imported."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "bgruntime"

BELOW = {"_model", "_parts"}
ENGINE = {"_engine"}
WINDOWS = {"__init__", "extend"}  # what the others may see of the house
DOOR = {"_runtime", "_task", "_fanout", "_group", "_context", "_run", "_host", "_reserve"}
WINGS = {"journal", "metrics", "logs", "alerts", "schedule", "health", "testing"}
WHOLE = {"settings", "stack"}
EDGES = {"integrations", "dashboard", "cli", "__main__"}

# room: the rooms it may import beside itself, and the third parties (None: its framework, whichever)
ALLOWED: dict[str, tuple[set[str], set[str] | None]] = {
    "_model": (set(), set()),
    "_parts": (set(), set()),
    "_engine": (BELOW, set()),
    **{room: (BELOW | ENGINE | DOOR | WINDOWS, set()) for room in DOOR | WINDOWS},
    **{room: (WINDOWS, set()) for room in WINGS},
    "settings": (WINDOWS | WINGS, {"pydantic", "pydantic_settings"}),
    "stack": (WINDOWS | WINGS | {"settings"}, {"pydantic_settings"}),
    **dict.fromkeys(EDGES, (WINDOWS | WINGS | WHOLE, None)),
    "__main__": ({"cli"}, None),
}

# A driver belongs to one room, or to one file of it.
DRIVERS = {
    "_task.py": {"tenacity"},
    "_context.py": {"structlog"},
    "_run.py": {"uvloop"},
    "journal": {"aiosqlite", "pydantic", "pydantic_core", "typing_extensions"},
    "logs": {"structlog"},
    "alerts": {"apprise"},
    "testing": {"pytest"},
}

# `_model` has no loop, no clock, no I/O: not even the standard library's.
NO_SUCH_THING_IN_MODEL = {"concurrent", "io", "os", "secrets", "select", "selectors", "socket"}
NO_SUCH_THING_IN_MODEL |= {"sqlite3", "subprocess", "tempfile", "threading", "time"}

# The one exception: the door reaches the wings through `stack`, imported when a runtime starts.
LATE_EXCEPTION = ("_runtime.py", "stack")

# The window shows `RuntimeSettings`, imported when somebody asks for it: pydantic-settings is slow to load.
SHOWN_LATE = ("__init__.py", "settings", "RuntimeSettings")


@dataclass(frozen=True)
class Import:
    """One imported module: where it stands, what it names, and whether it waits inside a function."""

    file: str
    line: int
    module: str
    late: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.module}"


def violations(package: Path) -> list[str]:
    """Return a sentence for each import in `package` that leaves its floor."""
    found: list[str] = []
    late: list[Import] = []
    for path in sorted(package.rglob("*.py")):
        room = room_of(path, package)
        if room not in ALLOWED:
            found.append(
                f"{path.relative_to(package)}: '{room}' is no room of the house; give it a floor first"
            )
            continue
        for imported in imports(path, package):
            if (imported.file, target_room(imported, package)) == LATE_EXCEPTION and imported.late:
                late.append(imported)
            elif imported.late and is_shown_late(imported, package):
                continue
            elif objection := objection_to(imported, room, package):
                found.append(f"{imported}: {objection}")
    found += [f"{again}: the door reaches the wings in one place, {late[0]}" for again in late[1:]]
    return found


def objection_to(imported: Import, room: str, package: Path) -> str | None:
    """Say why this import is not allowed in this room; None when it is."""
    rooms, third_parties = ALLOWED[room]
    top = imported.module.partition(".")[0]
    if top == package.name:
        target = target_room(imported, package)
        if target == room and not another_edge(imported, package):
            return None
        return None if target in rooms else f"{room} may not import {target}"
    if top in sys.stdlib_module_names:
        return f"{room} has no use for {top}" if room == "_model" and top in NO_SUCH_THING_IN_MODEL else None
    drivers = DRIVERS.get(room, set()) | DRIVERS.get(imported.file, set())
    if third_parties is None or top in third_parties | drivers:
        return None
    return f"{room} may not import {top}"


def is_shown_late(imported: Import, package: Path) -> bool:
    file, room, name = SHOWN_LATE
    return (
        imported.file == file
        and target_room(imported, package) == room
        and imported.module.split(".")[-1] == name
    )


def another_edge(imported: Import, package: Path) -> bool:
    """Each module of `integrations` is an edge of its own; what begins with an underscore is shared."""
    if not imported.file.startswith("integrations/"):
        return False
    parts = imported.module.split(".")
    home = Path(imported.file).parts[1].removesuffix(".py")
    neighbour = parts[2] if len(parts) > 2 else home
    is_module = (package / "integrations" / neighbour).exists() or (
        package / "integrations" / f"{neighbour}.py"
    ).exists()
    return is_module and neighbour != home and not neighbour.startswith("_")


def room_of(path: Path, package: Path) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


def target_room(imported: Import, package: Path) -> str:
    """Return the room that an import of ours leads into: a name that is no module is in the window."""
    parts = imported.module.split(".")
    if parts[0] != package.name:
        return ""
    if len(parts) > 1 and (parts[1] in ALLOWED or (package / parts[1]).is_dir()):
        return parts[1]
    return "__init__"


def imports(path: Path, package: Path) -> Iterator[Import]:
    """Yield every module a file imports, by statement or by `import_module("…")`, wherever it stands."""
    file = path.relative_to(package).as_posix()
    home = [package.name, *path.relative_to(package).parts[:-1]]
    tree = ast.parse(path.read_text(), filename=str(path))
    late = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(outer)
    }
    for_checkers = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.If) and ast.unparse(outer.test).endswith("TYPE_CHECKING")
        for statement in outer.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in for_checkers and "settings" in ast.unparse(node):
            continue  # a name in a signature: nothing is imported
        for module in modules_named(node, home):
            yield Import(file, getattr(node, "lineno", 0), module, id(node) in late)


def modules_named(node: ast.AST, home: list[str]) -> Iterator[str]:
    """Yield the absolute dotted names that one node of the syntax tree imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = absolute(node.module or "", node.level, home)
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
        for name in node.args[:1]:
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                dots = len(name.value) - len(name.value.lstrip("."))
                yield absolute(name.value.lstrip("."), dots, home)


def absolute(module: str, level: int, home: list[str]) -> str:
    base = home[: len(home) - level + 1] if level else []
    return ".".join([*base, *([module] if module else [])])


def called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


# ── the house itself ──


def test_every_import_stays_on_its_floor():
    assert violations(PACKAGE) == []


# ── and the test of the test ──

PLANTED = [
    ("_model/jobs.py", "from bgruntime._parts import slots", "_model may not import _parts"),
    ("_model/jobs.py", "from .._engine.admit import admit", "_model may not import _engine"),
    ("_model/jobs.py", "import time", "_model has no use for time"),
    ("_model/jobs.py", "from time import monotonic", "_model has no use for time"),
    ("_model/jobs.py", "import attrs", "_model may not import attrs"),
    ("_parts/slots.py", "from .._model import errors", "_parts may not import _model"),
    ("_parts/slots.py", "import anyio.to_thread", "_parts may not import anyio"),
    ("_engine/admit.py", "from .. import Runtime", "_engine may not import __init__"),
    ("_engine/admit.py", "from .._runtime import Runtime", "_engine may not import _runtime"),
    ("_engine/admit.py", "import bgruntime.metrics", "_engine may not import metrics"),
    ("_engine/admit.py", "import anyio", "_engine may not import anyio"),
    ("_engine/admit.py", "def f():\n    import structlog", "_engine may not import structlog"),
    ("_runtime.py", "from .journal import Journal", "_runtime may not import journal"),
    ("_runtime.py", "def f():\n    from bgruntime import logs", "_runtime may not import logs"),
    ("_runtime.py", "from . import stack", "_runtime may not import stack"),
    ("_runtime.py", "from .stack import build", "_runtime may not import stack"),
    ("_runtime.py", "import structlog", "_runtime may not import structlog"),
    ("_task.py", "def f():\n    from .stack import build", "_task may not import stack"),
    ("_run.py", "def f():\n    from .settings import x", "_run may not import settings"),
    ("extend.py", "from .testing import simulate", "extend may not import testing"),
    ("__init__.py", "from .cli import main", "__init__ may not import cli"),
    ("__init__.py", "def __getattr__(name):\n    from . import settings", "__init__ may not import settings"),
    ("journal/__init__.py", "from .._model.errors import X", "journal may not import _model"),
    ("journal/_writer.py", "from ..metrics import Metrics", "journal may not import metrics"),
    ("journal/_writer.py", "from bgruntime import metrics", "journal may not import metrics"),
    ("journal/_writer.py", "from ..settings import S", "journal may not import settings"),
    ("journal/_writer.py", "import structlog", "journal may not import structlog"),
    ("logs/__init__.py", "import aiosqlite", "logs may not import aiosqlite"),
    ("logs/__init__.py", "from ..integrations import fastapi", "logs may not import integrations"),
    ("logs/__init__.py", "import_module('bgruntime._engine.admit')", "logs may not import _engine"),
    ("logs/__init__.py", "importlib.import_module('..cli', __package__)", "logs may not import cli"),
    ("settings.py", "from .cli import main", "settings may not import cli"),
    ("stack.py", "from ._runtime import Runtime", "stack may not import _runtime"),
    ("stack.py", "import fastapi", "stack may not import fastapi"),
    ("integrations/fastapi.py", "from .._runtime import Runtime", "integrations may not import _runtime"),
    ("integrations/fastapi.py", "from ..dashboard import app", "integrations may not import dashboard"),
    ("integrations/fastapi.py", "from .sentry import S", "integrations may not import integrations"),
    ("cli/__init__.py", "from ..integrations.fastapi import x", "cli may not import integrations"),
    ("helpers.py", "", "'helpers' is no room of the house"),
    ("utils/__init__.py", "", "'utils' is no room of the house"),
]

FINE = [
    ("_model/jobs.py", "import enum, dataclasses\nfrom . import states\nfrom .states import State"),
    ("_engine/admit.py", "from .._model import errors\nfrom bgruntime._parts.slots import Slots"),
    ("_runtime.py", "from ._engine import admit\nfrom ._task import Task\nfrom .extend import ports"),
    ("_runtime.py", "async def f():\n    from .stack import observers"),
    ("_runtime.py", "if TYPE_CHECKING:\n    from .settings import RuntimeSettings"),
    ("__init__.py", "def __getattr__(name):\n    from .settings import RuntimeSettings"),
    ("_task.py", "import tenacity"),
    (
        "journal/_writer.py",
        "import aiosqlite\nfrom bgruntime import Runtime, extend\nfrom ._schema import SQL",
    ),
    ("logs/__init__.py", "import structlog\nfrom bgruntime.extend import Observer"),
    ("stack.py", "from . import journal, logs\nfrom .settings import RuntimeSettings"),
    (
        "integrations/fastapi.py",
        "import fastapi\nfrom ._starlette import core\nfrom .. import Runtime, journal",
    ),
    ("integrations/sentry.py", "import sentry_sdk\nfrom bgruntime.extend import Middleware"),
    ("cli/__init__.py", "import typer\nfrom ..stack import build"),
]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A house with a file of each kind in it, and no import anywhere."""
    package = tmp_path / "bgruntime"
    for file in [
        *(file for file, *_ in FINE),
        "integrations/_starlette.py",
        "dashboard/app.py",
        "metrics/x.py",
    ]:
        write(package, file, "")
    return package


def write(package: Path, file: str, source: str) -> None:
    path = package / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)


def test_a_house_without_imports_has_no_violations(house):
    assert violations(house) == []


@pytest.mark.parametrize(("file", "source", "objection"), PLANTED)
def test_a_planted_import_is_found(house, file, source, objection):
    write(house, file, source)
    (found,) = violations(house)
    assert objection in found
    assert file in found


@pytest.mark.parametrize(("file", "source"), FINE)
def test_what_the_plan_allows_is_allowed(house, file, source):
    write(house, file, source)
    assert violations(house) == []


def test_the_door_reaches_the_wings_in_one_place_only(house):
    write(house, "_runtime.py", "def f():\n    from .stack import a\ndef g():\n    from .stack import b")
    (found,) = violations(house)
    assert "in one place, _runtime.py:2" in found
