"""The identity of a run, and its provenance."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .files import to_json

_PACKAGES = ("gradient-coherence", "jax", "jaxlib", "flax", "optax", "numpy")


class RunMismatch(ValueError):
    """Raised where the folder holds another run than the one asked for.

    >>> import tempfile
    >>> from coherence.lab.runs import Run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Run.open(folder, {"rate": 0.1}, seed=0).close()
    ...     Run.open(folder, {"rate": 0.2}, seed=0)
    Traceback (most recent call last):
        ...
    coherence.lab.runs.identity.RunMismatch: ... holds another run (rate: 0.1, not 0.2). ...
    """


def check_unused(folder: Path) -> None:
    """Refuse a folder with other files than what a kill left of the beginning of a run."""
    foreign = sorted(
        f.name
        for f in folder.iterdir()
        if f.is_file()
        and f.name != "manifest.json"
        and not f.name.startswith(".lock")
        and not f.name.endswith(".tmp")
    )
    if foreign:
        raise RunMismatch(
            f"{folder} holds files that are no run ({', '.join(foreign[:5])}). Give this one "
            "another name, or delete that directory."
        )


def check_same(folder: Path, present: dict, asked: dict) -> None:
    """Refuse other settings than those of the run in the folder, naming each."""
    if different := differences(present, asked):
        raise RunMismatch(
            f"{folder} holds another run ({'; '.join(different)}). Give this one another name, "
            "or delete that directory."
        )


def differences(present: dict, asked: dict) -> list[str]:
    """What differs between two sets of plain values: `optimizer.c: 2, not 8`."""
    present, asked = dict(_flat(present)), dict(_flat(asked))
    return [
        f"{key}: {_shown(present, key)}, not {_shown(asked, key)}"
        for key in {**present, **asked}
        if key not in present
        or key not in asked
        or (
            present[key] != asked[key] and to_json(present[key]) != to_json(asked[key])
        )  # nan is nan
    ]


def _flat(config: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(config: dict, key: str) -> str:
    return to_json(config[key]) if key in config else "absent"


def provenance() -> dict:
    """Date, host and versions."""
    return {
        "created": now(),
        "versions": {"python": platform.python_version(), **package_versions()},
        "host": {"system": platform.platform(), "cpus": os.cpu_count()},
    }


@functools.cache  # files are read for each; what is imported stays what it is
def package_versions() -> Mapping[str, str]:
    """The versions of what numbers depend on."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return MappingProxyType(versions)


def code_digest(sources: Mapping[str, Path]) -> str:
    """Twelve letters of a digest of files and their names; ends of lines do not count."""
    total = hashlib.sha256()
    for name, path in sorted(sources.items()):
        content = path.read_bytes().replace(b"\r\n", b"\n")
        total.update(f"{name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:12]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
