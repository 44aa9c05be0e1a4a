"""What the page shows of some runs, as plain values: read anew where something has changed."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coherence.lab import runs
from coherence.lab.report import labels
from coherence.lab.report.examples import part_names
from coherence.lab.report.grouping import differences, find, flat
from coherence.lab.report.records import PREFERRED, split
from coherence.lab.runs.locks import Writer, writer_of

from .tail import Bins, Parts, Row, Tail, Value

POINTS = 400
"""Of a curve: as many as a panel has pixels."""
TIMES = 120
"""Columns of a heat map, and histograms over training."""
WINDOW = 8
"""Readings over which the noise scale is averaged."""
AXIS = 61
"""Bins of a histogram as shown."""
MOST_RUNS = 24
"""Followed at once; the first by name."""
PATIENCE = 1.0
"""Seconds for which an answer holds, however many pages ask."""
BUDGET = 0.02
"""Processor seconds for each of them: where making an answer takes longer, it holds longer."""
SPEED, MEMORY = "system/steps_per_second", "system/memory_mb"
"""Recorded by `Recorder`; of other runs, what their locks say while they are watched."""


class Followed:
    """A run that is watched: its records so far, who writes it, and how fast it was."""

    def __init__(self, run: runs.Run):
        self.run = run
        self.tail = Tail(run.path / "metrics.jsonl")
        self.settings = flat(run.config)
        self.facts: dict[str, Any] = {}
        self._speed: list[Row] = []
        self._seen = 0.0

    def read(self) -> bool:
        """Look at its files; whether something has changed."""
        before = self.facts
        changed = self.tail.read()
        if changed and not self.run.axes:  # which its writer says when it begins to train
            with contextlib.suppress(OSError, ValueError):
                self.run = runs.Run.read(self.run.path)
        writer = None if self.run.done else writer_of(self.run.path)
        lives = writer is not None and writer.lives() is not False
        if lives and writer is not None and writer.seen != self._seen:
            self._seen = writer.seen
            self._note(writer)
        state = "done" if self.run.done else "running" if lives else "stopped"
        if state == "stopped" and (self.run.path / "error.log").exists():
            state = "failed"
        self.facts = {
            "state": state,
            "records": self.tail.count,
            "damaged": self.tail.damaged,
            "stride": self.tail.stride,
            "writer": writer.step if lives and writer is not None else None,
        }
        return changed or before != self.facts

    def _note(self, writer: Writer) -> None:
        """Keep what a sign of life says of speed and memory."""
        values: dict[str, Any] = {}
        if writer.steps_per_second is not None:
            values[SPEED] = writer.steps_per_second
        if (memory := writer.memory()) is not None:
            values[MEMORY] = memory / 2**20
        if values and writer.step is not None:
            self._speed.append((writer.step, values))
            if len(self._speed) > 2 * POINTS:
                del self._speed[::2]

    def rows(self) -> list[Row]:
        """Its records by step, and what was noted of speed where it recorded none."""
        rows = self.tail.rows()
        recorded = {name for _, values in rows for name in values}
        noted = [
            (step, {name: value for name, value in values.items() if name not in recorded})
            for step, values in self._speed
        ]
        return _with_noise_scale(sorted([*rows, *noted], key=lambda row: row[0]))


def _with_noise_scale(rows: list[Row]) -> list[Row]:
    """Rows with `noise_scale` beside the two numbers that probes record of it.

    Each is averaged over the last `WINDOW` readings before they are divided, as
    `coherence.metrics.noise_moments` wants it; not positive is nan.
    """
    windows: dict[str, deque[tuple[float, float]]] = {}
    extended = []
    for step, values in rows:
        scales: dict[str, Value] = {}
        for name, trace in values.items():
            start = name.removesuffix("noise_trace")
            square = values.get(f"{start}noise_squared_norm")
            if start != name and isinstance(trace, float) and isinstance(square, float):
                window = windows.setdefault(start, deque(maxlen=WINDOW))
                window.append((trace, square))
                traces, squares = map(sum, zip(*window))
                scales[f"{start}noise_scale"] = traces / squares if squares > 0 else math.nan
        extended.append((step, {**values, **scales}) if scales else (step, values))
    return extended


class Watcher:
    """Runs that are followed, and what the page shows of them.

    Args:
        paths: folders of runs, or with runs below; runs that appear there later join.
        where: conditions on settings, as `coherence show --where`.

    Raises:
        FileNotFoundError: one of the folders holds no run.
        ValueError: a condition is none, or holds for no run.
    """

    def __init__(self, paths: Iterable[str | Path], where: Sequence[str] = ()):
        self._paths, self._where = list(map(Path, paths)), where
        self._lock = threading.Lock()
        self._followed: dict[Path, Followed] = {}
        self._left_out = 0
        self._failed: list[str] = []
        self._version, self._looked, self._searched = 0, -math.inf, -math.inf
        self._took = 0.0  # processor seconds, the last time
        self._state: dict[str, Any] = {}
        self._search()

    def _search(self) -> None:
        """Find runs that are new."""
        failed: list[Exception] = []
        found = find(self._paths, failed, self._where)
        if not found and not self._followed and failed:
            raise failed[0]
        self._searched = time.monotonic()
        self._failed = [str(error) for error in failed]
        for run in found:
            path = run.path.resolve()
            if path not in self._followed and len(self._followed) < MOST_RUNS:
                self._followed[path] = Followed(run)
        self._left_out = len(found) - len(self._followed)

    @property
    def done(self) -> bool:
        """Whether all runs are finished."""
        return all(followed.run.done for followed in self._followed.values())

    def state(self, version: int | None = None) -> dict[str, Any] | None:
        """What the page shows; `None` where it is still that of a version."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked >= PATIENCE * max(1.0, self._took / BUDGET):
                begun = time.thread_time()
                self._look(now)
                self._took = time.thread_time() - begun
            return None if version == self._version else self._state

    def _look(self, now: float) -> None:
        if now - self._searched >= 5 * PATIENCE and self._version:
            try:
                self._search()
            except (OSError, ValueError) as error:  # a folder that is gone for a moment
                self._failed = [str(error)]
        changed = [followed.read() for followed in self._followed.values()]
        self._looked = time.monotonic()
        if any(changed) or not self._version:
            self._version += 1
            self._state = self._made()

    def _made(self) -> dict[str, Any]:
        followed = list(self._followed.values())
        every = [one.rows() for one in followed]
        names = _names([one.run for one in followed])
        settings = [one.settings for one in followed]
        differ = differences(settings)
        described = [
            {
                "name": name,
                "path": str(one.run.path),
                "seed": one.run.seed,
                "step": rows[-1][0] if rows else one.facts["writer"],
                "steps": one.run.config.get("steps"),
                "settings": {key: values.get(key, "absent") for key in differ},
                **one.facts,
            }
            for name, one, rows, values in zip(names, followed, every, settings)
        ]
        return {
            "version": self._version,
            "title": _title([one.run.path for one in followed]),
            "runs": described,
            "left_out": self._left_out,
            "failed": self._failed,
            "panels": list(_panels(every, [one.run for one in followed])),
        }


