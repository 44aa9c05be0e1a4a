"""One writer a run, also in a folder that several machines share.

A lock is a file that only one process can have made (`link`, which holds on network file systems,
where `flock` often holds within a machine or not at all). It names its writer, who gives a sign of
life every `BEAT` seconds. The lock of a dead writer is taken over: on the same machine when no
process of that number and start runs any more, so at once; from another machine when there was no
sign of life for `STALE` seconds, and none while this process watches, for clocks may disagree.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
import weakref
from pathlib import Path

from .files import naming
from .identity import now

BEAT = 10.0
"""Seconds between two signs of life."""
STALE = 120.0
"""Seconds after the last sign of life from which a writer on another machine may be dead."""
WATCH = 3 * BEAT
"""Seconds for which it is watched before it is taken for dead."""
POLL = 0.2
"""Seconds between two looks at a lock that is waited for."""

_NAME = re.compile(r"\.lock-(\d+)")
_UNNAMED = ".lock-{}.tmp"  # before it is linked to its name
_SIZE = 1024  # bytes of a lock's file, always as many: a sign of life is written over the last


class RunBusy(RuntimeError):
    """Raised where another process, or another `Run` of this one, is writing to the folder.

    >>> import tempfile
    >>> from coherence.lab.runs import Run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Run.open(folder, {}, seed=0):
    ...         Run.open(folder, {}, seed=0)
    Traceback (most recent call last):
        ...
    coherence.lab.runs.locks.RunBusy: ... is being written by process ...
    """


@dataclasses.dataclass(frozen=True)
class Writer:
    """Who holds a lock, as its file says."""

    host: str = "an unknown machine"  # as is all of it, while the file is being made
    space: str = ""
    """The machine since its start, and its space of process numbers; empty where none is known."""
    pid: int = 0
    started: str = ""
    """When the process started, in its system's words: numbers of processes are used again."""
    since: str = "just now"
    token: str = ""
    """Of this lock and no other."""
    step: int | None = None
    steps_per_second: float | None = None
    seen: float = dataclasses.field(default=0.0, compare=False)
    """When the last sign of life was given, by the file system's clock."""

    def lives(self) -> bool | None:
        """Whether the process runs; `None` where only watching it can tell."""
        if self.space and self.space == _space():
            return _started(self.pid) == self.started
        if _person(self) in _DEAD:
            return False
        patience = STALE if self.pid else BEAT  # an empty file takes a moment to be filled
        return True if abs(time.time() - self.seen) <= patience else None

    def memory(self) -> int | None:
        """Bytes that the process holds; `None` of one on another machine, or where none is told."""
        if not self.space or self.space != _space():
            return None
        return resident_bytes(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid or 'unknown'} on {self.host} since {self.since}"


class Lock:
    """A lock on a folder, held until released, forgotten, or the process ends or is killed.

    Args:
        folder: which must exist.
        wait: for the process that holds it, instead of refusing.

    Raises:
        RunBusy: a living writer holds it; the error says who, and since when.
        OSError: the lock cannot be written.
    """

    def __init__(self, folder: Path, *, wait: bool = False):
        self.lost = False
        """Whether another process took this one for dead, and the lock over."""
        self._folder = folder
        self._path: Path | None = None
        self._step: int | None = None
        self._before: tuple[float, int] | None = None
        pid = os.getpid()
        words = _host(), _space(), pid, _started(pid) or "", now(), uuid.uuid4().hex
        self._writer = Writer(*words)
        while self._path is None:
            try:
                self._path = self._take()
            except RunBusy:
                if not wait:
                    raise
                time.sleep(POLL)
        _keep_beating(self)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *exception) -> None:
        self.release()

    def _take(self) -> Path | None:
        """The lock's new file; `None` where another process was at it: to be tried again."""
        dead: dict[Path, str] = {}
        for path, writer in _writers(self._folder):
            if _lives_if_watched(path, writer):
                raise self._busy(writer)
            dead[path] = writer.token
        path = self._folder / f".lock-{1 + max(map(_number, dead), default=0)}"
        try:
            _make(path, self._writer)
        except FileExistsError:
            return None
        try:
            # Whoever made a file of another number meanwhile sees this one, or is seen here.
            for other, writer in _writers(self._folder):
                if other != path and dead.get(other) != writer.token:
                    raise self._busy(writer)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        for other in (*dead, *self._folder.glob(_UNNAMED.format("*"))):
            other.unlink(missing_ok=True)
        return path

    def _busy(self, writer: Writer) -> RunBusy:
        elsewhere = writer.space != _space()
        return RunBusy(
            f"{self._folder} is being written by {writer}"
            f"{' (this one)' if writer.pid == os.getpid() and not elsewhere else ''}. Wait for it, "
            "or stop it and run this again to go on from its last checkpoint; Run.read looks at "
            "it meanwhile."
            + elsewhere
            * (
                f" Its last sign of life was {max(0, time.time() - writer.seen):.0f} s ago; one "
                f"that gives none for {STALE:g} s loses its lock to whoever asks for it."
            )
        )

    def release(self) -> None:
        """Give it up."""
        path, self._path = getattr(self, "_path", None), None
        if path is None or os.getpid() != self._writer.pid:  # a forked child has none
            return
        with contextlib.suppress(OSError):
            writer = _read(path)
            if writer is not None and writer.token == self._writer.token:
                path.unlink(missing_ok=True)

    __del__ = release

    def check(self) -> None:
        """Refuse to go on where the lock was lost.

        Raises:
            RunBusy: it was.
        """
        if self.lost:
            raise RunBusy(
                f"{self._folder}: this process gave no sign of life for {STALE:g} s, and another "
                "has taken over. That one goes on from the last checkpoint; nothing more is "
                "written here."
            )

    def reach(self, step: int) -> None:
        """Note how far the writer has come; others see it after the next sign of life."""
        self._step = int(step)  # of numpy's integers JSON knows nothing
        self._before = self._before or (time.monotonic(), self._step)

    def beat(self) -> None:
        """Give a sign of life."""
        path, step, moment, rate = self._path, self._step, time.monotonic(), None
        if path is None or os.getpid() != self._writer.pid:
            return
        if step is not None and self._before is not None:
            rate = (step - self._before[1]) / max(moment - self._before[0], 1e-3)
            self._before = moment, step
        writer = dataclasses.replace(self._writer, step=step, steps_per_second=rate)
        try:
            with open(path, "r+b", buffering=0) as file:
                present = _parsed(file.read())
                self.lost = present is not None and present.token != writer.token
                if not self.lost:
                    file.seek(0)
                    file.write(_content(writer))
        except FileNotFoundError:
            self.lost = self._path is not None
        except OSError:
            pass  # the file system does not answer; the next sign may reach it


