"""Gradient descent against its theory: rates, momentum, steps, saddles and the noise of batches.

**a** The error on quadratics of condition number kappa, at the best constant step, and the exact
factor (dotted). **b** Steps to an error of 1e-8 by condition number. **c** A convex function
without strong convexity stays below |x0 - x*|² / (2 eta t). **d** The error's factor a step around
2 / L, beyond which descent diverges. **e** Steps away from a saddle, by the distance of the start:
only as the logarithm. **f** SGD's mean squared distance from the minimum, over the examples'
variance, by step size, with batches of 1 and 8. **g** The variance of mini-batches' gradients on
digits, over the squared mean gradient: (1 / alpha - 1) / b. **h** A network's loss along its
gradient at steps 0, 20 and 100, on a grid; dots: after the optimal step g'g / g'Hg. Dotted: theory;
bands: 8 seeds.
"""

import numpy as np

from coherence.lab.report import drawing as style

REAL, NEUTRAL = style.COLOUR["real"], style.NEUTRAL
DOTS = {"colour": REAL, "style": "o", "markersize": 3}


def draw(recorded):
    figure, axes = style.figure(2, 4, height=2.3)
    panels = (rates, kappas, convex, growth, saddle, floor, variance, steps)
    for panel, axis in zip(panels, axes.flat):
        panel(axis, recorded)
    style.letters(axes.flat, small=True)
    return figure


def theory(panel, x, y, label="theory"):
    style.curve(panel, x, y, label, colour=NEUTRAL, style=":")


def rates(panel, recorded):
    panel.set(title="Quadratics", yscale="log", xlabel="step", ylabel="error / first error")
    for i, kappa in enumerate(recorded["kappas"]):
        paths = recorded["theory/paths"][:, i, :101].clip(1e-30)  # below the panel
        colour = style.SEQUENCE[i + 1]
        style.band(panel, np.arange(101), paths, f"kappa {kappa:g}", colour=colour)
        theory(panel, np.arange(101), ((kappa - 1) / (kappa + 1)) ** np.arange(101))
    panel.set(ylim=(1e-16, 2))
    handles = [line for line in panel.lines if line.get_label() != "theory"]
    panel.legend(handles=handles, loc="lower right", **style.SMALL)


def kappas(panel, recorded):
    panel.set(title="Momentum", xscale="log", yscale="log", xlabel="condition number")
    panel.set(ylabel="steps to 1e-8", ylim=(50, 1e6))
    counts, x = recorded["theory/steps_by_kappa"][0], recorded["larger"]
    for column, name, colour in (
        (0, "descent", REAL),
        (1, "with momentum", style.COLOUR["random"]),
    ):
        style.curve(panel, x, counts[:, column], name, colour=colour, marker=".")
    panel.legend(loc="upper left", **style.SMALL)


def convex(panel, recorded):
    panel.set(title="Convex", xscale="log", yscale="log", xlabel="step", ylabel="f - f*")
    f, bound = recorded["theory/convex"], recorded["theory/convex_bound"]
    steps = np.arange(1, f.shape[1] + 1)
    style.band(panel, steps, f, "descent", colour=REAL)
    theory(panel, steps, np.exp(np.log(bound).mean(0)), "bound, 1 / t")
    panel.legend(loc="lower left", **style.SMALL)


def growth(panel, recorded):
    panel.set(title="Around 2 / L", xlabel="step size, times L / 2", ylabel="factor a step")
    x = np.linspace(0.4, 1.2, 50)
    theory(panel, x, np.abs(1 - 2 * x))
    style.curve(panel, recorded["multiples"], recorded["theory/growth"][0], "factor", **DOTS)
    style.guide(panel, 1, "diverges above", "left")


def saddle(panel, recorded):
    panel.set(title="A saddle", xscale="log", xlabel="distance at first", ylabel="steps to leave")
    x = recorded["distances"]
    theory(panel, x, np.log(1 / x) / np.log(1.2))
    style.curve(panel, x, recorded["theory/escape"][0], "steps", **DOTS)


def floor(panel, recorded):
    panel.set(title="SGD's floor", xscale="log", yscale="log", xlabel="step size, times lambda")
    panel.set(ylabel="distance² / variance")
    rate = recorded["rates"]
    for column, b in enumerate((1, 8)):
        scale = rate / ((2 - rate) * b)
        values = recorded["theory/floor"][:, :, column] * scale
        colour = (REAL, style.COLOUR["random"])[column]
        style.band(panel, rate, values, f"b = {b}", colour=colour, style="o", markersize=3)
        theory(panel, rate, scale)
    handles = [line for line in panel.lines if line.get_label() != "theory"]
    panel.legend(handles=handles, loc="upper left", **style.SMALL)


def variance(panel, recorded):
    panel.set(title="Batches, digits", xscale="log", yscale="log", xlabel="batch size, b")
    panel.set(ylabel="variance / |mean|²")
    b, alpha = recorded["batches"], recorded["batches/alpha"][:, None]
    scale = (1 / alpha - 1) / recorded["batches/theory"][:, :1]
    style.band(panel, b, recorded["batches/variance"] * scale, "variance", **DOTS)
    theory(panel, b, ((1 / alpha - 1) / b).mean(0), "(1 / alpha - 1) / b")
    panel.legend(loc="upper right", **style.SMALL)


def steps(panel, recorded):
    panel.set(title="Optimal step", xscale="log", xlabel="step size", ylabel="loss (nats)")
    for i, at in enumerate(recorded["at"]):
        grid, losses = recorded["network/grid"][0, i], recorded["network/losses"][0, i]
        colour = style.SEQUENCE[i + 1]
        style.curve(panel, grid, losses, f"step {at}", colour=colour)
        best, after = recorded["network/best"][0, i], recorded["network/after"][0, i]
        style.curve(
            panel, [best], [after], f"after g'g / g'Hg, step {at}", colour=colour, style="o"
        )
    panel.set(ylim=(0, 6), xlim=(1e-5, 5e3))
    handles = [line for line in panel.lines if line.get_marker() == "None"]
    panel.legend(handles=handles, loc="upper left", **style.SMALL)
