"""A planted bug: what is replaced, which promise that breaks, and why somebody might do it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Edit:
    """*old* stands exactly once in *file*, a path inside the package, and becomes *new*."""

    file: str
    old: str
    new: str

    def apply(self, package: Path) -> None:
        """Change the copy of the package. Raises ValueError if *old* is not there exactly once."""
        path = package / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file} has this {text.count(self.old)} times, not once:\n{self.old}")
        path.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True)
class Bug:
    """One planted bug, by *name*; *why* says in a sentence what it would do to a user."""

    name: str
    promise: str
    why: str
    edits: tuple[Edit, ...]


def bug(name: str, promise: str, why: str, file: str, old: str, new: str, *more: tuple[str, str, str]) -> Bug:
    """A planted bug of one edit, or of several that only together are one."""
    return Bug(name, promise, why, tuple(Edit(*edit) for edit in ((file, old, new), *more)))