def _title(paths: Sequence[Path]) -> str:
    shared = Path(os.path.commonpath([path.resolve() for path in paths]))
    return "/".join(shared.parts[1:][-3:])


def _names(members: Sequence[runs.Run]) -> list[str]:
    """What tells the folders of runs apart."""
    paths = [run.path.resolve() for run in members]
    if len(paths) == 1:
        return [paths[0].name]
    shared = os.path.commonpath(paths)
    return [os.path.relpath(path, shared) for path in paths]


def _panels(every: Sequence[list[Row]], members: Sequence[runs.Run]) -> Iterator[dict[str, Any]]:
    """Curves of all runs in a panel a quantity; heat maps and histograms a panel a run."""
    kinds: dict[str, type] = {}
    for rows in every:
        for _, values in rows:
            for name, value in values.items():
                kinds.setdefault(name, type(value))
    drawn = {_limit_of(name) for name, kind in kinds.items() if kind is Bins}  # on their axes
    for name in sorted(kinds.keys() - drawn, key=lambda name: _order(name, kinds[name])):
        texts = {
            "name": name,
            "title": _title_of(name),
            "label": " ".join(labels.label(name).split()),
        }
        series: list[list[tuple[int, Any]]] = [
            [(step, values[name]) for step, values in rows if type(values.get(name)) is kinds[name]]
            for rows in every
        ]
        if kinds[name] is float:
            yield {**texts, "kind": "curves", "curves": _curves(series)}
            continue
        for run, pairs in enumerate(series):
            if pairs:
                place = {**texts, "run": run}
                if kinds[name] is Bins:
                    yield {**place, "kind": "histograms", **_histograms(pairs, name, every[run])}
                elif pairs[0][1].names:
                    yield {**place, "kind": "layers", **_layers(pairs)}
                else:
                    yield {**place, "kind": "groups", **_groups(pairs, members[run], name)}


def _title_of(name: str) -> str:
    if name in (SPEED, MEMORY):
        return {SPEED: "steps per second", MEMORY: "memory (MB)"}[name]
    return labels.heading(name.removesuffix("_counts"))


