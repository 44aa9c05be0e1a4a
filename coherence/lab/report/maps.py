"""Quantities in colour: by layer over training, and between groups of examples."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.colors
import numpy as np
from matplotlib.figure import Figure

from . import drawing
from .examples import part_names
from .grouping import Arm
from .records import Track, diverged, last, track
from .wording import fitted, logarithmic, plain, sparse, spread_out, words

_SMALLEST = 4.5  # points: smaller numbers in the cells of a matrix cannot be read in print
_NOT_A_NUMBER = "#dddddd"


def by_layer(arms: Sequence[Arm], name: str, among: Sequence[Arm] | None = None) -> Figure:
    """A panel an arm: a row a layer, first layer on top; the colour is the mean over seeds, logarithmic where the range asks for it.

    `among`: all arms that share the colours, if they are drawn in several figures.
    """
    tracks, notes = zip(*(_kept(arm, name) for arm in arms))
    means = [_mean(one.values, one.present) for one in tracks]
    norm, palette = _colours(
        name,
        [_mean(one.values, one.present) for one, _ in (_kept(arm, name) for arm in among or arms)],
    )
    rows = max(len(one.parts) for one in tracks)
    columns = 2 if len(arms) > 1 and rows <= 24 else 1
    deep = -(-len(arms) // columns)
    figure, axes = drawing.figure(deep, columns, height=1.1 + min(0.24 * rows, 6.0), sharex=True)
    for panel, arm, note, one, mean in zip(axes.flat, arms, notes, tracks, means):
        mesh = panel.pcolormesh(
            *_edges(one.steps, len(one.parts)),
            mean.T,
            norm=norm,
            cmap=palette,
            rasterized=mean.size > 2000,
        )
        every = -(-len(one.parts) // 60)  # names of more layers would overlap
        panel.set_yticks(
            np.arange(len(one.parts))[::every] + 0.5,
            one.parts[::every],
            fontsize=8 if rows <= 24 else 5,
        )
        panel.invert_yaxis()
        panel.grid(False)
        panel.set_title(fitted(arm.name + note, columns))
        if spread_out(one.steps):
            panel.set_xscale("log")
        _remember(figure, arm.name, one.parts, one.steps.tolist(), mean)
    for spare in axes.flat[len(arms) :]:
        spare.set_visible(False)
    for panel in axes[-1]:
        panel.set_xlabel("step")
    _bar(figure, mesh, axes, name)
    return figure


def between_groups(arms: Sequence[Arm], name: str, among: Sequence[Arm] | None = None) -> Figure:
    """A panel an arm: the matrix at the last step that has it, mean over seeds; `among` as for `by_layer`."""
    tracks, notes = zip(*(_kept(arm, name) for arm in arms))
    lasts = [_mean(one.values, one.present)[-1] for one in tracks]
    norm, palette = _colours(
        name,
        [
            _mean(one.values, one.present)[-1]
            for one, _ in (_kept(arm, name) for arm in among or arms)
        ],
    )
    columns = min(3, len(arms))
    shape, width = lasts[0].shape, 7.2 if columns > 1 else 4.4
    inches = (width - 1.2) / columns
    figure, axes = drawing.figure(
        -(-len(arms) // columns),
        columns,
        width,
        height=0.9 + min(inches * shape[0] / shape[1], 6.0),
    )
    for panel, arm, note, one, values in zip(axes.flat, arms, notes, tracks, lasts):
        mesh = panel.imshow(values, norm=norm, cmap=palette)
        names = part_names(arm.runs[0], name, map(str, range(max(values.shape))))
        for place, count in ((panel.set_yticks, len(values)), (panel.set_xticks, values.shape[1])):
            ticks = range(0, count, -(-count // 20))
            place(ticks, [names[i] for i in ticks])
        panel.grid(False)
        panel.set_title(
            fitted(f"{arm.name}, step {one.steps[-1]}{note}", columns + 1)
        )  # narrower than their share, by tick labels
        ylabel, xlabel = arm.axes.get(name, ("index", "index"))
        panel.set(xlabel=xlabel, ylabel=ylabel)
        _annotate(panel, values, norm, palette, inches / values.shape[1])
        _remember(
            figure,
            arm.name,
            [f"row {i}" for i in range(len(values))],
            range(values.shape[1]),
            values.T,
        )
    for spare in axes.flat[len(arms) :]:
        spare.set_visible(False)
    _bar(figure, mesh, axes, name)
    return figure


def _kept(arm: Arm, name: str) -> tuple[Track, str]:
    """A quantity of the seeds that did not diverge, and a note that says so; of all seeds where none or all did."""
    lost = [
        run.seed for run, history in zip(arm.runs, arm.histories) if diverged(history) is not None
    ]
    histories = [history for run, history in zip(arm.runs, arm.histories) if run.seed not in lost]
    if not lost or not any(last(history, name) for history in histories):
        return track(arm.histories, name), ""
    return track(histories, name), f", without diverged seed {', '.join(map(str, lost))}"


def _mean(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Mean over the seeds that were measured at a step; a nan of one of them makes it nan."""
    counted = present.reshape(*present.shape, *[1] * (values.ndim - 2))
    with np.errstate(invalid="ignore"):
        return np.where(counted, values, 0).sum(0) / counted.sum(0)


