"""Measures of how gradients agree, on the same runs: which tell true from random labels, and which
tell the same story.

Blue: true labels, orange: random ones, compared at equal training loss; training runs to the right.
**a-c**: m-coherence, GSNR and the gradient's norm are far apart at first and then meet; from 0.5
nats on the norm is lower on true labels, though not beyond doubt. So m-coherence separates from 2
to 1 nat and is undecided at 0.5 and 0.2. **e**: the mean cosine, in which long and short gradients
count alike, stays apart throughout (equally long gradients with these cosines would have an
m-coherence of 5 to 6, and of 1 on random labels). **d, g**: disparity and sharpness separate, but
not at 2 nats. **f**: small, but steady when paired by seed. **h**: mean difference over its
standard deviation, positive where theory has it; beyond 0.84 the 95 % interval of 8 seeds excludes
0. A measure's claim holds if it holds at every level by itself: cosines, cosines within classes and
the kernel's alignment pass. Sign stiffness (the share of opposed pairs is another name of it) does
from 0.5 nats on. The lowest of all cosines is lower on true labels from 1 nat on: **not
reproduced**. Between classes nothing was claimed. **i**: Spearman's correlation over the
measurements of a run, measures turned as in h. On true labels the first three rows fall together
while stiffness within classes rises: what separates at every loss can still tell the opposite story
over time. Alpha, diversity, noise scale, one-step generalization ratio and evidence are not drawn:
they follow from a or b, to 1e-6 at every measurement.
"""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from coherence.lab.report import drawing as style

CURVES = {  # what is drawn against the loss: title, logarithmic
    "m_coherence": ("m-coherence", True),
    "mean_gsnr": ("mean GSNR", True),
    "gradient_norm": ("gradient norm", True),
    "disparity": ("disparity", True),
    "cosine_stiffness": ("cosine stiffness", False),
    "kernel_alignment": ("kernel alignment", False),
    "sharpness": ("sharpness", True),
}
# All measures as judged: label, +1 where true labels should have more, ratio or difference.
SENSES = {
    "m_coherence": ("m-coherence", +1, True),
    "mean_gsnr": ("mean GSNR", +1, True),
    "gradient_norm": ("gradient norm", +1, True),
    "disparity": ("disparity", -1, True),
    "confusion_bound": ("confusion bound", -1, True),
    "cosine_stiffness": ("cosine stiffness", +1, False),
    "sign_stiffness": ("sign stiffness", +1, False),
    "within": ("within classes", +1, False),
    "between": ("between classes", +1, False),
    "minimum_cosine": ("lowest cosine", +1, False),
    "kernel_alignment": ("kernel alignment", +1, False),
    "sharpness": ("sharpness", -1, True),
}
ARMS = ("real", "random")
NAMES = {"real": "true labels", "random": "random labels"}


def draw(recorded):
    figure, axes = style.figure(4, 4, height=1.9)
    against_loss(axes[:2].flat, recorded)
    grid = axes[0, 0].get_gridspec()
    for panel in axes[2:].flat:
        panel.remove()
    left, right = (figure.add_subplot(grid[2:, half]) for half in (slice(0, 2), slice(2, 4)))
    separations(left, recorded)
    agreements(right, recorded)
    *curves, empty = axes[:2].flat
    style.letters((*curves, left, right))
    empty.set_axis_off()
    empty.legend(*curves[0].get_legend_handles_labels(), loc="center", fontsize=8)
    return figure


def against_loss(panels, recorded):
    """One measure a panel; training goes to the right."""
    for panel, (name, (title, logarithmic)) in zip(panels, CURVES.items()):
        for arm in ARMS:
            options = {"colour": style.COLOUR[arm], "title": title, "logarithmic": logarithmic}
            style.band(panel, recorded["losses"], recorded[f"{arm}/{name}"], NAMES[arm], **options)
        panel.set(xscale="log", xlim=(2.3, 0.18), xlabel="training loss, nats")
        style.ticks(panel, x=(2, 1, 0.5, 0.2))
        panel.xaxis.set_minor_locator(NullLocator())
        if logarithmic:
            plainly_logarithmic(panel)
        panel.set_title(title)
        panel.tick_params(labelsize=7)
        panel.xaxis.label.set_size(8)


def plainly_logarithmic(panel):
    """A logarithmic axis with 1, 2 and 5 of every decade written out."""
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_locator(NullLocator())


def separations(panel, recorded):
    """Mean difference over its standard deviation by seed, turned so that + is the side theory
    expects.
    """
    levels = recorded["levels"]
    columns = [int(np.flatnonzero(np.isclose(recorded["losses"], level))[0]) for level in levels]
    sizes = np.array([[size(recorded, name, k) for k in columns] for name in SENSES])
    labels = [label for label, *_ in SENSES.values()]
    cells(panel, sizes, labels, [f"{level:g}" for level in levels], limit=6, form="{:+.1f}")
    panel.set(xlabel="training loss, nats")
    panel.set_title("true against random labels, in\n    standard deviations over seeds")
    remember(panel, "separation", sizes, labels, levels)


def size(recorded, name, k):
    _, sense, ratio = SENSES[name]
    real, random = (recorded[f"{arm}/{name}"][:, k].astype(float) for arm in ARMS)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.log2(real / random) if ratio else real - random
        return sense * apart.mean() / apart.std(ddof=1) if len(apart) > 1 else np.nan


def agreements(panel, recorded):
    """Rank correlation over a run: true labels below the diagonal, random labels above."""
    order = [list(recorded["measures"]).index(name) for name in SENSES]
    below, above = (recorded[f"{arm}/agreement"].mean(0)[np.ix_(order, order)] for arm in ARMS)
    both = np.tril(below, -1) + np.triu(above, 1) + np.diag(np.full(len(order), np.nan))
    labels = [label for label, *_ in SENSES.values()]
    cells(panel, both, [""] * len(order), labels, limit=1, form="{:.1f}", size=6)
    panel.tick_params(axis="x", rotation=90)
    panel.set_title(
        "rank correlation over a run (rows as in h): true\n"
        "    labels below, random above the diagonal"
    )
    remember(panel, "rank correlation", both, labels, labels)


def cells(panel, values, rows, columns, *, limit, form, size=6.5):
    """A matrix with its numbers: green where as expected or alike, pink where opposite."""
    colours = LinearSegmentedColormap.from_list(
        "", [style.COLOUR["other"], "white", style.SEQUENCE[2]]
    )
    panel.imshow(values, cmap=colours, vmin=-limit, vmax=limit, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = abs(value) > 0.75 * limit and value > 0
            panel.text(
                j,
                i,
                form.format(value),
                ha="center",
                va="center",
                fontsize=size,
                color="white" if dark else "black",
            )
    panel.set_xticks(range(len(columns)), columns)
    panel.set_yticks(range(len(rows)), rows)
    panel.tick_params(length=0, labelsize=7)
    panel.grid(False)
    for spine in panel.spines.values():
        spine.set_visible(False)


def remember(panel, title, values, rows, columns):
    """Into the figure's CSV: the matrix, one number a row."""
    panel.figure.drawn += [
        (title, row, column, f"{values[i, j]:.6g}", "", "")
        for i, row in enumerate(rows)
        for j, column in enumerate(columns)
        if np.isfinite(values[i, j])
    ]
