"""Curves over training: mean and 95 % band over seeds, a colour per arm or group of examples."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from . import drawing, labels
from .examples import part_names
from .grouping import Arm, differences, flat
from .records import Track, last, split, track

_CYCLE = ("real", "random", "pristine", "other", "corrupt", "neutral")
_DASHES = ("-", "--", ":", "-.")


def looks(arms: Sequence[Arm]) -> dict[str, tuple[str, str]]:
    """`{arm: (colour, dashes)}`.

    Arms named after true or random labels get those colours; a second of the same colour is dashed.
    Three arms or more that differ in one number alone are shades in its order. Up to 24 arms look
    different.
    """
    if shades := _shades(arms):
        return shades
    unused = itertools.cycle(_CYCLE)
    count: dict[str, int] = {}
    styles = {}
    for arm in arms:
        words = arm.name.replace("_", "-").split("-")
        meanings = [word for word in ("real", "random") if word in words]
        colour = drawing.COLOUR[meanings[0] if meanings else next(unused)]
        styles[arm.name] = colour, _DASHES[count.get(colour, 0) % len(_DASHES)]
        count[colour] = count.get(colour, 0) + 1
    return styles


def _shades(arms: Sequence[Arm]) -> dict[str, tuple[str, str]]:
    """Looks of arms that differ in one numeric setting; none of others."""
    if len(arms) < 3 or not all(arm.runs for arm in arms):
        return {}
    settings = [flat(arm.config) for arm in arms]
    differing = differences(settings)
    try:
        (name,) = differing
        values = [float(of_arm[name]) for of_arm in settings]
    except (ValueError, KeyError):
        return {}
    ranks = np.argsort(np.argsort(values, kind="stable")) / (len(arms) - 1)
    return {arm.name: (colour, "-") for arm, colour in zip(arms, _viridis(ranks))}


def over_training(
    arms: Sequence[Arm],
    names: Sequence[str],
    among: Sequence[Arm] | None = None,
    columns: int = 2,
) -> Figure:
    """A panel per quantity, a curve per arm.

    Args:
        arms: those to draw.
        names: the quantities.
        among: all arms that share the axes, if they are drawn in several figures.
        columns: of panels.
    """
    figure, panels = _panels(len(names), columns)
    everyone = among or arms
    shades = _shades(everyone)
    styles = shades or looks(arms)
    log_steps = _has_logarithmic_steps(everyone, names)
    for panel, name in zip(panels, names):
        tracks = {
            arm.name: track(arm.histories, name)
            for arm in everyone
            if name in arm.quantities("scalar")
        }
        frame = _Frame(name, log_steps, [of_arm.values for of_arm in tracks.values()])
        title = labels.heading(name)
        for arm in arms:
            if (of_arm := tracks.get(arm.name)) is not None:
                colour, dashes = styles[arm.name]
                frame.draw(panel, of_arm, of_arm.values, arm.name, colour, dashes, title)
        frame.finish(panel, labels.heading(split(name)[1]))
    if len(arms) > 1:
        _legend(figure, panels)
    return figure


def by_group(arms: Sequence[Arm], name: str, among: Sequence[Arm] | None = None) -> Figure:
    """A panel per arm, a curve per group.

    Args:
        arms: those to draw.
        name: the quantity.
        among: all arms that share the axes, if they are drawn in several figures.
    """
    figure, panels = _panels(len(arms), sharey=True)
    everyone = among or arms
    values = [track(arm.histories, name).values for arm in everyone]
    frame = _Frame(name, _has_logarithmic_steps(everyone, [name]), values)
    for panel, arm in zip(panels, arms):
        of_arm = track(arm.histories, name)
        names = part_names(arm.runs[0], name, of_arm.parts)
        for i, (group, colour) in enumerate(zip(names, _group_colours(names))):
            frame.draw(panel, of_arm, of_arm.values[:, :, i], group, colour, "-", title=arm.name)
        frame.finish(panel, arm.name if len(arms) > 1 else labels.heading(name))
    _legend(figure, panels)
    return figure


def _panels(count: int, columns: int = 2, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    columns = min(columns, count)
    size = {"height": 2.3} if count > 1 else {"width": 5.0}
    figure, grid = drawing.figure(-(-count // columns), columns, sharey=sharey, **size)
    for spare in grid.flat[count:]:
        spare.set_visible(False)
    return figure, list(grid.flat[:count])


def _has_logarithmic_steps(arms: Iterable[Arm], names: Sequence[str]) -> bool:
    return any(
        labels.is_spread_out(track(arm.histories, name).steps)
        for arm in arms
        for name in names
        if any(last(history, name) for history in arm.histories)
    )


class _Frame:
    """The axes of a quantity, shared by panels, and the curves on them."""

    def __init__(self, name: str, log_steps: bool, values: Sequence[NDArray]):
        self.name, self.log_steps = name, log_steps
        self.landmark = labels.ORTHOGONAL.get(split(name)[1].partition("_by_")[0])
        self.values = np.concatenate([array.ravel() for array in values])
        self.logarithmic = labels.is_logarithmic(name, self.values)

    def draw(
        self,
        panel: Axes,
        track: Track,
        values: NDArray,
        label: str,
        colour: str,
        dashes: str,
        title: str,
    ) -> None:
        """Mean and band where every seed was measured; thin curves of the seeds where one is not.

        `values` [seeds, steps] are the track's, or those of one of its parts.
        """
        steps = drawing.log_steps(track.steps) if self.log_steps else track.steps
        whole = track.present.all(0)
        drawing.band(
            panel,
            steps[whole],
            values[:, whole],
            label,
            colour=colour,
            style=dashes if whole.sum() > 1 else "o",  # one step alone is no line
            title=title,
            logarithmic=self.logarithmic,
        )
        if len(values) > 1 and not np.isfinite(values).all():
            for row in values:
                finite = np.isfinite(row)
                (thin,) = panel.plot(steps[finite], row[finite], dashes, color=colour)
                thin.set(linewidth=0.6, alpha=0.7)

    def finish(self, panel: Axes, title: str) -> None:
        """Title, labels, scales and limits."""
        panel.set_title(drawing.literal(labels.fitted(title, 2)))
        panel.set(xlabel="step", ylabel=drawing.literal(labels.label(self.name)))
        if self.log_steps:
            panel.set_xscale("log")
        if self.logarithmic:
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter(labels.plain)
            panel.yaxis.set_minor_formatter(labels.sparse)
        if (limits := self.limits()) is not None:
            panel.set_ylim(*limits)
        if self.landmark is not None:
            drawing.guide(panel, self.landmark, "orthogonal", "left")

    def limits(self) -> tuple[float, float] | None:
        """Room for every seed and the landmark; the far wider band of a few seeds is cut there."""
        if labels.is_share(self.name):
            return 0.0, 1.03
        marks = [] if self.landmark is None else [self.landmark]
        finite = np.append(self.values[np.isfinite(self.values)], marks)
        if not finite.size or finite.min() == finite.max():
            return None
        ends = np.array([finite.min(), finite.max()])
        if self.logarithmic:
            ends = np.log(ends)
        low, high = ends + 0.1 * (ends[1] - ends[0]) * np.array([-1, 1])
        return (np.exp(low), np.exp(high)) if self.logarithmic else (low, high)


def _group_colours(names: Sequence[str]) -> list[str]:
    if set(names) <= {"pristine", "corrupt"}:
        return [drawing.COLOUR[name] for name in names]
    return _viridis(np.linspace(0, 1, len(names)))


def _viridis(places: NDArray) -> list[str]:
    """Colours at places in [0, 1], without the last, too pale on white."""
    shades = matplotlib.colormaps["viridis"](0.92 * places)
    return [matplotlib.colors.to_hex(shade) for shade in shades]


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend above all panels, in rows that fit."""
    entries = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels()):
            entries[label] = handle
    fitting = max(1, 100 // (7 + max(map(len, entries))))
    rows = -(-len(entries) // fitting)
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside upper center",
        ncols=-(-len(entries) // rows),
    )
