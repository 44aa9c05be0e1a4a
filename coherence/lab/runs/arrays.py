"""Arrays on disk: `.npz` files that are whole or absent; the same bytes for the same arrays."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .files import Damaged, read_bytes, replacing

_EMPTY = 22  # bytes of a zip archive of nothing


def save_arrays(path: str | Path, /, **arrays) -> None:
    """Write arrays as `.npz` by rename.

    The same arrays give the same bytes: no dates, sorted names, no compression.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_arrays(f"{folder}/two.npz", a=np.arange(3), b=np.ones(2))
    ...     load_arrays(f"{folder}/two.npz")["a"]
    array([0, 1, 2])
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    members = {name: _bytes(path, name, arrays[name]) for name in sorted(arrays)}
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = _digest(members)
        for name, content in members.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # the same bytes on every operating system
            with archive.open(entry, "w", force_zip64=True) as member:
                member.write(content)


def _bytes(path: Path, name: str, value: Any) -> bytes:
    array = np.asarray(value, order="C")
    if array.dtype.kind not in "biufcSUmM":
        raise TypeError(
            f"{path}: array {name} has type {array.dtype}, which .npz cannot hold. Convert it "
            "first: bfloat16 by .astype(numpy.float32), random keys by jax.random.key_data."
        )
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def _digest(members: dict[str, bytes]) -> bytes:
    """Of all names and contents: the checksums of a `.npz` file would not notice a lost array."""
    digest = hashlib.sha256()
    for name, content in members.items():
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest().encode()


def load_arrays(
    path: str | Path, remedy: str = "Delete it and make it again."
) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file, whose checksums are verified before anything is parsed.

    Args:
        path: of the file.
        remedy: what to do about a damaged one, as its error says.

    Raises:
        Damaged: it is no whole `.npz` file.
        OSError: it could not be read this time; that says nothing about what it holds.
    """
    content = read_bytes(Path(path))
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
            if not members and len(content) > _EMPTY + len(archive.comment):
                raise ValueError("its list of arrays is gone")
            # Other programs' files have no digest.
            if archive.comment and archive.comment != _digest(members):
                raise ValueError("its digest is another")
            return {name: _parse(member) for name, member in members.items()}
    except Exception as error:  # a damaged header makes zipfile and numpy raise anything
        raise Damaged(f"{path} is truncated or corrupt ({error}). {remedy}") from error


def _parse(content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    array = np.lib.format.read_array(file, allow_pickle=False)
    if file.read(1):
        raise ValueError("there is more than the array")
    return array
