"""The perceptron's bound of mistakes, what it cannot learn, and one hidden layer that can.

**a** The perceptron's decision: AND and OR are cut off by a line, XOR by none. **b** Mistakes until
a separable set is learned, against Novikoff's bound (dotted: equal): 40 random sets, AND and OR,
with 8 seeds; none is above it, most are far below. **c** The length of the weights over updates:
AND and OR stop, XOR goes round in circles for ever. **d** What a network of five hidden units has
made of XOR. **e** The share of initial weights from which gradient descent learns XOR, by hidden
units. **f** Alpha of XOR's four rows with two hidden units, the median over initial weights that
lead to XOR and over those that do not: what rows have in common grows where XOR is learned, and
cancels where it is not. **g** The error of a sine falls with width.
"""

import numpy as np

from coherence.lab.report import drawing as style

COLOUR = {
    "AND": style.COLOUR["real"],
    "OR": style.COLOUR["pristine"],
    "XOR": style.COLOUR["corrupt"],
}
RIGHT = {"AND": (0, 0, 0, 1), "OR": (0, 1, 1, 1), "XOR": (0, 1, 1, 0)}


def draw(recorded):
    figure, axes = style.figure(2, 4, height=2.2)
    lines(axes[0, 0], recorded)
    bound(axes[0, 1], recorded)
    lengths(axes[0, 2], recorded)
    plane(axes[0, 3], recorded)
    solved(axes[1, 0], recorded)
    coherence(style.across(axes[1, 1:3]), recorded)
    sine(axes[1, 3], recorded)
    style.letters(figure.axes[:4], small=True)
    style.letters([axes[1, 0], figure.axes[-1], axes[1, 3]], "e", small=True)
    return figure


def lines(panel, recorded):
    """Where the weights of the first seed are zero, for each gate."""
    panel.set(title="Lines", xlabel="first input", ylabel="second input")
    panel.set(xlim=(-0.5, 2.0), ylim=(-0.5, 2.0))
    x = np.array([-0.5, 2.0])
    for name in ("AND", "OR"):
        a, b, c = recorded[f"rule/{name}/weights"][0]
        panel.plot(x, -(a * x + c) / b, color=COLOUR[name], label=name)
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    for corner in corners:
        panel.plot(*corner, "o", color=style.NEUTRAL, markersize=4)
    panel.legend(**style.SMALL)


def bound(panel, recorded):
    """Mistakes against Novikoff's bound."""
    panel.set(title="Mistakes", xscale="log", yscale="log")
    panel.set(xlabel="bound, (R / margin)²", ylabel="mistakes")
    bounds, mistakes = recorded["rule/bounds"], recorded["rule/mistakes"]
    x = [bounds.min() / 2, bounds.max() * 2]
    panel.plot(x, x, ":", color=style.NEUTRAL)
    for name, column in (("AND", 0), ("OR", 1)):
        style.curve(
            panel,
            bounds[:, column],
            mistakes[:, column],
            name,
            colour=COLOUR[name],
            style="s",
            markersize=4,
            zorder=3,
        )
    style.curve(
        panel,
        bounds[:, 2:].ravel(),
        mistakes[:, 2:].ravel(),
        "random sets",
        colour=style.COLOUR["random"],
        style=".",
        markersize=2,
    )
    panel.legend(loc="upper left", **style.SMALL)


def lengths(panel, recorded):
    """The length of the weights after each update, of one seed."""
    panel.set(title="Weights", xlabel="update", ylabel="length")
    for name in RIGHT:
        length = recorded[f"rule/{name}/length"][0]
        style.curve(panel, np.arange(len(length)), length, name, colour=COLOUR[name])
    panel.legend(loc="center right", bbox_to_anchor=(1, 0.76), **style.SMALL)


def plane(panel, recorded):
    """Outputs of a network that has learned XOR."""
    panel.set(title="XOR learned", xlabel="first input", ylabel="second input")
    panel.contourf(
        recorded["grid"],
        recorded["grid"],
        recorded["plane"],
        [-1e9, 0, 1e9],
        colors=["#fbe3cf", "#cfe4f2"],
    )
    for x, y, true in ((-1, -1, 0), (-1, 1, 1), (1, -1, 1), (1, 1, 0)):
        colour = style.COLOUR["real"] if true else style.COLOUR["corrupt"]
        panel.plot(x, y, "o" if true else "s", color=colour, markersize=4)
    panel.grid(False)


def solved(panel, recorded):
    """Shares of initial weights that lead to XOR."""
    panel.set(
        title="Learn XOR", xlabel="hidden units", ylabel="share of starts", ylim=(-0.05, 1.05)
    )
    widths = recorded["widths"]
    style.bars(panel, widths, recorded["solved"], "share", colour=style.COLOUR["real"], width=0.6)
    panel.set_xticks(range(len(widths)), widths)


def coherence(panel, recorded):
    """Alpha of the four rows over training."""
    panel.set(
        title="XOR's four rows, 2 hidden units",
        xscale="log",
        yscale="log",
        xlabel="step",
        ylabel="alpha",
    )
    for kind, (name, colour) in enumerate(
        (("learned", style.COLOUR["pristine"]), ("not learned", style.COLOUR["corrupt"]))
    ):
        rows = recorded["alpha"][:, kind]
        style.band(panel, recorded["sampled"], rows, name, colour=colour, title="alpha")
    panel.legend(**style.SMALL)


def sine(panel, recorded):
    """Test error of a sine by width."""
    panel.set(title="A sine", xscale="log", yscale="log", xlabel="hidden units")
    panel.set(ylabel="test error, mean square")
    widths = recorded["sine_widths"]
    style.band(panel, widths, recorded["error"], "error", colour=style.COLOUR["real"], marker=".")
    style.ticks(panel, x=widths)
