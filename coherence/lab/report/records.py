"""What a run recorded, as numbers in order: which quantities there are, what shape they have, their values over steps and seeds.

A record may lack any quantity, and a value may be nan. The two are kept apart: what was not
measured says nothing, a nan is a result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

PREFERRED = (
    *("train_loss", "train_accuracy", "test_accuracy", "m_coherence", "alpha", "loss"),
    *("test_loss", "pristine_accuracy", "corrupt_accuracy", "gradient_norm"),
)
"""Quantities that a reader looks for first, in this order."""
Axes = Mapping[str, Sequence[str]]
"""What the axes of recorded values are, by name, as the run's writer said (`Run.axes`)."""


class Track(NamedTuple):
    """One quantity of several runs over steps.

    `values` is [seeds, steps, parts...]; where `present` [seeds, steps] is false nothing was
    measured and the value is nan. `parts` are the names of the layers, or of the groups, in order.
    """

    steps: np.ndarray
    values: np.ndarray
    present: np.ndarray
    parts: tuple[str, ...]


def split(name: str) -> tuple[str, str]:
    """The probe and the quantity of a recorded name: `train/m_coherence` is `("train", "m_coherence")`; no probe is `""`."""
    probe, _, quantity = name.rpartition("/")
    return probe, quantity


def axis(name: str, value: Any, axes: Axes) -> str:
    """What the parts of a recorded value are: as the writer said, else `layer` of a dict and `index` of a list."""
    if axes.get(name):
        return axes[name][0]
    return "layer" if isinstance(value, dict) else "index"


def kind(name: str, value: Any, axes: Axes) -> str:
    """What a recorded value is: `scalar`, `layers`, `groups` (a list of anything but examples), `examples`, `matrix`, or `other`."""
    if _number(value):
        return "scalar"
    if isinstance(value, dict) and value and all(map(_number, value.values())):
        return "layers"
    if isinstance(value, list) and value and all(map(_number, value)):
        return "examples" if axis(name, value, axes) == "example" else "groups"
    rows = (
        isinstance(value, list)
        and value
        and all(isinstance(row, list) and row and all(map(_number, row)) for row in value)
    )
    return "matrix" if rows and len({len(row) for row in value}) == 1 else "other"


def kinds(records: list[dict], axes: Axes) -> dict[str, str]:
    """`{name: kind}` of everything recorded, without a probe first, within a probe the preferred ones first."""
    found: dict[str, str] = {}
    for record in records:
        for name, value in record.items():
            if name != "step" and found.get(name, "other") == "other":
                found[name] = kind(name, value, axes)
    probes = list(dict.fromkeys(split(name)[0] for name in found))
    order = sorted(
        found,
        key=lambda name: (
            split(name)[0] != "",
            probes.index(split(name)[0]),
            _rank(split(name)[1]),
        ),
    )
    return {name: found[name] for name in order}


def quantities(records: list[dict], axes: Axes, *which: str) -> list[str]:
    """Names of the recorded quantities of some kinds, in the order of `kinds`."""
    return [name for name, found in kinds(records, axes).items() if found in which]


def parts(value: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """`(part, number)` of everything in a recorded value: `""` of a scalar, else layers and indices, joined by commas."""
    if _number(value):
        yield prefix, float(value)
    else:
        inner = (
            value.items()
            if isinstance(value, dict)
            else enumerate(value)
            if isinstance(value, list)
            else ()
        )
        for key, one in inner:
            yield from parts(one, f"{prefix},{key}" if prefix else str(key))


def series(records: list[dict], name: str) -> list[tuple[int, Any]]:
    """`(step, value)` of the records that have a quantity."""
    return [(record["step"], record[name]) for record in records if record.get(name) is not None]


def last(records: list[dict], name: str) -> tuple[int, Any] | None:
    """The last `(step, value)` of a quantity; None where it was never recorded."""
    found = series(records, name)
    return found[-1] if found else None


def track(histories: list[list[dict]], name: str) -> Track:
    """A quantity of several runs on the union of their steps; layers are those of the first record that has them."""
    found = [dict(series(history, name)) for history in histories]
    steps = sorted({step for one in found for step in one})
    example = next(
        (value for one in found for value in one.values() if kind(name, value, {}) != "other"), None
    )
    if example is None:
        raise ValueError(f"no run recorded numbers named {name!r}.")
    names = (
        tuple(example)
        if isinstance(example, dict)
        else tuple(str(i) for i in range(len(example)))
        if isinstance(example, list)
        else ()
    )
    shape = np.shape(list(example.values()) if isinstance(example, dict) else example)
    values, present = (
        np.full((len(found), len(steps), *shape), np.nan),
        np.zeros((len(found), len(steps)), bool),
    )
    for i, one in enumerate(found):
        for j, step in enumerate(steps):
            value = one.get(step)
            if isinstance(value, dict):
                value = [value.get(part, math.nan) for part in names]
            if value is not None and np.shape(value) == shape:
                values[i, j], present[i, j] = value, True
    return Track(np.array(steps), values, present, names)


def diverged(records: list[dict]) -> int | None:
    """The first step at which a loss was recorded as nan or infinite; None for a run that kept its numbers."""
    for record in records:
        for name, value in record.items():
            if name.endswith("loss") and _number(value) and not math.isfinite(value):
                return record["step"]
    return None


def _number(value: Any) -> bool:
    return isinstance(value, int | float)


def _rank(quantity: str) -> int:
    return PREFERRED.index(quantity) if quantity in PREFERRED else len(PREFERRED)
