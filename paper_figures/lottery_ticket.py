"""Winning tickets and random sub-networks: coherence at step 0, and what they learn.

**a** m-coherence at the initial weights, in the weights that are left: of the winning ticket (the
fifth of the weights that are largest after training), of random fifths (geometric mean and best of
50) and of the whole network, by width. Winning tickets are the more coherent before any training;
but the best of 50 random ones falls with width instead of rising. **b** Test accuracy over training
at width 256, each from the same initial weights. **c** After training, by width. Bands over 8
seeds.
"""

import numpy as np

from coherence.lab.report import drawing as style

COLOUR = {
    "winning": style.COLOUR["pristine"],
    "random": style.COLOUR["random"],
    "whole": style.COLOUR["real"],
}
NAMES = {"winning": "winning ticket", "random": "random", "whole": "whole network"}
JUDGED = 256


def draw(recorded):
    figure, axes = style.figure(1, 3, height=2.5)
    coherence(axes[0, 0], recorded)
    training(axes[0, 1], recorded)
    ends(axes[0, 2], recorded)
    style.letters(axes.flat, small=True)
    return figure


def by_width(recorded, name, reduce=lambda values: values):
    widths = recorded["widths"]
    return widths, np.stack([reduce(recorded[f"width={w}/{name}"]) for w in widths], 1)


def coherence(panel, recorded):
    """m-coherence at step 0 by width."""
    panel.set(title="Step 0", xscale="log", yscale="log", xlabel="hidden units")
    panel.set(ylabel=f"m-coherence, m = {recorded['m']}")
    mean = lambda values: np.exp(np.log(values).mean(1))
    best = lambda values: values.max(1)
    for name, reduce, label, dashes in (
        ("winning", lambda values: values, "winning ticket", "-"),
        ("random", best, "best of 50 random", "--"),
        ("random", mean, "random", "-"),
        ("whole", lambda values: values, "whole network", "-"),
    ):
        x, values = by_width(recorded, name, reduce)
        style.band(panel, x, values, label, colour=COLOUR[name], style=dashes)
    style.ticks(panel, x=recorded["widths"], y=(4, 6, 10, 20))
    panel.legend(loc="best", **style.SMALL)


def training(panel, recorded):
    """Test accuracy over steps."""
    width = JUDGED if JUDGED in recorded["widths"] else recorded["widths"][-1]
    panel.set(title=f"Training, width {width}", xlabel="step", ylabel="test accuracy", ylim=(0, 1))
    for name in ("whole", "winning", "random"):
        values = recorded[f"width={width}/{name}_accuracy"]
        values = values.mean(1) if values.ndim == 3 else values
        style.band(panel, recorded["step"], values, NAMES[name], colour=COLOUR[name])


def ends(panel, recorded):
    """Test accuracy after training by width."""
    panel.set(title="After training", xscale="log", xlabel="hidden units")
    panel.set(ylabel="test accuracy")
    last = lambda values: values[..., -1] if values.ndim == 2 else values[..., -1].mean(1)
    for name in ("whole", "winning", "random"):
        x, values = by_width(recorded, f"{name}_accuracy", last)
        style.band(panel, x, values, NAMES[name], colour=COLOUR[name], marker=".")
    style.ticks(panel, x=recorded["widths"])
    panel.legend(loc="lower right", **style.SMALL)
