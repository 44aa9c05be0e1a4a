"""What the weight and the kind of the reconstruction's error make of a VAE of circles.

Dense layers, 500 circles, 1,000 steps, bands over 8 seeds. **a, b** KL of N(mu, sigma) from the
standard normal distribution (grey), by formula. **c** One untrained batch, mean or sum over pixels,
then over examples: squared errors within 3.7 % of those that the tutorial prints, 1.7 % in the mean
(*reproduced*); KL, not judged, is off by up to a factor of 2.8. **d** What z decodes to, seed 0.
**e-j** With small factors KL is 0 (*reproduced*) and every image alike. At the tutorial's factor 1,
without a sigmoid, 5 of 8 runs are still without KL, so that two comparisons with it are
*inconclusive*: that images vary less at 0.01, and that codes are less normal at 100. At 100 KL is 5
nats higher and drawing z costs less (*reproduced*); whether the error is an autoencoder's is
*inconclusive*, and samples are no nearer to circles. A sigmoid brings KL back at smaller factors,
cross-entropy more so (*reproduced*). **k** Factor 1 goes on beyond the 1,000 steps (dashed): after
4,000 two still have no KL. **l** Coherence of both halves, no sigmoid: seeds differ more than
factors. **m** What the reconstruction teaches: with z drawn plainly, the encoder's gradient is
exactly 0 (*reproduced*).
"""

import numpy as np

from coherence.lab.report import drawing as style

KINDS = {
    "squared": style.SEQUENCE[0],
    "sigmoid": style.SEQUENCE[2],
    "cross-entropy": style.SEQUENCE[4],
}
NAMES = {
    "squared": "squared error",
    "sigmoid": "same, sigmoid",
    "cross-entropy": "cross-entropy, sigmoid",
}
REDUCTIONS = ("mean,\nmean", "mean,\nsum", "sum,\nmean", "sum,\nsum")


def draw(recorded):
    figure, axes = style.figure(3, 2, height=1.9, gridspec_kw={"width_ratios": (1, 1.5)})
    curves(axes[0, 0])
    pairs(axes[1, 0])
    reductions(axes[2, 0], recorded)
    for panel in axes[:, 1]:
        panel.remove()
    column = figure.add_subplot(axes[0, 0].get_gridspec()[:, 1])
    decoded(column, recorded)
    style.letters([*axes[:, 0], column], small=True)
    return figure


def draw_2(recorded):
    figure, axes = style.figure(3, 3, height=1.9)
    against(axes[0, 0], recorded, "test_kl", "KL", "nats")
    against(axes[0, 1], recorded, "error", "Squared error", "of an image")
    style.guide(axes[0, 1], recorded["variance"])
    against(axes[0, 2], recorded, "from_normal", "Codes from normal", "KS distance")
    against(axes[1, 0], recorded, "distance", "Samples from a circle", "grey levels, RMS")
    style.guide(axes[1, 0], recorded["floor"], "test circles", "left")
    against(axes[1, 1], recorded, "kept", "Variance kept", "of an image")
    style.guide(axes[1, 1], recorded["variance"])
    against(axes[1, 2], recorded, "rho", "z and radius", "|rank correlation|")
    over_time(axes[2, 0], recorded)
    coherence(axes[2, 1], recorded)
    gradients(axes[2, 2], recorded)
    style.letters(axes.flat, "e", small=True)
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return figure


def pairs(panel):
    """A row for each sigma, a column for each mu; each pair in a cell of its own, with its KL."""
    panel.set_title("Twelve pairs and their KL")
    mus, sigmas = (0.0, 0.5, 1.0, 2.0), (0.5, 1.0, 2.0)
    z, width, height = np.linspace(-5, 5, 101), 11.0, 1.0
    density = lambda mu, sigma: np.exp(-(((z - mu) / sigma) ** 2) / 2) / sigma / np.sqrt(2 * np.pi)
    for row, sigma in enumerate(sigmas):
        for column, mu in enumerate(mus):
            x, floor, kl = z + column * width, -row * height, divergence(mu, sigma)
            panel.plot(x, floor + density(0, 1), color=style.NEUTRAL, linewidth=0.9)
            style.curve(
                panel,
                x,
                floor + density(mu, sigma),
                f"mu {mu:g}, sigma {sigma:g}: {kl:.3f}",
                colour=style.SEQUENCE[2],
                title="pairs of densities",
                linewidth=1.2,
            )
            panel.text(x[0], floor + 0.5, f"{kl:.2f}", fontsize=6)
    panel.set_xticks(np.arange(len(mus)) * width, [f"{mu:g}" for mu in mus])
    panel.set_yticks(-np.arange(len(sigmas)) * height, [f"{sigma:g}" for sigma in sigmas])
    panel.set(xlabel="mu", ylabel="sigma")
    panel.grid(False)


def divergence(mu, sigma):
    """KL of N(mu, sigma^2) from N(0, 1)."""
    return (mu**2 + sigma**2 - 1) / 2 - np.log(sigma)


def curves(panel):
    """Against mu, a curve for each of some sigma."""
    panel.set(title="KL of N(mu, sigma)", xlabel="mu", ylabel="nats", ylim=(0, 9))
    mu = np.linspace(-3, 3, 61)
    for sigma, colour in zip((0.1, 0.5, 1.0, 2.0), style.SEQUENCE):
        style.curve(
            panel, mu, divergence(mu, sigma), f"{sigma:g}", colour=colour, title="KL", linewidth=1.2
        )
    panel.legend(
        title="sigma",
        ncols=2,
        fontsize=6.5,
        title_fontsize=6.5,
        handlelength=1,
        columnspacing=0.8,
        loc="upper center",
    )


