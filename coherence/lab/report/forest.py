"""The short table of verdicts as a picture: effects in standard deviations over seeds."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import gallery, summary
from .tables import csv_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPERS = {
    "2203.10036": ("On the Generalization Mystery", "#0072B2"),
    "2008.01217": ("Making Coherence Out of Nothing", "#009E73"),
    "2002.10657": ("Coherent Gradients", "#D55E00"),
    "2003.07422": ("Weak and Strong Directions", "#CC79A7"),
    "ours": ("our controls and extensions", "#555555"),
    "tutorials": ("tutorials and textbooks", "#56B4E9"),
}
"""What a row is about, and its colour."""
HEADER = ("finding", "paper", "scale", "effect", "low", "high", "one_seed")
_LIMIT = 100.0  # standard deviations


def paper(row: summary.Row) -> str:
    """The key in `PAPERS`: of a claim of the papers the paper, else its group."""
    judgement = row.small or row.source
    assert judgement is not None
    if row.group != "papers":
        return row.group
    match = re.search(r"arXiv:(\d+\.\d+)", judgement.claim.source.reference)
    assert match is not None
    return match[1]


def data(of: summary.Summary) -> str:
    """What is drawn, as CSV."""
    lines = []
    for row in _drawn(of):
        scales = [name for name, j in (("small", row.small), ("source", row.source)) if j]
        for scale, (size, one_seed) in zip(scales, summary.standard_effects(row)):
            lines.append((row.title, paper(row), scale, *size, one_seed))
    return csv_text(HEADER, lines)


def _drawn(of: summary.Summary) -> list[summary.Row]:
    """The rows of which an effect is known: one that is not a number has no place."""
    known = lambda row: any(not math.isnan(size.mean) for size, _ in summary.standard_effects(row))
    return [row for row in of.rows if known(row)]


def draw(of: summary.Summary) -> Figure:
    """The figure: a row a line, from the top; on a linear scale up to 1, logarithmic beyond."""
    from . import drawing as style

    rows = _drawn(of)
    figure, axes = style.figure(1, 1, width=7.0, height=0.26 * len(rows) + 1.0)
    panel = axes[0, 0]
    for place, row in enumerate(rows):
        _, colour = PAPERS[paper(row)]
        for (size, one_seed), below in zip(summary.standard_effects(row), (0, 0.25)):
            x, low, high = np.clip(size, -_LIMIT, _LIMIT)  # nan stays nan
            if not math.isnan(size.low):
                panel.plot([low, high], [place + below] * 2, color=colour, linewidth=1.4)
            face = "white" if one_seed else colour
            panel.plot(x, place + below, "o", color=colour, markerfacecolor=face, markersize=4.5)
    seen = dict.fromkeys(PAPERS[paper(row)] for row in rows)
    handles = [style.key(name, colour, marker="o", markersize=4.5) for name, colour in seen]
    if any(one_seed for row in rows for _, one_seed in summary.standard_effects(row)):
        hollow = {"marker": "o", "markerfacecolor": "white", "markersize": 4.5}
        handles.append(style.key("one seed", style.NEUTRAL, "none", **hollow))
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set_xscale("symlog", linthresh=1)
    panel.set(xlim=(-_LIMIT, _LIMIT), ylim=(len(rows) - 0.4, -0.6))
    words = "distance from the threshold, standard deviations (right: as claimed)"
    panel.set_xlabel(words, fontsize=8)
    ticks = (-100, -10, -1, 0, 1, 10, 100)
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=7)
    panel.grid(axis="y", visible=False)
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=7)
    return figure


def write(of: summary.Summary, folder: Path) -> list[Path]:
    """Draw PNG and PDF, and write the CSV: `folder/forest.*`."""
    from . import drawing as style

    text = data(of)
    paths = [folder / f"forest.{suffix}" for suffix in ("csv", "pdf", "png")]
    paths[0].write_text(text)
    with style.in_house_style():
        figure = draw(of)
        style.freeze_layout(figure)
        gallery.write_pdf(figure, paths[1])
        gallery.write_png(figure, paths[2], stamp(text))
    return paths


def stamp(text: str) -> str:
    """What the PNG says it was drawn from."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
