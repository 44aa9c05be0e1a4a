"""Records of runs in order: the quantities they hold, their kinds, values over steps and seeds.

A record may lack any quantity, and a value may be nan. The two are kept apart: what was not
measured says nothing, a nan is a result.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PREFERRED = (
    *("train_loss", "train_accuracy", "test_accuracy", "m_coherence", "alpha", "loss"),
    *("test_loss", "pristine_accuracy", "corrupt_accuracy", "gradient_norm"),
    *("update_size", "distance_from_start"),
)
"""Quantities that a reader looks for first, in this order."""
Axes = Mapping[str, Sequence[str]]
"""What the axes of recorded values are, by name, as the run's writer said (`Run.axes`)."""


_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """Text without control characters, which terminals would obey and XML forbids; lines stay."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


class Track(NamedTuple):
    """One quantity of several runs over steps.

    `values` is [seeds, steps, parts...]; where `present` [seeds, steps] is false nothing was
    measured and the value is nan. `parts` are the names of the layers, or of the groups, in order.
    """

    steps: NDArray
    values: NDArray
    present: NDArray
    parts: tuple[str, ...]


def split(name: str) -> tuple[str, str]:
    """The probe and the quantity of a recorded name.

    `train/m_coherence` is `("train", "m_coherence")`; without a probe the first is `""`.
    """
    probe, _, quantity = name.rpartition("/")
    return probe, quantity


def axis(name: str, value: Any, axes: Axes) -> str:
    """The parts of a value: as its writer said, else `layer` of a dict and `index` of a list."""
    if axes.get(name):
        return axes[name][0]
    return "layer" if isinstance(value, dict) else "index"


def kind(name: str, value: Any, axes: Axes) -> str:
    """The kind of a recorded value.

    `scalar`; `layers` of a dict; `examples` of a list over examples, `groups` of any other;
    `matrix` of a list of lists; `other` of what holds no numbers.
    """
    if _is_number(value):
        return "scalar"
    if isinstance(value, dict) and value and all(map(_is_number, value.values())):
        return "layers"
    if _is_row(value):
        return "examples" if axis(name, value, axes) == "example" else "groups"
    rows = isinstance(value, list) and value and all(map(_is_row, value))
    return "matrix" if rows and len({len(row) for row in value}) == 1 else "other"


def kinds(records: Sequence[dict], axes: Axes) -> dict[str, str]:
    """`{name: kind}` of everything recorded.

    Those without a probe come first, and within a probe the preferred ones.
    """
    known: dict[str, str] = {}
    for record in records:
        for name, value in record.items():
            if name != "step" and known.get(name, "other") == "other":
                known[name] = kind(name, value, axes)
    probes = list(dict.fromkeys(split(name)[0] for name in known))

    def order(name: str) -> tuple[bool, int, int]:
        probe, quantity = split(name)
        return probe != "", probes.index(probe), _rank(quantity)

    return {name: known[name] for name in sorted(known, key=order)}


def quantities(records: Sequence[dict], axes: Axes, *which: str) -> list[str]:
    """Names of the recorded quantities of some kinds, in the order of `kinds`."""
    return [name for name, kind in kinds(records, axes).items() if kind in which]


def parts(value: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """`(part, number)` of every number in a recorded value.

    The part of a scalar is `""`, else layers and indices, joined by commas.
    """
    if _is_number(value):
        yield prefix, float(value)
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from parts(inner, f"{prefix},{key}" if prefix else str(key))


def series(records: Sequence[dict], name: str) -> list[tuple[int, Any]]:
    """`(step, value)` of the records that have a quantity, of the type its first numbers have.

    A loop of somebody's own may write a text, or a list, where there is else a number.
    """
    values = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    first = next((value for _, value in values if kind(name, value, {}) != "other"), None)
    types: tuple[tuple[type, ...], ...] = ((int, float), (dict,), (list,), (object,))
    like = next(some for some in types if isinstance(first, some))
    return [pair for pair in values if isinstance(pair[1], like)]


def last(records: Sequence[dict], name: str) -> tuple[int, Any] | None:
    """The last `(step, value)` of a quantity; None where it was never recorded."""
    values = series(records, name)
    return values[-1] if values else None


def track(histories: Sequence[Sequence[dict]], name: str) -> Track:
    """A quantity of several runs on the union of their steps.

    Layers are those of the first record that has them, `layer_2` before `layer_10`.

    Raises:
        ValueError: none of the runs recorded numbers under this name.
    """
    measured = [dict(series(history, name)) for history in histories]
    steps = sorted({step for values in measured for step in values})
    example = next(
        (
            value
            for values in measured
            for value in values.values()
            if kind(name, value, {}) != "other" or _is_array(value)
        ),
        None,
    )
    if example is None:
        raise ValueError(f"no run recorded numbers named {name!r}.")
    names: tuple[str, ...] = ()
    if isinstance(example, dict):
        names = _in_order(example)
        example = [example[part] for part in names]
    elif isinstance(example, list):
        names = tuple(str(i) for i in range(len(example)))
    shape = np.shape(example)
    values = np.full((len(measured), len(steps), *shape), np.nan)
    present = np.zeros((len(measured), len(steps)), bool)
    for i, by_step in enumerate(measured):
        for j, step in enumerate(steps):
            value = by_step.get(step)
            if isinstance(value, dict):
                value = [value.get(part, math.nan) for part in names]
            if value is not None and np.shape(value) == shape:
                values[i, j], present[i, j] = value, True
    return Track(np.array(steps), values, present, names)


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names as they are, but those in the order of letters, as JAX has them, by their numbers."""
    given = tuple(names)
    if list(given) != sorted(given):
        return given
    return tuple(sorted(given, key=_with_numbers))


def _with_numbers(name: str) -> list[str | int]:
    """Letters and numbers of a name in turn, to sort by."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def diverged(records: Sequence[dict]) -> int | None:
    """The first step at which a loss was recorded as nan or infinite; None where none was."""
    for record in records:
        for name, value in record.items():
            if name.endswith("loss") and _is_number(value) and not math.isfinite(value):
                return record["step"]
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _is_array(value):
    """Whether a value is a list of numbers, or of such lists of one shape, however deep."""
    if _is_row(value):
        return True
    deeper = isinstance(value, list) and bool(value) and all(map(_is_array, value))
    return deeper and len(set(map(np.shape, value))) == 1


def _is_row(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_number, value))


def _rank(quantity: str) -> int:
    return PREFERRED.index(quantity) if quantity in PREFERRED else len(PREFERRED)
