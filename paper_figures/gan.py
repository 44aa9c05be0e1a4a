"""A GAN draws the digit it is asked for; a discriminator that is sure leaves the saturating loss no
gradient, yet the examples still agree.

Dense networks, 1,000 digits of 8 x 8 pixels; bands over 6 seeds. **a** Samples of a GAN told the
label: a classifier of other digits recognizes 97 % as asked (*reproduced*). Not told, it leaves
some kinds out (*reproduced*). **b** Coherence of each player, of one loss: the discriminator's is
used up as it learns; the generator's first rises, and falls less (*inconclusive*). **c** The
discriminator takes training images for more real than unseen ones (*reproduced*); winsorized
gradients and M3 do not delay it here (*inconclusive*). **d** A discriminator that learns alone,
against a generator that stays: the saturating generator's gradients shrink over a hundredfold from
the start, a thousandfold from their peak, the others grow (both *reproduced*); an example's two
gradients differ by the odds exp D exactly. **e** What is left is not that of a few examples:
coherence falls by 0.6 doublings, not two (**not reproduced**). **f** Of a ring of eight normal
distributions most seeds keep every mode (*inconclusive*), with a quarter of the samples between
them. On images of circles, without a panel, only 2.3 of 10 parts of the radii are drawn
(*reproduced*). In a figure of its own the plain GAN beside one with Wasserstein's distance and a
gradient penalty, 5 seeds, 4,000 steps each, five of six the critic's: a critic that is sure leaves
the generator its gradient, more kinds of digits are drawn, and D memorizes less (all *reproduced*);
that it depends less on the seed is *inconclusive*.
"""

import numpy as np

from coherence.lab.report import drawing as style

PLAYERS = {"generator": style.COLOUR["pristine"], "discriminator": style.COLOUR["real"]}
LOSSES = {
    "saturating": style.COLOUR["random"],
    "non-saturating": style.COLOUR["real"],
    "wasserstein": style.COLOUR["pristine"],
}
GAP = 1  # pixels between two images
SHOWN = 4  # samples of a label
ARMS = {
    "conditional": ("mean", "-", style.NEUTRAL),
    "winsorized": ("winsorized, c = 2", "--", style.COLOUR["pristine"]),
    "m3": ("M3", "-.", style.COLOUR["other"]),
}


def draw(recorded):
    if "wasserstein/images" in recorded:
        return beside_wasserstein(recorded)
    figure, axes = style.figure(2, 3, height=2.15)
    plots = (digits, coherence, memorizing, lengths, few, ring)
    for panel, plot in zip(axes.flat, plots):
        plot(panel, recorded)
    style.letters(axes.flat, small=True)
    return figure


def beside_wasserstein(recorded):
    """The preset of that name: the plain GAN beside one with Wasserstein's distance."""
    figure, axes = style.figure(1, 3, height=2.15)
    names = {"conditional": "plain", "wasserstein": "Wasser-\nstein"}
    pictures(axes[0, 0], recorded, [(arm, text, SHOWN) for arm, text in names.items()])
    lengths(axes[0, 1], recorded)
    axes[0, 1].set_title("D is sure")
    axes[0, 1].legend(**style.SMALL, loc="upper left")
    panel = axes[0, 2]
    panel.set(xscale="log", xlabel="step", ylabel="D of training minus\ntest images, deviations")
    panel.set_title("D memorizes")
    for arm, loss in {"conditional": "non-saturating", "wasserstein": "wasserstein"}.items():
        gap = recorded[f"{arm}/train_real_score"] - recorded[f"{arm}/test_real_score"]
        steps, spread = style.log_steps(recorded[f"{arm}/step"]), recorded[f"{arm}/spread"]
        style.band(panel, steps, gap / spread[:, None], loss, colour=LOSSES[loss])
    style.guide(panel, 0)
    panel.legend(**style.SMALL, loc="upper left")
    style.letters(axes.flat, small=True)
    return figure


