"""Files that are whole or absent, JSON, and errors of the disk that name the file."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO


class Damaged(ValueError):
    """A file that was read and is not what was written."""


def read_bytes(path: Path) -> bytes:
    """The content of a file; an error of the disk names it."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        failure = OSError(
            f"cannot read {path} ({error.strerror or error}). Nothing was changed; try again."
        )
        failure.errno = error.errno
        raise failure from error


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """A context in which errors of the disk name the file that could not be written."""
    try:
        yield
    except OSError as error:
        failure = OSError(
            f"cannot write {path} ({error.strerror or error}). Nothing that was there is lost. "
            "Make it possible (room on the disk, "
            "permission) and run the same command again: a run goes on from its last checkpoint."
        )
        failure.errno = error.errno
        raise failure from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` once it is whole and on disk."""
    temporary = path.with_name(f".{path.name}.{this_process()}.tmp")
    with naming(path):
        for leftover in leftovers(path.parent, f".{path.name}.", ".tmp"):
            leftover.unlink(missing_ok=True)
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        if os.name == "posix":  # the rename itself
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def this_process() -> str:
    """Host and number, for names of what a process leaves when it is killed."""
    return f"{_host()}-{os.getpid()}"


def leftovers(folder: Path, before: str, after: str = "") -> Iterator[Path]:
    """What killed processes of this host left under names of `before`, `this_process`, `after`."""
    if os.name != "posix":  # elsewhere there is no harmless question whether a process runs
        return
    start = f"{before}{_host()}-"
    for path in folder.glob(f"{glob.escape(start)}*{after}"):
        number = re.match(r"\d+", path.name.removeprefix(start))
        if number and not _is_running(int(number[0])):
            yield path


def _host():
    return re.sub(r"[^A-Za-z0-9]", "_", platform.node())[:60]


def _is_running(process):
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def write_text(path: Path, text: str) -> None:
    """Write a file of text, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def check_writable(folder: Path) -> None:
    """Make a folder, or refuse one in which nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        way = "a shorter path" if error.errno == errno.ENAMETOOLONG else "one you can write to"
        raise OSError(
            f"cannot write to {folder} ({error.strerror}). "
            f"Runs go to ./runs or to the folder named by COHERENCE_RUNS: set it to {way}."
        ) from error


def to_json(value: Any, name: str = "value") -> str:
    """Plain values, and numpy's and JAX's arrays, as JSON; errors call them `name`."""

    def plain(item):
        if hasattr(item, "tolist"):  # numpy's and JAX's numbers and arrays
            return item.tolist()
        raise TypeError(
            f"{name} must consist of numbers, text, booleans, None, lists and dicts; it contains a "
            f"{type(item).__name__}: {item!r}."
        )

    return json.dumps(value, default=plain)


_OWN_DIGEST = "_sha256"
"""The key under which an object's file holds the digest of the rest."""


def write_json(path: Path, value: dict) -> None:
    """Write an object, with a digest by which a damaged number is noticed."""
    plain = json.loads(json.dumps(value, default=lambda item: item.tolist()))
    text = json.dumps({**plain, _OWN_DIGEST: _digest(plain)}, indent=2)
    write_text(path, f"{text}\n")


def _digest(value: dict) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> dict:
    """The object in a file, without its digest; others' files may have none.

    Raises:
        Damaged: it is not what was written.
        OSError: it could not be read this time.
    """
    content = read_bytes(path)
    try:
        value = json.loads(content)
        if not isinstance(value, dict):
            raise ValueError(f"no object but {type(value).__name__}")
        for key, written in reversed(value.items()):  # the key itself may be damaged
            rest = {name: part for name, part in value.items() if name != key}
            if isinstance(written, str) and len(written) == 64 and written == _digest(rest):
                return rest
        if _OWN_DIGEST in value:
            raise ValueError("its digest is another")
    except (ValueError, RecursionError) as error:
        raise Damaged(
            f"{path} is damaged ({error}). Delete the run's folder and run again."
        ) from error
    return value
