"""Winsorized SGD under label noise: what it keeps from being memorized, and at what price.

Upper rows: one column a share of random labels, one colour a percentile c; bands are 95 % intervals over seeds. After equally many steps a
larger c has fitted fewer of the corrupt examples (their rank order is the claim that reproduces), and less altogether. Last row: what has
been memorized at which accuracy on the pristine examples. Left, every c along its whole path: the paths lie on one another until nine
tenths of the pristine examples are fitted. Right, the ends: squares are plain SGD at smaller and smaller step sizes, in as many steps. On
2,000 images every c ends *above* that line: at equal fit of the pristine examples, SGD with a smaller step memorized less, and tested
better. For c = 2, where the claims are judged, the difference is within the seeds' spread (*inconclusive*); that test accuracy at the end
is no worse than SGD's is *not reproduced* there (c = 8 tests better than SGD). With the source's network on all of MNIST (`column`, one
seed, so no verdicts) each batch sees another 100 of 60,000 examples: see how far its curves are apart.
"""

import numpy as np
import style

NAMES = {"train_accuracy": "training accuracy", "corrupt_accuracy": "corrupt examples fitted", "test_accuracy": "test accuracy"}
NOISE = 0.5


def draw(recorded):
    noise, c = recorded["noise"], recorded["c"]
    columns = max(len(noise), 2)
    figure, axes = style.figure(4, columns, width=max(1.75 * columns + 1, 7.2), height=1.9)
    steps = np.maximum(recorded["step"], 0.7)
    for row, (name, label) in enumerate(NAMES.items()):
        for column, share in enumerate(noise):
            panel = axes[row, column]
            for k, percent in enumerate(c):
                panel_name = f"{label}, noise {share:.0%}"
                style.band(panel, steps, recorded[name][column, k], _text(percent), colour=style.SEQUENCE[k], panel=panel_name)
            if name == "train_accuracy":
                style.guide(panel, 1 - share + share / 10, "only true labels fitted" if share else "", "left")
                panel.set_title(f"{share:.0%} random labels")
            if name == "corrupt_accuracy" and share == 0:
                _say(panel, "no corrupt\nexamples")
            panel.set(xscale="log", xlim=(0.6, steps[-1]), ylim=(0, 1.03), xlabel="step" if row == 2 else "")
        axes[row, 0].set_ylabel(label)
    for panel in axes[:3, len(noise) :].flat:
        panel.set_visible(False)
    for panel in axes[3, 2:]:
        panel.set_visible(False)
    if NOISE in noise:
        _paths(axes[3, 0], recorded)
        _ends(axes[3, 1], recorded)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(c))
    return figure


def _text(percent):
    return "SGD (c = 0)" if percent == 0 else f"c = {percent:g} %"


def _under_noise(recorded, name):
    return recorded[name][int(np.argmin(np.abs(recorded["noise"] - NOISE)))]


def _paths(panel, recorded):
    """Corrupt against pristine accuracy, mean over seeds at every measured step."""
    pristine, corrupt = (_under_noise(recorded, f"{name}_accuracy").mean(1) for name in ("pristine", "corrupt"))
    for k, percent in enumerate(recorded["c"]):
        style.curve(panel, pristine[k], corrupt[k], _text(percent), colour=style.SEQUENCE[k], panel="paths", marker=".", markersize=3)
    panel.set(xlabel="pristine examples fitted", ylabel="corrupt examples fitted", xlim=(0.5, 1.01), ylim=(0, 1.03))
    panel.set_title(f"paths, {NOISE:.0%} random labels")


def _ends(panel, recorded):
    pristine, corrupt = (_under_noise(recorded, f"{name}_accuracy")[..., -1].mean(1) for name in ("pristine", "corrupt"))
    for k in range(len(recorded["c"])):
        style.curve(panel, pristine[k : k + 1], corrupt[k : k + 1], "", colour=style.SEQUENCE[k], style="o", panel="ends")
    if len(recorded["slower"]):
        found = {"pristine": pristine, "corrupt": corrupt}
        x, y = (np.append(recorded[f"slower/{name}_accuracy"].mean(1)[::-1], ends[0]) for name, ends in found.items())
        style.curve(panel, x, y, "SGD, smaller steps", colour=style.COLOUR["neutral"], style="--", panel="ends", marker="s", markersize=3)
        panel.legend(fontsize=7, loc="upper left")
    panel.set(xlabel="pristine examples fitted", ylabel="corrupt examples fitted", ylim=(0, 1.03))
    panel.set_title("ends, after as many steps")


def _say(panel, text):
    panel.text(0.5, 0.5, text, ha="center", va="center", transform=panel.transAxes, color=style.COLOUR["neutral"])
