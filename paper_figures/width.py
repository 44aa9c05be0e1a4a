"""Width: accuracy and coherence of networks of growing width at equal training loss, in two
parametrizations.

Digits with 20 % permuted labels, learned by MLPs of two hidden layers of 32, 128 and 512 units, all
at one learning rate, 0.3; 1,000 images drawn by seed. At equal training loss the wider network has
the higher test accuracy in both parametrizations (a to c; judged at 0.35 nats, where the widest is
ahead by 6 points: **reproduced**): it is ahead as soon as random labels begin to be memorized.

That wider networks are more coherent is not found (d to f, batches, judged at the dotted losses).
In the standard parametrization widths cannot be told apart (**inconclusive**), and of the layers
(g to i, one fixed sample) the most coherent one is *less* coherent the wider the network (**not
reproduced** at 1.5 nats, **inconclusive** at 0.65). Under maximal update, where one rate moves all
widths alike, wider networks are a little more coherent, by 23 % of unbiased alpha at both losses,
though not surely enough for one of ten tests (**inconclusive**). With rates tuned for each width,
ninefold apart, an earlier recording had the widest far less coherent: presumably the rates' doing
(its images were others, too).
"""

import numpy as np

from coherence.lab.report import drawing as style

NAMES = {"standard": "standard", "mu": "maximal update"}
DASHES = {"standard": "-", "mu": "--"}
LIMITS = {"test_accuracy": (0.6, 1.0), "m_coherence": (0.9, 11), "most_coherent_layer": (0.9, 120)}
TICKS = {"m_coherence": (1, 2, 4, 8), "most_coherent_layer": (1, 3, 10, 30)}


def draw(recorded):
    figure, axes = style.figure(3, 3, height=2.25)
    for row, (name, title, label) in zip(
        axes,
        (
            ("test_accuracy", "accuracy", "test accuracy"),
            ("m_coherence", "coherence", f"m-coherence, m = {recorded['m']}"),
            (
                "most_coherent_layer",
                "layer",
                f"most coherent layer, m = {recorded['sample']}",
            ),
        ),
    ):
        for panel, how in zip(row, NAMES):
            by_loss(panel, recorded, how, name)
            panel.set_title(f"{title}, {NAMES[how]}")
        by_width(row[2], recorded, name)
        for panel in row:
            panel.set(ylim=LIMITS[name])
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
    title, logarithmic = f"{name}, {NAMES[how]}", name != "test_accuracy"
    for width, colour in zip(recorded["widths"], style.SEQUENCE[::2]):
        arm = f"{how}-{width}"
        x, values = recorded["levels"], recorded[f"{arm}/{name}"]
        style.band(
            panel, x, values, str(width), colour=colour, title=title, logarithmic=logarithmic
        )
    for level in recorded["judged"][_judged(name)]:
        panel.axvline(level, color=style.NEUTRAL, linewidth=0.6, linestyle=":")
    panel.set(xscale="log", xlabel="training loss (nats)")
    panel.invert_xaxis()
    style.ticks(panel, x=(2, 1, 0.5, 0.2, 0.1))
    if logarithmic:
        panel.set_yscale("log")
        style.ticks(panel, y=TICKS[name])


def _judged(name):
    """Coherence is judged at two losses, accuracy at a third."""
    return slice(2, None) if name == "test_accuracy" else slice(2)


def by_width(panel, recorded, name):
    """Against width, where it is judged."""
    logarithmic = name != "test_accuracy"
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
        style.ticks(panel, y=TICKS[name])
    panel.legend(
        fontsize=7,
        loc="lower right" if name == "test_accuracy" else "upper right",
        labelspacing=0.2,
    )