def reductions(panel, recorded):
    """Untrained losses of a batch, measured and printed."""
    panel.set_title("Untrained losses")
    for name, colour, values, printed in zip(
        ("squared error", "KL"),
        style.SEQUENCE[::3],
        (recorded["untrained/reconstruction"], recorded["untrained/kl"]),
        recorded["printed"],
    ):
        style.band(panel, np.arange(4), values, name, colour=colour, logarithmic=True)
        panel.plot(np.arange(4), printed, "o", color=colour, markersize=4.5, markerfacecolor="none")
        for x, y in enumerate(printed):
            panel.annotate(
                f"{y:.3g}" if y < 1000 else f"{y:,.0f}",
                (x, y),
                (0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=6,
            )
    panel.plot(
        [], [], "o", color=style.NEUTRAL, markersize=4.5, markerfacecolor="none", label="tutorial"
    )
    panel.set(yscale="log", ylim=(1e-3, 1e7), xlim=(-0.5, 3.5), ylabel="of a batch of 32")
    panel.set_xticks(range(4), REDUCTIONS)
    panel.legend(
        fontsize=6.5, loc="upper left", ncols=3, handlelength=1, columnspacing=0.7, borderaxespad=0
    )


def decoded(panel, recorded):
    """A row of images for each factor, and for the other two kinds of error at the middle one."""
    middle = recorded["factors"][len(recorded["factors"]) // 2]
    rows = [("squared", factor, f"{factor:g}") for factor in recorded["factors"]]
    rows += [
        ("sigmoid", middle, f"sigmoid,\n{middle:g}"),
        ("cross-entropy", middle, f"cross-\nentropy,\n{middle:g}"),
    ]
    images = [recorded[f"{kind},factor={factor:g}/at_z"] for kind, factor, _ in rows] + [
        recorded["AE/at_z"]
    ]
    framed = [
        np.hstack(list(np.pad(one, ((0, 0), (1, 1), (1, 1)), constant_values=190)))
        for one in images
    ]
    panel.imshow(np.vstack(framed), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    panel.set_xticks(15 + 30 * np.arange(len(recorded["z"])), [f"{z:g}" for z in recorded["z"]])
    panel.set_yticks(15 + 30 * np.arange(len(images)), [*(label for *_, label in rows), "AE"])
    panel.tick_params(length=0, pad=1)
    panel.grid(False)
    panel.spines[:].set_visible(False)
    panel.set(xlabel="z", anchor="N")
    panel.set_title("Decoded z, by factor")


def against(panel, recorded, name, title, unit):
    """One number against the factor, by kind of error; the autoencoder's where it has it."""
    panel.set(title=title, xscale="log", xlabel="factor", ylabel=unit)
    for kind, colour in KINDS.items():
        values = np.stack(
            [recorded[f"{kind},factor={factor:g}/{name}"] for factor in recorded["factors"]], 1
        )
        style.band(panel, recorded["factors"], values, NAMES[kind], colour=colour, title=title)
    if f"AE/{name}" in recorded:
        values = np.repeat(recorded[f"AE/{name}"][:, None], len(recorded["factors"]), 1)
        style.band(
            panel, recorded["factors"], values, "AE", colour=style.NEUTRAL, style="--", title=title
        )
    panel.set_ylim(bottom=0)


def over_time(panel, recorded):
    """KL of each seed at the tutorial's factor, beyond the steps that the others had."""
    panel.set(title="KL at factor 1, each seed", xscale="log", xlabel="step", ylabel="nats")
    steps = style.log_steps(recorded["over_time/step"])
    for seed, kl in enumerate(recorded["over_time/test_kl"]):
        label = f"seed {seed}"
        style.curve(
            panel, steps, kl, label, colour=KINDS["squared"], title="KL over time", linewidth=0.8
        )
    panel.axvline(steps[-1] / 4, color=style.NEUTRAL, linewidth=0.8, linestyle="--")


def coherence(panel, recorded):
    """Of both halves at the end, squared error without a sigmoid."""
    panel.set(title="Coherence at the end", xscale="log", yscale="log", xlabel="factor")
    panel.set(ylabel=f"m-coherence, m = {recorded['m']}")
    for half, colour in (("encoder", style.SEQUENCE[1]), ("decoder", style.SEQUENCE[3])):
        values = np.stack(
            [recorded[f"squared,factor={factor:g}/{half}"] for factor in recorded["factors"]], 1
        )
        style.band(panel, recorded["factors"], values, half, colour=colour, title="Coherence")
    style.guide(panel, 1)
    ticks = (0.3, 1, 3, 10, 30, 100)
    panel.set_yticks(ticks, [f"{one:g}" for one in ticks])
    panel.set_yticks([], minor=True)
    panel.legend(fontsize=6.5, handlelength=1.2)


def gradients(panel, recorded):
    """What the reconstruction teaches each half, untrained, by how z is drawn."""
    panel.set_title("Gradient, untrained")
    for k, (z, colour) in enumerate(
        (("reparametrized", style.COLOUR["pristine"]), ("plain", style.COLOUR["other"]))
    ):
        values = recorded[f"untrained/{z}"]
        x = ("encoder", "decoder")
        style.bars(panel, x, values, z, colour=colour, offset=(k - 0.5) * 0.4, width=0.36)
        if not values[:, 0].any():
            panel.annotate(
                "0", (0.2, 0), (0, 2), textcoords="offset points", ha="center", fontsize=7
            )
    panel.set_xticks(range(2), ("encoder", "decoder"))
    panel.set(ylabel="norm")
    panel.set_ylim(0, 1.4 * recorded["untrained/plain"].max())
    panel.legend(fontsize=6.5, handlelength=1, loc="upper left", ncols=2, columnspacing=1)
