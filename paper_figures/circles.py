"""Circles through one number: an autoencoder, a VAE and a convolutional VAE.

The tutorial's size, bands and error bars over 8 seeds (the VAE's means in **p** without); single
networks are those of seed 0. **a** The data. **b-g** z of 1,000 new circles (dotted: the normal
distribution of its mean and width). From AE to VAE to ConvVAE it becomes more normal
(*reproduced*). AE and VAE fold the circles; the ConvVAE's z is the radius in 7 of 8 runs, |rho|
0.29 in the other (*inconclusive* at 0.95). **h-j** Decoded z. **k, l** The AE turns a square into a
circle and does so with no more error than that of a poor circle: that all anomalies are found is
*inconclusive*. **m** Decoded z ~ N(0, 1): the AE's farthest from any circle, also with z fitted to
its codes, the VAE's nearer, the ConvVAE's nearest (all *reproduced*); yet white paper is nearer to
a tiny circle than the VAE's are. **n** Last losses are within 15 % of the tutorial's but for two
AEs (lower), one VAE and one ConvVAE (higher): *inconclusive*, all three; the first epoch's are off
by more, but differ twofold between seeds. Of the last loss reconstruction and KL are not each
within 15 % beyond doubt, either (*inconclusive*). **o, p** The ConvVAE's KL all but vanishes
between epochs 2 and 10 and comes back (*reproduced*). Coherence goes and comes with it, of encoder
and decoder alike: from epoch 6 to 10 m-coherence is about 1 or less, hardly any example's gradient
helps another. The VAE (dashed), whose KL only dips, keeps its decoder's above that.
"""

import numpy as np

from coherence.lab.report import drawing as style

NETWORKS = {"AE": style.SEQUENCE[4], "VAE": style.SEQUENCE[2], "ConvVAE": style.SEQUENCE[0]}
SHAPES = ("square", "cross", "disc", "noise")
FIRST = "seed 0"


def draw(recorded):
    figure, axes = style.figure(3, 3, height=1.7, gridspec_kw={"height_ratios": (0.75, 1, 1)})
    figure.get_layout_engine().set(h_pad=0.03, w_pad=0.02)
    row = across(figure, axes[0])
    pictures(row, recorded["circles"], "The data: circles of growing radius")
    for k, (arm, colour) in enumerate(NETWORKS.items()):
        histogram(axes[1, k], recorded, arm, colour)
        scatter(axes[2, k], recorded, arm, colour)
    style.letters([row, *axes[1:].flat], small=True)
    return figure


def draw_2(recorded):
    figure, axes = style.figure(3, 3, height=1.7, gridspec_kw={"height_ratios": (0.5, 1.15, 1.25)})
    figure.get_layout_engine().set(h_pad=0.03, w_pad=0.02)
    for panel, arm in zip(axes[0], NETWORKS):
        decoded(panel, recorded, arm)
    anomalies(axes[1, 0], recorded)
    errors(axes[1, 1], recorded)
    distances(axes[1, 2], recorded)
    losses(axes[2, 0], recorded)
    divergence(axes[2, 1], recorded)
    coherence(axes[2, 2], recorded)
    style.letters(axes.flat, "h", small=True)
    return figure


def across(figure, row):
    """One panel in place of a row of them."""
    grid = row[0].get_gridspec()
    for panel in row:
        panel.remove()
    return figure.add_subplot(grid[0, :])


