"""Losses on one example that is more and more wrong, and on digits with corrupt labels.

**a, b** One example with two outputs, the wrong one leading: its loss, and the length of its
gradient in the outputs. **c** The share of the sum of squared norms that corrupt examples hold
while a network learns digits; dotted: their share of the examples. Squared error behind a softmax
mutes them at first. **d** Their share of the step. **e** Corrupt against pristine examples fitted,
over training: all losses fit the pristine ones first, and what they memorize afterwards is a matter
of steps; winsorized training goes the same way. **f** m-coherence of 500 examples against the
pristine ones fitted. **g** Accuracy on clean test labels. **h** Recall of rare digits, of which one
in ten is trained on, and of frequent ones, without and with weights. 8 seeds.
"""

import numpy as np

from coherence.lab.report import drawing as style

STYLE = {
    "cross-entropy": (style.COLOUR["real"], "-"),
    "squared": (style.COLOUR["random"], "-"),
    "softmax-squared": (style.COLOUR["corrupt"], "-"),
    "huber": (style.COLOUR["random"], "--"),
    "smoothed": (style.COLOUR["real"], "--"),
    "hinge": (style.COLOUR["other"], "-"),
    "cross-entropy, winsorized": (style.COLOUR["pristine"], "-"),
}
NAMES = {
    "softmax-squared": "squared, softmax",
    "huber": "Huber, 0.1",
    "cross-entropy, winsorized": "winsorized",
}


def draw(recorded):
    figure, axes = style.figure(2, 4, height=2.3)
    one_example(axes[0, 0], recorded, "loss", "One: loss", "loss")
    one_example(axes[0, 1], recorded, "gradient", "One: gradient", "length of gradient")
    over_steps(axes[0, 2], recorded, "norm_share", "Corrupt: norms²")
    over_steps(axes[0, 3], recorded, "step_share", "Corrupt: step")
    memorized(axes[1, 0], recorded)
    coherence(axes[1, 1], recorded)
    accuracy(axes[1, 2], recorded)
    recall(axes[1, 3], recorded)
    style.letters(axes.flat, small=True)
    handles = [style.key(NAMES.get(name, name), *STYLE[name]) for name in STYLE]
    figure.legend(handles=handles, loc="outside upper center", ncols=7, fontsize=6.5)
    return figure


def one_example(panel, recorded, kind, title, label):
    """Of two outputs, against how far the wrong one leads."""
    panel.set(title=title, xlabel="lead of the wrong output", ylabel=label)
    for name, (colour, dashes) in STYLE.items():
        if f"exact/{kind}/{name}" in recorded:
            x, values = recorded["exact/lead"], recorded[f"exact/{kind}/{name}"]
            style.curve(panel, x, values, name, colour=colour, style=dashes)
    panel.set(xlim=(-5, 12))
    panel.set(ylim=(0, 12) if kind == "loss" else (0, 4))


def over_steps(panel, recorded, quantity, title):
    """A share of the corrupt examples over training."""
    panel.set(title=title, xscale="log", xlabel="step", ylabel="share", ylim=(-0.1, 1.1))
    for name, (colour, dashes) in STYLE.items():
        steps = style.log_steps(recorded[f"{name}/at/step"])
        values = recorded[f"{name}/at/train/{quantity}"]
        style.band(panel, steps, values, name, colour=colour, style=dashes)
    style.guide(panel, 0.27)


def memorized(panel, recorded):
    """Corrupt against pristine examples fitted."""
    panel.set(title="Memorized", xlabel="pristine fitted", ylabel="corrupt fitted")
    for name, (colour, dashes) in STYLE.items():
        x, y = (
            recorded[f"{name}/fits/{part}_accuracy"].mean(0) for part in ("pristine", "corrupt")
        )
        style.curve(panel, x, y, name, colour=colour, style=dashes)
    panel.set(xlim=(0.4, 1.02))


def coherence(panel, recorded):
    """m-coherence against pristine examples fitted."""
    panel.set(title="Coherence", yscale="log", xlabel="pristine fitted")
    panel.set(ylabel=f"m-coherence, m = {recorded['m']}")
    for name, (colour, dashes) in STYLE.items():
        fits, at = (recorded[f"{name}/{part}/step"] for part in ("fits", "at"))
        fit = np.interp(at, fits, recorded[f"{name}/fits/pristine_accuracy"].mean(0))
        values = np.exp(np.log(recorded[f"{name}/at/train/m_coherence"]).mean(0))
        style.curve(panel, fit, values, name, colour=colour, style=dashes)
    style.ticks(panel, y=(1, 10, 100))


def accuracy(panel, recorded):
    """Accuracy on test labels over training."""
    panel.set(title="Test accuracy", xscale="log", xlabel="step", ylabel="accuracy", ylim=(0, 1))
    for name, (colour, dashes) in STYLE.items():
        steps = style.log_steps(recorded[f"{name}/fits/step"])
        values = recorded[f"{name}/fits/test_accuracy"]
        style.band(panel, steps, values, name, colour=colour, style=dashes)


def recall(panel, recorded):
    """Recall of rare and of frequent classes without and with weights."""
    panel.set(title="Rare classes", ylabel="recall", ylim=(0, 1.3))
    groups = ("rare", "frequent")
    for place, (arm, label) in enumerate((("rare", "plain"), ("rare, weighted", "weighted"))):
        values = np.stack([recorded[f"{arm}/{group}_recall"][:, -1] for group in groups], 1)
        colour = style.COLOUR["real"] if place == 0 else style.COLOUR["pristine"]
        offset = 0.4 * place - 0.2
        style.bars(panel, groups, values, label, colour=colour, offset=offset)
    panel.set_xticks(range(2), groups)
    panel.legend(loc="upper left", ncols=2, **style.SMALL)
