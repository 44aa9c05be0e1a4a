"""Shared weights, and coherence by layer

A small AlexNet (three convolutions, two dense layers of 128 units) on 1,000 CIFAR-10 images, with
true and with random labels, at a step size of 0.01 (momentum 0.9). m-coherence of 500 fixed
examples; bands and whiskers: 95 % over 8 seeds.

**a** Training loss. **b** The whole network against its training loss. **c** The first convolution
and **d** the second dense layer. **e, f** Every layer in the middle of training, a mean over 75, 50
and 25 % of the initial loss: as it is, and with locally connected layers in place of the
convolutions, which differ only in that each place has a kernel of its own.

That the whole network looks coherent with random labels was asked of 250 examples, with the
source's 5 of 50,000 as the least: 3.9 of 250 are fewer (*not reproduced*), the same alpha would
make 590 of 50,000. With random labels convolutions are more coherent than dense layers
(*reproduced*), but sharing weights is not why: locally connected layers are more coherent still,
and with random labels more than with true ones (both *not reproduced*). Which layers tell true
labels from random is undecided.
"""

import numpy as np

from coherence.lab.report import drawing as style

ARMS = {
    "shared,true": {"colour": style.COLOUR["real"], "style": "-"},
    "shared,random": {"colour": style.COLOUR["random"], "style": "-"},
    "local,true": {"colour": style.COLOUR["real"], "style": ":"},
    "local,random": {"colour": style.COLOUR["random"], "style": ":"},
}
WORDS = {
    "shared,true": "convolutions, true labels",
    "shared,random": "convolutions, random labels",
    "local,true": "locally connected, true",
    "local,random": "locally connected, random",
}


def draw(recorded):
    figure, axes = style.figure(2, 3, height=2.1)
    over_steps(axes[0, 0], recorded)
    against_loss(axes[0, 1], recorded, "Whole network")
    against_loss(axes[0, 2], recorded, "First convolution", "conv_0")
    against_loss(axes[1, 0], recorded, "Second dense layer", "dense_1")
    by_layer(axes[1, 1], recorded, "shared", "Convolutions")
    by_layer(axes[1, 2], recorded, "local", "Locally connected")
    style.letters(axes.flat, small=True)
    lines = [style.key(WORDS[arm], look["colour"], look["style"]) for arm, look in ARMS.items()]
    figure.legend(handles=lines, loc="outside upper center", ncols=2)
    return figure


def over_steps(panel, recorded):
    for arm, look in ARMS.items():
        steps = style.log_steps(recorded[f"{arm}/step"])
        style.band(panel, steps, recorded[f"{arm}/train_loss"], WORDS[arm], title="Loss", **look)
    panel.set(title="Loss", xscale="log", xlabel="step", ylabel="training loss, nats")


def values_of(recorded, arm, layer=None):
    """[seed, step]"""
    if layer is None:
        return recorded[f"{arm}/m_coherence"]
    return recorded[f"{arm}/by_layer"][..., list(recorded["layers"]).index(layer)]


def against_loss(panel, recorded, title, layer=None):
    """m-coherence as means over seeds at equal shares of the initial loss, falling to the right."""
    levels = np.geomspace(0.98, 0.02, 25)
    for arm, look in ARMS.items():
        losses, values = recorded[f"{arm}/train_loss"], values_of(recorded, arm, layer)
        at = np.array(
            [
                np.interp(-np.log(levels), -np.log(np.minimum.accumulate(loss / loss[0])), value)
                for loss, value in zip(losses, values)
            ]
        )
        style.band(panel, levels, at, WORDS[arm], title=title, logarithmic=True, **look)
    panel.set(title=title, xscale="log", yscale="log", xlabel="share of the initial loss (falling)")
    panel.set(ylabel=f"m-coherence, m = {recorded['m']}")
    panel.invert_xaxis()
    style.guide(panel, 1, "orthogonal", "left")


def by_layer(panel, recorded, net, title):
    """Every layer in the middle of training."""
    layers = [str(layer) for layer in recorded["layers"]]
    for k, label in enumerate(("true", "random")):
        arm = f"{net},{label}"
        values = np.array([middle(recorded, arm, layer) for layer in layers]).T
        style.bars(
            panel,
            np.arange(len(layers)),
            values,
            f"{label} labels",
            colour=ARMS[arm]["colour"],
            offset=(k - 0.5) * 0.4,
            width=0.38,
        )
    panel.set(title=title, ylabel=f"m-coherence, m = {recorded['m']}")
    panel.set_xticks(range(len(layers)), [layer.replace("_", " ") for layer in layers], rotation=60)


def middle(recorded, arm, layer):
    """A mean over the levels of the loss, [seed]."""
    losses, values = recorded[f"{arm}/train_loss"], values_of(recorded, arm, layer)
    levels = -np.log(recorded["levels"])
    return np.array(
        [
            np.interp(levels, -np.log(np.minimum.accumulate(loss / loss[0])), value).mean()
            for loss, value in zip(losses, values)
        ]
    )
