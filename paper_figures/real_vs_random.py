"""Real against random labels: the training curves, coherence over training, coherence at equal loss, and what generalizes."""

import numpy as np
import style

METHODS = {"sgd": ("SGD", "-"), "winsorized": ("winsorized", "--")}


def draw(recorded):
    figure, axes = style.figure(2, 2, height=2.7)
    fit, coherence, levels, generalization = axes.flat
    for label in ("real", "random"):
        for method, (name, dashes) in METHODS.items():
            arm, colour = f"{label}-{method}", style.COLOUR[label]
            steps = np.maximum(recorded[f"{arm}/step"], 0.7)  # step 0 has a place on a logarithmic axis
            text = f"{label} labels, {name}"
            style.band(fit, steps, recorded[f"{arm}/train_accuracy"], text, colour=colour, style=dashes, panel="train accuracy")
            measured = recorded[f"{arm}/m_coherence"]
            style.band(coherence, steps, measured, text, colour=colour, style=dashes, panel="m-coherence", logarithmic=True)
            style.band(generalization, steps, recorded[f"{arm}/test_accuracy"], text, colour=colour, style=dashes, panel="test accuracy")
    names = [f"{level:.0%}" for level in recorded["levels"]]
    for i, label in enumerate(("real", "random")):
        values = recorded[f"{label}-sgd/at_levels"]
        style.bars(
            levels, names, values, f"{label} labels, SGD", colour=style.COLOUR[label], offset=(i - 0.5) * 0.38, panel="at equal loss"
        )
    levels.set_xticks(range(len(names)), names)
    levels.set(xlabel="training loss, share of its initial value", ylabel=f"m-coherence, batches of m = {recorded['m']}")
    levels.set_title("c  Coherence at equal training loss")
    fit.set(xlabel="step", ylabel="training accuracy", xscale="log", ylim=(0, 1.03))
    fit.set_title("a  Fitting the training labels")
    coherence.set(xlabel="step", ylabel=f"m-coherence, m = {recorded['sample']}", xscale="log", yscale="log")
    coherence.set_title("b  How many examples one gradient helps")
    generalization.set(xlabel="step", ylabel="test accuracy (true labels)", xscale="log", ylim=(0, 1.03))
    generalization.set_title("d  Generalization")
    style.guide(coherence, 1, "orthogonal", "left")
    levels.axhline(1, color=style.COLOUR["neutral"], linewidth=0.8, linestyle=":")
    style.guide(generalization, 0.1, "chance")
    figure.legend(*fit.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    return figure
