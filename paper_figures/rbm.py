"""A Boltzmann machine learns from what is left of two directions that nearly all examples share.

Black and white digits, 1,200 to learn from, labels among the visible units, 128 hidden units,
contrastive divergence with one sweep (CD-1); bands over 5 seeds. **a** Draws from p(x | y), a digit
a column, after 500 sweeps of Gibbs sampling. A classifier of other images sees the digit asked for
in 85 %: above 80 %, but for nine tests together *inconclusive*. **b** The hidden units with the
largest weights. **c** Gradients of the positive phase agree among 167 of 300 images and later 119,
those of the negative phase as much; their difference, from which the machine learns, falls to one
image's own (*reproduced*). **d** On the weights of the label that difference agrees no more where
labels are true than where they are permuted: *inconclusive*, and late it is the other way round.

**e** Free energies of test images rise above those of training images (*reproduced*), no less with
gradients winsorized at 2 %, or by the median of three means (*inconclusive*). **f** Nor do these
keep permuted labels from being fitted (**not reproduced**): of so incoherent gradients they take
away next to nothing. **g, h** Machines of 16 hidden units, whose likelihood is exact, for 1,000
steps. Persistent chains end lower here, at a constant step size, and five sweeps as high as one
(*inconclusive*, against the claim). CD-1 points along the exact gradient, cosine 0.9, until little
is left to learn (*inconclusive* at step 1,000). **i** p(y | x) by free energies is right on 93.6 %
of test images; more than 93 % is *inconclusive*.
"""

import numpy as np

from coherence.lab.report import drawing as style

PHASES = {
    "positive phase": style.SEQUENCE[1],
    "negative phase": style.SEQUENCE[3],
    "their difference": style.COLOUR["corrupt"],
}
LABELS = {"plain": ("true", style.COLOUR["real"]), "permuted": ("permuted", style.COLOUR["random"])}
ROBUST = {"winsorized": "--", "median of means": ":"}
SMALL = {
    "small": ("CD-1", style.SEQUENCE[0]),
    "small, CD-5": ("CD-5", style.SEQUENCE[2]),
    "small, persistent": ("persistent", style.COLOUR["other"]),
}
OTHERS = ("Bernoulli\nnaive Bayes", "LDA", "5 nearest", "kernel SVM", "logistic\nregression")


def draw(recorded):
    figure, axes = style.figure(3, 3, height=2.2)
    plots = (draws, filters, coherence, labels, free_energies, memorized, exact, cosines, accuracy)
    for panel, plot in zip(axes.flat, plots):
        plot(panel, recorded)
    style.letters(axes.flat, small=True)
    return figure


def tiles(pictures, gap=1):
    """[rows, columns, height, width] as one picture with a margin."""
    rows, columns, height, width = pictures.shape
    wide = np.pad(pictures, ((0, 0), (0, 0), (0, gap), (0, gap)))
    whole = wide.transpose(0, 2, 1, 3).reshape(rows * (height + gap), columns * (width + gap))
    return np.pad(whole, ((gap, 0), (gap, 0)))


def draws(panel, recorded):
    """A digit a column."""
    pictures = recorded["drawn"].transpose(1, 0, 2, 3) * 255.0
    style.picture(panel, tiles(pictures))
    panel.set_title("draws from p(x | y)", loc="left")


def filters(panel, recorded):
    """The weights of single hidden units, white 0."""
    pictures = recorded["filters"].astype(float)
    weights = pictures.reshape(4, -1, *pictures.shape[1:])
    most = np.abs(weights).max()
    style.picture(panel, tiles(weights), cmap="PuOr", vmin=-most, vmax=most)
    panel.set_title("weights of hidden units", loc="left")


def coherence(panel, recorded):
    panel.set_title("gradients of single images", loc="left")
    for i, (name, colour) in enumerate(PHASES.items()):
        values = recorded["plain/coherence"][i].astype(float)
        steps = style.log_steps(recorded["plain/probed"])
        style.band(panel, steps, values, name, colour=colour, logarithmic=True)
    style.guide(panel, 1)
    panel.set(xscale="log", yscale="log", xlabel="step", ylim=(0.4, 3 * recorded["m"]))
    panel.set(ylabel=f"m-coherence, m = {recorded['m']}")
    panel.legend(loc="center right", **style.SMALL)