def pictures(panel, images, title):
    """Images [n, 28, 28] side by side."""
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=190)
    panel.imshow(np.hstack(list(framed)), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    panel.set(xticks=[], yticks=[])
    panel.grid(False)
    panel.spines[:].set_visible(False)
    panel.set_title(title)


def histogram(panel, recorded, arm, colour):
    """z of test circles; of the VAEs its mean."""
    panel.set(title=f"{arm}: z", xlabel="z", ylabel="density" if arm == "AE" else "")
    codes = recorded[f"{arm}/codes"]
    density, edges = np.histogram(codes, 40, density=True)
    middle = (edges[1:] + edges[:-1]) / 2
    panel.fill_between(middle, density, step="mid", color=colour, alpha=0.3, linewidth=0)
    options = {"colour": colour, "title": f"{arm}: z", "drawstyle": "steps-mid", "linewidth": 0.8}
    style.curve(panel, middle, density, f"{arm}, {FIRST}", **options)
    z = np.linspace(*(codes.mean() + np.array([-3.5, 3.5]) * codes.std()), 100)
    normal = (
        np.exp(-(((z - codes.mean()) / codes.std()) ** 2) / 2) / np.sqrt(2 * np.pi) / codes.std()
    )
    panel.plot(z, normal, ":", color=style.NEUTRAL, linewidth=1.1)
    panel.annotate(
        f"from normal:\n{recorded[f'{arm}/from_normal'].mean():.2f} (mean)",
        (0.99, 0.98),
        xycoords="axes fraction",
        ha="right",
        va="top",
        fontsize=7,
    )


def scatter(panel, recorded, arm, colour):
    """z against radius."""
    panel.set(title=f"{arm}: z and radius", xlabel="z", ylabel="radius" if arm == "AE" else "")
    panel.set(ylim=(0, 0.5))
    x = recorded[f"{arm}/codes"]
    y = recorded["radius"]
    label = f"{arm}, {FIRST}"
    style.curve(
        panel, x, y, label, colour=colour, style=".", title=f"{arm}: radius", markersize=1.3
    )
    rho = recorded[f"{arm}/spearman"]
    panel.annotate(
        f"|rho| {rho.mean():.2f}\n(mean)",
        (0.99, 0.04),
        xycoords="axes fraction",
        ha="right",
        va="bottom",
        fontsize=7,
    )


def decoded(panel, recorded, arm):
    """What five values of z decode to."""
    images = recorded[f"{arm}/at_z"]
    pictures(panel, images, f"{arm}: decoded z")
    panel.set_xticks(15 + 30 * np.arange(len(images)), [f"{z:g}" for z in recorded["z"]])
    panel.tick_params(length=0, pad=1)


def anomalies(panel, recorded):
    """Above: images; below: what the AE makes of them."""
    example, strange, again = (
        recorded[name] for name in ("AE/example", "anomalies", "AE/reconstructed_anomalies")
    )
    shown = np.concatenate([example[:1], strange]), np.concatenate([example[1:], again])
    rows = [
        np.hstack(list(np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=190)))
        for images in shown
    ]
    panel.imshow(np.vstack(rows), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    panel.set_xticks(
        15 + 30 * np.arange(5), [f"circle,\nz = {recorded['AE/codes'][0]:.2f}", *SHAPES]
    )
    panel.set_yticks([15, 45], ["image", "AE's"])
    panel.tick_params(length=0, pad=1)
    panel.grid(False)
    panel.spines[:].set_visible(False)
    panel.set_title("AE: anomalies")


def errors(panel, recorded):
    """By how much anomalies exceed nearly all circles."""
    panel.set_title("Anomalies' error")
    for k, (arm, colour) in enumerate(NETWORKS.items()):
        values = recorded[f"{arm}/anomaly"]
        style.bars(panel, SHAPES, values, arm, colour=colour, offset=(k - 1.5) * 0.2, width=0.18)
    style.bars(
        panel,
        SHAPES,
        recorded["mean_image/anomaly"][None],
        "mean image",
        colour="#bbbbbb",
        offset=0.3,
        width=0.18,
    )
    panel.axhline(0, color=style.NEUTRAL, linewidth=0.8)
    panel.set_xticks(range(len(SHAPES)), SHAPES)
    panel.set(ylabel="error beyond 99 % of\ncircles, doublings")
    panel.legend(
        fontsize=6.5, loc="upper left", handlelength=0.9, borderaxespad=0, labelspacing=0.2
    )


def distances(panel, recorded):
    """Of decoded draws of z from the nearest circle."""
    panel.set_title("Samples from a circle")
    names = ("AE", "AE, fitted z", "VAE", "ConvVAE")
    values = [
        recorded[name]
        for name in ("AE/distance", "AE/fitted_distance", "VAE/distance", "ConvVAE/distance")
    ]
    for k, (name, distance) in enumerate(zip(names, values)):
        colour = NETWORKS[name.split(",")[0]]
        options = {"colour": colour, "offset": k, "width": 0.6, "alpha": 0.5 if "," in name else 1}
        style.bars(panel, [name], distance[:, None], name, **options)
    blank = recorded["mean_and_blank"][1]
    for y, text in ((recorded["floor"], "test circles"), (blank, "white paper")):
        style.guide(panel, y, text)
    panel.set_xticks(range(4), ["AE", "AE,\nfitted z", "VAE", "Conv-\nVAE"])
    panel.set(ylabel="grey levels, RMS", xlim=(-0.5, 5.4))


def losses(panel, recorded):
    """Means over an epoch, with what the tutorial prints; the AE's mean over pixels and examples
    times the number of both.
    """
    panel.set(title="Loss and the tutorial's", yscale="log", xlabel="epoch")
    panel.set(ylabel="loss of a batch (sum)")
    for arm, colour in NETWORKS.items():
        scale = 784 * recorded["batch"] if arm == "AE" else 1
        values = scale * recorded[f"{arm}/loss"]
        style.band(panel, 1 + np.arange(values.shape[1]), values, arm, colour=colour, title="Loss")
        epoch, low, high = recorded[f"{arm}/tutorial"].T
        panel.plot(
            epoch,
            scale * np.sqrt(low * high),
            "o",
            color=colour,
            markersize=4,
            markerfacecolor="none",
            markeredgewidth=0.9,
        )
    panel.plot(
        [], [], "o", color=style.NEUTRAL, markersize=4, markerfacecolor="none", label="tutorial"
    )
    ticks(panel, (200, 500, 1000, 2000, 5000))
    panel.legend(fontsize=6.5, handlelength=1.2, labelspacing=0.2)


def divergence(panel, recorded):
    """KL of a batch; the tutorial's is an epoch's mean, so stands in its middle."""
    panel.set(title="KL", yscale="log", xlabel="epoch", ylabel="KL of a batch, nats")
    panel.set(ylim=(0.1, 1000))
    for arm in ("VAE", "ConvVAE"):
        epoch = recorded[f"{arm}/step"] / recorded["per_epoch"]
        values = recorded["batch"] * recorded[f"{arm}/kl"]
        style.band(panel, epoch, values, arm, colour=NETWORKS[arm], title="KL")
    epoch, kl = recorded["tutorial_kl"].T
    panel.plot(
        epoch - 0.5,
        kl,
        "o",
        color=NETWORKS["ConvVAE"],
        markersize=4,
        markerfacecolor="none",
        markeredgewidth=0.9,
    )
    ticks(panel, (0.1, 1, 10, 100, 1000))
    panel.legend(fontsize=6.5, handlelength=1.2, labelspacing=0.2)


def coherence(panel, recorded):
    """Of the two halves of the convolutional VAE, and of the other one's."""
    panel.set(title="ConvVAE: coherence", yscale="log", xlabel="epoch")
    panel.set(ylabel=f"m-coherence, m = {recorded['m']}")
    for half, colour in (("encoder", style.SEQUENCE[1]), ("decoder", style.SEQUENCE[3])):
        epoch = recorded["ConvVAE/step"] / recorded["per_epoch"]
        style.band(
            panel, epoch, recorded[f"ConvVAE/{half}"], half, colour=colour, title="Coherence"
        )
        mean = np.exp(np.log(recorded[f"VAE/{half}"]).mean(0))
        options = {
            "colour": colour,
            "style": "--",
            "title": "Coherence",
            "linewidth": 0.8,
            "alpha": 0.8,
        }
        style.curve(
            panel, recorded["VAE/step"] / recorded["per_epoch"], mean, f"{half}, VAE", **options
        )
    style.guide(panel, 1)
    panel.set_ylim(0.08, 300)
    ticks(panel, (0.1, 0.3, 1, 3, 10, 30))
    panel.legend(
        fontsize=6.5,
        handlelength=1.6,
        labelspacing=0.2,
        ncols=2,
        columnspacing=0.8,
        loc="upper right",
    )


def ticks(panel, values):
    """Plain numbers on a logarithmic axis."""
    panel.set_yticks(values, [f"{value:,g}" for value in values])
    panel.set_yticks([], minor=True)
