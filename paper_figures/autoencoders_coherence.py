"""Who is coherent in an autoencoder: encoder or decoder, reconstruction or KL, which layer, and
when.

Three networks learn circles through a code of one number, two learn handwritten digits through
eight; bands over 8 seeds, m = 256. **a-e** All learn the mean image first (upper dotted line, in
units of the images' variance), some wait there, then they use the code; at the lower line later
claims are read. **f-j** KL (pink) agrees most, with nearly all 256 examples pulling alike on
circles, up to 158 on digits, while their codes are alike; as codes spread it falls (*reproduced*),
and what stays is in the variances (*reproduced*). The reconstruction was predicted to agree less in
the encoder, where each example pulls its own code up or down. That is **not reproduced**, early and
later: at the lower line the encoder is above the decoder by 2.0 to 2.6 doublings in the four dense
networks, in the convolutional one by 0.8 ± 1.5, undecided; at the upper line only in the two AEs.
Presumably all encoder gradients lie near a few lines when the code is so narrow, and a small common
wish makes them agree; with a tenth of the step size (AE, two seeds) the order was the same. **k-o**
At step 0 coherence is on the whole higher in the decoder (violet), later it falls towards the
output (yellow); only the convolutional decoder keeps it in its last layers. With the mean image the
decoder loses 1.7 to 4.6 doublings, not the two that were claimed of every network (**not
reproduced**).

**p-r** That the two terms oppose each other in the encoder is *inconclusive*: in single runs of the
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
WHEN = {"step 0": None, "mean image learned": MEAN, "30 % explained": LATE}
SIZES = {"fontsize": 7.5}


def draw(recorded):
    arms = [arm for arm in TITLES if arm in recorded["arms"]]
    figure, axes = style.figure(4, len(arms), width=max(2.1 * len(arms), 4), height=1.85)
    for column, arm in enumerate(arms):
        errors(axes[0, column], recorded, arm)
        coherence(axes[1, column], recorded, arm)
        layers(axes[2, column], recorded, arm)
        opposition(axes[3, column], recorded, arm)
        axes[0, column].set_title(TITLES[arm])
    labels = (
        "losses",
        f"m-coherence, m = {recorded['m']}",
        "m-coherence,\nreconstruction",
        "cosine of the\ntwo terms",
    )
    for row, label in zip(axes, labels):
        next(panel for panel in row if panel.get_visible()).set_ylabel(label)
    style.letters([panel for panel in axes.flat if panel.get_visible()], small=True)
    legends(figure)
    return figure


def steps(recorded, arm):
    return style.log_steps(recorded[f"{arm}/step"])


def errors(panel, recorded, arm):
    """What is left of the images' variance, and KL; dotted: the levels of the claims."""
    options = {"title": f"{TITLES[arm]}, losses", "logarithmic": True}
    x = steps(recorded, arm)
    values = recorded[f"{arm}/unexplained"]
    style.band(panel, x, values, "unexplained variance", colour=style.NEUTRAL, **options)
    if recorded[f"{arm}/kl"].size:
        kl = np.maximum(recorded[f"{arm}/kl"], 1e-3)
        style.band(
            panel,
            steps(recorded, arm),
            kl,
            "KL, nats",
            colour=style.COLOUR["other"],
            style="--",
            **options,
        )
    for level in (MEAN, LATE):
        style.guide(panel, level)
    panel.set(xscale="log", yscale="log", xlabel="step", ylim=(0.1, 100))


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


def layers(panel, recorded, arm):
    """Of the reconstruction's gradients, layer by layer, where each level is reached."""
    values, every = (
        recorded[f"{arm}/by_layer"][0],
        [str(layer) for layer in recorded[f"{arm}/layers"]],
    )
    order = sorted(range(len(every)), key=lambda k: position(every[k]))
    for (when, level), colour in zip(WHEN.items(), style.SEQUENCE[::2]):
        at = [
            0 if level is None else first(recorded, arm, level, seed) for seed in range(len(values))
        ]
        if None not in at:
            found = np.array([values[seed, k][order] for seed, k in enumerate(at)])
            options = {"colour": colour, "title": f"{TITLES[arm]}, by layer", "logarithmic": True}
            style.band(panel, np.arange(len(order)), found, when, **options)
    style.guide(panel, 1)
    panel.axvline(
        sum(layer.startswith("encoder") for layer in every) - 0.5,
        color=style.NEUTRAL,
        linewidth=0.8,
    )
    panel.set_xticks(range(len(order)), [short(every[k]) for k in order], rotation=90)
    panel.set(yscale="log", ylim=(0.3, 1.5 * recorded["m"]))


def first(recorded, arm, level, seed):
    """The first measurement at which no more than a level is unexplained, or `None`."""
    there = np.flatnonzero(recorded[f"{arm}/unexplained"][seed] <= level)
    return there[0] if there.size else None


def position(layer):
    """In the order in which an image passes: the encoder's layers, its heads, the decoder's."""
    part, name = layer.split("/")
    return (
        part != "encoder",
        {"z": 1, "mu": 1, "log_var": 2, "input": -1, "output": 3}.get(name, 0),
        name,
    )


def short(layer):
    return (
        layer.split("/")[1]
        .replace("log_var", "log var")
        .replace("_", " ")
        .replace("hidden", "dense")
    )


def opposition(panel, recorded, arm):
    values = recorded[f"{arm}/cosine"]
    if np.isnan(values).all():
        panel.set_visible(False)
        return
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


def legends(figure):
    lines = [style.key("unexplained variance")]
    lines += [style.key("KL, nats", style.COLOUR["other"], "--")]
    lines += [style.key(name, colour) for name, (*_, colour) in TERMS.items()]
    lines += [
        style.key(f"by layer: {when}", colour) for when, colour in zip(WHEN, style.SEQUENCE[::2])
    ]
    figure.legend(handles=lines, loc="outside upper center", ncols=4, **SIZES)
