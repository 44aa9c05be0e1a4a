"""The fewer examples, the less they agree on, and the worse is what is learned from them.

Full-batch gradient descent on 20 to 1,300 digits. **a** Alpha of the whole training set without its
floor of 1/m, over its loss: of a few examples it is below 0, since each pulls for itself. **b** The
test loss at the same training losses. **c** At 1.5 nats: the gap between test and training loss
against unbiased alpha; a point a seed. Bands over 8 seeds.
"""

import numpy as np

from coherence.lab.report import drawing as style

LEVELS = np.linspace(2.2, 0.5, 18)
LEVEL = 1.5


def draw(recorded):
    figure, axes = style.figure(1, 3, height=2.5)
    over_loss(axes[0, 0], recorded, "alpha", "Agreement", "unbiased alpha")
    style.guide(axes[0, 0], 0)
    over_loss(axes[0, 1], recorded, "test_loss", "Generalization", "test loss (nats)")
    style.curve(axes[0, 1], LEVELS, LEVELS, "no gap", colour=style.NEUTRAL, style=":")
    both(axes[0, 2], recorded)
    axes[0, 2].legend(loc="upper right", title="examples", title_fontsize=6.5, **style.SMALL)
    style.letters(axes.flat, small=True)
    return figure


def at(recorded, n, name, levels):
    """A curve at falling training losses: [seed, level]."""
    pairs = zip(recorded[f"n={n}/loss"], recorded[f"n={n}/{name}"])
    falling = [(np.minimum.accumulate(loss)[::-1], values[::-1]) for loss, values in pairs]
    return np.array([np.interp(levels, *pair, left=np.nan) for pair in falling])


def over_loss(panel, recorded, name, title, label):
    """A quantity over the training loss, a curve a number of examples."""
    panel.set(title=title, xlabel="training loss (nats)", ylabel=label)
    for n, colour in zip(recorded["examples"], style.SEQUENCE):
        values = at(recorded, n, name, LEVELS)
        reached = np.isfinite(values).all(0)
        style.band(panel, LEVELS[reached], values[:, reached], f"{n:,}", colour=colour, title=title)
    panel.invert_xaxis()


def both(panel, recorded):
    """The gap against agreement at one loss."""
    panel.set(title=f"At {LEVEL} nats", xlabel="unbiased alpha", ylabel="gap (nats)")
    for n, colour in zip(recorded["examples"], style.SEQUENCE):
        x, y = (at(recorded, n, name, [LEVEL])[:, 0] for name in ("alpha", "test_loss"))
        style.curve(panel, x, y - LEVEL, f"{n:,}", colour=colour, style="o", markersize=3)
