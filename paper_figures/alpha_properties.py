"""The properties of alpha, one panel each: what the algebra says as lines, what gradients show as
points.

Gaussian vectors of known alpha, and the gradients of a network on digits before training and after
300 steps; bands over 8 seeds. **a** k copies each of orthogonal gradients have an m-coherence of k.
**b** Gradients of batches are more coherent than those of examples, as P2 says: so coherence has to
be measured on examples. **c** P2 inverted leads back from batches to examples, but reads up to 7 %
too much where batches are large beside the sample; knowing the sample's size mends that. **d**
Small samples have a floor of 1/m; the unbiased form takes it away. **e** Fitted examples, whose
gradient is zero, dilute alpha in proportion. **f, g** Bounds, and how tight they are. **h** The
layers' parts add up to the whole exactly. All claims reproduced.
"""

import itertools

import numpy as np

from coherence.lab.report import drawing as style


def draw(recorded):
    figure, axes = style.figure(4, 2, height=2.15)
    for panel, axis in zip(
        (_copies, _batches, _inverted, _samples, _diluted, _mixed, _difference, _layers), axes.flat
    ):
        panel(axis, recorded)
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8)
    return figure


def _sources(recorded):
    """(arm, which of its measurements, name, colour) of every source of gradients that is drawn:
    the network first and last.
    """
    alphas = recorded["alphas"]
    steps = recorded["network/step"]
    yield "network", 0, "digits, initial weights", style.COLOUR["real"]
    yield "network", len(steps) - 1, f"digits, step {steps[-1]}", style.COLOUR["other"]
    for alpha, colour in zip(alphas, (style.SEQUENCE[i] for i in (0, 3, 4))):
        yield f"alpha={alpha:g}", 0, f"Gaussian, alpha {alpha:g}", colour


def _points(axis, x, values, label, colour, panel, logarithmic=True):
    style.band(
        axis, x, values, label, colour=colour, style="o", title=panel, logarithmic=logarithmic
    )
    axis.lines[-1].set_markersize(3)


def _ticks(axis, x):
    axis.set_xticks(x, [f"{one:g}" for one in x])
    axis.minorticks_off()


def _copies(axis, recorded):
    axis.set(title="a  k copies help k (1: orthogonal limit)", xscale="log", yscale="log")
    axis.set(xlabel="copies of each direction, k", ylabel="m-coherence")
    copies = 2 ** np.arange(recorded["copies"].shape[1])
    style.curve(axis, copies, copies, "k", colour=style.NEUTRAL, style=":", title="copies")
    _points(axis, copies, recorded["copies"], "orthogonal vectors", style.NEUTRAL, "copies")
    _ticks(axis, copies)


def _batches(axis, recorded):
    axis.set(title="b  Batches amplify coherence (P2, dotted)", xscale="log", yscale="log")
    axis.set(xlabel="examples in a batch, k", ylabel="alpha of batches")
    k = recorded["sizes/batches"]
    fine = np.geomspace(k[0], k[-1], 50)
    for arm, i, label, colour in _sources(recorded):
        alpha = recorded[f"{arm}/alpha"][:, i]
        law = lambda k, alpha=alpha: k * alpha[:, None] / (1 + (k - 1) * alpha[:, None])
        axis.plot(fine, np.exp(np.log(law(fine)).mean(0)), ":", color=colour)
        _points(axis, k, recorded[f"{arm}/batches"][:, i], label, colour, "batches")
    _ticks(axis, k[::2])


def _inverted(axis, recorded):
    axis.set(
        title="c  Back from batches to examples", xscale="log", xlabel="examples in a batch, k"
    )
    axis.set(ylabel="found / true alpha")
    k = recorded["sizes/inverted"]
    for arm, i, label, colour in _sources(recorded):
        alpha = recorded[f"{arm}/alpha"][:, i, None]
        for name, kind, dashes in (
            ("inverted", "P2 inverted", "--"),
            ("inverted_finite", "for a finite sample", "-"),
        ):
            values = recorded[f"{arm}/{name}"][:, i] / alpha
            style.band(
                axis, k, values, f"{label}, {kind}", colour=colour, style=dashes, title="inverted"
            )
    style.guide(axis, 1)
    _ticks(axis, k)
    neutral = {"color": style.NEUTRAL}
    axis.legend(
        handles=[_line("--", "P2 inverted", **neutral), _line("-", "finite sample", **neutral)],
        loc="upper left",
    )


