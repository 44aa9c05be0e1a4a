"""Suppressing weak gradient directions keeps a Boltzmann machine from copying for longer; at equal
quality no generative model copies less beyond doubt.

200 digits of 8 x 8 pixels; bands over 6 seeds. **a-d** Copying while models learn: log2 of how much
farther samples are from the nearest of 200 unseen images than from the nearest training image (0:
not at all). After 3,000 steps plain contrastive divergence draws three times as near to training
images, winsorized at 8 % hardly nearer; the others copy little, so that it is *inconclusive*
whether every robust model copies less. **e-h** Copying against quality, from poor samples to good
ones, means over seeds: nearly one line for all three, but for the machine, which draws its best
early and then copies more and more without drawing better. Where both first draw as well as the
worse one ever does, all four comparisons are *inconclusive*; VAE and diffusion copy next to nothing
there. Robust models do not all draw as well: the winsorized VAE stays 1.5 doublings of the distance
behind (**not reproduced**); M3 costs less, and the GAN nothing.
"""

import numpy as np

from coherence.lab.report import drawing as style

MODELS = {  # ticks of the Frechet distance
    "VAE": (50, 20, 10, 5),
    "RBM": (20, 10, 5, 3),
    "GAN": (100, 30, 10, 4),
    "diffusion": (1000, 100, 20),
}
KINDS = {
    "mean": ("mean", "-", style.NEUTRAL),
    "winsorized": ("winsorized, c = 8", "--", style.COLOUR["pristine"]),
    "M3": ("M3", "-.", style.COLOUR["other"]),
}
NAMES = {"RBM": "Boltzmann machine"}


def draw(recorded):
    figure, axes = style.figure(2, 4, height=1.75, height_ratios=(1, 1))
    for column, model in zip(axes.T, MODELS):
        over_time(column[0], recorded, model)
        against_quality(column[1], recorded, model)
    axes[0, 0].set_ylabel("copying, doublings")
    axes[1, 0].set_ylabel("copying, doublings")
    style.letters(axes.flat, small=True)
    handles = [style.key(label, colour, "o") for label, _, colour in KINDS.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def over_time(panel, recorded, model):
    """How much nearer samples are to training images than to unseen ones."""
    panel.set(xscale="log", xlabel="step")
    panel.set_title(NAMES.get(model, model))
    for kind, (label, dashes, colour) in KINDS.items():
        steps, values = (recorded[f"{model}, {kind}/{name}"] for name in ("step", "copying"))
        style.band(panel, steps, values, label, colour=colour, style=dashes, title=f"{model}, time")
    style.guide(panel, 0)


def against_quality(panel, recorded, model):
    """The same against the Frechet distance, means over seeds, from poor samples to good ones."""
    panel.set(xscale="log", xlabel="Frechet distance")
    for kind, (label, dashes, colour) in KINDS.items():
        copying, quality = (recorded[f"{model}, {kind}/{name}"] for name in ("copying", "frechet"))
        x, y = np.exp(np.log(quality).mean(0)), copying.mean(0)
        title = f"{model}, quality"
        style.curve(panel, x, y, label, colour=colour, style=dashes, title=title, marker=".")
    style.guide(panel, 0)
    style.ticks(panel, x=MODELS[model])
    panel.invert_xaxis()
