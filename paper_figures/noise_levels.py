"""A U-Net agrees on much noise and shares little between levels; shuffled images get copied.

Means and 95 % intervals over 5 seeds. **a** Coherence of each level's gradients after training: a
U-Net of 1,000 digits (m = 200), dense networks of 50 digits and of 50 images of shuffled pixels (m
= 50). Most noise is most coherent for the U-Net alone: of both networks the claim is **not
reproduced**. **b** Alpha between the U-Net's levels, in percent; the diagonal is each level's own.
Of the most noise the images hardly matter, which their gradients share; with the least noise they
share nothing. **c** The share of unseen images' loss that is gone on training images, by level. It
is large at little noise, where dense networks are not less coherent: memorizing where coherence is
low is **not reproduced**. **d** Coherence of all levels together while the dense networks learn (m
= 250): no higher for real images by the end (*inconclusive*). **e** Distance of samples to the
nearest training image over that to the second nearest: below 1/3, dotted, a sample counts as a
copy; more are of shuffled images (*reproduced*). **f** Alpha between a VAE's losses after training,
of their gradients by all parameters, in percent; signs as claimed, all *inconclusive*.
"""

import numpy as np

from coherence.lab.report import drawing as style

SHARES = ("0", "0.1", "0.3", "0.6", "1")
LOSSES = ("squared", "features", "discrim.", "KL")
ARMS = {
    "pixels": ("U-Net", style.NEUTRAL, "-o"),
    "real": ("dense", style.COLOUR["real"], "-o"),
    "shuffled": ("dense, shuffled", style.COLOUR["random"], "--s"),
}
COPIED = 1 / 3


def draw(recorded):
    figure, axes = style.figure(2, 3, height=2.4)
    plots = (coherence, between_levels, gaps, course, nearest, between_losses)
    for panel, plot in zip(axes.flat, plots):
        plot(panel, recorded)
    style.letters(axes.flat, small=True)
    return figure


def by_level(panel, values, arm, **kwargs):
    name, colour, dashes = ARMS[arm]
    options = {"colour": colour, "style": dashes, "markersize": 3, **kwargs}
    style.band(panel, range(len(SHARES)), values, name, **options)
    panel.set(xlabel="noise level, share of T")
    panel.set_xticks(range(len(SHARES)), SHARES)


def coherence(panel, recorded):
    panel.set(title="coherence by noise level", ylabel="m-coherence", yscale="log")
    for arm in ARMS:
        m = recorded["images"][0 if arm == "pixels" else 1]
        matrix = recorded[f"{arm}/train/alpha_between"][:, -1]
        by_level(panel, m * np.diagonal(matrix, axis1=1, axis2=2), arm)
    style.ticks(panel, y=(1, 3, 10, 30, 100))
    panel.legend(loc="upper left", **style.SMALL)


def gaps(panel, recorded):
    panel.set(title="gap to unseen images", ylabel="% of the unseen's loss")
    for arm in ARMS:
        seen, unseen = (recorded[f"{arm}/{p}/loss_by_group"][:, -1] for p in ("train", "unseen"))
        by_level(panel, 100 * (1 - seen / unseen), arm)
    panel.set(ylim=(-10, 145), yticks=(0, 25, 50, 75, 100))
    panel.legend(loc="upper right", **style.SMALL)


def course(panel, recorded):
    panel.set(title="all levels, by step", xscale="log", xlabel="step", ylabel="m-coherence")
    for arm in ("real", "shuffled"):
        name, colour, dashes = ARMS[arm]
        steps = style.log_steps(recorded[f"{arm}/step"])
        values = recorded[f"{arm}/train/m_coherence"]
        style.band(panel, steps, values, name, colour=colour, style=dashes[:-1])
    panel.set(ylim=(0, None))
    panel.legend(**style.SMALL)


def nearest(panel, recorded):
    panel.set(title="samples and training images", ylabel="% of samples")
    panel.set(xlabel="nearest over second nearest")
    edges = np.linspace(0, 1, 41)
    for arm in ("real", "shuffled"):
        name, colour, dashes = ARMS[arm]
        first, second = np.moveaxis(recorded[f"{arm}/distances"], -1, 0)
        below = 100 * np.array([np.mean(first <= edge * second, 1) for edge in edges]).T
        style.band(panel, edges, below, name, colour=colour, style=dashes[:-1])
    panel.axvline(COPIED, color=style.NEUTRAL, linewidth=0.8, linestyle=":")
    panel.legend(**style.SMALL)


def between_levels(panel, recorded):
    squares(panel, recorded["pixels/train/alpha_between"][:, -1], SHARES, "alpha between levels")
    panel.set(xlabel="noise level, share of T", ylabel="noise level")


def between_losses(panel, recorded):
    matrix = recorded["vae/train/alpha_between"][:, -1]
    squares(panel, matrix, LOSSES, "alpha between losses")
    panel.tick_params(axis="x", labelrotation=30)


def squares(panel, matrices, names, title):
    """A matrix of means over seeds, its numbers in percent."""
    mean = matrices.mean(0)
    limit = np.abs(mean).max()
    style.picture(panel, mean, cmap="RdBu", vmin=-limit, vmax=limit)
    for (row, column), value in np.ndenumerate(mean):
        colour = "white" if abs(value) > 0.6 * limit else "black"
        text = f"{100 * value:.1f}"
        panel.text(column, row, text, ha="center", va="center", color=colour, fontsize=6.5)
    panel.set_xticks(range(len(names)), names)
    panel.set_yticks(range(len(names)), names)
    panel.tick_params(length=0)
    panel.set_title(f"{title}, %")
    for i, name in enumerate(names):
        style.remember(panel, title, name, list(names), mean[i])
