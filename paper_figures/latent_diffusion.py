"""A VAE with weak KL draws badly by itself and well with diffusion in its latent space.

Digits of 8 x 8 pixels, 1,000 to train on; codes of 16 numbers; means and 95 % intervals over 5
seeds of training. **a** Six samples or images a row, of one seed. **b** Frechet distance from test
images in the features of a classifier of other digits, by VAE: with all four ingredients, with the
code in a row instead of 4 x 4 places, without the perceptual term (φ), without the discriminator
(D), and with KL twenty times as strong. Diffusion brings the VAE's samples 4.3 doublings nearer,
and needs weak KL (both *reproduced*); a spatial code, features and discriminator make no difference
to samples here (*inconclusive*), though both terms sharpen reconstructions (**f**, *reproduced*).
**c** The same by the number of steps of drawing, and the share of points near a mode of a ring of
eight normal distributions: 20 steps are enough (*reproduced*). **d** Points of one seed on that
ring after 1, 5, 20 and 50 steps. **e** Loss of diffusion in the latent space, smoothed over 200
steps.
"""

import numpy as np

from coherence.lab.report import drawing as style

PRIOR, DIFFUSION, REBUILT = style.COLOUR["random"], style.COLOUR["real"], style.NEUTRAL
VAES = {
    "all": "all",
    "without spatial": "in a\nrow",
    "without perceptual": "no\nφ",
    "without adversarial": "no\nD",
    "strong KL": "strong\nKL",
}
ROWS = ("VAE alone", "with diffusion", "guided", "reconstructed")
GAP = 1  # pixel between two images


def draw(recorded):
    figure, axes = style.figure(2, 3, height=2.5)
    plots = (pictures, distances, steps, ring, losses, sharpness)
    for panel, plot in zip(axes.flat, plots):
        plot(panel, recorded)
    style.letters(axes.flat, small=True)
    return figure


def pictures(panel, recorded):
    rows = np.pad(recorded["all/pictures"][:, :6], ((0, 0), (0, 0), (0, GAP), (0, GAP)))
    kinds, images, height, width = rows.shape
    whole = rows.transpose(0, 2, 1, 3).reshape(kinds * height, images * width)
    style.picture(panel, whole)
    panel.set_yticks([(i + 0.5) * height for i in range(kinds)], ROWS)
    panel.tick_params(length=0)
    panel.set_title("six of each")


def distances(panel, recorded):
    panel.set(title="distance from digits, by VAE", yscale="log", ylabel="Frechet distance")
    kinds = (("VAE alone", 0, PRIOR), ("with diffusion", 1, DIFFUSION))
    for offset, (name, kind, colour) in zip((-0.2, 0.2), kinds):
        values = np.stack([recorded[f"{arm}/frechet"][:, kind] for arm in VAES], 1)
        style.bars(panel, list(VAES), values, name, colour=colour, offset=offset, width=0.38)
    panel.set_xticks(range(len(VAES)), VAES.values())
    panel.set(ylim=(0.5, 600))
    style.ticks(panel, y=(1, 10, 100))
    panel.legend(loc="upper left", ncols=2, columnspacing=0.8, **style.SMALL)
    panel.tick_params(axis="x", length=0)


def steps(panel, recorded):
    panel.set(title="steps of drawing", xscale="log", yscale="log", xlabel="steps")
    style.band(
        panel, recorded["steps"], recorded["all/by_steps"], "distance of digits", colour=DIFFUSION
    )
    style.ticks(panel, x=recorded["steps"], y=(1, 10, 100))
    panel.set(ylabel="Frechet distance", ylim=(0.8, 2000))
    other = panel.twinx()
    near, colour = 100 * recorded["ring/near"], style.COLOUR["other"]
    style.band(other, recorded["steps"], near, "ring: near a mode", colour=colour, style="--")
    other.set(ylabel="% of points", ylim=(0, 130), yticks=(0, 50, 100))
    other.yaxis.label.set_fontsize(8)
    other.tick_params(labelsize=7)
    other.grid(False)
    lines = panel.get_lines() + other.get_lines()
    panel.legend(lines, [line.get_label() for line in lines], loc="upper right", **style.SMALL)


def ring(panel, recorded):
    """Four small rings side by side."""
    panel.set_title("ring: 1, 5, 20, 50 steps")
    numbers = list(recorded["steps"])
    for place, k in enumerate((1, 5, 20, 50)):
        x, y = recorded["ring/points"][numbers.index(k)].T
        right, up = 6 * (place % 2), -6 * (place // 2)
        inside = np.maximum(abs(x), abs(y)) < 2.8
        panel.plot(x[inside] + right, y[inside] + up, ".", color=DIFFUSION, markersize=1.2)
        panel.annotate(str(k), (right, up), ha="center", va="center", fontsize=8)
    panel.set(aspect="equal", xticks=[], yticks=[], xlim=(-3, 9), ylim=(-9, 3))
    panel.grid(False)


def losses(panel, recorded):
    values = recorded["all/smoothed"]
    panel.set(title="loss of diffusion", xlabel="step", ylabel="squared error of the noise")
    style.band(panel, 100 + 20 * np.arange(values.shape[1]), values, "smoothed", colour=DIFFUSION)


def sharpness(panel, recorded):
    names = {"neither": "no φ,\nno D", **VAES}
    names.pop("strong KL")
    values = np.stack([recorded[f"{arm}/sharpness"] for arm in names], 1)
    panel.set(
        title="sharpness of reconstructions", ylabel="high frequencies, share", ylim=(0, 1.15)
    )
    style.bars(panel, list(names), values, "reconstructions", colour=REBUILT, width=0.7)
    panel.set_xticks(range(len(names)), names.values())
    panel.tick_params(axis="x", length=0)
    style.guide(panel, 1, "test images", side="left")
