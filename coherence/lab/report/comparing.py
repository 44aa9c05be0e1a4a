"""Two arms side by side: settings that differ, last values, and differences paired by seed."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from coherence import display
from coherence.lab.claims import interval

from .examples import part_names
from .grouping import ABSENT, Arm, arms, differences, flat
from .records import diverged, parts, series
from .tables import Format, blocks, cell, check_format, join, json_text

BEST: dict[str, Callable] = {"loss": min, "error": min, "accuracy": max}
"""By the end of a quantity's name, its best value; other quantities have no best value."""
COLUMNS = (
    *("quantity", "value", "a", "a_low", "a_high", "a_seeds", "b", "b_low", "b_high", "b_seeds"),
    *("difference", "low", "high", "paired"),
)
"""Of `Comparison.rows`: B minus A, with 95 % intervals."""


class Line(NamedTuple):
    """One number of each run: `{seed: value}` of either arm, and B minus A of common seeds."""

    quantity: str
    value: str
    a: dict[int, float]
    b: dict[int, float]

    @property
    def difference(self) -> list[float]:
        """B minus A, one per seed that is in both."""
        return [self.b[seed] - self.a[seed] for seed in self.a if seed in self.b]


@dataclass(frozen=True)
class Comparison:
    """Two arms compared; `text()` to read, `rows()` to count with.

    >>> Comparison(Arm("SGD", []), Arm("Adam", []), ("a", "b")).lines
    []
    """

    a: Arm
    b: Arm
    names: tuple[str, str]
    settings: list[tuple[str, str, str]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def rows(self) -> Iterator[tuple]:
        """One row per quantity and value (`final` or `best`), as in `COLUMNS`.

        Means are over seeds, with 95 % intervals.
        """
        for line in self.lines:
            samples = [*line.a.values()], [*line.b.values()], line.difference
            yield (
                line.quantity,
                line.value,
                *(number for sample in samples for number in (*_bounds(sample), len(sample))),
            )

    def text(self, format: Format = "text", width: int | None = None) -> str:
        """Settings that differ, then final and best values as mean ± half of the 95 % interval.

        Args:
            format: of the tables.
            width: what tables should fit into; the terminal's by default.
        """
        check_format("text", format)
        return join(self._blocks(format, width or shutil.get_terminal_size().columns), format)

    def json(self) -> str:
        """Names, settings that differ, and `rows()`, for programs; nan is null."""
        settings = [dict(zip(("setting", "a", "b"), row)) for row in self.settings]
        rows = [dict(zip(COLUMNS, row)) for row in self.rows()]
        sides = dict(zip("ab", self.names))
        return json_text({**sides, "settings": settings, "rows": rows})

    def _blocks(self, format: Format, width: int) -> Iterator[str]:
        for part in self._parts():
            yield from [part] if isinstance(part, str) else blocks(*part, format, width)

    def _repr_html_(self) -> str:
        shown: list[str] = []
        for part in self._parts():
            if isinstance(part, str):
                shown += map(display.paragraph, part.splitlines())
            else:
                title, header, rows = part
                shown += [display.paragraph(title), display.table(header, rows)]
        return "".join(shown)

    def _parts(self) -> Iterator[str | tuple[str, list[str], Sequence[tuple[str, ...]]]]:
        """Sentences, and tables: title, header, rows."""
        sides = zip("AB", self.names, (self.a, self.b))
        yield "\n".join(f"{letter}  {name}: {_about(arm)}" for letter, name, arm in sides)
        if self.settings:
            yield "settings that differ", ["setting", "A", "B"], [*self.settings]
        else:
            yield "the same settings"
        for value, title in (
            ("final", "at the last record"),
            ("best", "best: lowest loss or error, highest accuracy"),
        ):
            rows = [
                (
                    line.quantity,
                    cell([*line.a.values()]),
                    cell([*line.b.values()]),
                    cell(line.difference),
                )
                for line in self.lines
                if line.value == value
            ]
            if rows:
                yield title, ["quantity", "A", "B", "B - A"], rows
        shared = sorted(set(self.a.seeds) & set(self.b.seeds))
        pairs = (
            f"B - A paired over seeds {', '.join(map(str, shared))}"
            if shared
            else "no seed is in both: nothing to pair"
        )
        yield f"mean ± half of the 95 % interval over seeds; {pairs}"


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
    inside = arms([path])
    if len(inside) > 1:
        names = ", ".join(arm.name for arm in inside)
        raise ValueError(
            f"{path} holds runs of {len(inside)} different settings ({names}). "
            f"Compare two of them: {Path(path) / inside[0].name}."
        )
    return inside[0]


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


def _bests(arm: Arm, name: str, choose: Callable) -> dict[int, float]:
    bests = {}
    for run, history in zip(arm.runs, arm.histories):
        values = [value for _, value in series(history, name)]
        if values:
            bests[run.seed] = choose(filter(math.isfinite, values), default=math.nan)
    return bests


def _final_parts(arm: Arm, name: str) -> dict[str, dict[int, float]]:
    """`{part: {seed: number}}` of the last records."""
    by_part: dict[str, dict[int, float]] = {}
    for seed, value in arm.finals(name).items():
        for part, number in parts(value):
            by_part.setdefault(part, {})[seed] = number
    return dict(zip(part_names(arm.runs[0], name, by_part), by_part.values()))


def _bounds(values: list[float]) -> tuple[float, float, float]:
    return interval(values) if values else (math.nan, math.nan, math.nan)


def _about(arm: Arm) -> str:
    ends = sorted({history[-1]["step"] for history in arm.histories if history})
    done = sum(run.done for run in arm.runs)
    lost = sum(diverged(history) is not None for history in arm.histories)
    words = [
        f"seed{'s' * (len(arm.seeds) > 1)} {', '.join(map(str, arm.seeds))}",
        "done" if done == len(arm.runs) else f"{done} of {len(arm.runs)} done",
    ]
    if ends:
        words.append(f"up to step {' or '.join(map(str, ends))}")
    if lost:
        words.append(f"{lost} diverged")
    return "; ".join(words)