def _order(name: str, kind: type) -> tuple[int, bool, str, int, str]:
    """Curves, then speed and memory, then heat maps, then histograms.

    Of each those of the run as a whole first; within a probe the preferred first.
    """
    probe, quantity = split(name)
    place = 3 if kind is Bins else 2 if name.endswith("_by_layer") else probe == "system"
    rank = PREFERRED.index(quantity) if quantity in PREFERRED else len(PREFERRED)
    return int(place), probe != "", probe, rank, name


def _curves(series: Sequence[list[tuple[int, float]]]) -> list[dict[str, Any]]:
    return [
        {"run": run, **_curve([x for x, _ in pairs], [y for _, y in pairs])}
        for run, pairs in enumerate(series)
        if pairs
    ]


def _curve(steps: Sequence[int], values: Sequence[float]) -> dict[str, Any]:
    """At most `POINTS` points: of each piece of a longer curve the lowest and the highest."""
    if len(steps) > POINTS:
        heights = np.array(values, float)
        chosen = {0, len(steps) - 1}
        for piece in np.array_split(np.arange(len(steps)), POINTS // 2):
            finite = piece[np.isfinite(heights[piece])]
            if finite.size:
                ordered = finite[np.argsort(heights[finite], kind="stable")]
                chosen |= {int(ordered[0]), int(ordered[-1])}
            else:
                chosen.add(int(piece[0]))
        places = sorted(chosen)
        steps, values = [steps[i] for i in places], [values[i] for i in places]
    return {"x": list(steps), "y": [_number(value) for value in values]}


def _number(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _thinned(pairs: list[Any], most: int = TIMES) -> list[Any]:
    """At most so many of them, evenly spaced, with both ends."""
    if len(pairs) <= most:
        return pairs
    return [pairs[round(i * (len(pairs) - 1) / (most - 1))] for i in range(most)]


def _layers(pairs: list[tuple[int, Parts]]) -> dict[str, Any]:
    names = pairs[-1][1].names
    fitting = _thinned([pair for pair in pairs if pair[1].names == names])
    columns = [[_number(value) for value in parts.numbers] for _, parts in fitting]
    values = [list(row) for row in zip(*columns)]
    return {"x": [step for step, _ in fitting], "parts": list(names), "values": values}


def _groups(pairs: list[tuple[int, Parts]], run: runs.Run, name: str) -> dict[str, Any]:
    count = len(pairs[-1][1].numbers)
    fitting = [pair for pair in pairs if len(pair[1].numbers) == count]
    steps = [step for step, _ in fitting]
    titles = part_names(run, name, [str(i) for i in range(count)])
    curves = [
        {"label": title, **_curve(steps, [parts.numbers[i] for _, parts in fitting])}
        for i, title in enumerate(titles)
    ]
    return {"curves": curves}


def _histograms(pairs: list[tuple[int, Bins]], name: str, rows: list[Row]) -> dict[str, Any]:
    """Densities over training, on one axis that reaches to the largest number of all steps."""
    limits = {step: values.get(_limit_of(name)) for step, values in rows}
    names = pairs[-1][1].names
    fitting = [pair for pair in pairs if pair[1].names == names]
    fitting = _thinned([pair for pair in fitting if isinstance(limits.get(pair[0]), Parts)])
    layers = []
    for i, layer in enumerate(names):
        reach = np.array([limits[step].numbers[i] for step, _ in fitting])  # type: ignore[union-attr]
        most = float(reach[np.isfinite(reach)].max(initial=0.0)) or 1.0
        columns = [
            _on_axis(bins.counts[i], limit / most) for (_, bins), limit in zip(fitting, reach)
        ]
        values = [[_number(value) for value in row] for row in np.array(columns).T[::-1]]
        layers.append({"layer": layer, "values": values, "limit": _number(most)})
    return {"x": [step for step, _ in fitting], "layers": layers}


def _limit_of(name: str) -> str:
    return name.replace("_counts", "_limit")


def _on_axis(counts: Sequence[float], reach: float) -> NDArray[np.float64]:
    """The density of counts that reach to +-`reach`, in bins of an axis that reaches to +-1."""
    heights = np.array(counts, float)
    if not reach > 0 or not heights.sum() > 0:  # all 0, or nan
        return np.full(AXIS, np.nan)
    edges = np.linspace(-1, 1, AXIS + 1)
    whole = np.concatenate([[0.0], np.cumsum(heights / heights.sum())])
    return np.diff(np.interp(edges, np.linspace(-reach, reach, len(heights) + 1), whole))