def tiles(pictures):
    """[rows, columns, height, width] as one picture with margins."""
    rows, columns, height, width = pictures.shape
    wide = np.pad(pictures, ((0, 0), (0, 0), (0, GAP), (0, GAP)))
    return wide.transpose(0, 2, 1, 3).reshape(rows * (height + GAP), columns * (width + GAP))


def digits(panel, recorded):
    pictures(panel, recorded, [("conditional", "told", SHOWN), ("unconditional", "not told", 2)])


def pictures(panel, recorded, groups):
    """Rows of samples, a label a column, of each `(arm, name, rows)`."""
    parts = [recorded[f"{arm}/images"].swapaxes(0, 1)[:rows] for arm, _, rows in groups]
    style.picture(panel, tiles(np.concatenate(parts)) * 17.0)
    side, ends = parts[0].shape[-1] + GAP, np.cumsum([0, *(rows for *_, rows in groups)])
    for end in ends[1:-1]:
        panel.axhline(end * side - 1, color=style.NEUTRAL, linewidth=0.8)
    middles = (ends[:-1] + ends[1:]) / 2 * side
    panel.set_yticks(middles, [name for _, name, _ in groups], fontsize=7)
    panel.tick_params(axis="y", length=0)
    panel.set_title("asked for 0, ..., 9")


def coherence(panel, recorded):
    panel.set(xscale="log", yscale="log", xlabel="step", ylabel="m-coherence, m = 256")
    panel.set_title("coherence of both players")
    steps = style.log_steps(recorded["conditional/step"])
    for i, (name, colour) in enumerate(PLAYERS.items()):
        style.band(panel, steps, recorded["conditional/m_coherence"][..., i], name, colour=colour)
    style.guide(panel, 1)
    panel.legend(**style.SMALL, loc="lower left")


def memorizing(panel, recorded):
    panel.set(xscale="log", xlabel="step", ylabel="D of training\nminus test images")
    panel.set_title("D memorizes")
    for arm, (label, dashes, colour) in ARMS.items():
        gap = recorded[f"{arm}/train_real_score"] - recorded[f"{arm}/test_real_score"]
        steps = style.log_steps(recorded[f"{arm}/step"])
        style.band(panel, steps, gap, label, colour=colour, style=dashes)
    style.guide(panel, 0)
    panel.legend(**style.SMALL, loc="upper left")


def _of_generator(panel, recorded, name, transform):
    panel.set(xscale="log", yscale="log", xlabel="step of the discriminator alone")
    for loss, colour in LOSSES.items():
        if f"sure, {loss}/{name}" in recorded:
            steps = style.log_steps(recorded[f"sure, {loss}/step"])
            values = transform(recorded[f"sure, {loss}/{name}"][..., 0])
            style.band(panel, steps, values, loss, colour=colour)
    panel.legend(**style.SMALL, loc="lower left")


def lengths(panel, recorded):
    _of_generator(panel, recorded, "mean_squared_norm", np.sqrt)
    panel.set(ylabel="length of the generator's\ngradients (rms)")
    panel.set_title("D is sure: no gradient")


def few(panel, recorded):
    _of_generator(panel, recorded, "m_coherence", np.asarray)
    panel.set(ylabel="m-coherence of the\ngenerator, m = 256")
    panel.set_title("its examples agree still")
    style.guide(panel, 1)


def ring(panel, recorded):
    x, y = recorded["ring/points"].astype(float).T
    panel.plot(x, y, ".", color=style.COLOUR["pristine"], markersize=2, alpha=0.5)
    angles = 2 * np.pi * np.arange(8) / 8
    panel.plot(2 * np.cos(angles), 2 * np.sin(angles), "+", color=style.NEUTRAL, markersize=7)
    panel.set(xlim=(-2.7, 2.7), ylim=(-2.7, 2.7), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    panel.set_title("a ring of eight")
