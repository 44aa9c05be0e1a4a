"""Vanishing gradients by activation and depth: what vanishes is the norm, not the agreement.

**a, b** Activations and their derivatives; a sigmoid's is nowhere above 1/4 (dotted). **c** The
size of an example's gradient by hidden layer, ten of them, at the initial weights, over that of the
last: a sigmoid's loses 0.63 decades a layer toward the input, as the product of derivatives and
weights says (dashed), and others' do not. **d** m-coherence of the same layers: examples agree as
much in the first layer as in the last. **e** Test accuracy over training with ten hidden layers.
**f** After training, by depth; triangles: with residual connections, which make sigmoids learn.
Those of ReLU with weights that suit it alone double the signal's variance in every layer, and
diverge. Bands over 8 seeds; m = 500 examples.
"""

import numpy as np

from coherence.lab.report import drawing as style

COLOUR = dict(
    zip(("sigmoid", "tanh", "relu", "leaky_relu", "gelu"), ("#D55E00", *style.SEQUENCE[:4]))
)
NAME = {"relu": "ReLU", "leaky_relu": "leaky ReLU", "gelu": "GELU"}


def draw(recorded):
    figure, axes = style.figure(2, 3, height=2.4)
    there = [str(name) for name in recorded["activations"]]
    depth = recorded["depths"][-1]
    functions(axes[0, 0], recorded, there, "value", "Activations")
    functions(axes[0, 1], recorded, there, "slope", "Their derivatives")
    style.guide(axes[0, 1], 0.25)
    sizes(axes[0, 2], recorded, there, depth)
    coherence(axes[1, 0], recorded, there, depth)
    training(axes[1, 1], recorded, there, depth)
    ends(axes[1, 2], recorded, there, depth)
    style.letters(axes.flat, small=True)
    return figure


def functions(panel, recorded, there, kind, title):
    """Activations or their derivatives."""
    panel.set(title=title, xlabel="weighted sum, z", ylabel="g(z)" if kind == "value" else "g'(z)")
    for name in there:
        label, x = NAME.get(name, name), recorded["functions/x"]
        style.curve(panel, x, recorded[f"functions/{name}/{kind}"], label, colour=COLOUR[name])
    if kind == "value":
        panel.set(ylim=(-1.2, 3.2), xlim=(-4, 4))
        panel.legend(loc="upper left", **style.SMALL)


def sizes(panel, recorded, there, depth):
    """Gradients' size by hidden layer over that of the last, beside what the product says."""
    panel.set(title=f"Gradient norm, {depth} layers", yscale="log")
    panel.set(xlabel="hidden layer", ylabel="over the last layer's")
    layers = np.arange(1, depth + 1)
    for name in there:
        values = recorded[f"{name}-{depth}/layer_sizes"]
        values = values / values[:, -1:]
        style.band(panel, layers, values, NAME.get(name, name), colour=COLOUR[name])
        if name == "sigmoid":
            product = recorded[f"{name}-{depth}/predicted"].mean(0)
            product = 10 ** (product - product[-1])
            label = "product, sigmoid"
            style.curve(panel, layers, product, label, colour=style.NEUTRAL, style="--")
    handles = [style.key("product of derivatives", style.NEUTRAL, "--")]
    panel.legend(handles=handles, loc="lower right", **style.SMALL)


def coherence(panel, recorded, there, depth):
    """m-coherence by hidden layer."""
    panel.set(title=f"Coherence, {depth} layers", yscale="log")
    panel.set(xlabel="hidden layer", ylabel=f"m-coherence, m = {recorded['m']}")
    for name in there:
        values = recorded[f"{name}-{depth}/layer_coherence"]
        style.band(
            panel, np.arange(1, depth + 1), values, NAME.get(name, name), colour=COLOUR[name]
        )
    style.ticks(panel, y=(2, 5, 10, 20, 50, 100))


def training(panel, recorded, there, depth):
    """Test accuracy over steps at the largest depth."""
    panel.set(title=f"Training, {depth} layers", xscale="log", xlabel="step")
    panel.set(ylabel="test accuracy", ylim=(-0.05, 1))
    arms = [(name, f"{name}-{depth}", "-") for name in there]
    arms += [(str(name), f"{name}-{depth}-residual", "--") for name in recorded["residual"]]
    for name, arm, dashes in arms:
        steps = style.log_steps(recorded[f"{arm}/step"])
        label = NAME.get(name, name) + " residual" * (dashes == "--")
        values = recorded[f"{arm}/accuracy"]
        style.band(panel, steps, values, label, colour=COLOUR[name], style=dashes)
    panel.legend(handles=[style.key("residual", style.NEUTRAL, "--")], **style.SMALL)


def ends(panel, recorded, there, depth):
    """Test accuracy after training by depth."""
    panel.set(title="After training", xlabel="hidden layers")
    panel.set(ylabel="test accuracy", ylim=(-0.05, 1))
    depths = recorded["depths"]
    for name in there:
        values = np.stack([recorded[f"{name}-{d}/accuracy"][:, -1] for d in depths], 1)
        style.band(panel, depths, values, NAME.get(name, name), colour=COLOUR[name], marker=".")
    for name in recorded["residual"]:
        value = recorded[f"{name}-{depth}-residual/accuracy"][:, -1].mean()
        label = f"{name}, residual"
        style.curve(panel, [depth], [value], label, colour=COLOUR[str(name)], style="^")
    panel.set(xticks=depths)
