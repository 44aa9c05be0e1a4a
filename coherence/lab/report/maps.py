"""Maps: quantities in colour by layer and between groups, and examples as pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.colors
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import NDArray

from . import drawing, labels
from .examples import Ranking, Sample, images, is_corrupt, part_names, place
from .grouping import Arm
from .records import Track, diverged, last, track

SHOWN = 10
"""Examples in a row of pictures."""
_SMALLEST = 4.5  # points: smaller numbers in the cells of a matrix cannot be read in print
_NOT_A_NUMBER = "#dddddd"


def by_layer(arms: Sequence[Arm], name: str, among: Sequence[Arm] | None = None) -> Figure:
    """A panel per arm: a row per layer, the first on top; colours are means over seeds.

    Colours are logarithmic where the range asks for it.

    Args:
        arms: those to draw.
        name: the quantity.
        among: all arms that share the colours, if they are drawn in several figures.
    """
    tracks, notes = zip(*(_track(arm, name) for arm in arms))
    means = [_mean(of_arm) for of_arm in tracks]
    norm, palette = _colours(name, [_mean(_track(arm, name)[0]) for arm in among or arms])
    rows = max(len(of_arm.parts) for of_arm in tracks)
    columns = 2 if len(arms) > 1 and rows <= 24 else 1
    deep = -(-len(arms) // columns)
    figure, grid = drawing.figure(deep, columns, height=1.1 + min(0.24 * rows, 6.0), sharex=True)
    for panel, arm, note, of_arm, mean in zip(grid.flat, arms, notes, tracks, means):
        mesh = panel.pcolormesh(
            *_edges(of_arm.steps, len(of_arm.parts)),
            mean.T,
            norm=norm,
            cmap=palette,
            rasterized=mean.size > 2000,
        )
        every = -(-len(of_arm.parts) // 60)  # names of more layers would overlap
        panel.set_yticks(
            np.arange(len(of_arm.parts))[::every] + 0.5,
            [drawing.literal(part) for part in of_arm.parts[::every]],
            fontsize=8 if rows <= 24 else 5,
        )
        panel.invert_yaxis()
        panel.grid(False)
        panel.set_title(drawing.literal(labels.fitted(arm.name + note, columns)))
        if labels.is_spread_out(of_arm.steps):
            panel.set_xscale("log")
        _remember(panel, arm.name, of_arm.parts, of_arm.steps.tolist(), mean)
    for panel in grid[-1]:
        panel.set_xlabel("step")
    _finish(figure, grid, len(arms), mesh, name)
    return figure


def between_groups(arms: Sequence[Arm], name: str, among: Sequence[Arm] | None = None) -> Figure:
    """A panel per arm: the matrix at the last step that has it, mean over seeds.

    Arguments are those of `by_layer`.
    """
    tracks, notes = zip(*(_track(arm, name) for arm in arms))
    lasts = [_mean(of_arm)[-1] for of_arm in tracks]
    norm, palette = _colours(name, [_mean(_track(arm, name)[0])[-1] for arm in among or arms])
    columns = min(3, len(arms))
    shape, width = lasts[0].shape, 7.2 if columns > 1 else 4.4
    inches = (width - 1.2) / columns
    height = 0.9 + min(inches * shape[0] / shape[1], 6.0)
    figure, grid = drawing.figure(-(-len(arms) // columns), columns, width, height)
    for panel, arm, note, of_arm, values in zip(grid.flat, arms, notes, tracks, lasts):
        mesh = panel.imshow(values, norm=norm, cmap=palette)
        names = part_names(arm.runs[0], name, map(str, range(max(values.shape))))
        for set_ticks, count in zip((panel.set_yticks, panel.set_xticks), values.shape):
            ticks = range(0, count, -(-count // 20))
            set_ticks(ticks, [drawing.literal(names[i]) for i in ticks])
        panel.grid(False)
        title = f"{arm.name}, step {of_arm.steps[-1]}{note}"
        title = labels.fitted(title, columns + 1)  # narrower than their share, by labels
        panel.set_title(drawing.literal(title))
        ylabel, xlabel = arm.axes.get(name, ("index", "index"))
        panel.set(xlabel=xlabel, ylabel=ylabel)
        _annotate(panel, values, norm, palette, inches / values.shape[1])
        rows = [f"row {i}" for i in range(len(values))]
        _remember(panel, arm.name, rows, range(values.shape[1]), values.T)
    _finish(figure, grid, len(arms), mesh, name)
    return figure


def example_ends(ranking: Ranking, sample: Sample) -> Figure | None:
    """The most and the least coherent examples, a row each; label and contribution below each.

    None where the inputs are no pictures.
    """
    inputs = images(sample["inputs"]) if "inputs" in sample else None
    if inputs is None or len(inputs) < len(ranking.contributions):
        return None
    rows = ranking.ends(SHOWN)
    figure, grid = drawing.figure(2, len(rows[0]), width=7.2, height=1.25)
    low, high = float(np.nanmin(inputs)), float(np.nanmax(inputs))
    for panels, indices, title in zip(grid, rows, ("most coherent", "least coherent")):
        for panel, index in zip(panels, indices.tolist()):
            _picture(panel, inputs[index], low, high, corrupt=is_corrupt(sample, index))
            panel.set_xlabel(_below(ranking, sample, index), fontsize=7)
            contribution = float(ranking.contributions[index])
            label = f"example {place(sample, index)}"
            drawing.remember(panel, title, label, [ranking.step], [contribution])
        panels[0].set_title(title, fontsize=8.5)
    return figure


def _picture(panel: Axes, image: NDArray, low: float, high: float, corrupt: bool) -> None:
    if image.ndim == 3:
        panel.imshow((image - low) / (max(high, low + 1e-12) - low))
    else:
        panel.imshow(image, cmap="gray_r", vmin=low, vmax=high)
    panel.grid(False)
    panel.set(xticks=[], yticks=[])
    colour = drawing.COLOUR["corrupt" if corrupt else "neutral"]
    for side in panel.spines.values():
        side.set(visible=True, color=colour, linewidth=2.5 if corrupt else 0.5)


def _below(ranking: Ranking, sample: Sample, index: int) -> str:
    lines = [f"label {sample['labels'][index]}"] if "labels" in sample else []
    lines.append(ranking.times(index))
    return drawing.literal("\n".join(lines + ["corrupt"] * is_corrupt(sample, index)))


def _track(arm: Arm, name: str) -> tuple[Track, str]:
    """A quantity of the seeds that did not diverge, and a note that says so.

    Of all seeds where none or all did.
    """
    lost = [
        run.seed for run, history in zip(arm.runs, arm.histories) if diverged(history) is not None
    ]
    histories = [history for run, history in zip(arm.runs, arm.histories) if run.seed not in lost]
    if not lost or not any(last(history, name) for history in histories):
        return track(arm.histories, name), ""
    return track(histories, name), f", without diverged seed {', '.join(map(str, lost))}"


def _mean(track: Track) -> NDArray:
    """Mean over the seeds that were measured at a step; a nan of one of them makes it nan."""
    present = track.present
    counted = present.reshape(*present.shape, *[1] * (track.values.ndim - 2))
    with np.errstate(invalid="ignore"):
        return np.where(counted, track.values, 0).sum(0) / counted.sum(0)


def _colours(
    name: str, arrays: Sequence[NDArray]
) -> tuple[matplotlib.colors.Normalize, matplotlib.colors.Colormap]:
    """Viridis, logarithmic or linear; orange to purple around 0 where values are negative.

    Grey is nan.
    """
    values = np.concatenate([array.ravel() for array in arrays])
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    palette = "viridis"
    norm: matplotlib.colors.Normalize
    if labels.is_logarithmic(name, finite):
        norm = matplotlib.colors.LogNorm(low, max(high, low * 1.01))
    elif low < 0:
        reach, palette = max(-low, high), "PuOr"
        norm = matplotlib.colors.Normalize(-reach, reach)
    else:
        norm = matplotlib.colors.Normalize(low, max(high, low + 1e-12))
    return norm, matplotlib.colormaps[palette].with_extremes(bad=_NOT_A_NUMBER)


def _finish(figure: Figure, grid: NDArray, count: int, mesh: ScalarMappable, name: str) -> None:
    """Hide spare panels, and add the one colour bar of a figure, its ticks plain numbers."""
    for spare in grid.flat[count:]:
        spare.set_visible(False)
    logarithmic = isinstance(mesh.norm, matplotlib.colors.LogNorm)
    bar = figure.colorbar(
        mesh,
        ax=grid,
        label=drawing.literal(labels.label(name)),
        fraction=0.04,
        pad=0.02,
        format=labels.plain if logarithmic else None,
    )
    if logarithmic:
        bar.ax.yaxis.set_minor_formatter(labels.sparse)


def _edges(steps: NDArray, rows: int) -> tuple[NDArray, NDArray]:
    """Borders of the cells: halfway between steps, on the scale of the axis."""
    spread_out = labels.is_spread_out(steps)
    x = np.log(drawing.log_steps(steps)) if spread_out else steps.astype(float)
    between = (x[1:] + x[:-1]) / 2
    ends = (between[0] - x[0], x[-1] - between[-1]) if len(between) else (0.5, 0.5)
    edges = np.concatenate([[x[0] - ends[0]], between, [x[-1] + ends[1]]])
    return np.exp(edges) if spread_out else edges, np.arange(rows + 1)


def _annotate(
    panel: Axes,
    values: NDArray,
    norm: matplotlib.colors.Normalize,
    palette: matplotlib.colors.Colormap,
    inches: float,
) -> None:
    """Numbers in the cells, which are `inches` wide, where they can be read."""
    digits = int(np.clip(2 - np.ceil(np.log10(float(norm.vmax or 1))), 0, 4))
    texts = {
        place: f"{round(value, digits) + 0.0:.{digits}f}" for place, value in np.ndenumerate(values)
    }
    size = min(7.5, 72 * inches / (0.7 * max(map(len, texts.values()))))
    if size < _SMALLEST:
        return
    for (i, j), text in texts.items():
        red, green, blue, _ = palette(norm(values[i, j]))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        colour = "white" if dark else "black"
        panel.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)


def _remember(
    panel: Axes, arm: str, curves: Sequence[str], x: Iterable[Any], values: NDArray
) -> None:
    """`values` [x, curves] for the figure's CSV."""
    for at, row in zip(x, values):
        for curve, value in zip(curves, row.tolist()):
            drawing.remember(panel, arm, curve, [at], [value])
