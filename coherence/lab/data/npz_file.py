"""A user's own data set, from one `.npz` file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from coherence.lab.data.dataset import Dataset
from coherence.lab.runs.arrays import load_arrays
from coherence.lab.runs.files import Damaged

KEYS = ("x_train", "y_train", "x_test", "y_test")
MAX_CLASSES = 1_000_000


def npz(path: str | Path, examples: int | None = None) -> Dataset:
    """The user's own data set from a `.npz` file.

    Its keys are `x_train`, `y_train`, `x_test`, `y_test` and, if you like, `classes` (names).
    Examples keep their shape. uint8 is read as images and divided by 255, in both parts or in none;
    every other number type becomes float32 as it is. Labels are integers from 0, one an example. A
    relative path is looked up from the working directory, then from `COHERENCE_DATA`.

    Args:
        path: of the file.
        examples: use so many training examples (None: all): the first, in experiments by default a
            draw by seed.

    Make one with `numpy.savez("mine.npz", x_train=..., y_train=..., x_test=..., y_test=...)`.

    >>> npz("missing.npz")
    Traceback (most recent call last):
        ...
    FileNotFoundError: npz(path): there is no file missing.npz nor ...
    """
    file = _locate(Path(path).expanduser())
    arrays = _read(file)
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise ValueError(
            f"{file}: no array {', '.join(missing)}; it holds "
            f"{', '.join(sorted(arrays)) or 'none'}. Needed: {', '.join(KEYS)}."
        )
    y_train, y_test = (_labels(file, key, arrays[key]) for key in ("y_train", "y_test"))
    x_train, x_test = (_examples(file, key, arrays[key]) for key in ("x_train", "x_test"))
    types = [arrays[key].dtype for key in ("x_train", "x_test")]
    if types.count(np.dtype(np.uint8)) == 1:
        raise ValueError(
            f"{file}: x_train is {types[0]} and x_test {types[1]}. Only uint8 is divided by "
            "255, so they would differ in scale. Write both as one type."
        )
    largest = int(max(y_train.max(initial=0), y_test.max(initial=0)))
    classes = tuple(str(name) for name in arrays.get("classes", np.arange(largest + 1)).ravel())
    if largest >= len(classes):
        raise ValueError(
            f"{file}: the largest label is {largest}, but classes names only {len(classes)} "
            "(labels count from 0)."
        )
    if examples is not None and not 1 <= examples <= len(x_train):
        raise ValueError(
            f"{file}: examples is between 1 and the file's {len(x_train)} training examples, "
            f"or None for all; got {examples}."
        )
    return Dataset(file.stem, x_train[:examples], y_train[:examples], x_test, y_test, classes)


def _locate(path: Path) -> Path:
    tried = [path]
    if os.environ.get("COHERENCE_DATA") and not path.is_absolute():
        tried.append(Path(os.environ["COHERENCE_DATA"]).expanduser() / path)
    for candidate in tried:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"npz(path): there is no file {' nor '.join(map(str, tried))}. "
        "Give the path of a .npz file, absolute or relative to the working directory or to "
        "COHERENCE_DATA."
    )


def _read(file: Path) -> dict[str, np.ndarray]:
    try:
        return load_arrays(file)
    except Damaged as error:
        raise ValueError(
            f"{file} cannot be read as .npz ({error.__cause__}): truncated, corrupt, or not "
            "written by numpy.savez with plain arrays. Write it again."
        ) from error


def _labels(file: Path, key: str, labels: np.ndarray) -> np.ndarray:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        if labels.dtype.kind in "US":
            way = "classes, labels = numpy.unique(names, return_inverse=True), and classes too"
        elif labels.ndim == 2 and labels.shape[1] > 1:
            way = "one_hot.argmax(1)"
        else:
            way = "labels.astype(int)" + ", in one row: labels.ravel()" * (labels.ndim != 1)
        raise ValueError(
            f"{file}: {key} must be integer labels of shape [n], got {labels.dtype} of shape "
            f"{labels.shape}. Write {way}."
        )
    if labels.size and labels.min() < 0:
        raise ValueError(f"{file}: {key} has the label {labels.min()}; labels count from 0.")
    if labels.size and labels.max() >= MAX_CLASSES:  # before int32 makes another label of it
        raise ValueError(
            f"{file}: {key} has the label {labels.max()}, as if there were more than "
            f"{MAX_CLASSES:,} classes. Number them from 0: "
            "classes, labels = numpy.unique(labels, return_inverse=True)."
        )
    return labels.astype(np.int32)


def _examples(file: Path, key: str, examples: np.ndarray) -> np.ndarray:
    if examples.ndim < 2 or examples.dtype.kind not in "fiub":
        raise ValueError(
            f"{file}: {key} must be real numbers of shape [n, ...], got {examples.dtype} of shape "
            f"{examples.shape}."
        )
    if examples.dtype == np.uint8:
        return examples.astype(np.float32) / 255
    examples = examples.astype(np.float32)
    if not np.isfinite(examples).all():
        raise ValueError(f"{file}: {key} holds NaN or infinity. Fill or drop those examples first.")
    return examples