def _samples(axis, recorded):
    axis.set(title="d  The floor 1/m, and without it", xscale="log")
    axis.set(xlabel="examples in a sample, m", ylabel="mean alpha of samples", ylim=(1e-3, 20))
    m = recorded["sizes/samples"]
    fine = np.geomspace(m[0], m[-1], 50)
    for arm, i, label, colour in _sources(recorded):
        truth = recorded[f"{arm}/unbiased"][:, i].mean()
        axis.plot(fine, truth + (1 - truth) / fine, ":", color=colour)
        _points(axis, m, recorded[f"{arm}/samples"][:, i], f"{label}, alpha", colour, "samples")
        unbiased = recorded[f"{arm}/samples_unbiased"][:, i]
        style.band(axis, m, unbiased, f"{label}, unbiased", colour=colour, title="samples")
    axis.set(yscale="log")
    _ticks(axis, m[::2])
    neutral = {"color": style.NEUTRAL}
    handles = [
        _line("o", "alpha", markersize=3, **neutral),
        _line(":", "with the floor", **neutral),
        _line("-", "unbiased", **neutral),
    ]
    axis.legend(handles=handles, loc="upper right", ncols=3)


def _diluted(axis, recorded):
    p = 0.5 ** np.arange(recorded["network/diluted"].shape[-1])
    size = itertools.count()
    style.curve(axis, p, p, "p", colour=style.NEUTRAL, style=":", title="diluted")
    for arm, i, label, colour in _sources(recorded):
        _points(axis, p, recorded[f"{arm}/diluted"][:, i], label, colour, "diluted")
        axis.lines[-1].set(
            markersize=2 + 2 * next(size), fillstyle="none"
        )  # they all lie on the line: rings around each other
    axis.set(xscale="log", yscale="log", xlabel="share of the examples with a gradient, p")
    axis.set(ylabel="alpha / alpha of those")
    _ticks(axis, p)
    axis.set_yticks(p, [f"{x:g}" for x in p])
    axis.set(xlim=(0.1, 1.25), ylim=(0.09, 1.4))
    axis.minorticks_off()
    axis.set_title("e  Fitted examples dilute (P3)")


def _mixed(axis, recorded):
    axis.set(title="f  Orthogonal kinds, mixed (P4)", xlabel="share of the first kind of gradients")
    axis.set(ylabel="alpha / bound", ylim=(0, 1.15))
    share = np.arange(1, 8) / 8
    for arm, i, label, colour in _sources(recorded):
        ratio = recorded[f"{arm}/mixed"][:, i] / recorded[f"{arm}/mixed_bound"][:, i]
        style.band(axis, share, ratio, label, colour=colour, title="mixed")
    style.guide(axis, 1, "bound")


def _difference(axis, recorded):
    every = list(_sources(recorded))
    for x, (arm, i, label, colour) in enumerate(every):
        ratio = recorded[f"{arm}/difference"][:, i] / recorded[f"{arm}/difference_bound"][:, i]
        style.bars(
            axis, [x], ratio[:, None], label, colour=colour, offset=x, width=0.6, title="difference"
        )
    style.guide(axis, 1, "bound", "left")
    axis.set_xticks(
        range(len(every)),
        ["digits,\ninitial", "digits,\ntrained", *(f"alpha\n{a:g}" for a in recorded["alphas"])],
        fontsize=7,
    )
    axis.set(ylim=(0, 1.15), ylabel="mean distance / bound")
    axis.set_title("g  How far two gradients differ (P5)")
    axis.grid(visible=False, axis="x")


def _layers(axis, recorded):
    axis.set(title="h  Layers add up to the whole (P6)", xlabel="step (digits)")
    axis.set(ylabel="alpha, layer by layer")
    steps, layers = recorded["network/step"], recorded["layers"]
    parts = recorded["network/layer_alpha"] * recorded["network/layer_share"]
    bottom = np.zeros(len(steps))
    for i, layer in enumerate(layers):
        label = str(layer).replace("_", " ")
        style.bars(
            axis,
            steps,
            parts[:, :, i].mean(0),
            label,
            colour=style.SEQUENCE[i + 1],
            width=0.6,
            title="layers",
            bottom=bottom,
        )
        bottom = bottom + parts[:, :, i].mean(0)
    where = np.arange(len(steps))
    y = recorded["network/alpha"].mean(0)
    style.curve(axis, where, y, "alpha", colour="black", style="_", title="layers", markersize=14)
    axis.set_xticks(where, [f"{step}" for step in steps])
    axis.legend(loc="upper right")
    axis.grid(visible=False, axis="x")


def _line(style, label, **kwargs):
    from matplotlib.lines import Line2D

    if style == "o":
        return Line2D([], [], marker="o", linestyle="", label=label, **kwargs)
    return Line2D([], [], linestyle=style, label=label, **kwargs)
