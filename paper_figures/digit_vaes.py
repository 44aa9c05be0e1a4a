"""Digits from variational autoencoders: drawn on request, drawn at random, and on the way from one
to another.

MNIST, 10,000 training images, dense VAEs of 10 latents; pictures of one seed, bands and bars over
8. The GIF is panel **a** in motion: ten digits of one code, which goes round a circle. **a** Told
the label, a network draws the digit asked for; a classifier agrees (**h**) in 83 % of samples, from
69 % for a 2 to 98 % for a 4: more than 80 % is *inconclusive*. **b, e** A network of two latents,
not told: digits have their regions. **c** Samples of the prior by the weight of KL, β. **d, j**
Codes mixed between two test images stay nearer to real digits than their two reconstructions mixed
in pixels (*reproduced*).

**f** KL falls and reconstruction suffers with β (*reproduced*), but the best bound for test images
is not at β = 1, what is trained on: β = 0.3 is better by 1.5 nats after these 2,000 steps, of four
compared (**inconclusive**). **g** The label is worth 4.1 nats of ELBO; the numbers in the bars are
the levels without and with it, each ±0.7 over test images. By the tighter bound of 50 draws it is
worth 3.7 nats, more than the ln 10 = 2.3 there are in a label (**not reproduced**; the limit is one
of exact likelihoods). Codes of the network told the label say less of it: 52 % right by nearest
neighbours instead of 90 % (*reproduced*). **i** Samples of the prior are farther from training
images than reconstructions are, but at β = 0.1 by no more than at β = 1: *inconclusive*. **k**
Shown without a claim: encoder gradients of single images agree more the less KL weighs.
"""

import zlib

import numpy as np

from coherence.lab.report import drawing as style

NEUTRAL, OTHER = style.NEUTRAL, style.COLOUR["other"]
TOLD, NOT_TOLD = style.COLOUR["pristine"], style.COLOUR["real"]
TEN = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#8a7a00",
    "#000000",
    "#7f4fbf",
    "#999999",
)  # a colour a digit
NEAREST = "distance to the\nnearest image"
GAP = 2  # pixels between two images
SIZES = {"fontsize": 7, "labelspacing": 0.25, "handlelength": 1.4}


def draw(recorded):
    figure, axes = style.figure(1, 1, height=5.9)
    axes[0, 0].remove()
    rows = figure.add_gridspec(2, 1)
    top, below = (rows[i].subgridspec(1, 2, width_ratios=(1.25, 1)) for i in (0, 1))
    left = below[0].subgridspec(2, 1, height_ratios=(3, 4.4))
    places = (top[0], top[1], left[0], left[1], below[1])
    panels = [figure.add_subplot(place) for place in places]
    for panel, plot in zip(panels, (asked, plane, priors, ways, codes)):
        plot(panel, recorded)
    style.letters(panels, small=True)
    return figure


def draw_2(recorded):
    figure, axes = style.figure(2, 3, height=1.9)
    plots = (rate_and_distortion, worth, by_digit, by_beta, along, coherence)
    for panel, plot in zip(axes.flat, plots):
        plot(panel, recorded)
    style.letters(axes.flat, "f", small=True)
    return figure


def animate(recorded):
    """Ten digits in one handwriting, which changes as the code goes round a circle: [frames,
    height, width].
    """
    walk = images(recorded, "walk")
    return np.stack(
        [255 - enlarged(tiles(frame.reshape(2, 5, *frame.shape[1:])), 3) for frame in walk]
    )


def images(recorded, name):
    """Recorded pictures, unpacked: uint8 [..., height, width]."""
    changes = np.frombuffer(zlib.decompress(recorded[name].tobytes()), np.uint8).reshape(
        recorded[f"{name}_shape"]
    )
    return np.cumsum(
        changes, 0, dtype=np.uint8
    )  # recorded as changes along the first axis, which wrap around


def tiles(pictures, gap=GAP):
    """[rows, columns, height, width] as one picture with a margin."""
    rows, columns, height, width = pictures.shape
    wide = np.pad(pictures, ((0, 0), (0, 0), (0, gap), (0, gap)))
    whole = wide.transpose(0, 2, 1, 3).reshape(rows * (height + gap), columns * (width + gap))
    return np.pad(whole, ((gap, 0), (gap, 0)))


def enlarged(picture, times):
    return picture.repeat(times, 0).repeat(times, 1)


