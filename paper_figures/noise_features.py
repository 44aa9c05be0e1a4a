"""Useless input features: accuracy and coherence as they grow in number, and what L1 brings back.

Digits, 500 training examples, with 0 to 1,024 random features beside the 64 pixels, learned by a
small MLP; dashed with L1. Over training (a) and at equal training loss (d, judged at the dotted
line) test accuracy falls with every step in their number, at 0.2 nats from 0.93 to 0.60. L1 brings
nearly all of it back (0.92) where there are 1,024 of them, and changes little where there are none.
The gain grows as weights become zero, those of random features faster than those of pixels (f).

Coherence falls with their number, too, but early only (b; grey in e, at 1 nat). At 0.2 nats (pink)
the order looks reversed (**inconclusive**). Without random features m-coherence ends well below 1,
with many of them it stays a little above; the sample is of training examples, so a mean gradient
near zero is also a sign that they are fitted. **Not reproduced** either: that L1 restores
coherence. Of all weights it is lower under L1 (diamonds in e): random inputs enter the gradients of
weights that are zero, too. Of the weights in use (c, stars in e) it is at 0.2 nats the same as
without L1: **inconclusive**.
"""

import numpy as np

from coherence.lab.report import drawing as style

EARLY, LATE = 1.0, 0.2


def draw(recorded):
    figure, axes = style.figure(2, 3, height=2.35)
    curves(axes[0, 0], recorded, "test_accuracy", "test accuracy")
    curves(axes[0, 1], recorded, "m_coherence", "coherence, all weights")
    curves(axes[0, 2], recorded, "m_coherence_in_use", "L1: weights in use")
    by_loss(axes[1, 0], recorded)
    by_number(axes[1, 1], recorded)
    in_use(axes[1, 2], recorded)
    axes[0, 0].set(ylim=(0, 1), ylabel="accuracy")
    for panel in axes[0, 1:]:
        panel.set(yscale="log", ylim=(0.2, 40), ylabel=f"m-coherence, m = {recorded['m']}")
        style.ticks(panel, y=(0.3, 1, 3, 10, 30))
        style.guide(panel, 1)
    style.letters(axes.flat)
    number = recorded["features"]
    handles = [style.key(f"{k:,}", colour) for k, colour in zip(number, style.SEQUENCE)]
    handles += [style.key(text, style=dashes) for dashes, text in (("-", "no force"), ("--", "L1"))]
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=len(handles),
        title="random features beside 64 pixels",
        title_fontsize=7.5,
    )
    return figure


def arms(recorded):
    """(arm, number of random features, colour, dashes)."""
    for k, colour in zip(recorded["features"], style.SEQUENCE):
        for end, dashes in (("", "-"), (",l1", "--")):
            if f"features={k}{end}/step" in recorded:
                yield f"features={k}{end}", k, colour, dashes


def curves(panel, recorded, name, title):
    for arm, k, colour, dashes in arms(recorded):
        if name == "m_coherence_in_use" and dashes == "-":
            continue
        steps = style.log_steps(recorded[f"{arm}/step"])
        label = f"{k} random features{', L1' * (dashes == '--')}"
        options = {
            "colour": colour,
            "style": dashes,
            "title": title,
            "logarithmic": name != "test_accuracy",
        }
        style.band(panel, steps, recorded[f"{arm}/{name}"], label, **options)
    panel.set(xscale="log", xlabel="step")
    panel.set_title(title)


def by_loss(panel, recorded):
    """Test accuracy where the loss first fell to each level."""
    panel.set(title="accuracy at equal loss", xscale="log", xlabel="training loss (nats)")
    panel.set(ylabel="test accuracy", ylim=(0, 1))
    for arm, k, colour, dashes in arms(recorded):
        values = np.array(
            [at_level(recorded, arm, "test_accuracy", level) for level in recorded["levels"]]
        ).T
        label = f"{k} random features{', L1' * (dashes == '--')}"
        style.band(panel, recorded["levels"], values, label, colour=colour, style=dashes)
    panel.invert_xaxis()
    style.ticks(panel, x=(2, 1, 0.5, 0.2))
    panel.axvline(LATE, color=style.NEUTRAL, linewidth=0.6, linestyle=":")


def by_number(panel, recorded):
    """m-coherence at two loss levels against the number of random features."""
    panel.set(title="coherence at equal loss", yscale="log", xlabel="random features")
    panel.set(ylabel=f"m-coherence, m = {recorded['m']}")
    number = recorded["features"]
    places = np.arange(len(number))
    for level, marker, colour in ((EARLY, "o", style.NEUTRAL), (LATE, "s", style.COLOUR["other"])):
        values = np.array(
            [at_level(recorded, f"features={k}", "m_coherence", level) for k in number]
        ).T
        style.band(panel, places, values, f"{level:g} nats", colour=colour)
        panel.plot(places, np.exp(np.log(values).mean(0)), marker, color=colour, markersize=3.5)
    for name, marker, text in (
        ("m_coherence", "D", "L1, all weights"),
        ("m_coherence_in_use", "*", "L1, weights in use"),
    ):
        values = np.array(
            [at_level(recorded, f"features={k},l1", name, LATE) for k in number[[0, -1]]]
        ).T
        shown = np.exp(np.log(values).mean(0))
        label = f"{text}, {LATE:g}"
        options = {
            "colour": style.COLOUR["other"],
            "marker": marker,
            "linewidth": 0,
            "markersize": 6,
            "markerfacecolor": "none",
        }
        style.curve(panel, places[[0, -1]], shown, label, **options)
    panel.set_xticks(places, [f"{k:,}" for k in number])
    style.ticks(panel, y=(0.5, 1, 2, 4, 8))
    panel.set_ylim(0.6, 11)
    panel.legend(fontsize=6.5, loc="upper right", labelspacing=0.2, handlelength=1.4)


def in_use(panel, recorded):
    """Which weights of the first layer L1 leaves."""
    panel.set(title="weights left by L1", xscale="log", xlabel="step")
    panel.set(ylabel="share that is not zero", ylim=(0, 1.03))
    arm = f"features={recorded['features'][-1]},l1"
    steps = style.log_steps(recorded[f"{arm}/step"])
    for name, text, colour in (
        ("pixels_in_use", "of pixels", style.COLOUR["real"]),
        ("noise_in_use", "of random features", style.COLOUR["random"]),
    ):
        style.band(panel, steps, recorded[f"{arm}/{name}"], text, colour=colour)
    panel.legend(loc="lower left")


def at_level(recorded, arm, name, level):
    """What was measured when the loss first fell to a level, interpolated: [seed]."""
    found = []
    for loss, values in zip(recorded[f"{arm}/train_loss"], recorded[f"{arm}/{name}"]):
        below = np.flatnonzero(loss <= level)
        i = below[0] if below.size else 0
        found.append(
            np.interp(level, loss[[i, i - 1]], values[[i, i - 1]])
            if i
            else values[0]
            if below.size
            else np.nan
        )
    return np.array(found, float)
