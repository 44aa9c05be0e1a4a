"""Ways to two dimensions, on the same digits.

1,000 of scikit-learn's digits, 8 seeds; the gallery (**a-i**) is of one seed, a colour a digit. The
autoencoder and the variational autoencoder (the mean of its code) are ours. **j-n** A stroke a
seed, a dot at their mean. **j** Trustworthiness: who is near in the plane was near before; t-SNE
0.99, then LLE and Isomap, PCA, a random projection (*reproduced*). UMAP has 0.99, our autoencoder
0.97. **k** Continuity: who was near is near. **l** Accuracy of five neighbours, in the same order
(*reproduced*); UMAP's is 0.98, t-SNE's 0.98. LDA has seen the labels; on digits held out from it,
it is ahead of PCA by 0.03, *inconclusive*. **m** The share of ten nearest neighbours that two fits
of the same digits have in common: t-SNE 0.88, UMAP 0.74, autoencoders less than half. **n** Of the
second fit: t-SNE takes 2,500 times as long as PCA, and 2.3 times as long as UMAP. **o** 85 % of the
variance of 64 pixels takes 16 components, of a made-up table of ten features of user behaviour two,
which show the three kinds of users (**q**). **p** With ten numbers an autoencoder reconstructs
MNIST better than PCA (18.5 against 26.8), and one that was shown noisy images takes out more noise
than PCA at its best number of components.
"""

import numpy as np

from coherence.lab.report import drawing as style

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
METHODS = ("PCA", "LDA", "random", "Isomap", "LLE", "t-SNE", "UMAP", "AE", "VAE")
SCORES = ("trustworthiness", "continuity", "accuracy", "stability", "seconds")
OWN, OTHERS, NEUTRAL = style.COLOUR["other"], style.COLOUR["real"], style.NEUTRAL


def draw(recorded):
    """The gallery: one seed's digits by every method."""
    names = present(recorded)
    figure, axes = style.figure(2, 5, width=7.2, height=1.6)
    colours = [TEN[label] for label in recorded["labels"]]
    for panel, name in zip(axes.flat, names):
        x, y = recorded["places"][METHODS.index(name)].T.astype(float)
        panel.scatter(x, y, s=1.2, c=colours, linewidths=0)
        panel.set(title=name, xticks=[], yticks=[])
        panel.set(xlabel="first", ylabel="second")
        panel.grid(False)
        style.remember(panel, name, "digits", x, y)
    for panel in axes.flat[len(names) :]:
        panel.set_visible(False)
    handles = [style.key(str(digit), colour, "o", markersize=3) for digit, colour in enumerate(TEN)]
    figure.legend(handles=handles, loc="outside lower center", ncols=10, **style.SMALL)
    style.letters(axes.flat[: len(names)], small=True)
    return figure


def draw_2(recorded):
    """Scores over seeds, and the smaller experiments."""
    figure, axes = style.figure(2, 4, width=7.2, height=2.05)
    first = chr(ord("a") + len(present(recorded)))
    scores(axes[0, 0], recorded, "trustworthiness", "Trustworthiness")
    scores(axes[0, 1], recorded, "continuity", "Continuity")
    scores(axes[0, 2], recorded, "accuracy", "Five neighbours' vote")
    scores(axes[0, 3], recorded, "stability", "Shared by two fits")
    scores(axes[1, 0], recorded, "seconds", "Processor seconds")
    variance(axes[1, 1], recorded)
    codes(axes[1, 2], recorded)
    users(axes[1, 3], recorded)
    style.letters(axes.flat, first, small=True)
    return figure


def present(recorded):
    return [name for i, name in enumerate(METHODS) if np.isfinite(recorded["scores"][:, i]).all()]


def scores(panel, recorded, score, title):
    """A score of every method."""
    names = present(recorded)
    values = recorded["scores"][..., SCORES.index(score)]
    logarithmic = score == "seconds"
    panel.set(title=title, xlabel="seconds" if logarithmic else "share")
    for i, name in enumerate(names):
        of_method = values[:, METHODS.index(name)]
        colour = OWN if name in ("AE", "VAE") else OTHERS
        panel.plot(of_method, np.full(len(of_method), i), "|", color=colour, markersize=5)
        panel.plot(of_method.mean(), i, "o", color=colour, markersize=3)
        style.remember(panel, title, name, [i], [of_method.mean()])
    panel.set_yticks(range(len(names)), names)
    panel.invert_yaxis()
    panel.set(xscale="log" if logarithmic else "linear")
    if not logarithmic:
        panel.set_xlim(0, 1.03)


def variance(panel, recorded):
    """How much of the variance of digits and of the shop's users components hold."""
    panel.set(title="Components", xlabel="principal components", ylabel="share of the variance")
    held = recorded["variance"][:, :40]
    style.band(panel, np.arange(1, 41), held, "digits, 64 pixels", colour=OTHERS)
    shop = np.cumsum(recorded["explained"], 1)
    style.band(panel, [1, 2], shop, "users, 10 features", colour=style.COLOUR["random"], style="o-")
    panel.axhline(0.85, color=NEUTRAL, linewidth=0.6, linestyle=":")
    panel.set_ylim(0, 1.02)
    panel.legend(loc="lower right", **style.SMALL)


def codes(panel, recorded):
    """Squared errors of reconstructions, of ten numbers and of noisy images."""
    panel.set(title="Reconstruction", ylabel="squared error an image", yscale="log")
    pca, own = recorded["codes/errors"].T
    noisy, best, denoised = recorded["denoising/errors"].T
    groups = {"PCA": (pca, best), "AE": (own, denoised)}
    for i, (name, values) in enumerate(groups.items()):
        colour = OWN if name == "AE" else OTHERS
        style.bars(
            panel,
            ("10 numbers", "noise"),
            np.array(values).T,
            name,
            colour=colour,
            offset=0.3 * i - 0.15,
            width=0.28,
        )
    panel.plot([0.65, 1.35], [noisy.mean()] * 2, color=NEUTRAL, linestyle=":", label="noisy input")
    panel.set_xticks((0, 1), ("10 numbers,\nMNIST", "denoising,\n8 x 8"))
    panel.set_ylim(1, 100)
    style.ticks(panel, y=(1, 3, 10, 30, 100))
    panel.legend(loc="upper right", **style.SMALL)


def users(panel, recorded):
    """The shop's users on two components."""
    panel.set(title="Users", xlabel="first component", ylabel="second")
    x, y = recorded["users"][0].T.astype(float)
    colours = [style.SEQUENCE[2 * kind] for kind in recorded["kind"]]
    panel.scatter(x, y, s=3, c=colours, linewidths=0)
    style.remember(panel, None, "users", x, y)
