"""Which examples drove a step and which it was made against, and what they look like."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from coherence.lab.runs import Run

from .records import axis, series, split

CONTRIBUTIONS = "contributions"


class Ranking(NamedTuple):
    """Examples of a probe's sample by their contribution to a step, at one step of one run.

    `order` runs from the most to the least coherent and leaves out what is nan; `contributions` [r]
    are as recorded, in average examples: 1 is as much as the average one, 0 orthogonal to the step,
    negative against it.
    """

    probe: str
    step: int
    order: np.ndarray
    contributions: np.ndarray

    def said(self, index: int) -> str:
        """One example's contribution, as `3.2x`: times the average example."""
        times = float(self.contributions[index])
        return (
            f"{times:.2f}x"
            if abs(times) < 1
            else f"{times:.2g}x"
            if abs(times) < 99.5
            else f"{times:,.0f}x"
        )

    def ends(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """The `most` most coherent and the `most` least coherent examples, extremes first; fewer where they would overlap."""
        count = min(most, max(1, len(self.order) // 2))
        return self.order[:count], self.order[::-1][:count]


def rankings(records: list[dict], probe: str) -> list[Ranking]:
    """The rankings of a probe in order of steps; none where every contribution is nan or where they were not recorded."""
    found = []
    for step, contributions in series(
        records, f"{probe}/{CONTRIBUTIONS}" if probe else CONTRIBUTIONS
    ):
        array = np.array(contributions, float)
        finite = np.flatnonzero(np.isfinite(array))
        if finite.size:
            found.append(
                Ranking(probe, step, finite[np.argsort(-array[finite], kind="stable")], array)
            )
    return found


def early_and_last(found: list[Ranking]) -> list[Ranking]:
    """The first one after step 0 and the last one; only the last where they are the same."""
    early = next((one for one in found if one.step > 0), None)
    return found[-1:] if early is None or early.step == found[-1].step else [early, found[-1]]


def probes(names: list[str]) -> list[str]:
    """The probes among recorded names that have contributions."""
    return [split(name)[0] for name in names if split(name)[1] == CONTRIBUTIONS]


def sample(run: Run, probe: str) -> dict[str, np.ndarray]:
    """`inputs`, `labels`, `index`, `group` and `group_names` of a probe's examples, what of it the run kept."""
    try:
        return run.load(f"examples-{probe}" if probe else "examples")
    except FileNotFoundError:
        return {}


def part_names(run: Run, name: str, parts: Iterable[str]) -> list[str]:
    """Of a recorded value: layers by name, groups by the names that the probe gave them."""
    parts = list(parts)
    groups = (
        sample(run, split(name)[0]).get("group_names", ())
        if axis(name, [], run.axes) == "group"
        else ()
    )
    return [str(group) for group in groups] if len(groups) == len(parts) else parts


def images(inputs: np.ndarray) -> np.ndarray | None:
    """Inputs [r, ...] as images [r, height, width] or [r, height, width, 3]; None where they are no pictures.

    Flat rows are pictures if their length is a square, or three times one (32 x 32 x 3). Integers
    other than bytes are no grey levels.
    """
    if inputs.dtype.kind not in "fu" and inputs.dtype != np.bool_:
        return None
    if inputs.ndim == 2:
        inputs = _folded(inputs)
    if inputs.ndim == 4 and inputs.shape[-1] == 1:
        inputs = inputs[..., 0]
    pictures = inputs.ndim == 3 or (inputs.ndim == 4 and inputs.shape[-1] == 3)
    return inputs if pictures and min(inputs.shape[1:3]) > 1 else None


def caption(kept: dict[str, np.ndarray], index: int) -> str:
    """`label 7, corrupt`: what is known about an example, as far as it was kept."""
    words = [f"label {kept['labels'][index]}"] if index < len(kept.get("labels", ())) else []
    return ", ".join(words + ["corrupt"] * is_corrupt(kept, index))


def place(kept: dict[str, np.ndarray], index: int) -> int:
    """Which example of the probe's sample this is: contributions may be those of a few of them."""
    return int(kept["index"][index]) if index < len(kept.get("index", ())) else index


def is_corrupt(kept: dict[str, np.ndarray], index: int) -> bool:
    """Whether an example is of the group that the probe calls corrupt."""
    group, names = kept.get("group"), kept.get("group_names")
    if group is None or names is None or index >= len(group):
        return False
    return str(names[group[index]]) == "corrupt"


def _folded(flat: np.ndarray) -> np.ndarray:
    for channels in (1, 3):
        side = math.isqrt(flat.shape[1] // channels)
        if side * side * channels == flat.shape[1]:
            return flat.reshape(len(flat), side, side, channels)
    return flat
