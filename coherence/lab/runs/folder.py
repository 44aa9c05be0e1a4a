"""A run's folder: made, resumed, read and found."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import load_arrays, save_arrays
from .files import Damaged, check_writable, read_json, to_json, write_json, write_text
from .identity import check_same, check_unused, now, provenance
from .locks import Lock, remove_dead
from .record_file import RecordFile, fingerprint

FORMAT = 1

_REMEDY = "Delete the run's folder and run again."
_STATE = "state/"  # before the names of a checkpoint's arrays, beside its identity
_CHECKPOINT = re.compile(r"checkpoint-(\d+)\.npz")


def root() -> Path:
    """Where runs go: the folder named by `COHERENCE_RUNS`, else `runs` in the working directory.

    >>> from pathlib import Path
    >>> isinstance(root(), Path)
    True
    """
    return Path(os.environ.get("COHERENCE_RUNS") or "runs")


def find(
    root: str | Path, done: bool | None = None, failed: list[Exception] | None = None
) -> list[Run]:
    """Every run in a folder and below, by path.

    Args:
        root: the folder.
        done: only finished or only unfinished ones.
        failed: if given, errors of folders that cannot be read are put here.

    Raises:
        OSError, ValueError: a folder cannot be read, and there is no `failed`.

    >>> import tempfile
    >>> from coherence.lab.runs import Run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Run.open(f"{folder}/a", {"rate": 0.1}, seed=3) as run:
    ...         run.append({"step": 0, "loss": 1.0})
    ...     [run.seed for run in find(folder)]
    [3]
    """

    def fail(error: Exception) -> None:
        if failed is None:
            raise error
        failed.append(error)

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a folder that is not there holds no run
            fail(error)

    folders = [
        folder
        for folder, _, files in os.walk(root, onerror=unreadable)
        if "config.json" in files and "manifest.json" in files
    ]
    runs = []
    for folder in sorted(folders, key=lambda folder: folder.split(os.sep)):
        try:
            runs.append(Run.read(folder))
        except (OSError, ValueError, KeyError) as error:
            fail(error)
    return [run for run in runs if done is None or run.done == done]


class Run:
    """A run on disk: one settings and one seed. `Run.open` makes or resumes, `Run.read` reads it.

    An opened run is locked until it is finished, closed (`with Run.open(...) as run:`), forgotten
    or its process ends. A finished run is only read, however it was opened.
    """

    def __init__(self, path: Path, config: dict, seed: int, manifest: dict):
        """For `open` and `read`; takes no lock."""
        self.path, self.config, self.seed, self.manifest = path, config, seed, manifest
        self._records = RecordFile(path / "metrics.jsonl")
        self._lock: Lock | None = None

    @classmethod
    def open(
        cls, path: str | Path, config: dict, *, seed: int, manifest: dict | None = None
    ) -> Run:
        """Make the folder, or reopen the same run to resume it.

        The same means: `config` and `seed` are equal once written to JSON, where tuples are lists.
        `manifest` holds what else is worth knowing, such as the device; it does not count.
        """
        path, seed = Path(path).absolute(), int(seed)  # the working directory may change
        config = json.loads(to_json(config, "config"))
        check_writable(path)
        manifest = json.loads(to_json({**(manifest or {}), **provenance()}, "manifest"))
        if (path / "DONE").exists():  # nothing is written, not even a lock
            remove_dead(path)
            return cls._reopened(path, config, seed)
        lock = Lock(path)
        try:
            if (path / "config.json").exists():
                run = cls._reopened(path, config, seed)
                if run.done:
                    lock.release()
                    return run
                run.manifest["resumed"] = [*run.manifest.get("resumed", []), manifest]
            else:
                check_unused(path)
                run = cls(path, config, seed, {**manifest, "format": FORMAT, "seed": seed})
            for leftover in (*path.glob(".*.tmp"), *path.glob("error.log")):
                leftover.unlink()
            write_json(path / "manifest.json", run.manifest)
            if not (path / "config.json").exists():  # last: with it the folder is a run
                write_json(path / "config.json", config)
        except BaseException:
            lock.release()
            raise
        run._lock = lock
        return run

    @classmethod
    def _reopened(cls, path: Path, config: dict, seed: int) -> Run:
        run = cls.read(path)
        check_same(path, {**run.config, "seed": run.seed}, {**config, "seed": seed})
        if run.done:
            run._check_records()
        return run

    @classmethod
    def read(cls, path: str | Path) -> Run:
        """An existing run, to look at; no lock, also while it is being written."""
        path = Path(path)
        try:
            manifest, config = (read_json(path / f"{n}.json") for n in ("manifest", "config"))
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(
                f"{path} is no run folder: it has no config.json and manifest.json. Runs below a "
                "folder: runs.find(folder)."
            ) from None
        if manifest.get("format") != FORMAT:
            raise ValueError(
                f"{path} was written in format {manifest.get('format')}; this version reads "
                f"{FORMAT}. Read it with the one that wrote it "
                "(gradient-coherence "
                f"{manifest.get('versions', {}).get('gradient-coherence', 'unknown')})."
            )
        return cls(path, config, manifest["seed"], manifest)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, seed={self.seed}, done={self.done})"

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock; from here on the run is only read."""
        self._records.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def reach(self, step: int) -> None:
        """Tell those who look at the lock how far the run has come."""
        if self._lock is not None:
            self._lock.reach(step)

    def annotate(self, **facts) -> None:
        """Add facts to the manifest; they do not count for what run this is."""
        self._check_open()
        self.manifest |= json.loads(to_json(facts, "manifest"))
        write_json(self.path / "manifest.json", self.manifest)

    @property
    def axes(self) -> dict[str, list[str]]:
        """What the axes of recorded values are, `{"train/alpha_by_class": ["class"]}`.

        The writer says so: `annotate(axes=...)`.
        """
        return self.manifest.get("axes", {})

    @property
    def done(self) -> bool:
        return (self.path / "DONE").exists()

    @property
    def summary(self) -> dict | None:
        """What `finish` was given; None for a run that is not finished."""
        return read_json(self.path / "DONE")["summary"] if self.done else None

    @property
    def finished_at(self) -> str | None:
        """When `finish` was called, in ISO format; None for a run that is not finished."""
        return read_json(self.path / "DONE").get("finished") if self.done else None

    # Metrics

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record, a JSON line, which survives a kill; NaN and infinity are kept."""
        self._check_open()
        if not isinstance(record.get("step"), (int, np.integer)):
            raise ValueError(
                "append(record): a record needs its integer step, by which a resumed run is cut; "
                f"got keys {sorted(record)}."
            )
        self._records.append(record)

    def records(self) -> list[dict]:
        """All records in order, without a last line that a kill tore.

        Raises:
            Damaged: a line is no record, or a finished run has lost some.
        """
        if self.done:
            self._check_records()
        return self._records.records()

    def _check_records(self) -> None:
        written = read_json(self.path / "DONE").get("metrics")
        present = fingerprint(self._records.lines())
        if present != written:
            count = written["records"] if isinstance(written, dict) else "unknown"
            raise Damaged(
                f"{self._records.path} is not what the finished run wrote: it has "
                f"{present['records']} records of {count}, or others. Delete the run's folder and "
                "run again."
            )

    def truncate(self, step: int) -> None:
        """Forget records and checkpoints of later steps, which a resumed run makes again."""
        self._check_open()
        # Checkpoints first: a kill in between then leaves too many records, which the next resume
        # cuts, and never too few.
        for later, file_path in self._checkpoint_files().items():
            if later > step:
                file_path.unlink()
        self._records.truncate(step)

    # Arrays

    def save(self, name: str, /, **arrays) -> None:
        """Write `NAME.npz`, replacing what was there."""
        self._check_open()
        save_arrays(self._array_file(name), **arrays)

    def load(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of `NAME.npz`."""
        file = self._array_file(name)
        if not file.exists():
            names = sorted(other.stem for other in self.path.glob("*.npz"))
            raise FileNotFoundError(
                f"{self.path} has no arrays {name!r}; it has {', '.join(names) or 'none'}."
            )
        return load_arrays(file, _REMEDY)

    def checkpoint(self, step: int, arrays: Mapping[str, Any]) -> None:
        """Write what is needed to continue from a step; of the earlier ones only the last is kept.

        The one before stays because a group of seeds is checkpointed one by one: killed in between,
            they still have a step in common.
        """
        self._check_open()
        # Records before the checkpoint that relies on them, also if the power fails.
        self._records.sync()
        identity = self._identity(step, self._records.fingerprint())
        state = {f"{_STATE}{name}": array for name, array in arrays.items()}
        save_arrays(
            self.path / f"checkpoint-{step}.npz", identity=np.array(to_json(identity)), **state
        )
        files = self._checkpoint_files()
        keep = {step, max((other for other in files if other < step), default=step)}
        for other, file_path in files.items():
            if other not in keep:
                file_path.unlink()

    def checkpoints(self) -> dict[int, Path]:
        """Steps to continue from and their files, newest first.

        Without damaged ones, those of other runs or steps, and those whose records are lost.
        """
        return {
            step: file for step, file in self._checkpoint_files().items() if self._fits(step, file)
        }

    def _fits(self, step: int, file: Path) -> bool:
        try:
            identity = json.loads(str(load_arrays(file)["identity"]))
            metrics = fingerprint(self._records.lines()[: identity["metrics"]["records"]])
        except (Damaged, FileNotFoundError, KeyError, TypeError, ValueError):
            return False
        return identity == self._identity(step, metrics)

    def _identity(self, step: int, metrics: dict) -> dict:
        """What run and step a checkpoint is of, and which records it relies on."""
        config = hashlib.sha256(to_json(self.config).encode()).hexdigest()
        return {
            "config": config,
            "seed": self.seed,
            "step": step,
            "metrics": metrics,
        }

    def restore(self, step: int) -> dict[str, np.ndarray]:
        """The arrays of the checkpoint of a step."""
        file = self.path / f"checkpoint-{step}.npz"
        if not file.exists():
            raise FileNotFoundError(
                f"{self.path} has no checkpoint of step {step}; it has "
                f"{sorted(self.checkpoints()) or 'none'}."
            )
        return {
            name.removeprefix(_STATE): array
            for name, array in load_arrays(file, _REMEDY).items()
            if name.startswith(_STATE)
        }

    def finish(self, summary: dict | None = None) -> None:
        """Mark the run as whole and close it. Nothing can be written to it afterwards.

        Of its checkpoints only the last stays: which others there are depends on the time it took.
        """
        self._check_open()
        self._records.sync()
        for file_path in list(self._checkpoint_files().values())[1:]:
            file_path.unlink()
        metrics = self._records.fingerprint()
        done = {"finished": now(), "summary": summary or {}, "metrics": metrics}
        write_json(self.path / "DONE", done)
        self.close()

    def fail(self, error: BaseException) -> None:
        """Leave the error as `error.log` to those who look; opening the run again removes it."""
        self._check_open()
        with contextlib.suppress(OSError):  # the error is raised; the disk may be why
            write_text(self.path / "error.log", "".join(traceback.format_exception(error)))

    def reopen(self) -> None:
        """Make a finished run one that can be gone on with, from its last checkpoint.

        Raises:
            RunBusy: another process writes to it.
        """
        self._lock = self._lock or Lock(self.path)
        self.annotate(resumed=[*self.manifest.get("resumed", []), provenance()])
        (self.path / "DONE").unlink(missing_ok=True)

    # Private

    def _check_open(self) -> None:
        if self._lock is not None:
            self._lock.check()
        else:
            state = "is finished" if self.done else "was opened for reading, or is closed"
            raise RuntimeError(
                f"{self.path} {state}: nothing can be written to it. Run.open with other settings "
                "or another seed makes another run."
            )

    def _array_file(self, name: str) -> Path:
        if not re.fullmatch(r"[\w=+-][\w=+.-]*", name) or _CHECKPOINT.fullmatch(f"{name}.npz"):
            raise ValueError(
                "a name of arrays is made of letters, digits and _ = + - . and is no "
                f"checkpoint's, got {name!r}."
            )
        return self.path / f"{name}.npz"

    def _checkpoint_files(self) -> dict[int, Path]:
        steps = {
            int(match[1]): file
            for file in self.path.iterdir()
            if (match := _CHECKPOINT.fullmatch(file.name))
        }
        return dict(sorted(steps.items(), reverse=True))