def show(panel, picture, title):
    panel.imshow(picture, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
    panel.set_title(title)
    panel.grid(False)
    panel.set_xticks([])
    panel.set_yticks([])
    for side in panel.spines.values():
        side.set_visible(False)


def asked(panel, recorded):
    show(panel, tiles(images(recorded, "told")), "asked for 0, 1, ..., 9: one code a row")


def plane(panel, recorded):
    show(
        panel, tiles(images(recorded, "plane"), gap=0), "another network: two latents, all of them"
    )


def priors(panel, recorded):
    pictures = images(recorded, "priors")
    show(panel, tiles(pictures), "drawn at random, by weight of KL")
    betas = recorded["betas"].min(), 1, recorded["betas"].max()
    side = pictures.shape[-1] + GAP
    panel.set_yticks(
        [GAP + (i + 0.5) * side for i in range(3)], [f"β = {beta:g}" for beta in betas]
    )
    panel.tick_params(length=0)


def ways(panel, recorded):
    """From one test digit to another: through codes, and by mixing the two ends."""
    decoded = images(recorded, "ways").astype(float)  # [place, pair, ...]
    share = np.linspace(0, 1, len(decoded)).reshape(-1, 1, 1, 1)
    mixed = (1 - share) * decoded[0] + share * decoded[-1]
    rows = [kind[:, pair] for pair in range(decoded.shape[1]) for kind in (decoded, mixed)]
    show(panel, tiles(np.round(rows).astype(np.uint8)), "from one test image to another, two ways")
    side = decoded.shape[-1] + GAP
    panel.set_yticks(
        [GAP + (i + 0.5) * side for i in range(len(rows))], ["codes", "pixels"] * (len(rows) // 2)
    )
    panel.tick_params(length=0)


def codes(panel, recorded):
    """Means of test images' codes in two latents, a colour a digit."""
    places, labels = recorded["codes"].astype(float), recorded["labels"]
    limit = np.quantile(np.abs(places), 0.995) * 1.05
    panel.set(title="the same two latents: test images", xlabel="first latent")
    panel.set(ylabel="second latent", xlim=(-limit, limit), ylim=(-limit, limit))
    middles = apart(
        np.array([np.median(places[labels == digit], 0) for digit in range(10)]), limit / 7
    )
    for digit, colour in enumerate(TEN):
        panel.plot(
            *places[labels == digit].T,
            ".",
            color=colour,
            markersize=2.2,
            alpha=0.7,
            markeredgewidth=0,
        )
        panel.annotate(
            str(digit),
            middles[digit],
            color="white",
            ha="center",
            va="center",
            fontsize=9,
            fontweight="bold",
            bbox={
                "boxstyle": "circle,pad=0.18",
                "facecolor": colour,
                "edgecolor": "white",
                "linewidth": 0.8,
            },
        )
    panel.set(aspect="equal")


def apart(points, least):
    """Points moved no farther than it takes to be that far from one another."""
    for _ in range(200):
        away = points[:, None] - points
        far = np.linalg.norm(away, axis=-1) + np.eye(len(points)) * least
        push = np.maximum(least - far, 0) / np.maximum(far, 1e-6)
        points = points + 0.3 * (away * push[..., None]).sum(1)
    return points


def rate_and_distortion(panel, recorded):
    """What a code costs against what it leaves to be paid."""
    rate, distortion = recorded["test_kl"], recorded["test_reconstruction"]
    panel.set(title="rate and distortion", xlabel="KL (nats an image)")
    panel.set(ylabel="reconstruction\n(nats)", xlim=(0, rate.max() * 1.3))
    order = np.argsort(recorded["betas"])
    means = rate.mean(0), distortion.mean(0)
    panel.plot(rate.ravel(), distortion.ravel(), ".", color=NOT_TOLD, markersize=2, alpha=0.4)
    options = {"colour": NOT_TOLD, "marker": "o", "markersize": 3}
    style.curve(panel, *(mean[order] for mean in means), "means over seeds", **options)
    best, ends = sum(means)[recorded["betas"] == 1][0], np.array([0, rate.max() * 1.3])
    panel.plot(ends, best - ends, ":", color=NEUTRAL, linewidth=0.9, label="bound of β = 1")
    for beta, x, y in zip(recorded["betas"], *means):
        panel.annotate(
            f"β = {beta:g}",
            (x, y),
            xytext=(4, 4) if beta > 0.1 else (-14, -11),
            textcoords="offset points",
            fontsize=7,
        )
    panel.set(ylim=(None, distortion.max() * 1.1))
    panel.legend(loc="upper right", **SIZES)


def worth(panel, recorded):
    """What the label adds to three bounds, and inside the bars what it adds it to."""
    both = np.concatenate(
        [recorded["elbo"][..., None], recorded["bounds"]], -1
    )  # [seed, kind, bound]
    names = ["grey", "b/w", f"b/w, {recorded['draws']} draws"]
    gain = both[:, 1] - both[:, 0]
    panel.set(title="what the label is worth", xlabel="bound for test images", ylabel="gain (nats)")
    panel.set(xlim=(-0.5, 3.1), ylim=(min(0, gain.min()), 1.55 * max(gain.max(), 2)))
    style.bars(panel, names, gain, "95 % over seeds", colour=TOLD, width=0.7)
    images = 1.96 * recorded["elbo_error"][:, -1].mean()
    panel.errorbar(
        0.2,
        gain[:, 0].mean(),
        images,
        color=NEUTRAL,
        elinewidth=1,
        capsize=2,
        linewidth=0,
        label="the same over images",
    )
    for place, levels in enumerate(both.mean(0).T):
        text = "\n".join(f"−{-level:.1f}" for level in levels)
        panel.annotate(
            text,
            (place, 0.03),
            xycoords=("data", "axes fraction"),
            color="white",
            ha="center",
            va="bottom",
            fontsize=6,
        )
    style.guide(panel, np.log(10), "ln 10")
    panel.set_xticks(range(3), names)
    panel.legend(loc="upper right", **SIZES)


def by_digit(panel, recorded):
    panel.set(title="asked for and recognized", xlabel="digit asked for", ylabel="% of samples")
    panel.set(ylim=(0, 120))
    digits = [str(digit) for digit in range(10)]
    style.bars(panel, digits, 100 * recorded["recognized"], "samples", colour=TOLD, width=0.7)
    style.guide(panel, 100 * float(recorded["recognizer"]), "real test images", side="left")
    panel.set_xticks(range(10), digits)
    panel.set(yticks=(0, 25, 50, 75, 100))


def by_beta(panel, recorded):
    """How far from digits what is drawn lies."""
    panel.set_title("distance from real digits")
    for kind, (name, colour) in enumerate(
        (("prior samples", OTHER), ("reconstructions", NOT_TOLD))
    ):
        style.band(panel, recorded["betas"], recorded["far"][..., kind], name, colour=colour)
    beta_axis(panel, recorded)
    panel.set(ylabel=NEAREST, ylim=(None, recorded["far"].max() * 1.06))
    panel.legend(loc="upper left", **SIZES)


def along(panel, recorded):
    """How far from digits on the way between two."""
    panel.set(title="on the way from digit to digit", xlabel="share of the second digit")
    panel.set(ylabel=NEAREST)
    place = np.linspace(0, 1, recorded["between"].shape[-1])
    for kind, (name, colour, dashes) in enumerate(
        (("codes", NOT_TOLD, "-"), ("pixels", NEUTRAL, "--"))
    ):
        values = recorded["between"][:, kind]
        style.band(panel, place, values, f"mixing {name}", colour=colour, style=dashes)
    panel.set(ylim=(None, recorded["between"].max() * 1.12))
    panel.legend(loc="upper left", **SIZES)


def coherence(panel, recorded):
    panel.set_title("coherence after training")
    for part, (name, colour) in enumerate(
        (("encoder", style.SEQUENCE[1]), ("decoder", style.SEQUENCE[3]))
    ):
        values = recorded["m_coherence"][..., part]
        style.band(panel, recorded["betas"], values, name, colour=colour, logarithmic=True)
    beta_axis(panel, recorded)
    panel.set(
        ylabel="m-coherence,\nm = 500", yscale="log", ylim=(1, recorded["m_coherence"].max() * 2)
    )
    ticks = [tick for tick in (1, 3, 10, 30, 100) if tick < panel.get_ylim()[1]]
    panel.set_yticks(ticks, [str(tick) for tick in ticks])
    panel.minorticks_off()
    panel.legend(loc="upper right", **SIZES)


def beta_axis(panel, recorded):
    panel.set(xscale="log", xlabel="β, the weight of KL")
    panel.set_xticks(recorded["betas"], [f"{beta:g}" for beta in recorded["betas"]])
    panel.minorticks_off()
