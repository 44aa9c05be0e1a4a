"""The look of every figure: colours with one meaning each, curves that remember their data.

True labels are blue, random labels orange, pristine examples green, corrupt ones vermilion, in
colours that colour-blind readers can tell apart (Okabe & Ito). A second method of the same kind is
dashed. No pyplot: no window, no global state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from coherence.lab.claims import interval

from .records import printable

HOUSE = Path(__file__).with_name("house.mplstyle")
COLOUR = {
    "real": "#0072B2",
    "random": "#E69F00",
    "pristine": "#009E73",
    "corrupt": "#D55E00",
    "neutral": "#555555",
    "other": "#CC79A7",
}
NEUTRAL = COLOUR["neutral"]
SEQUENCE = ("#440154", "#3b528b", "#21918c", "#5ec962", "#c8b400")
"""Viridis, its last step darkened for print."""
SMALL = {"fontsize": 6.5, "handlelength": 1.4, "labelspacing": 0.2, "borderaxespad": 0.3}
"""Of a legend in one of many panels."""


def in_house_style() -> AbstractContextManager[None]:
    """A context in which figures get the house's fonts, grid and lines."""
    return matplotlib.rc_context(fname=HOUSE)


def freeze_layout(figure: Figure) -> None:
    """Lay a figure out once and for all: saving it afterwards does not do so again."""
    engine = figure.get_layout_engine()
    if engine is not None:
        figure.dpi = matplotlib.rcParams["savefig.dpi"]  # text is measured as the PNG has it
        engine.execute(figure)
    figure.set_layout_engine(None)


# Panels


def figure(
    rows: int, columns: int, width: float = 7.2, height: float = 2.6, **kwargs: Any
) -> tuple[Figure, NDArray]:
    """A figure `width` inches wide, each row `height` high, and its panels [rows, columns]."""
    made = Figure(figsize=(width, height * rows), layout="constrained")
    made.drawn = []  # type: ignore[attr-defined]
    return made, made.subplots(rows, columns, squeeze=False, **kwargs)


def across(panels: Sequence[Axes]) -> Axes:
    """One panel in place of several neighbours in a row."""
    first, last = panels[0].get_subplotspec(), panels[-1].get_subplotspec()
    assert first is not None
    assert last is not None
    owner: Figure = panels[0].figure  # type: ignore[assignment]
    for panel in panels:
        panel.remove()
    place = first.get_gridspec()[first.rowspan.start, first.colspan.start : last.colspan.stop]
    return owner.add_subplot(place)


def letters(panels: Iterable[Axes], first: str = "a", *, small: bool = False) -> None:
    """A letter in front of each panel's title, in order, for captions to name.

    `small` also shrinks ticks and labels, for many panels.
    """
    for i, panel in enumerate(panels):
        title = f"{chr(ord(first) + i)}  {panel.get_title(loc='left')}"
        panel.set_title(title, loc="left", fontsize=8.5)
        if small:
            panel.tick_params(labelsize=7)
            for axis in (panel.xaxis, panel.yaxis):
                axis.label.set_fontsize(8)


def ticks(panel: Axes, x: Sequence[float] | None = None, y: Sequence[float] | None = None) -> None:
    """Plain numbers at these places alone, as on logarithmic axes."""
    if x is not None:
        panel.set_xticks(x, [f"{value:,g}" for value in x])
        panel.set_xticks([], minor=True)
    if y is not None:
        panel.set_yticks(y, [f"{value:,g}" for value in y])
        panel.set_yticks([], minor=True)


def log_steps(steps: ArrayLike) -> NDArray:
    """Steps for a logarithmic axis: step 0 is just before the next, which may be as late as 100."""
    steps = np.asarray(steps)
    return np.where(steps > 0, steps, 0.7 * min(steps[steps > 0], default=1))


def key(label: str, colour: str = NEUTRAL, style: str = "-", **kwargs: Any) -> Line2D:
    """An entry of a legend: `panel.legend(handles=[key("SGD", colour), key("L1", style="--")])`."""
    dashes, marker = (style, None) if style.strip("-:.") == "" else ("", style)
    kwargs = {"color": colour, "linestyle": dashes, "marker": marker, **kwargs}
    return Line2D([], [], label=label, **kwargs)


