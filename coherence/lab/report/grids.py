"""Many settings at once: last values over the settings that differ, in small multiples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coherence.lab.claims import interval

from . import drawing, labels
from .grouping import ABSENT, Arm, by_size, differences, flat, is_number

PANELS = 9
"""Of a figure."""
_COLUMNS = 3


class Plan(NamedTuple):
    """Which of the settings that differ goes along the axis, which is a colour, which a panel's."""

    across: str
    colour: str | None
    panels: tuple[str, ...]


def plan(settings: Sequence[dict[str, str]]) -> Plan:
    """Numbers go along the axis, those of most values first; few values are colours."""
    names = differences(settings)
    values = {name: {of_arm.get(name, ABSENT) for of_arm in settings} for name in names}
    longest = lambda name: (all(map(is_number, values[name])), len(values[name]))
    across = max(names, key=longest)
    few = [name for name in names if name != across and len(values[name]) <= len(drawing.SEQUENCE)]
    colour = max(few, key=lambda name: len(values[name]), default=None)
    return Plan(across, colour, tuple(name for name in names if name not in (across, colour)))


def in_order(arms: Sequence[Arm]) -> list[Arm]:
    """The arms by the settings that differ, numbers by size."""
    settings = {arm.name: flat(arm.config) for arm in arms}
    names = differences(list(settings.values()))
    return sorted(
        arms,
        key=lambda arm: [by_size(settings[arm.name].get(name, ABSENT)) for name in names],
    )


class Grid:
    """Arms in order, and what their settings say of where each is drawn."""

    def __init__(self, arms: Sequence[Arm]):
        self.arms = in_order(arms)
        settings = [flat(arm.config) for arm in self.arms]
        self.plan = plan(settings)
        across, colour, panels = self.plan
        self.across = [of_arm.get(across, ABSENT) for of_arm in settings]
        self.colours = ["" if colour is None else of_arm.get(colour, ABSENT) for of_arm in settings]
        self.titles = [_title(panels, of_arm) for of_arm in settings]
        self.ticks = sorted(set(self.across), key=by_size)
        numeric = all(map(is_number, self.ticks))
        self.places = {tick: float(tick) if numeric else i for i, tick in enumerate(self.ticks)}
        places = np.array([*self.places.values()], float)
        self.labels = None if numeric else [tick[:14] for tick in self.ticks]
        self.logarithmic = numeric and labels.is_logarithmic("", places)
        shades = sorted(set(self.colours), key=by_size)
        self.shades = {
            shade: drawing.SEQUENCE[i * (len(drawing.SEQUENCE) - 1) // max(len(shades) - 1, 1)]
            for i, shade in enumerate(shades)
        }

    def figures(self, name: str, most: int) -> Iterator[Figure]:
        """Last values of a scalar, mean and 95 % interval over seeds; of `most` panels at most."""
        titles = list(dict.fromkeys(self.titles))[:most]
        ends = [[*arm.finals(name).values()] for arm in self.arms]
        numbers = np.array([number for values in ends for number in values], float)
        logarithmic = labels.is_logarithmic(name, numbers)
        for start in range(0, len(titles), PANELS):
            some = titles[start : start + PANELS]
            columns = min(_COLUMNS, len(some))
            shape = -(-len(some) // columns), columns
            figure, panels = drawing.figure(*shape, height=2.1, sharex=True, sharey=True)
            for spare in panels.flat[len(some) :]:
                spare.set_visible(False)
            for panel, title in zip(panels.flat, some):
                shown = labels.fitted(title or labels.heading(name), columns)
                panel.set_title(drawing.literal(shown), fontsize=8)
                for shade in self.shades:
                    self._line(panel, title, shade, ends)
                self._scale(panel, logarithmic)
            self._label(figure, name)
            yield figure

    def _line(self, panel: Axes, title: str, shade: str, ends: list[list[float]]) -> None:
        places = enumerate(zip(self.titles, self.colours))
        here = [i for i, place in places if place == (title, shade) and ends[i]]
        x = [self.places[self.across[i]] for i in here]
        mean, low, high = np.array([interval(ends[i]) for i in here]).reshape(-1, 3).T
        colour = self.shades[shade]
        panel.plot(x, mean, "o-", color=colour, markersize=3)
        panel.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        across = [self.across[i] for i in here]
        drawing.remember(panel, title or None, shade, np.array(across), mean, low, high)

    def _scale(self, panel: Axes, logarithmic: bool) -> None:
        if self.labels is not None:
            panel.set_xticks(range(len(self.labels)), map(drawing.literal, self.labels))
            panel.tick_params(axis="x", labelrotation=45)
        if self.logarithmic:
            panel.set_xscale("log")
        if logarithmic:
            panel.set_yscale("log")
        panel.tick_params(labelsize=7)

    def _label(self, figure: Figure, name: str) -> None:
        figure.supxlabel(drawing.literal(self.plan.across), fontsize=8.5)
        figure.supylabel(drawing.literal(labels.label(name)), fontsize=8.5)
        if self.plan.colour is not None:
            keys = [
                drawing.key(drawing.literal(shade[:24]), colour, marker="o", markersize=3)
                for shade, colour in self.shades.items()
            ]
            title = drawing.literal(self.plan.colour)
            options = {"ncols": len(keys), "title": title, "title_fontsize": 8}
            figure.legend(handles=keys, loc="outside upper center", **options)


def _title(names: Sequence[str], settings: dict[str, str]) -> str:
    return ", ".join(f"{name}={settings.get(name, ABSENT)}" for name in names)