def _colours(name: str, arrays: Sequence[np.ndarray]):
    """Logarithmic or linear viridis; orange to purple around 0 where there are negative values. Grey is nan."""
    values = np.concatenate([array.ravel() for array in arrays])
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    norm: matplotlib.colors.Normalize
    if logarithmic(name, finite):
        norm, palette = matplotlib.colors.LogNorm(low, max(high, low * 1.01)), "viridis"
    elif low < 0:
        reach = max(-low, high)
        norm, palette = matplotlib.colors.Normalize(-reach, reach), "PuOr"
    else:
        norm, palette = matplotlib.colors.Normalize(low, max(high, low + 1e-12)), "viridis"
    return norm, matplotlib.colormaps[palette].with_extremes(bad=_NOT_A_NUMBER)


def _bar(figure: Figure, mesh, axes, name: str) -> None:
    """The one colour bar of a figure, its ticks plain numbers."""
    logarithmic = isinstance(mesh.norm, matplotlib.colors.LogNorm)
    bar = figure.colorbar(
        mesh,
        ax=axes,
        label=words(name),
        fraction=0.04,
        pad=0.02,
        format=plain if logarithmic else None,
    )
    if logarithmic:
        bar.ax.yaxis.set_minor_formatter(sparse)


def _edges(steps: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Borders of the cells: halfway between steps, on the scale of the axis."""
    x = np.maximum(steps, 0.7) if spread_out(steps) else steps.astype(float)
    if spread_out(steps):
        x = np.log(x)
    between = (x[1:] + x[:-1]) / 2
    ends = (between[0] - x[0], x[-1] - between[-1]) if len(between) else (0.5, 0.5)
    edges = np.concatenate([[x[0] - ends[0]], between, [x[-1] + ends[1]]])
    return np.exp(edges) if spread_out(steps) else edges, np.arange(rows + 1)


def _annotate(panel, values, norm, palette, inches: float) -> None:
    """Numbers in the cells, which are `inches` wide, where they can be read."""
    digits = int(np.clip(2 - np.ceil(np.log10(norm.vmax)), 0, 4))
    texts = {
        place: f"{round(value, digits) + 0.0:.{digits}f}" for place, value in np.ndenumerate(values)
    }
    size = min(7.5, 72 * inches / (0.7 * max(map(len, texts.values()))))
    if size < _SMALLEST:
        return
    for (i, j), text in texts.items():
        red, green, blue, _ = palette(norm(values[i, j]))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        panel.text(
            j, i, text, ha="center", va="center", fontsize=size, color="white" if dark else "black"
        )


def _remember(figure, arm: str, curves: Sequence[str], x: Sequence, values: np.ndarray) -> None:
    """`values` [x, curves] for the figure's CSV."""
    for at, row in zip(x, values):
        figure.drawn.extend(
            (arm, curve, at, f"{value:.6g}", "", "") for curve, value in zip(curves, row)
        )