def labels(panel, recorded):
    panel.set_title("difference, weights of the label", loc="left")
    for arm, (name, colour) in LABELS.items():
        values = recorded[f"{arm}/label_coherence"][2].astype(float)
        steps = style.log_steps(recorded[f"{arm}/probed"])
        style.band(panel, steps, values, f"{name} labels", colour=colour, logarithmic=True)
    style.guide(panel, 1)
    panel.set(xscale="log", yscale="log", xlabel="step")
    panel.set(ylabel=f"m-coherence, m = {recorded['m']}")
    panel.set(ylim=(0.25, 8))
    style.ticks(panel, y=(0.5, 1, 2, 4))
    panel.legend(loc="upper right", **style.SMALL)


def free_energies(panel, recorded):
    panel.set_title("free energy, test minus training", loc="left")
    for arm, dashes in {"plain": "-", **ROBUST}.items():
        gap = recorded[f"{arm}/test_free_energy"] - recorded[f"{arm}/train_free_energy"]
        steps = style.log_steps(recorded[f"{arm}/step"])
        style.band(panel, steps, gap.astype(float), arm, colour=style.COLOUR["real"], style=dashes)
    style.guide(panel, 0)
    panel.set(xscale="log", xlabel="step", ylabel="nats")
    panel.legend(loc="upper left", **style.SMALL)


def memorized(panel, recorded):
    panel.set_title("permuted labels fitted", loc="left")
    for arm, dashes in {"plain": "-", **ROBUST}.items():
        name = "permuted" if arm == "plain" else f"permuted, {arm}"
        values = 100 * recorded[f"{name}/corrupt_accuracy"].astype(float)
        steps = style.log_steps(recorded[f"{name}/step"])
        style.band(panel, steps, values, arm, colour=style.COLOUR["random"], style=dashes)
    style.guide(panel, 10, "chance", side="left")
    panel.set(xscale="log", xlabel="step", ylabel="% of training images", ylim=(0, None))
    panel.legend(loc="upper left", **style.SMALL)


def exact(panel, recorded):
    panel.set_title("16 hidden units: likelihood", loc="left")
    for arm, (name, colour) in SMALL.items():
        values = recorded[f"{arm}/test_log_likelihood"].astype(float)
        late = recorded[f"{arm}/step"] >= 10
        style.band(panel, recorded[f"{arm}/step"][late], values[:, late], name, colour=colour)
    panel.set(xscale="log", xlabel="step", ylabel="log p(x, y), test (nats)")
    panel.legend(loc="lower right", **style.SMALL)


def cosines(panel, recorded):
    panel.set_title("16 hidden units: direction", loc="left")
    for arm, (name, colour) in list(SMALL.items())[:2]:
        values = recorded[f"{arm}/cosine"].astype(float)
        style.band(panel, style.log_steps(recorded[f"{arm}/step"]), values, name, colour=colour)
    style.guide(panel, 0.5, "claimed of CD-1", side="left")
    panel.set(xscale="log", xlabel="step", ylabel="cosine, exact gradient", ylim=(0, 1.05))
    panel.legend(loc="lower left", **style.SMALL)


def accuracy(panel, recorded):
    panel.set_title("beside other classifiers", loc="left")
    own = recorded["plain/test_accuracy"][:, -1:]
    values = 100 * np.concatenate([own, recorded["others"]], 1).astype(float)
    names = ["RBM,\np(y | x)", *OTHERS]
    order = np.argsort(values.mean(0))
    for place, i in enumerate(order):
        colour = style.COLOUR["real"] if i == 0 else style.NEUTRAL
        title = names[i].replace("\n", " ")
        style.bars(panel, [title], values[:, [i]], title, colour=colour, offset=place, width=0.65)
    panel.set_xticks(range(len(names)), [names[i] for i in order], rotation=90)
    panel.tick_params(axis="x", length=0)
    panel.set(ylabel="% of test images", ylim=(80, 100))
