"""Winsorized SGD under label noise: one column a share of noise, one colour a percentile."""

import numpy as np
import style


def draw(recorded):
    noise, c = recorded["noise"], recorded["c"]
    names = {"train_accuracy": "training accuracy", "corrupt_accuracy": "corrupt examples fitted", "test_accuracy": "test accuracy"}
    figure, axes = style.figure(3, len(noise), width=1.75 * len(noise) + 1, height=1.7, sharex=True, sharey=True)
    steps = np.maximum(recorded["step"], 0.7)
    for row, (name, label) in enumerate(names.items()):
        for column, share in enumerate(noise):
            panel = axes[row, column]
            for k, percent in enumerate(c):
                text = "SGD (c = 0)" if percent == 0 else f"c = {percent:g} %"
                style.band(panel, steps, recorded[name][column, k], text, colour=style.SEQUENCE[k], panel=f"{label}, noise {share:.0%}")
            if name == "train_accuracy":
                proper = 1 - share + share / 10
                style.guide(panel, proper, "only true labels fitted" if column else "", "left")
                panel.set_title(f"{share:.0%} random labels")
            if name == "corrupt_accuracy" and share == 0:
                panel.text(
                    0.5, 0.5, "no corrupt\nexamples", ha="center", va="center", transform=panel.transAxes, color=style.COLOUR["neutral"]
                )
            panel.set(xscale="log", ylim=(0, 1.03))
        axes[row, 0].set_ylabel(label)
    for panel in axes[-1]:
        panel.set_xlabel("step")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(c))
    return figure
