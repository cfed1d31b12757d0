"""Uploaded files: bounded, private, owned by the job they were uploaded for, and removed with it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import stat
import unicodedata
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Concatenate, ParamSpec, Self, cast

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bgruntime import AcceptUnknown, Job, JournalUnavailable, Runtime, Task
from bgruntime.extend import JobSettled, JobState, ObserverHost, ports
from bgruntime.journal import Journal

from ._problems import problem
from ._space import Space, sizes_in

P = ParamSpec("P")

LIMIT = 16 * 1024 * 1024  # bytes
TOTAL = 1024 * 1024 * 1024  # bytes
FILES = 8  # of the greatest length that have room in any case
PIECE = 1024 * 1024  # bytes
DIGITS = 30  # of a length that are looked at: more than any limit has
LOOK_AFTER = 0.2  # seconds from the end of a job to a look whether its file may go
SWEEP_EVERY = 60.0  # seconds
STRAY_AFTER = 600.0  # seconds without a change, until a file that no job knows is removed
NAME = re.compile(r"upload-[0-9a-f]{32}")
OURS = "process-"  # folders of one process each, locked while it lives
CLAIM = ".claim"  # beside the name of a file in the common folder whose job is being submitted


class Uploads:
    """Keeps uploaded files in a private folder for as long as their jobs need them.

    ``uploads = Uploads("uploads")``, ``Runtime(journal=..., observers=[uploads])``, and in an endpoint
    ``job = await uploads.submit(rt, work, file)``: the task gets the path as its first argument.

    A file has a name of our own, whatever the client calls it, and goes when its job is over, however
    that ended, started or not. That of a durable job is on disk before `submit` returns, survives the
    process, and stays as long as a failure of the job can be redriven; that of any other job goes with
    the process at the latest. What a killed process left behind is removed by the next one.

    Args:
        folder: made if it is not there; several processes may share it, and share the journal then.
        limit: bytes a file may have.
        total: bytes that all files in the folder may have together, those that stay for a failure to be
            redriven included; 1 GiB unless given, or what 8 files of *limit* have where that is more.
            What other processes keep in the folder is known with a delay of about a second.

    Raises:
        ValueError: *limit* is less than 1, or *total* is less than *limit*.
    """

    listens_to = (JobSettled,)

    def __init__(
        self, folder: str | os.PathLike[str], *, limit: int = LIMIT, total: int | None = None
    ) -> None:
        if limit < 1:
            raise ValueError(f"limit is in bytes and must be at least 1, got {limit!r}")
        if total is not None and total < limit:
            raise ValueError(f"total is in bytes and must be at least limit, {limit}, got {total!r}")
        self.folder = Path(folder).absolute()
        self.limit = limit
        self.total = max(TOTAL, FILES * limit) if total is None else total
        self._forget()

    def _forget(self) -> None:
        self._ports = ports.current()
        self._space = Space(self.total, self._sizes)
        self._owned: dict[str, Path] = {}  # by the id of a job that is not durable
        self._over: set[str] = set()  # names, of durable jobs that ended
        self._wake = asyncio.Event()
        self._next_sweep = 0.0
        self._sweeper: asyncio.Task[None] | None = None
        self._host: ObserverHost | None = None
        self._here: Path | None = None
        self._lock = -1

    # -- its life ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._forget()
        await run_in_threadpool(self._open)
        return self

    def _open(self) -> None:
        self.folder.mkdir(0o700, parents=True, exist_ok=True)
        check_private(self.folder)
        for left in self.folder.glob(f"{OURS}*"):
            _remove_unless_locked(left)
        while self._here is None:
            self._here = self._made(self.folder / f"{OURS}{self._ports.token(8).hex()}")

    def _made(self, here: Path) -> Path | None:
        """The new folder, locked; None when a process that starts now took it for one left behind."""
        here.mkdir(0o700)
        with suppress(FileNotFoundError, BlockingIOError):
            self._lock = _locked(here)
            if here.exists():
                return here
            os.close(self._lock)
        return None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
        here, self._here = self._here, None
        assert here is not None
        await run_in_threadpool(shutil.rmtree, here, ignore_errors=True)
        os.close(self._lock)

    def attach(self, host: ObserverHost, /) -> None:
        """Begin to remove what the jobs of this runtime need no more."""
        self._host = host
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep_on(), name="bgruntime uploads")

    # -- in ------------------------------------------------------------------------------------

    async def submit(
        self,
        rt: Runtime,
        task: Callable[Concatenate[Path, P], Any],
        file: UploadFile | AsyncIterable[bytes],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Job[Any]:
        """Keep *file*, an upload or the pieces of one, and submit *task* with its path and the arguments.

        An `UploadFile` is closed. Whatever is raised, a cancellation included, nothing of the file stays.

        Raises:
            HTTPException: 413, the file has more bytes than the limit; 503 with Retry-After, it and all
                others would have more than the total.
            OSError: it cannot be written.
            RuntimeError: this is not among the observers of a running runtime.
            QueueFull, RuntimeClosed, PayloadError, JournalUnavailable: as `Runtime.submit`.
            AcceptUnknown: the same; the file stays until it is known.
        """
        if self._here is None:
            raise RuntimeError("these uploads belong to no running runtime: Runtime(observers=[uploads])")
        durable = _is_durable(task)
        name = f"upload-{self._ports.token(16).hex()}"
        arriving, claim = self._here / name, self._here / f"{name}{CLAIM}"
        path = self.folder / name if durable else arriving
        wanted: Any = _with_id(task, name) if durable else task
        try:
            await self._receive(file, arriving)
            if durable:
                claim.touch(0o600)  # before other processes see a file whose job no journal knows yet
                await run_in_threadpool(_move, arriving, path)
            job: Job[Any] = await rt.submit(wanted, path, *args, **kwargs)
        except AcceptUnknown:
            raise
        except BaseException:
            arriving.unlink(missing_ok=True)  # first: a move that is still going on fails then
            path.unlink(missing_ok=True)
            self._space.give_back(name)
            raise
        finally:
            claim.unlink(missing_ok=True)
        if not durable:
            self._owned[job.id] = path
            if job.done():
                self._remove_owned(job.id)
        return job

    async def _receive(self, file: UploadFile | AsyncIterable[bytes], path: Path) -> None:
        with open_private(path) as target:
            if isinstance(file, UploadFile):
                try:
                    await run_in_threadpool(self._copy, file.file, target, path.name)
                finally:
                    await file.close()
            else:
                async for piece in file:
                    await run_in_threadpool(self._write, piece, target, path.name)

    def _copy(self, source: BinaryIO, target: BinaryIO, name: str) -> None:
        """Copy all of *source*, or refuse it before anything is written."""
        source.seek(0, os.SEEK_END)
        size = source.tell()
        self._check_length(size)
        self._space.take(name, size)
        source.seek(0)
        shutil.copyfileobj(source, target, PIECE)

    def _write(self, piece: bytes, target: BinaryIO, name: str) -> None:
        self._check_length(target.tell() + len(piece))
        self._space.take(name, len(piece))
        target.write(piece)

    def _check_length(self, size: int) -> None:
        if size > self.limit:
            raise HTTPException(413, f"a file here has at most {self.limit} bytes")

    def _sizes(self) -> dict[str, int]:
        """The bytes of all uploads, in the folders of processes first: they are moved out of there."""
        sizes: dict[str, int] = {}
        for folder in (*self.folder.glob(f"{OURS}*"), self.folder):
            sizes |= sizes_in(folder, NAME.fullmatch)
        return sizes

    # -- and out -------------------------------------------------------------------------------

    def on_event(self, event: JobSettled, /) -> None:
        """A job is over, and its file may go."""
        id = event.job.id
        if id in self._owned:
            self._remove_owned(id)
        elif NAME.fullmatch(id) and event.state != JobState.AVAILABLE:
            self._over.add(id)
            self._wake.set()

    def _remove_owned(self, id: str) -> None:
        path = self._owned.pop(id, None)
        if path is not None:
            path.unlink(missing_ok=True)
            self._space.give_back(path.name)

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AFTER)  # many end at once, and the journal writes them together
            try:
                if self._ports.monotonic() >= self._next_sweep:
                    await self.sweep()
                while self._over:
                    await self._remove_if_over(self._over.pop(), ended=True)
            except JournalUnavailable:  # which says so itself
                pass
            except OSError as error:
                assert self._host is not None
                self._host.complain("uploads failed to remove files", error)
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_EVERY):
                    await self._wake.wait()

    async def sweep(self) -> None:
        """Remove the files whose jobs are over, and those of no job that have not changed for 10 minutes."""
        self._next_sweep = self._ports.monotonic() + SWEEP_EVERY
        now = self._ports.time()
        for name, changed in await run_in_threadpool(_files_in, self.folder):
            await self._remove_if_over(name, ended=now - changed > STRAY_AFTER)

    async def _remove_if_over(self, name: str, *, ended: bool) -> None:
        """Remove the file when the journal says that its job is over, with *ended* also when it knows none.

        Nobody else says so: a job that has ended and whose end is not yet written runs again after a crash.
        """
        assert self._host is not None
        journal: Journal | None = self._host.runtime.journal
        kept = None if journal is None else await journal.get(name)
        if ended if kept is None else kept.state in ("completed", "cancelled"):
            (self.folder / name).unlink(missing_ok=True)
            self._space.give_back(name)


class BodyLimit:
    """ASGI middleware: 413 for a request whose body has more than *limit* bytes.

    `Uploads` limits what is kept, this what is received: the whole of a form is read, and on disk, before
    an endpoint runs. ``app.add_middleware(BodyLimit, limit=20_000_000)``.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on what is received and count it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        received, over, began = 0, _announced(scope) > self._limit, False

        async def counted() -> Message:
            nonlocal received, over
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                over = True
                raise HTTPException(413)
            return message

        async def noted(message: Message) -> None:
            nonlocal began
            if began or not over:
                began = True
                await send(message)

        if not over:
            try:
                await self.app(scope, counted, noted)
            except HTTPException:
                if began or not over:
                    raise
        if over and not began:
            detail = f"a body here has at most {self._limit} bytes"
            await problem(413, detail, headers={"Connection": "close"})(scope, receive, send)


