"""A disk that remembers in which order it was written to and synced, and what a power cut leaves of it.

SQLite writes through a table of functions. Here those that write, truncate, sync and delete are
replaced by ones that note what they do before they do it; the rest is SQLite's own. After a power
cut what was synced is there; what was written since may be there, be missing, be there in part, and
in any order.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

SECTOR = 512
POINTER, INT = ctypes.c_void_p, ctypes.c_int
METHODS = 19  # a version, then pointers: the table of SQLite's version 3
WRITE, TRUNCATE, SYNC = 3, 4, 5  # places in it
Image = dict[str, bytes]


class Vfs(ctypes.Structure):
    """The head of SQLite's own structure; what follows is copied as it stands."""

    _fields_ = [
        ("version", INT),
        ("size_of_file", INT),
        ("longest_path", INT),
        ("next", POINTER),
        ("name", ctypes.c_char_p),
        ("data", POINTER),
        ("open", POINTER),
        ("delete", POINTER),
        ("others", POINTER * 14),
    ]


OPEN = ctypes.CFUNCTYPE(INT, POINTER, POINTER, POINTER, INT, POINTER)
DELETE = ctypes.CFUNCTYPE(INT, POINTER, POINTER, INT)
WRITES = ctypes.CFUNCTYPE(INT, POINTER, POINTER, INT, ctypes.c_int64)
TRUNCATES = ctypes.CFUNCTYPE(INT, POINTER, ctypes.c_int64)
SYNCS = ctypes.CFUNCTYPE(INT, POINTER, INT)


class Event(NamedTuple):
    """Something that happened, to a file or to a job."""

    what: str
    about: Any
    at: int = 0
    data: bytes = b""


class Recorder:
    """The default file system of this process's SQLite from `install` on; `events` is what happened."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._names: dict[int, str] = {}
        self._tables: dict[int, Any] = {}
        self._kept: list[Any] = []  # what C points to must outlive it

    def note(self, what: str, about: object) -> None:
        self.events.append(Event(what, about))

    def install(self) -> None:
        """Raises AttributeError where Python's SQLite cannot be reached from here."""
        library = ctypes.CDLL(_sqlite3.__file__)
        library.sqlite3_vfs_find.restype = ctypes.POINTER(Vfs)
        library.sqlite3_vfs_find.argtypes = [ctypes.c_char_p]
        library.sqlite3_vfs_register.argtypes = [ctypes.POINTER(Vfs), INT]
        found = library.sqlite3_vfs_find(None).contents
        mine = Vfs.from_buffer_copy(found)
        mine.name = b"recorded"
        open_file, delete_file = OPEN(found.open), DELETE(found.delete)

        def opens(vfs: int, path: int | None, file: int, flags: int, answer: int) -> int:
            result = open_file(vfs, path, file, flags, answer)
            if not result and path is not None:
                self._names[file] = os.path.basename(ctypes.string_at(path).decode())
                self._watch(file)
            return result

        def deletes(vfs: int, path: int, sync: int) -> int:
            self.note("delete", os.path.basename(ctypes.string_at(path).decode()))
            return delete_file(vfs, path, sync)

        callbacks = OPEN(opens), DELETE(deletes)
        mine.open, mine.delete = (ctypes.cast(one, POINTER).value for one in callbacks)
        self._kept += [mine, *callbacks, open_file, delete_file]
        library.sqlite3_vfs_register(ctypes.byref(mine), 1)

    def _watch(self, file: int) -> None:
        """Give an open file our table: the first thing in it is the pointer to its own."""
        place = ctypes.cast(file, ctypes.POINTER(POINTER))
        theirs = place[0]
        if theirs is not None:
            if theirs not in self._tables:
                self._tables[theirs] = self._table(theirs)
            place[0] = ctypes.addressof(self._tables[theirs])

    def _table(self, theirs: int) -> Any:
        table = (POINTER * METHODS).from_buffer_copy((POINTER * METHODS).from_address(theirs))
        write, truncate, sync = WRITES(table[WRITE]), TRUNCATES(table[TRUNCATE]), SYNCS(table[SYNC])

        def writes(file: int, data: int, size: int, at: int) -> int:
            self.events.append(Event("write", self._names[file], at, ctypes.string_at(data, size)))
            return write(file, data, size, at)

        def truncates(file: int, size: int) -> int:
            self.events.append(Event("truncate", self._names[file], size))
            return truncate(file, size)

        def syncs(file: int, flags: int) -> int:
            result = sync(file, flags)
            self.note("sync", self._names[file])
            return result

        callbacks = WRITES(writes), TRUNCATES(truncates), SYNCS(syncs)
        for place, one in zip((WRITE, TRUNCATE, SYNC), callbacks, strict=True):
            table[place] = ctypes.cast(one, POINTER).value
        self._kept += [*callbacks, write, truncate, sync]
        return table


@dataclass
class Disk:
    """What is on it for good, and what has been written since."""

    synced: dict[str, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    pending: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))

    def take(self, event: Event) -> None:
        """Let it happen."""
        if event.what in ("write", "truncate"):
            self.pending[event.about].append(event)
        elif event.what == "sync":
            for one in self.pending.pop(event.about, []):
                apply(self.synced[event.about], one)
        elif event.what == "delete":
            self.synced.pop(event.about, None)
            self.pending.pop(event.about, None)

    def cut(self, chance: random.Random) -> Image:
        """What is found after the power was cut now."""
        fate: Literal["lost", "kept", "some"] = chance.choice(["lost", "kept", "some", "some"])
        image: Image = {}
        for name in {*self.synced, *self.pending}:
            content = bytearray(self.synced.get(name, b""))
            if fate != "lost":
                events = self.pending.get(name, [])
                for event in events if fate == "kept" else some(events, chance):
                    apply(content, event)
            image[name] = bytes(content)
        return image


def some(events: list[Event], chance: random.Random) -> Iterator[Event]:
    """A part of them in any order, some of them torn at the edge of a sector."""
    kept = [event for event in events if chance.random() < 0.5]
    if chance.random() < 0.5:
        chance.shuffle(kept)
    for event in kept:
        torn = event.what == "write" and chance.random() < 0.1
        size = chance.randrange(0, len(event.data) + 1, SECTOR) if torn else len(event.data)
        yield event._replace(data=event.data[:size])


def apply(content: bytearray, event: Event) -> None:
    if event.what == "truncate":
        del content[event.at :]
        return
    if len(content) < event.at:
        content.extend(bytes(event.at - len(content)))
    content[event.at : event.at + len(event.data)] = event.data
