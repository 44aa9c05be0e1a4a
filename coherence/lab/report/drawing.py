"""The house's look: colours that colour-blind readers can tell apart, and curves with bands that remember their data.

One colour a meaning in every figure: true labels blue, random labels orange, pristine green,
corrupt vermilion. A second method of the same kind is dashed. Okabe & Ito's palette. No pyplot: no
window, no global state.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from coherence.lab.claims import interval

HOUSE = Path(__file__).with_name("house.mplstyle")
COLOUR = {
    "real": "#0072B2",
    "random": "#E69F00",
    "pristine": "#009E73",
    "corrupt": "#D55E00",
    "neutral": "#555555",
    "other": "#CC79A7",
}
SEQUENCE = (
    "#440154",
    "#3b528b",
    "#21918c",
    "#5ec962",
    "#c8b400",
)  # viridis, its last step darkened for print


def figure(rows, columns, width=7.2, height=2.6, **kwargs):
    """A figure of `rows` x `columns` panels in the house style, and its axes (always a 2-d array)."""
    made = Figure(figsize=(width, height * rows))
    made.drawn = []
    return made, made.subplots(rows, columns, squeeze=False, **kwargs)


def in_house_style():
    """A context in which figures get the house's fonts, grid and lines."""
    return matplotlib.style.context(HOUSE)


def band(axes, x, values, label, *, colour, style="-", panel=None, logarithmic=False):
    """Mean over seeds of `values` [seeds, x] with its 95 % interval; what was drawn goes into the figure's CSV.

    `logarithmic` for positive quantities on a logarithmic axis: the geometric mean, and the
        interval of the logarithms.
    """
    values = np.log(np.atleast_2d(values)) if logarithmic else np.atleast_2d(values)
    bounds = np.array(
        [
            interval(column) if np.isfinite(column).all() else (np.nan,) * 3
            for column in values.T.tolist()
        ]
    )
    mean, low, high = np.exp(bounds.reshape(-1, 3).T) if logarithmic else bounds.reshape(-1, 3).T
    axes.plot(x, mean, style, color=colour, label=label)
    if len(values) > 1:
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    _remember(axes, panel, label, x, mean, low, high)


def curve(axes, x, y, label, *, colour, style="-", panel=None, **kwargs):
    """One curve without a band."""
    axes.plot(x, y, style, color=colour, label=label, **kwargs)
    nothing = np.full(len(np.atleast_1d(x)), np.nan)
    _remember(axes, panel, label, np.atleast_1d(x), np.atleast_1d(y), nothing, nothing)


def bars(axes, x, values, label, *, colour, offset=0.0, width=0.35, panel=None, **kwargs):
    """A bar with its 95 % interval for every x; `values` [seeds, x]."""
    found = [interval(column) for column in np.atleast_2d(values).T.tolist()]
    mean = np.array([one.mean for one in found])
    spread = np.array([[one.mean - one.low, one.high - one.mean] for one in found]).T
    error = (
        {}
        if np.isnan(spread).all()
        else {"yerr": np.nan_to_num(spread), "error_kw": {"elinewidth": 1, "capsize": 2}}
    )
    axes.bar(np.arange(len(x)) + offset, mean, width, color=colour, label=label, **error, **kwargs)
    _remember(axes, panel, label, x, mean, [one.low for one in found], [one.high for one in found])


def guide(axes, y, text, side="right"):
    """A named horizontal landmark, its name at one side."""
    axes.axhline(y, color=COLOUR["neutral"], linewidth=0.8, linestyle=":")
    x = {"left": 0.01, "right": 0.99}[side]
    axes.annotate(
        text,
        (x, y),
        xycoords=("axes fraction", "data"),
        ha=side,
        va="bottom",
        fontsize=7,
        color=COLOUR["neutral"],
    )


def letters(panels, first="a", *, small=False):
    """A letter in front of each panel's title, in order, for captions to name; `small` also sets ticks and labels for many panels."""
    for i, panel in enumerate(panels):
        panel.set_title(
            f"{chr(ord(first) + i)}  {panel.get_title(loc='left')}", loc="left", fontsize=8.5
        )
        if small:
            panel.tick_params(labelsize=7)
            for axis in (panel.xaxis, panel.yaxis):
                axis.label.set_size(8)


def _remember(axes, panel, label, x, mean, low, high):
    panel = panel or axes.get_title(loc="left") or axes.get_ylabel()
    number = lambda v: (
        "" if isinstance(v, float) and np.isnan(v) else (f"{v:.6g}" if isinstance(v, float) else v)
    )
    owner: Figure = axes.figure
    for row in zip(x, mean, low, high):
        owner.drawn.append(
            (panel, label, *(number(v.item() if hasattr(v, "item") else v) for v in row))
        )
