"""A recorded run on disk: one folder for one settings and one seed. Numpy only; reading needs nothing else of the package.

=====================  ========================================================================================
`config.json`          the settings: with the seed, what makes this run this run
`manifest.json`        format, seed, versions, host, when, what the caller added, and each time it was resumed
`metrics.jsonl`        one record a line, each with its `step`; NaN and Infinity are written as such
`NAME.npz`             arrays
`checkpoint-STEP.npz`  the newest two
`DONE`                 written last: the run is whole, and from then on only read
=====================  ========================================================================================

Everything but the metrics is written to a temporary file, synced and renamed, and a last line of the metrics that a kill tore is dropped:
killed at any moment, a run folder reads as what it was a moment before.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

try:
    import fcntl
except ImportError:  # Windows: runs work there, but two processes on one run are not noticed
    fcntl = None  # type: ignore[assignment]

FORMAT = 1

_PACKAGES = ("gradient-coherence", "jax", "jaxlib", "flax", "optax", "numpy")
_CHECKPOINT = re.compile(r"checkpoint-(\d+)\.npz")


class RunMismatch(ValueError):
    """The folder holds something else than the run asked for."""


class RunBusy(RuntimeError):
    """Another process, or another `Run` of this one, is writing to the folder."""


def root() -> Path:
    """Where runs go: the folder named by `COHERENCE_RUNS`, else `runs` in the working directory."""
    return Path(os.environ.get("COHERENCE_RUNS") or "runs")


def find(root: str | Path, done: bool | None = None) -> list[Run]:
    """Every run in a folder and below, in order of path; with `done`, only the finished or only the unfinished ones."""
    folders = sorted(Path(folder) for folder, _, files in os.walk(root) if {"config.json", "manifest.json"} <= set(files))
    runs = [Run.read(folder) for folder in folders]
    return [run for run in runs if done is None or run.done == done]


class Run:
    """One settings and one seed, on disk. `Run.open` to make or resume it, `Run.read` to look at it.

    An opened run is locked until it is finished, closed (`with Run.open(...) as run:`), forgotten or its process ends.
    A finished run is only read, however it was opened.
    """

    def __init__(self, path: Path, config: dict, seed: int, manifest: dict):
        """For `open` and `read`; takes no lock."""
        self.path, self.config, self.seed, self.manifest = path, config, seed, manifest
        self._lock: _Lock | None = None

    @classmethod
    def open(cls, path: str | Path, config: dict, *, seed: int, manifest: dict | None = None) -> Run:
        """Make the folder, or reopen the same run to resume it.

        The same means: `config` and `seed` are equal once written to JSON, where tuples are lists. `manifest` holds what else is worth
        knowing, such as the device; it does not count.
        """
        path, seed = Path(path), int(seed)
        config = json.loads(_to_json(config, "config"))
        _writable(path)
        manifest = json.loads(_to_json({**(manifest or {}), **_circumstances()}, "manifest"))
        lock = _Lock(path)
        if (path / "config.json").exists():
            run = cls.read(path)
            _check_same(path, {**run.config, "seed": run.seed}, {**config, "seed": seed})
            if run.done:
                return run
            run.manifest["resumed"] = [*run.manifest.get("resumed", []), manifest]
        else:
            _check_unused(path)
            run = cls(path, config, seed, {**manifest, "format": FORMAT, "seed": seed})
        for leftover in path.glob(".*.tmp"):
            leftover.unlink()
        _write_json(path / "manifest.json", run.manifest)
        if not (path / "config.json").exists():  # last: with it the folder is a run
            _write_json(path / "config.json", config)
        run._lock = lock
        return run

    @classmethod
    def read(cls, path: str | Path) -> Run:
        """An existing run, to look at; no lock, also while it is being written."""
        path = Path(path)
        if not (path / "config.json").is_file() or not (path / "manifest.json").is_file():
            raise FileNotFoundError(
                f"{path} is no run folder: it has no config.json and manifest.json. Runs below a folder: runs.find(folder)."
            )
        manifest = _read_json(path / "manifest.json")
        if manifest.get("format") != FORMAT:
            raise ValueError(
                f"{path} was written in format {manifest.get('format')}; this version reads {FORMAT}. Read it with the one that wrote it "
                f"(gradient-coherence {manifest.get('versions', {}).get('gradient-coherence', 'unknown')})."
            )
        return cls(path, _read_json(path / "config.json"), manifest["seed"], manifest)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, seed={self.seed}, done={self.done})"

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock; from here on the run is only read."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def annotate(self, **facts) -> None:
        """Add to the manifest what turned out worth knowing; it does not count for what run this is."""
        self._check_open()
        self.manifest |= json.loads(_to_json(facts, "manifest"))
        _write_json(self.path / "manifest.json", self.manifest)

    @property
    def done(self) -> bool:
        return (self.path / "DONE").exists()

    @property
    def summary(self) -> dict | None:
        """What `finish` was given; None for a run that is not finished."""
        return _read_json(self.path / "DONE")["summary"] if self.done else None

    # Metrics

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record, a JSON line, so that it survives a kill right after. NaN and infinity are kept."""
        self._check_open()
        if not isinstance(record.get("step"), (int, np.integer)):
            raise ValueError(f"append(record): a record needs its integer step, by which a resumed run is cut; got keys {sorted(record)}.")
        line = _to_json(record, "record") + "\n"
        with open(self._metrics, "ab+") as file:
            _drop_torn_line(file)
            file.write(line.encode())

    def records(self) -> list[dict]:
        """All records in order, without a last line that a kill tore."""
        if not self._metrics.exists():
            return []
        *lines, _torn = self._metrics.read_bytes().split(b"\n")  # a whole file ends in a newline, so the last piece is empty
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise ValueError(f"{self._metrics} is damaged ({error}). Delete the run's folder and run again.") from error

    def truncate(self, step: int) -> None:
        """Forget everything after a step: records of later steps and later checkpoints. A resumed run makes them again."""
        self._check_open()
        # Checkpoints first: a kill in between then leaves too many records, which the next resume cuts, and never too few.
        for later, file_path in self._checkpoint_files().items():
            if later > step:
                file_path.unlink()
        kept = [_to_json(record) + "\n" for record in self.records() if record["step"] <= step]
        with _replacing(self._metrics) as file:
            file.write("".join(kept).encode())

    # Arrays

    def save(self, name: str, /, **arrays) -> None:
        """Write `NAME.npz`, replacing what was there."""
        self._check_open()
        save_arrays(self._array_file(name), **arrays)

    def load(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of `NAME.npz`."""
        file = self._array_file(name)
        if not file.exists():
            there = sorted(other.stem for other in self.path.glob("*.npz"))
            raise FileNotFoundError(f"{self.path} has no arrays {name!r}; it has {', '.join(there) or 'none'}.")
        return load_arrays(file)

    def checkpoint(self, step: int, arrays: Mapping[str, Any]) -> None:
        """Write what is needed to continue from a step; of the earlier ones only the last is kept.

        The one before stays because a group of seeds is checkpointed one by one: killed in between, they still have a step in common.
        """
        self._check_open()
        if self._metrics.exists():  # records before the checkpoint that relies on them, also if the power fails
            with open(self._metrics, "rb+") as file:
                os.fsync(file.fileno())
        save_arrays(self.path / f"checkpoint-{step}.npz", **arrays)
        files = self._checkpoint_files()
        keep = {step, max((other for other in files if other < step), default=step)}
        for other, file_path in files.items():
            if other not in keep:
                file_path.unlink()

    def checkpoints(self) -> dict[int, Path]:
        """Steps to continue from, newest first, with their files. A damaged file is not among them."""
        return {step: file for step, file in self._checkpoint_files().items() if _is_whole(file)}

    def restore(self, step: int) -> dict[str, np.ndarray]:
        """The arrays of the checkpoint of a step."""
        file = self.path / f"checkpoint-{step}.npz"
        if not file.exists():
            raise FileNotFoundError(f"{self.path} has no checkpoint of step {step}; it has {sorted(self.checkpoints()) or 'none'}.")
        return load_arrays(file)

    def finish(self, summary: dict | None = None) -> None:
        """Mark the run as whole and close it. Nothing can be written to it afterwards."""
        self._check_open()
        if self._metrics.exists():
            with open(self._metrics, "rb+") as file:
                _drop_torn_line(file)
                os.fsync(file.fileno())
        _write_json(self.path / "DONE", {"finished": _now(), "summary": summary or {}})
        self.close()

    # Private

    @property
    def _metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def _check_open(self) -> None:
        if self._lock is None:
            state = "is finished" if self.done else "was opened for reading, or is closed"
            raise RuntimeError(
                f"{self.path} {state}: nothing can be written to it. Run.open with other settings or another seed makes another run."
            )

    def _array_file(self, name: str) -> Path:
        if not re.fullmatch(r"[\w=+-][\w=+.-]*", name) or _CHECKPOINT.fullmatch(f"{name}.npz"):
            raise ValueError(f"a name of arrays is made of letters, digits and _ = + - . and is no checkpoint's, got {name!r}.")
        return self.path / f"{name}.npz"

    def _checkpoint_files(self) -> dict[int, Path]:
        steps = {int(match[1]): file for file in self.path.iterdir() if (match := _CHECKPOINT.fullmatch(file.name))}
        return dict(sorted(steps.items(), reverse=True))


def save_arrays(path: str | Path, /, **arrays) -> None:
    """Write arrays as `.npz` by rename. The same arrays give the same bytes: no dates, sorted names, no compression."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            array = np.asarray(arrays[name], order="C")
            if array.dtype.kind not in "biufcSUmM":
                raise TypeError(
                    f"{path}: array {name} has type {array.dtype}, which .npz cannot hold. Convert it first: bfloat16 by "
                    ".astype(numpy.float32), random keys by jax.random.key_data."
                )
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # the same bytes on every operating system
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file, all read and checked."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is truncated or corrupt ({error}). Delete it and make it again.") from error