def _announced(scope: Scope) -> int:
    """The length of the body as its header says; 0 where it does not."""
    given = dict(scope["headers"]).get(b"content-length", b"0").lstrip(b"0")
    return int(given[:DIGITS]) if given.isdigit() else 0


def safe_name(filename: str | None) -> str:
    """What may be shown of the name a client gave its file. Never a path: do not open it."""
    last = re.split(r"[/\\]", filename or "")[-1]
    shown = "".join(character for character in unicodedata.normalize("NFC", last) if character.isprintable())
    return shown.strip(" .")[:100] or "unnamed"


def check_private(folder: Path) -> None:
    """Raise PermissionError unless *folder* is a real one of this user's, and of nobody else's."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{folder} must be a directory of this user with mode 0700, for uploads to be private"
        )


def open_private(path: Path) -> BinaryIO:
    """A new file to write, which nobody else may read. Raises FileExistsError, and follows no link."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb")


def _is_durable(task: Any) -> bool:
    return isinstance(task, Task) and cast("Task[..., Any]", task).options.durable


def _with_id(task: Any, id: str) -> Any:
    return task.with_options(id=id)


def _move(arrived: Path, path: Path) -> None:
    """Move a file so that it and its new name survive a loss of power."""
    _sync(arrived)
    arrived.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files_in(folder: Path) -> list[tuple[str, float]]:
    """The files of durable jobs that have been submitted, and when each was changed last."""
    found: list[tuple[str, float]] = []
    with os.scandir(folder) as entries:
        for one in entries:
            if NAME.fullmatch(one.name):
                with suppress(FileNotFoundError):  # somebody else has removed it meanwhile
                    found.append((one.name, one.stat(follow_symlinks=False).st_mtime))
    claimed = _claimed_in(
        folder
    )  # looked up last: a claim is there before its file, and goes once it is known
    return [(name, changed) for name, changed in found if name not in claimed]


def _claimed_in(folder: Path) -> set[str]:
    """The files whose jobs are being submitted, by any process."""
    claimed: set[str] = set()
    for process in folder.glob(f"{OURS}*"):
        with suppress(FileNotFoundError):  # it has ended
            claimed.update(one.stem for one in process.iterdir() if one.suffix == CLAIM)
    return claimed


def _locked(folder: Path) -> int:
    """A descriptor that holds the lock on *folder*. Raises BlockingIOError: another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove_unless_locked(folder: Path) -> None:
    """Remove what a process left that is no more."""
    with suppress(OSError):
        lock = _locked(folder)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


__all__ = ["BodyLimit", "Uploads", "safe_name"]
