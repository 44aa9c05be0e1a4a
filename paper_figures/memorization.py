"""Which score knows what is memorized, with right labels or 20 % wrong ones?

Top: rank correlation (Spearman) of scores from one run with memorization, measured by many other
networks on random 70 %; the grey line is how well one half of these networks agrees with the other.
Right: linear datamodel score, how well the sum of influences over a subset ranks the outputs that
half of the subsets bring; the effects measured on the other half, beside it; colours as in **f**.
Dots are seeds. Below: test accuracy of networks that learn a part only, as many steps as on
everything: the easiest (solid) or hardest (dashed) by a score, or a random part; and of those that
learn everything, along training (dotted: at their best checkpoint).

`memorization-larger` asks the same of 600 networks of 128 on subsets of 2,000 MNIST images. The
area under the margin ranks memorization best there, and no score of gradients as well: agreement
with one's class is behind by 0.12 (*not reproduced*), self-influence by up to 0.04. Wrong labels
are memorized (*reproduced*), damped influence predicts subsets better than TracIn, gradients better
than inputs (both *reproduced*, undecided on digits). Leaving out the fifth that agrees least with
its class helps (*reproduced*).
"""

import numpy as np

from coherence.lab.report import drawing as style

NAMES = {
    "own_class": "agreement, class",
    "agreement": "agreement, all",
    "others": "others over itself",
    "self_influence": "self-influence",
    "aum": "area under margin",
    "loss": "loss, mean",
    "confidence": "confidence, mean",
    "variability": "variability",
    "forgetting": "forgetting",
    "early/el2n": "early: EL2N",
    "early/grand": "early: gradient norm",
    "early/own_class": "early: agreement, class",
    "end/el2n": "end: EL2N",
    "end/loss": "end: loss",
    "end/weight_alignment": "end: weight alignment",
    "end/own_class": "end: agreement, class",
}
METHODS = {
    "tracin": "TracIn",
    "gradcos": "GradCos",
    "end/tracin": "end: TracIn",
    "end/gradcos": "end: GradCos",
    "damped influence": "end: damped",
    "K-FAC influence": "end: K-FAC",
    "inputs": "inputs and labels",
    "other networks": "other networks",
}
PRUNED = {"own_class": "agreement, class", "aum": "area under margin", "early/el2n": "early EL2N"}


def draw(recorded):
    figure, axes = style.figure(2, 3, height=3.0, height_ratios=(1.15, 1))
    arms = [f"{share:.0%} wrong" for share in recorded["shares"]]
    ours = [name for name in NAMES if name.split("/")[-1] in ("own_class", "agreement", "others")]
    gradients = (*ours, "self_influence", "early/grand", "end/weight_alignment")
    for k, (panel, arm) in enumerate(zip(axes[0], arms)):
        panel.set_title(f"Memorization, {arm}")
        panel.axvline(recorded["reliability"][k].mean(), color=style.NEUTRAL, linewidth=0.8)
        for place, (name, label) in enumerate(NAMES.items()):
            values = recorded["spearman"][k][:, list(recorded["scores"]).index(name)]
            colour = style.SEQUENCE[2] if name in gradients else style.NEUTRAL
            dots(panel, -place, values, label, colour)
        panel.set(xlabel="rank correlation", xlim=(None, 1.02))
        panel.set_yticks(-np.arange(len(NAMES)), list(NAMES.values()) if k == 0 else [])
    panel = axes[0, 2]
    panel.set_title("Attribution")
    methods = [name for name in METHODS if name in recorded["methods"]]
    for k, arm in enumerate(arms):
        colour, shift = style.SEQUENCE[1 + 2 * k], 0.15 - 0.3 * k
        for place, name in enumerate(methods):
            values = recorded["datamodel"][k][:, list(recorded["methods"]).index(name)]
            dots(panel, shift - place, values, f"{METHODS[name]}, {arm}", colour)
    panel.set_yticks(-np.arange(len(methods)), [METHODS[name] for name in methods])
    panel.set(xlabel="linear datamodel score")
    shares = 100 * recorded["kept_shares"]
    for k, (panel, arm) in enumerate(zip(axes[1], arms)):
        panel.set_title(f"Parts, {arm}")
        of = lambda part, k=k: recorded["kept"][k][:, list(recorded["parts"]).index(part)]
        style.band(panel, shares, of("random"), "random", colour=style.NEUTRAL)
        for (name, label), colour in zip(PRUNED.items(), style.SEQUENCE[1:]):
            for end, dash in (("easiest", "-"), ("hardest", "--")):
                text = label if end == "easiest" else f"{label}, hardest"
                style.band(panel, shares, of(f"{end} by {name}"), text, colour=colour, style=dash)
        best = recorded["everything"][k].max(-1).mean()
        style.guide(panel, best)
        panel.set(xlabel="part that is learned (%)", ylabel="test accuracy", xticks=shares)
    handles = axes[1, 0].get_legend_handles_labels()
    shown = [(h, t) for h, t in zip(*handles) if not t.endswith("hardest")]
    axes[1, 0].legend(*zip(*shown), **style.SMALL)
    panel = axes[1, 2]
    panel.set_title("All of them")
    times = 10 * np.arange(1, recorded["everything"].shape[-1] + 1)
    for k, arm in enumerate(arms):
        style.band(panel, times, recorded["everything"][k], arm, colour=style.SEQUENCE[1 + 2 * k])
    panel.set(xlabel="training (% of its steps)", ylabel="test accuracy")
    panel.legend(**style.SMALL)
    style.letters(axes.flat, small=True)
    return figure


def dots(panel, place, values, label, colour):
    """A row of seeds and their mean."""
    panel.plot(values, np.full(len(values), place), ".", color=colour, markersize=3.5)
    panel.plot(values.mean(), place, "|", color=colour, markersize=8)
    title = panel.get_title()
    panel.figure.drawn.append((title, label, 0, values.mean(), values.min(), values.max()))
    panel.tick_params(axis="y", labelsize=6.5)
    panel.grid(axis="y", linewidth=0.3)
