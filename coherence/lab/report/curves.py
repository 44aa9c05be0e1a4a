"""Quantities over training: mean and 95 % band over seeds, an arm a colour; groups of examples, a group a colour."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from . import drawing
from .examples import part_names
from .grouping import Arm
from .records import Track, last, split, track
from .wording import (
    ORTHOGONAL,
    fitted,
    heading,
    logarithmic,
    plain,
    share,
    sparse,
    spread_out,
    words,
)

_CYCLE = ("real", "random", "pristine", "other", "corrupt", "neutral")
_DASHES = ("-", "--", ":", "-.")


def looks(arms: Sequence[Arm]) -> dict[str, tuple[str, str]]:
    """`{arm: (colour, dashes)}`: arms named after true or random labels get those colours, a second of the same colour is dashed."""
    colours, unused = {}, itertools.cycle(_CYCLE)
    for arm in arms:
        meanings = [
            word for word in ("real", "random") if word in arm.name.replace("_", "-").split("-")
        ]
        colours[arm.name] = drawing.COLOUR[meanings[0] if meanings else next(unused)]
    before = {
        name: list(colours.values())[:i].count(colours[name]) for i, name in enumerate(colours)
    }
    return {name: (colours[name], _DASHES[before[name] % len(_DASHES)]) for name in colours}


def over_training(arms: Sequence[Arm], names: Sequence[str]) -> Figure:
    """A panel a quantity, a curve an arm."""
    figure, axes = _panels(len(names))
    style, steps = looks(arms), _logarithmic_steps(arms, names)
    for panel, name in zip(axes, names):
        tracks = {
            arm.name: track(arm.histories, name) for arm in arms if name in arm.quantities("scalar")
        }
        log = logarithmic(name, np.concatenate([one.values.ravel() for one in tracks.values()]))
        for arm, one in tracks.items():
            _draw(panel, one, one.values, arm, *style[arm], heading(name), steps, log)
        _finish(
            panel,
            name,
            heading(split(name)[1]),
            steps,
            log,
            [one.values for one in tracks.values()],
        )
    if len(arms) > 1:
        _legend(figure, axes)
    return figure


def by_group(arms: Sequence[Arm], name: str, among: Sequence[Arm] | None = None) -> Figure:
    """A panel an arm, a curve a group. `among`: all arms that share the axes, if they are drawn in several figures."""
    figure, axes = _panels(len(arms), sharey=True)
    among = among or arms
    steps, tracks = _logarithmic_steps(among, [name]), [track(arm.histories, name) for arm in arms]
    values = [track(arm.histories, name).values for arm in among]
    log = logarithmic(name, np.concatenate([one.ravel() for one in values]))
    for panel, arm, one in zip(axes, arms, tracks):
        names = part_names(arm.runs[0], name, one.parts)
        for i, (group, colour) in enumerate(zip(names, _group_colours(names))):
            _draw(panel, one, one.values[:, :, i], group, colour, "-", arm.name, steps, log)
        _finish(panel, name, arm.name if len(arms) > 1 else heading(name), steps, log, values)
    _legend(figure, axes)
    return figure


def _panels(count: int, **kwargs) -> tuple[Figure, list]:
    columns = min(2, count)
    figure, axes = drawing.figure(
        -(-count // columns),
        columns,
        **({"height": 2.3} if count > 1 else {"width": 5.0}),
        **kwargs,
    )
    for spare in axes.flat[count:]:
        spare.set_visible(False)
    return figure, list(axes.flat[:count])


def _logarithmic_steps(arms, names) -> bool:
    return any(
        spread_out(track(arm.histories, name).steps)
        for arm in arms
        for name in names
        if any(last(h, name) for h in arm.histories)
    )


def _draw(panel, one: Track, values, label, colour, dashes, title, log_steps, log) -> None:
    """Mean and band where every seed was measured; each seed by itself, thin, where one is missing or has no number."""
    x = (
        np.maximum(one.steps, 0.7) if log_steps else one.steps
    )  # step 0 has a place on a logarithmic axis
    whole = one.present.all(0)
    drawing.band(
        panel,
        x[whole],
        values[:, whole],
        label,
        colour=colour,
        style=dashes,
        panel=title,
        logarithmic=log,
    )
    if len(values) > 1 and not np.isfinite(values).all():
        for row in values:
            finite = np.isfinite(row)
            panel.plot(x[finite], row[finite], dashes, color=colour, linewidth=0.6, alpha=0.7)


def _finish(
    panel, name: str, title: str, log_steps: bool, log: bool, values: Sequence[np.ndarray]
) -> None:
    panel.set_title(fitted(title, 2))
    panel.set(xlabel="step", ylabel=words(name))
    if log_steps:
        panel.set_xscale("log")
    landmark = ORTHOGONAL.get(split(name)[1].partition("_by_")[0])
    if log:
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(plain)
        panel.yaxis.set_minor_formatter(sparse)
    _limit(
        panel,
        share(name),
        log,
        np.concatenate([*(v.ravel() for v in values), [] if landmark is None else [landmark]]),
    )
    if landmark is not None:
        drawing.guide(panel, landmark, "orthogonal", "left")


def _limit(panel, shares: bool, log: bool, values: np.ndarray) -> None:
    """Room for every seed and the landmark. The band of two or three seeds may be many times wider and is cut there."""
    finite = values[np.isfinite(values)]
    if shares:
        panel.set_ylim(0, 1.03)
    elif finite.size and finite.min() < finite.max():
        low, high = (
            np.log(finite.min()) if log else finite.min(),
            np.log(finite.max()) if log else finite.max(),
        )
        ends = np.array([low - 0.1 * (high - low), high + 0.1 * (high - low)])
        panel.set_ylim(*(np.exp(ends) if log else ends))


def _group_colours(names: Sequence[str]) -> list[str]:
    if set(names) <= {"pristine", "corrupt"}:
        return [drawing.COLOUR[name] for name in names]
    import matplotlib

    return [
        matplotlib.colors.to_hex(colour)
        for colour in matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(names)))
    ]


def _legend(figure: Figure, axes: Sequence) -> None:
    """One legend above all panels, in rows that fit."""
    entries = {
        label: handle for panel in axes for handle, label in zip(*panel.get_legend_handles_labels())
    }
    fitting = max(1, 100 // (7 + max(map(len, entries))))
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside upper center",
        ncols=-(-len(entries) // -(-len(entries) // fitting)),
    )
