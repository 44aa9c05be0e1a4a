"""Width: accuracy and coherence of networks of growing width at equal training loss, in two
parametrizations.

Digits with 20 % permuted labels, learned by MLPs of two hidden layers of 32, 128 and 512 units, at
learning rates chosen for each on held-out training examples (in the legends). At equal training
loss the wider network has the higher test accuracy in both parametrizations (a, b; c at 0.35 nats,
where the widest is ahead by 7 and 8 points): it is ahead as soon as random labels begin to be
memorized.

That wider networks are more coherent is **not reproduced** under maximal update (f, at the two
dotted losses of d and e): m-coherence of the batches is lower the wider the network. In the
standard parametrization, where all networks have one rate, widths cannot be told apart
(**inconclusive**). Under maximal update the tuned rates differ ninefold and the widest takes the
smallest steps; how much of its low coherence is that, is not separated here.
"""

import numpy as np

from coherence.lab.report import drawing as style

NAMES = {"standard": "standard", "mu": "maximal update"}
DASHES = {"standard": "-", "mu": "--"}


def draw(recorded):
    figure, axes = style.figure(2, 3, height=2.35)
    for row, (name, label) in zip(
        axes,
        (("test_accuracy", "test accuracy"), ("m_coherence", f"m-coherence, m = {recorded['m']}")),
    ):
        for panel, how in zip(row, NAMES):
            by_loss(panel, recorded, how, name)
            panel.set_title(
                f"{'accuracy' if name == 'test_accuracy' else 'coherence'}, {NAMES[how]}"
            )
        by_width(row[2], recorded, name)
        for panel in row:
            panel.set(ylim=(0.6, 1.0) if name == "test_accuracy" else (0.9, 11))
        row[0].set_ylabel(label)
    style.letters(axes.flat)
    handles = [
        style.key(text, colour) for text, colour in zip(sizes(recorded), style.SEQUENCE[::2])
    ]
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=len(handles),
        title="width (parameters)",
        title_fontsize=7.5,
    )
    return figure


def sizes(recorded):
    return [
        f"{width} ({recorded[f'standard-{width}/parameters']:,})" for width in recorded["widths"]
    ]


def by_loss(panel, recorded, how, name):
    """One curve a width, against the training loss."""
    title, logarithmic = f"{name}, {NAMES[how]}", name == "m_coherence"
    for width, colour in zip(recorded["widths"], style.SEQUENCE[::2]):
        arm = f"{how}-{width}"
        text = f"{width}, rate {recorded[f'{arm}/rate']:.2g}"
        x = recorded["levels"]
        values = recorded[f"{arm}/{name}"]
        style.band(panel, x, values, text, colour=colour, title=title, logarithmic=logarithmic)
    for level in recorded["judged"][_judged(name)]:
        panel.axvline(level, color=style.NEUTRAL, linewidth=0.6, linestyle=":")
    panel.set(xscale="log", xlabel="training loss (nats)")
    panel.invert_xaxis()
    style.ticks(panel, x=(2, 1, 0.5, 0.2, 0.1))
    if logarithmic:
        panel.set_yscale("log")
        style.ticks(panel, y=(1, 2, 4, 8))
    else:
        panel.legend(loc="lower right", fontsize=7)


def _judged(name):
    """Coherence is judged at two levels, accuracy at a third."""
    return slice(2) if name == "m_coherence" else slice(2, None)


def by_width(panel, recorded, name):
    """Against width, where it is judged."""
    logarithmic = name == "m_coherence"
    shown = recorded["judged"][_judged(name)]
    widths, levels = recorded["widths"], list(recorded["levels"])
    for how in NAMES:
        for level, colour in zip(shown, (style.NEUTRAL, style.COLOUR["other"])):
            values = np.array(
                [recorded[f"{how}-{width}/{name}"][:, levels.index(level)] for width in widths]
            ).T
            options = {
                "colour": colour,
                "style": DASHES[how],
                "logarithmic": logarithmic,
                "title": f"{name} by width",
            }
            style.band(
                panel, np.arange(len(widths)), values, f"{NAMES[how]}, {level:g} nats", **options
            )
    panel.set_xticks(range(len(widths)), [str(width) for width in widths])
    panel.set(xlabel="width")
    panel.set_title("at equal training loss")
    if logarithmic:
        panel.set_yscale("log")
        style.ticks(panel, y=(1, 2, 4, 8))
    panel.legend(
        fontsize=7,
        loc="lower right" if name == "test_accuracy" else "upper right",
        labelspacing=0.2,
    )