def picture(panel: Axes, image: ArrayLike, cmap: str = "gray_r", **kwargs: Any) -> None:
    """An image of pixels from 0 to 255, without ticks and frame."""
    panel.imshow(
        image, **{"cmap": cmap, "vmin": 0, "vmax": 255, "interpolation": "nearest", **kwargs}
    )
    panel.grid(False)
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)


def literal(text: str) -> str:
    """Text to be drawn as it is: no mathematics between dollars, no control characters."""
    return printable(str(text)).replace("$", r"\$")


# What is drawn


def band(
    panel: Axes,
    x: ArrayLike,
    values: ArrayLike,
    label: str,
    *,
    colour: str,
    style: str = "-",
    title: str | None = None,
    logarithmic: bool | None = None,
    **kwargs: Any,
) -> None:
    """Mean over seeds of `values` [seeds, x] with its 95 % interval.

    Args:
        panel: where to draw; positive quantities on its logarithmic axis get the geometric mean,
            and the interval of the logarithms.
        x: [x].
        values: [seeds, x], or [x] of one seed.
        label: the curve's.
        colour: of the curve; the band is paler.
        style: dashes and marker of the curve.
        title: the panel's in the figure's CSV, if it is not the one it has.
        logarithmic: for panels that get their scale later.
        kwargs: further options of the curve.
    """
    rows = np.atleast_2d(values)
    if logarithmic is None:
        logarithmic = panel.get_yscale() == "log"
    if logarithmic:
        rows = np.log(rows)
    bounds = np.array([_bounds(column) for column in rows.T]).reshape(-1, 3).T
    mean, low, high = np.exp(bounds) if logarithmic else bounds
    panel.plot(x, mean, style, color=colour, label=literal(label), **kwargs)
    if len(rows) > 1:
        panel.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    remember(panel, title, label, x, mean, low, high)


def curve(
    panel: Axes,
    x: ArrayLike,
    y: ArrayLike,
    label: str,
    *,
    colour: str,
    style: str = "-",
    title: str | None = None,
    **kwargs: Any,
) -> None:
    """One curve without a band."""
    panel.plot(x, y, style, color=colour, label=literal(label), **kwargs)
    remember(panel, title, label, x, y)


def bars(
    panel: Axes,
    x: Sequence[Any] | NDArray,
    values: ArrayLike,
    label: str,
    *,
    colour: str,
    offset: float = 0.0,
    width: float = 0.35,
    title: str | None = None,
    **kwargs: Any,
) -> None:
    """A bar with its 95 % interval for every x; `values` [seeds, x]."""
    mean, low, high = np.array([interval(column) for column in np.atleast_2d(values).T]).T
    if not np.isnan(low).all():
        spread = np.nan_to_num([mean - low, high - mean])
        kwargs |= {"yerr": spread, "error_kw": {"elinewidth": 1, "capsize": 2}}
    panel.bar(np.arange(len(x)) + offset, mean, width, color=colour, label=literal(label), **kwargs)
    remember(panel, title, label, x, mean, low, high)


def guide(panel: Axes, y: float, text: str = "", side: str = "right") -> None:
    """A horizontal landmark, its name at one side."""
    panel.axhline(y, color=NEUTRAL, linewidth=0.8, linestyle=":")
    if text:
        x = {"left": 0.01, "right": 0.99}[side]
        where: Any = ("axes fraction", "data")
        label = panel.annotate(text, (x, y), xycoords=where, fontsize=7, color=NEUTRAL)
        label.set(ha=side, va="bottom")


def remember(
    panel: Axes,
    title: str | None,
    label: str,
    x: ArrayLike,
    mean: ArrayLike,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
) -> None:
    """Keep numbers for the figure's CSV, a row per x."""
    title = title or (panel.get_title(loc="left") or panel.get_ylabel()).replace(r"\$", "$")
    columns = [np.atleast_1d(values) for values in (x, mean)]
    for bound in (low, high):
        nothing = np.full(len(columns[0]), np.nan)
        columns.append(nothing if bound is None else np.atleast_1d(bound))
    rows = zip(*(column.tolist() for column in columns))
    panel.figure.drawn.extend((title, label, *map(_cell, row)) for row in rows)  # type: ignore


def _bounds(column: NDArray) -> Sequence[float]:
    return interval(column) if np.isfinite(column).all() else (np.nan,) * 3


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return "" if np.isnan(value) else f"{value:.6g}"
