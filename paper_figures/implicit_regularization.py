"""What descent of finite steps regularizes: the size and agreement of gradients; and momentum.

**a** The distance between gradient descent of step h and flows after the same time, a small network
of tanh in float64, geometric mean of 8 seeds: of order h from the flow of the loss, of order h²
from that of the loss plus (h/4) |grad L|² = (h/4) alpha mean |g|². **b** |grad L|² against the loss
along full-batch descent of a large and a small step. **c** Digits, SGD with momentum 0.9: how many
times its gradient a coordinate moves, by how often the gradient changes sign from step to step;
dotted: 10 where gradients always agree, 1 / 1.9 where they alternate.
"""

import numpy as np

from coherence.lab.report import drawing as style


def draw(recorded):
    figure, axes = style.figure(1, 3, height=2.5)
    orders(axes[0, 0], recorded)
    penalty(axes[0, 1], recorded)
    signs(axes[0, 2], recorded)
    style.letters(axes.flat, small=True)
    return figure


def orders(panel, recorded):
    """Distances to both flows by step size."""
    panel.set(title="Distance to flows", xscale="log", yscale="log", xlabel="step size, h")
    panel.set(ylabel=f"distance at time {recorded['time']:g}")
    h, distances = recorded["steps"], recorded["flow/distances"]
    for column, name, colour in ((0, "of L", "real"), (1, "of L + (h/4) |grad L|²", "pristine")):
        colour = style.COLOUR[colour]
        style.band(panel, h, distances[:, :, column], name, colour=colour, marker=".")
        mean = np.exp(np.log(distances[:, :, column]).mean(0))
        order = column + 1
        line = mean[-1] * (h / h[-1]) ** order
        style.curve(panel, h, line, f"order {order}", colour=style.NEUTRAL, style=":")
    style.ticks(panel, x=h)
    handles = [line for line in panel.lines if not line.get_label().startswith("order")]
    panel.legend(handles=handles, loc="upper left", **style.SMALL)
    panel.set_ylim(top=3 * distances.max())


def penalty(panel, recorded):
    """The squared gradient against the loss, large and small steps."""
    panel.set(title="At equal loss", xscale="log", yscale="log", xlabel="loss", ylabel="|grad L|²")
    for name, h, colour in zip(("large", "small"), recorded["compared"], ("corrupt", "real")):
        losses, squares = recorded[f"flow/{name}/loss"], recorded[f"flow/{name}/square"]
        for seed, (x, y) in enumerate(zip(losses, squares)):
            label = f"h = {h:g}, seed {seed}"
            style.curve(panel, x, y, label, colour=style.COLOUR[colour], linewidth=0.7)
    keys = [
        style.key(f"h = {h:g}", style.COLOUR[colour])
        for h, colour in zip(recorded["compared"], ("corrupt", "real"))
    ]
    panel.invert_xaxis()
    panel.legend(handles=keys, loc="lower left", **style.SMALL)


def signs(panel, recorded):
    """How far coordinates move for their gradients, by sign changes."""
    panel.set(title="Momentum on digits", yscale="log", xlabel="share of sign changes")
    panel.set(ylabel="rms step / rms gradient")
    factor, gamma = recorded["signs/factor"], recorded["gamma"]
    x = np.arange(factor.shape[1]) / factor.shape[1] + 0.5 / factor.shape[1]
    present = np.isfinite(factor).all(0)
    style.band(
        panel, x[present], factor[:, present], "mean", colour=style.COLOUR["real"], marker="."
    )
    style.guide(panel, 1 / (1 - gamma), "agree", "right")
    style.guide(panel, 1 / (1 + gamma), "alternate", "left")
    style.ticks(panel, y=(0.5, 1, 2, 5, 10))