def writer_of(folder: Path) -> Writer | None:
    """Who has the lock of a folder; a dead one where nobody else."""
    writers = [writer for _, writer in _writers(folder)]
    return max(writers, key=lambda writer: writer.lives() is not False, default=None)


def remove_dead(folder: Path) -> None:
    """Remove the locks of writers of this machine that died when their work was whole."""
    for path, writer in _writers(folder):
        if writer.lives() is False:
            with contextlib.suppress(OSError):
                path.unlink()


# Files


def _writers(folder: Path) -> list[tuple[Path, Writer]]:
    """The files of locks in a folder and who made them, by number."""
    paths = [folder / name for name in os.listdir(folder) if _NAME.fullmatch(name)]
    read = [(path, _read(path)) for path in sorted(paths, key=_number)]
    return [(path, writer) for path, writer in read if writer is not None]


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _read(path: Path) -> Writer | None:
    """Who made the file of a lock; `None` where it is gone."""
    try:
        with open(path, "rb") as file:  # opened, for network file systems then ask their server
            seen = os.fstat(file.fileno()).st_mtime
            return dataclasses.replace(_parsed(file.read()) or Writer(), seen=seen)
    except FileNotFoundError:
        return None


def _make(path: Path, writer: Writer) -> None:
    """The file of a lock, whole at once: who is killed meanwhile has none.

    Where the file system has no hard links it is made empty, then filled.

    Raises:
        FileExistsError: there is one, or whoever just got another took this for a killed one's.
    """
    unnamed = path.with_name(_UNNAMED.format(writer.token))
    try:
        with naming(path):
            unnamed.write_bytes(_content(writer))
        try:
            os.link(unnamed, path)
        except (FileExistsError, FileNotFoundError):
            raise FileExistsError(path) from None
        except OSError:
            _make_empty_and_fill(path, writer)
    finally:
        unnamed.unlink(missing_ok=True)


def _make_empty_and_fill(path: Path, writer: Writer) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with naming(path), os.fdopen(descriptor, "wb") as file:
            file.write(_content(writer))
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _content(writer: Writer) -> bytes:
    values = {name: value for name, value in vars(writer).items() if name != "seen"}
    return json.dumps(values).encode().ljust(_SIZE)


def _parsed(content: bytes) -> Writer | None:
    """`None` where nothing whole is in the file."""
    try:
        return Writer(**json.loads(content))
    except (ValueError, TypeError):
        return None


# Who lives

_DEAD: set[tuple] = set()
"""Writers on other machines that were watched and gave no sign of life."""


def _person(writer: Writer) -> tuple:
    return writer.host, writer.space, writer.pid, writer.started


def _lives_if_watched(path: Path, writer: Writer) -> bool:
    """`writer.lives()`, after watching for its next sign of life where that is needed."""
    lives = writer.lives()
    if lives is not None:
        return lives
    print(
        f"coherence: {path.parent} was being written by {writer}; watching for {WATCH:g} s "
        "whether it still is",
        file=sys.stderr,
        flush=True,
    )
    end = time.monotonic() + WATCH
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH / 10))
        present = _read(path)
        if present is None or present.seen != writer.seen:
            return present is not None
    if writer.pid:
        _DEAD.add(_person(writer))
    return False


def _host() -> str:
    return socket.gethostname()


@functools.cache
def _space() -> str:
    """Within which a number of a process means one process; empty where that is not known."""
    if os.name != "posix":
        return ""
    words = [_host()]
    with contextlib.suppress(OSError):
        words.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        words.append(os.readlink("/proc/self/ns/pid"))  # a container has its own
    return " ".join(words)


def _started(pid: int) -> str | None:
    """When a process of this machine started, in the system's words; `None` if it is gone."""
    if os.path.exists("/proc/self/stat"):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    words = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    state, _, start = subprocess.run(words, capture_output=True, text=True).stdout.partition(" ")
    return None if not state or state.startswith("Z") else start.strip()


def resident_bytes(pid: int | str = "self") -> int | None:
    """The memory of a process of this machine, as Linux tells it; `None` elsewhere or if gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


# Signs of life

_held: weakref.WeakSet[Lock] = weakref.WeakSet()
_thread: threading.Thread | None = None


def _keep_beating(lock: Lock) -> None:
    """Let the lock give signs of life until it is released or forgotten."""
    global _thread
    _held.add(lock)
    if _thread is None or not _thread.is_alive():  # none yet, or this is a forked child
        _thread = threading.Thread(target=_beat_for_ever, name="coherence locks", daemon=True)
        _thread.start()


def _beat_for_ever() -> None:
    while True:
        time.sleep(BEAT)
        _beat_all()


def _beat_all() -> None:
    for lock in list(_held):
        lock.beat()
