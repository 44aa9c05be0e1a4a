"""Who is coherent in an autoencoder, and when: encoder or decoder, reconstruction or KL.

Three networks learn circles through a code of one number, two learn handwritten digits through
eight; bands over 8 seeds, m = 256. Dotted: when the mean image is learned, and when 30 % of the
images' variance is explained, where claims are read. **a-e** KL (pink) agrees most, with nearly all
256 examples pulling alike on circles, up to 158 on digits, while their codes are alike; as codes
spread it falls (*reproduced*), and what stays is in the variances (*reproduced*). The
reconstruction was predicted to agree less in the encoder, where each example pulls its own code up
or down. That is **not reproduced**, early and later: decided by the networks on digits, where the
encoder is above the decoder by one to two doublings. Presumably all encoder gradients lie near a
few lines when the code is so narrow, and a small common wish makes them agree; with a tenth of the
step size (AE, two seeds) the order was the same. With the mean image the decoder loses 1.7
doublings and more; whether every network loses the two that were claimed is *inconclusive*.

**f-h** That the two terms oppose each other in the encoder is *inconclusive*: in single runs of the
dense VAE their cosine jumps between -0.9 and 0.9 from one measurement to the next. *Inconclusive*,
too: that noise in the code costs coherence, that the convolutional network is above the dense one
(intervals of one and two doublings either way), and that within it convolutions are above dense
layers (equal to 0.2 doublings). With factor 1 in place of 4 most dense VAEs never left the mean
image.
"""

import numpy as np

from coherence.lab.report import drawing as style

TITLES = {
    "circles-ae": "circles, AE",
    "circles-vae": "circles, VAE",
    "circles-conv_vae": "circles, conv. VAE",
    "digits-ae": "digits, AE",
    "digits-vae": "digits, VAE",
}
MEAN, LATE = 1.1, 0.7
TERMS = {  # place in the recorded array, colour
    "reconstruction, decoder": (0, 1, style.SEQUENCE[3]),
    "reconstruction, encoder": (0, 0, style.SEQUENCE[1]),
    "KL, encoder": (1, 0, style.COLOUR["other"]),
}
SIZES = {"fontsize": 7.5}


def draw(recorded):
    arms = [arm for arm in TITLES if arm in recorded["arms"]]
    vaes = [arm for arm in arms if np.isfinite(recorded[f"{arm}/cosine"]).any()]
    figure, axes = style.figure(3, 3, height=2.1)
    panels = list(axes.flat)
    for panel, arm in zip(panels, arms):
        coherence(panel, recorded, arm)
        panel.set_title(TITLES[arm])
    for panel, arm in zip(panels[len(arms) :], vaes):
        opposition(panel, recorded, arm)
        panel.set(title=TITLES[arm], ylabel="cosine of the terms")
    shown = len(arms) + len(vaes)
    for panel in panels[shown:]:
        panel.set_axis_off()
    for panel in panels[: len(arms)]:
        panel.set_ylabel(f"m-coherence, m = {recorded['m']}")
    style.letters(panels[:shown], small=True)
    lines = [style.key(name, colour) for name, (*_, colour) in TERMS.items()]
    panels[shown if shown < len(panels) else 0].legend(handles=lines, loc="center", **SIZES)
    return figure


def steps(recorded, arm):
    return style.log_steps(recorded[f"{arm}/step"])


def coherence(panel, recorded, arm):
    for name, (term, part, colour) in TERMS.items():
        values = recorded[f"{arm}/by_part"][term, :, :, part]
        if np.isfinite(values).all():
            options = {"title": f"{TITLES[arm]}, m-coherence", "logarithmic": True}
            style.band(panel, steps(recorded, arm), values, name, colour=colour, **options)
    moments(panel, recorded, arm)
    style.guide(panel, 1)
    panel.set(xscale="log", yscale="log", xlabel="step", ylim=(0.3, 1.5 * recorded["m"]))


def moments(panel, recorded, arm):
    """When the levels are reached, on average over seeds."""
    for level in (MEAN, LATE):
        found = [
            first(recorded, arm, level, seed) for seed in range(len(recorded[f"{arm}/unexplained"]))
        ]
        if None not in found:
            panel.axvline(
                np.exp(np.log(steps(recorded, arm)[found]).mean()),
                color=style.NEUTRAL,
                linewidth=0.8,
                linestyle=":",
            )


def first(recorded, arm, level, seed):
    """The first measurement at which no more than a level is unexplained, or `None`."""
    there = np.flatnonzero(recorded[f"{arm}/unexplained"][seed] <= level)
    return there[0] if there.size else None


def opposition(panel, recorded, arm):
    values = recorded[f"{arm}/cosine"]
    style.band(
        panel,
        steps(recorded, arm),
        values,
        "cosine",
        colour=style.NEUTRAL,
        title=f"{TITLES[arm]}, cosine of the two terms",
    )
    moments(panel, recorded, arm)
    style.guide(panel, 0)
    panel.set(xscale="log", ylim=(-1.05, 1.05), xlabel="step")
