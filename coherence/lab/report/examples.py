"""Examples by their part of a step: those that drove it, those it was made against."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coherence.lab.runs import Run

from .records import axis, series, split

CONTRIBUTIONS = "contributions"
Sample = Mapping[str, NDArray]
"""What a run kept of a probe's examples; see `sample`."""


class Ranking(NamedTuple):
    """Examples of a probe's sample by their contribution to a step, at one step of one run.

    `order` runs from the most to the least coherent and leaves out what is nan; `contributions` [r]
    are as recorded, in average examples: 1 is as much as the average one, 0 orthogonal to the step,
    negative against it.
    """

    probe: str
    step: int
    order: NDArray
    contributions: NDArray

    def times(self, index: int) -> str:
        """One example's contribution, as `3.2x`: times the average example."""
        times = float(self.contributions[index])
        if abs(times) < 1:
            return f"{times:.2f}x"
        return f"{times:.2g}x" if abs(times) < 99.5 else f"{times:,.0f}x"

    def ends(self, most: int) -> tuple[NDArray, NDArray]:
        """The `most` most coherent and as many least coherent examples, extremes first.

        Fewer where they would overlap.
        """
        count = min(most, max(1, len(self.order) // 2))
        return self.order[:count], self.order[::-1][:count]


def rankings(records: Sequence[dict], probe: str) -> list[Ranking]:
    """The rankings of a probe in order of steps, without steps whose contributions are all nan."""
    rankings = []
    name = f"{probe}/{CONTRIBUTIONS}" if probe else CONTRIBUTIONS
    for step, values in series(records, name):
        contributions = np.array(values, float)
        finite = np.flatnonzero(np.isfinite(contributions))
        if finite.size:
            order = finite[np.argsort(-contributions[finite], kind="stable")]
            rankings.append(Ranking(probe, step, order, contributions))
    return rankings


def early_and_last(rankings: list[Ranking]) -> list[Ranking]:
    """The first ranking after step 0 and the last one; only the last where they are the same."""
    early = next((ranking for ranking in rankings if ranking.step > 0), None)
    if early is None or early.step == rankings[-1].step:
        return rankings[-1:]
    return [early, rankings[-1]]


def probes(names: Iterable[str]) -> list[str]:
    """The probes among recorded names that have contributions."""
    return [split(name)[0] for name in names if split(name)[1] == CONTRIBUTIONS]


def sample(run: Run, probe: str) -> Sample:
    """`inputs`, `labels`, `index`, `group`, `group_names` of a probe's examples, as far as kept."""
    try:
        return run.load(f"examples-{probe}" if probe else "examples")
    except FileNotFoundError:
        return {}


def part_names(run: Run, name: str, parts: Iterable[str]) -> list[str]:
    """The parts of a recorded value: layers by name, groups by the names the probe gave them."""
    keys = list(parts)
    if axis(name, [], run.axes) != "group":
        return keys
    groups = sample(run, split(name)[0]).get("group_names", ())
    return [str(group) for group in groups] if len(groups) == len(keys) else keys


def images(inputs: NDArray) -> NDArray | None:
    """Inputs [r, ...] as images [r, height, width] or [r, height, width, 3]; None if they are none.

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


def caption(sample: Sample, index: int) -> str:
    """`label 7, corrupt`: what is known about an example, as far as it was kept."""
    labels = sample.get("labels", ())
    # A target of many numbers is no label to read.
    is_label = index < len(labels) and np.ndim(labels[index]) == 0
    words = [f"label {labels[index]}"] if is_label else []
    return ", ".join(words + ["corrupt"] * is_corrupt(sample, index))


def place(sample: Sample, index: int) -> int:
    """The place in the probe's sample: contributions may be those of a few of its examples."""
    return int(sample["index"][index]) if index < len(sample.get("index", ())) else index


def is_corrupt(sample: Sample, index: int) -> bool:
    """Whether an example is of the group that the probe calls corrupt."""
    group, names = sample.get("group"), sample.get("group_names")
    if group is None or names is None or index >= len(group):
        return False
    return str(names[group[index]]) == "corrupt"


def _folded(flat: NDArray) -> NDArray:
    for channels in (1, 3):
        side = math.isqrt(flat.shape[1] // channels)
        if side * side * channels == flat.shape[1]:
            return flat.reshape(len(flat), side, side, channels)
    return flat
