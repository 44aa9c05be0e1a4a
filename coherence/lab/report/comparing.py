"""Two arms side by side: the settings that differ, what the runs ended with, and the difference paired by seed."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from coherence.lab.claims import interval

from .examples import part_names
from .grouping import Arm, arms
from .records import diverged, parts, series
from .settings import ABSENT, differences, flat
from .tables import FORMATS, cell, wrapped

BEST = {"loss": min, "error": min, "accuracy": max}
"""By the end of a quantity's name, which of its values is the best; other quantities have no best value."""
COLUMNS = (
    "quantity",
    "value",
    "a",
    "a_low",
    "a_high",
    "a_seeds",
    "b",
    "b_low",
    "b_high",
    "b_seeds",
    "difference",
    "low",
    "high",
    "paired",
)
"""Of `Comparison.rows`: B minus A, with 95 % intervals."""


class Line(NamedTuple):
    """One number of each run: `{seed: value}` of either arm, and of B minus A where a seed is in both."""

    quantity: str
    value: str
    a: dict[int, float]
    b: dict[int, float]

    @property
    def difference(self) -> list[float]:
        return [self.b[seed] - self.a[seed] for seed in self.a if seed in self.b]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; `text()` to read, `rows()` to count with."""

    a: Arm
    b: Arm
    names: tuple[str, str]
    settings: list[tuple[str, str, str]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def rows(self) -> Iterator[tuple]:
        """One row a quantity and value (`final` or `best`), as in `COLUMNS`; means with 95 % intervals over seeds."""
        for line in self.lines:
            a, b, paired = list(line.a.values()), list(line.b.values()), line.difference
            yield (
                line.quantity,
                line.value,
                *_bounds(a),
                len(a),
                *_bounds(b),
                len(b),
                *_bounds(paired),
                len(paired),
            )

    def text(self, format: Literal["text", "markdown"] = "text", width: int | None = None) -> str:
        """Settings that differ, then final and best values as mean ± half of the 95 % interval over seeds."""
        if format not in FORMATS:
            raise ValueError(f'text(format): "text" or "markdown", got {format!r}.')
        width = width or shutil.get_terminal_size().columns
        return "\n\n".join(self._blocks(format, width))

    def _blocks(self, format, width) -> Iterator[str]:
        yield "\n".join(
            f"{letter}  {name}: {_about(arm)}"
            for letter, name, arm in zip("AB", self.names, (self.a, self.b))
        )
        yield (
            _table("settings that differ", ["setting", "A", "B"], self.settings, format, width)
            if self.settings
            else "the same settings"
        )
        for value, title in (
            ("final", "at the last record"),
            ("best", "best: lowest loss or error, highest accuracy"),
        ):
            rows = [
                (s.quantity, cell([*s.a.values()]), cell([*s.b.values()]), cell(s.difference))
                for s in self.lines
                if s.value == value
            ]
            if rows:
                yield _table(title, ["quantity", "A", "B", "B - A"], rows, format, width)
        shared = sorted(set(self.a.seeds) & set(self.b.seeds))
        note = "mean ± half of the 95 % interval over seeds; "
        yield note + (
            f"B - A paired over seeds {', '.join(map(str, shared))}"
            if shared
            else "no seed is in both: nothing to pair"
        )


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Two runs, or two folders with the seeds of one arm each: what differs, and by how much.

    Differences are paired: seed by seed, B minus A, so what a seed does to both cancels. The last
    record of a run that has a quantity counts, however far the run came. A nan makes its mean nan:
    leaving a failed seed out would flatter the others.

    Raises:
      FileNotFoundError: a folder holds no run.
      ValueError: a folder holds runs of different settings.
    """
    first, second = _arm(a), _arm(b)
    settings = [flat(arm.config) for arm in (first, second)]
    differing = [
        (key, settings[0].get(key, ABSENT), settings[1].get(key, ABSENT))
        for key in differences(settings)
    ]
    return Comparison(first, second, (str(a), str(b)), differing, list(_lines(first, second)))


def _arm(path: str | Path) -> Arm:
    found = arms([path])
    if len(found) > 1:
        there = ", ".join(arm.name for arm in found)
        raise ValueError(
            f"{path} holds runs of {len(found)} different settings ({there}). Compare two of them: {Path(path) / found[0].name}."
        )
    return found[0]


def _lines(a: Arm, b: Arm) -> Iterator[Line]:
    names = list(dict.fromkeys(a.quantities("scalar") + b.quantities("scalar")))
    for name in names:
        yield Line(name, "final", a.finals(name), b.finals(name))
    for name in names:
        if best := next((choose for end, choose in BEST.items() if name.endswith(end)), None):
            yield Line(name, "best", _bests(a, name, best), _bests(b, name, best))
    for name in dict.fromkeys(a.quantities("layers", "groups") + b.quantities("layers", "groups")):
        sides = [_final_parts(arm, name) for arm in (a, b)]
        for part in dict.fromkeys([*sides[0], *sides[1]]):
            yield Line(f"{name}[{part}]", "final", sides[0].get(part, {}), sides[1].get(part, {}))


def _bests(arm: Arm, name: str, choose) -> dict[int, float]:
    bests = {}
    for run, history in zip(arm.runs, arm.histories):
        values = [value for _, value in series(history, name)]
        if values:
            bests[run.seed] = choose(
                (value for value in values if math.isfinite(value)), default=math.nan
            )
    return bests


def _final_parts(arm: Arm, name: str) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for seed, value in arm.finals(name).items():
        for part, number in parts(value):
            found.setdefault(part, {})[seed] = number
    if list(found) == ["0", "1"]:
        return dict(zip(part_names(arm.runs[0], name, found), found.values()))
    return found


def _bounds(values: list[float]) -> tuple[float, float, float]:
    return tuple(interval(values)) if values else (math.nan,) * 3  # type: ignore[return-value]


def _about(arm: Arm) -> str:
    ends = sorted({history[-1]["step"] for history in arm.histories if history})
    done = sum(run.done for run in arm.runs)
    lost = sum(diverged(history) is not None for history in arm.histories)
    words = [
        f"seed{'s' * (len(arm.seeds) > 1)} {', '.join(map(str, arm.seeds))}",
        "done" if done == len(arm.runs) else f"{done} of {len(arm.runs)} done",
    ]
    words += [f"up to step {' or '.join(map(str, ends))}"] * bool(ends) + [
        f"{lost} diverged"
    ] * bool(lost)
    return "; ".join(words)


def _table(title: str, header, rows, format, width) -> str:
    pieces = wrapped(header, rows, width) if format == "text" else [(header, rows)]
    return (
        f"{title}\n"
        + "\n" * (format == "markdown")
        + "\n\n".join(FORMATS[format](*piece) for piece in pieces)
    )