def _is_whole(path: Path) -> bool:
    try:
        load_arrays(path)
    except (ValueError, FileNotFoundError):
        return False
    return True


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` once it is whole and on disk, and never otherwise."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the rename itself
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _drop_torn_line(file: BinaryIO) -> None:
    """Cut what follows the last newline, and leave the position at the end."""
    end = position = file.seek(0, os.SEEK_END)
    while position:
        start = max(0, position - 65536)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            position = start + newline + 1
            break
        position = start
    if position < end:
        file.truncate(position)
    file.seek(position)


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise OSError(
            f"cannot write to {folder} ({error.strerror}). "
            "Runs go to ./runs or to the folder named by COHERENCE_RUNS: set it to one you can write to."
        ) from error


class _Lock:
    """Held until released, forgotten, or the process ends: the system takes it back even after a kill."""

    def __init__(self, folder: Path):
        self._descriptor: int | None = None
        if fcntl is None:
            return
        self._descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise RunBusy(
                f"{folder} is being written by another process, or by another Run of this one. Wait for it, or stop it and run this again "
                "to go on from its last checkpoint; Run.read looks at it meanwhile."
            ) from None
        except OSError:
            pass  # a file system without locks: go on without

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    __del__ = release


def _check_unused(folder: Path) -> None:
    """A new run may go into a folder that is empty, or in which a kill left no more than the beginning of one."""
    ours = {".lock", "manifest.json"}
    foreign = sorted(f.name for f in folder.iterdir() if f.is_file() and f.name not in ours and not f.name.endswith(".tmp"))
    if foreign:
        raise RunMismatch(
            f"{folder} holds files that are no run ({', '.join(foreign[:5])}). Give this one another name, or delete that directory."
        )


def _check_same(folder: Path, there: dict, asked: dict) -> None:
    there, asked = dict(_flat(there)), dict(_flat(asked))
    differences = [
        f"{key}: {_shown(there, key)}, not {_shown(asked, key)}"
        for key in {**there, **asked}
        if key not in there or key not in asked or (there[key] != asked[key] and _to_json(there[key]) != _to_json(asked[key]))  # nan is nan
    ]
    if differences:
        raise RunMismatch(f"{folder} holds another run ({'; '.join(differences)}). Give this one another name, or delete that directory.")


def _flat(config: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(config: dict, key: str) -> str:
    return _to_json(config[key]) if key in config else "absent"


def _circumstances() -> dict:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {"created": _now(), "versions": versions, "host": {"system": platform.platform(), "cpus": os.cpu_count()}}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _to_json(value: Any, name: str = "value") -> str:
    def plain(item):
        if hasattr(item, "tolist"):  # numpy's and JAX's numbers and arrays
            return item.tolist()
        raise TypeError(
            f"{name} must consist of numbers, text, booleans, None, lists and dicts; it contains a {type(item).__name__}: {item!r}."
        )

    return json.dumps(value, default=plain)


def _write_json(path: Path, value: dict) -> None:
    with _replacing(path) as file:
        file.write((json.dumps(value, indent=2, default=lambda item: item.tolist()) + "\n").encode())


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete the run's folder and run again.") from error
