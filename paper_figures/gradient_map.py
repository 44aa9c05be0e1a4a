"""A map of the training set as the optimizer sees it: places of examples are near where the angle
between their gradients is small.

2,000 MNIST images, 784-64-10, SGD with momentum, batches of 100; none, half or all of the labels
permuted. **a-d** 1,000 training examples of one seed, half of the labels permuted: t-SNE of
sketches of 256 numbers (`project`), each map begun at the one before; the GIF shows eight of them,
corrupt examples black. A cluster is a label that was given; at the end the corrupt of a cluster
keep together (share of a corrupt example's ten nearest that are corrupt, minus chance: 0.17;
*reproduced*), and what was learned early does, too. **e-h** The gradients of 500 examples, 8 seeds.
**e** Principal directions of the second moment, from the Gram matrix, that hold 85 % of the mean
square: at equal loss random labels fill more (+0.58 doublings at 1 nat, [0.52, 0.65], but after
Holm's correction *inconclusive* against the claimed 0.5). **f** Share of the squared mean gradient
in the ten leading ones; that it falls with the loss is **inconclusive**: with true labels it first
falls and then returns. **g** How far the m-coherence of sketches of k numbers is from that of the
gradients, mean over the measured steps (dashed, 1/√k; dotted, 10 %): 3 to 4 % at k = 1,000, a third
at k = 10. **h** Of the ten nearest on a map, how many share the given label and how many (pale) the
true class: with random labels 0.88 and 0.22 at 1 nat (*reproduced*).
"""

from itertools import pairwise

import numpy as np

from coherence.lab.report import drawing as style

REAL, RANDOM, HALF = style.COLOUR["real"], style.COLOUR["random"], style.COLOUR["other"]
ARMS = {"true": REAL, "half": HALF, "random": RANDOM}
PRISTINE, CORRUPT = style.COLOUR["pristine"], style.COLOUR["corrupt"]
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
FOR_85, LEADING, COHERENCE = 1, 2, 4  # places among the recorded quantities
MOMENTS = ("start", "1 nat", "end")
SIZE, DOT, TWEEN = 260, 3, 6  # of the moving figure: pixels, pixels, frames between two maps


def draw(recorded):
    figure, axes = style.figure(2, 4, width=7.2, height=2.1)
    labels = [TEN[label] for label in recorded["labels"][0]]
    last = len(recorded["places"]) - 1
    places(axes[0, 0], recorded, 0, "Start: given label", c=labels)
    places(axes[0, 1], recorded, last, "End: given label", c=labels)
    corrupt = [CORRUPT if bad else PRISTINE for bad in recorded["labels"][2]]
    places(axes[0, 2], recorded, last, "End: corrupt", c=corrupt)
    learned = places(
        axes[0, 3], recorded, last, "End: learned early", c=recorded["learned"], cmap="viridis"
    )
    bar = figure.colorbar(learned, ax=axes[0, 3], fraction=0.08, pad=0.03)
    bar.set_label("% of steps right", fontsize=7)
    bar.ax.tick_params(labelsize=6.5)
    over_steps(axes[1, 0], recorded, FOR_85, "For 85 %", "principal directions")
    over_steps(axes[1, 1], recorded, LEADING, "First ten", "share of the mean step")
    sketches(axes[1, 2], recorded)
    neighbours(axes[1, 3], recorded)
    handles = [
        *(style.key(f"{arm} labels", colour) for arm, colour in ARMS.items()),
        style.key("pristine", PRISTINE, "o", markersize=3),
        style.key("corrupt", CORRUPT, "o", markersize=3),
    ]
    handles[1].set_label("half permuted")
    handles[2].set_label("all permuted")
    figure.legend(handles=handles, loc="outside lower center", ncols=5, **style.SMALL)
    style.letters(axes.flat, small=True)
    return figure


def animate(recorded):
    """The map while the network is trained, corrupt examples black: [frames, height, width]."""
    maps = recorded["places"].astype(float) / 127
    between = np.linspace(0, 1, TWEEN, endpoint=False)
    steps = [a + t * (b - a) for a, b in pairwise(maps) for t in between]
    shades = np.where(recorded["labels"][2], 0, 170).astype(np.uint8)
    return np.stack([dots(places, shades) for places in (*steps, *[maps[-1]] * TWEEN)])


def dots(places, shades):
    """Points of a map as squares on white."""
    image = np.full((SIZE, SIZE), 255, np.uint8)
    corners = np.round((places + 1) / 2 * (SIZE - DOT)).astype(int)
    for (column, row), shade in zip(corners, shades):
        image[row : row + DOT, column : column + DOT] = shade
    return image


def places(panel, recorded, frame, title, **colours):
    """One map; what is far apart on it has gradients at a large angle."""
    x, y = recorded["places"][frame].T.astype(float)
    panel.set(title=title, xticks=[], yticks=[], xlabel="t-SNE, first", ylabel="second")
    panel.grid(False)
    style.remember(panel, title, "examples", x, y)
    return panel.scatter(x, y, s=1.5, linewidths=0, **colours)


def over_steps(panel, recorded, quantity, title, label):
    """A quantity over training."""
    panel.set(title=title, xscale="log", xlabel="step", ylabel=label)
    steps = style.log_steps(recorded["step"])
    for arm, colour in ARMS.items():
        values = recorded[f"{arm}/quantities"][..., quantity]
        style.band(panel, steps, values, f"{arm} labels", colour=colour)
    panel.set_ylim(bottom=0)
    style.ticks(panel, x=(1, 10, 100, 1000))


def sketches(panel, recorded):
    """How far the m-coherence of sketches is from that of the gradients."""
    panel.set(title="m-coherence kept", xscale="log", yscale="log")
    panel.set(xlabel="numbers a sketch, k", ylabel="relative error")
    for arm, colour in ARMS.items():
        exact = recorded[f"{arm}/quantities"][..., COHERENCE, None]
        errors = np.abs(recorded[f"{arm}/sketched"] / exact - 1).mean(1)
        style.band(panel, recorded["lengths"], errors, f"{arm} labels", colour=colour)
    style.curve(
        panel,
        recorded["lengths"],
        1 / np.sqrt(recorded["lengths"]),
        "1/√k",
        colour=style.NEUTRAL,
        style="--",
    )
    panel.axhline(0.1, color=style.NEUTRAL, linewidth=0.6, linestyle=":")
    style.ticks(panel, recorded["lengths"], (0.03, 0.1, 0.3))


def neighbours(panel, recorded):
    """Of the ten nearest, how many share the given label and how many the true class."""
    panel.set(title="Ten nearest", ylabel="share of neighbours", ylim=(0, 1.05))
    for i, (arm, colour) in enumerate(ARMS.items()):
        for kind, name, alpha in ((0, "given label", 1.0), (1, "true class", 0.45)):
            values = recorded[f"{arm}/neighbours"][:, :, kind]
            style.bars(
                panel,
                MOMENTS,
                values,
                f"{arm}: {name}",
                colour=colour,
                offset=0.27 * (i - 1) + 0.12 * kind - 0.06,
                width=0.12,
                alpha=alpha,
            )
    panel.set_xticks(range(3), MOMENTS)
