"""Arrays on disk: `.npz` files that are whole or absent; the same bytes for the same arrays."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from .files import replacing


def save_arrays(path: str | Path, /, **arrays) -> None:
    """Write arrays as `.npz` by rename.

    The same arrays give the same bytes: no dates, sorted names, no compression.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            array = np.asarray(arrays[name], order="C")
            if array.dtype.kind not in "biufcSUmM":
                raise TypeError(
                    f"{path}: array {name} has type {array.dtype}, which .npz cannot hold. Convert "
                    "it first: bfloat16 by "
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
        raise ValueError(
            f"{path} is truncated or corrupt ({error}). Delete it and make it again."
        ) from error


def is_whole(path: Path) -> bool:
    """Whether everything in a `.npz` file can be read."""
    try:
        load_arrays(path)
    except (ValueError, FileNotFoundError):
        return False
    return True
