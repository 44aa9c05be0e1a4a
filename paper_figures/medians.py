"""The median of three gradients: what it leaves unlearned, and in which batches

Half of the labels of 1,000 MNIST images are random. SGD, M3 (the median of three groups of a
batch), RM3 (of the last three batches) and RA3 (their mean, as a control) train the same network at
the same step size for as many steps; bands are 95 % over 8 seeds.

**a-c** Batches of 3, where a class is in a batch about as seldom as in the source's: SGD memorizes
nearly all corrupt labels, RM3 two fifths, M3 hardly more than chance would (a tenth). RA3 lies on
SGD, so it is the median. Test accuracy with M3 does not fall at the end. **d-f** Batches of 96: all
coincide. *Not reproduced*: with ten classes and a batch nearer the source's, neither median keeps
more than a few percent from being memorized. **h** The step between; dotted, where batches of 256
stand among ImageNet's 1,000 classes. That this number matters is our guess from trial runs, not the
source's. **g** What slower fitting explains; dots mark the end. M3 ends on SGD's own path: SGD
stopped there has memorized as little (*inconclusive*, near zero), and its best test accuracy on the
way is no lower. RM3 ends below it, not by enough for a verdict among 15 claims. **i** Without noise
the medians end a few percent lower (*inconclusive* against the 2 % that were allowed).
"""

import numpy as np

from coherence.lab.report import drawing as style

METHODS = {
    "SGD": {"colour": style.NEUTRAL, "style": "-"},
    "M3": {"colour": style.SEQUENCE[0], "style": "-"},
    "RM3": {"colour": style.SEQUENCE[2], "style": "-"},
    "RA3": {"colour": style.SEQUENCE[4], "style": "--"},
}
KINDS = {
    "corrupt_accuracy": "corrupt fitted",
    "pristine_accuracy": "pristine fitted",
    "test_accuracy": "test accuracy",
}


def draw(recorded):
    sizes, noise = np.sort(recorded["batch_sizes"]), float(recorded["noise"])
    figure, axes = style.figure(3, 3, height=2.0)
    over_steps(axes[0], recorded, sizes[0], noise)
    over_steps(axes[1], recorded, sizes[-1], noise)
    at_equal_fit(axes[2, 0], recorded, sizes[0], noise)
    by_batch_size(axes[2, 1], recorded, sizes, noise)
    clean(axes[2, 2], recorded, sizes[0])
    style.letters(axes.flat, small=True)
    lines = [style.key(method, look["colour"], look["style"]) for method, look in METHODS.items()]
    figure.legend(handles=lines, loc="outside upper center", ncols=len(lines))
    return figure


def cell(recorded, size, noise, name):
    """[method, seed, step] of one batch size and noise."""
    return recorded[f"batch={size},noise={noise:g}/{name}"]


def over_steps(row, recorded, size, noise):
    """What is fitted when, in batches of one size."""
    steps = np.maximum(
        cell(recorded, size, noise, "step"), 0.7
    )  # step 0 has a place on a logarithmic axis
    for panel, (name, label) in zip(row, KINDS.items()):
        title = f"{label.capitalize()}, batches of {size}"
        for (method, look), values in zip(METHODS.items(), cell(recorded, size, noise, name)):
            style.band(panel, steps, values, method, title=title, **look)
        panel.set(xscale="log", ylim=(0, 1.03), xlabel="step")
        panel.set(ylabel="share" if "fitted" in label else "accuracy")
        panel.set_title(title)


def at_equal_fit(panel, recorded, size, noise):
    """Corrupt against pristine examples fitted, means over seeds; dots at the end."""
    panel.set(title=f"At equal fit, batches of {size}", xlabel="pristine fitted")
    panel.set(ylabel="corrupt fitted", xlim=(0.6, 1.01), ylim=(0, 1.03))
    pristine, corrupt = (
        cell(recorded, size, noise, f"{kind}_accuracy").mean(1) for kind in ("pristine", "corrupt")
    )
    for (method, look), x, y in zip(METHODS.items(), pristine, corrupt):
        style.curve(panel, x, y, method, **look)
        panel.plot(x[-1], y[-1], "o", color=look["colour"], markersize=4, clip_on=False, zorder=3)


def by_batch_size(panel, recorded, sizes, noise, classes=10):
    """Corrupt examples fitted at the end against how many examples of a class a batch has."""
    panel.set(title="Corrupt fitted at the end", xscale="log")
    panel.set(xlabel="examples of a class in a batch", ylabel="share", ylim=(0, 1.03))
    final = np.array(
        [cell(recorded, size, noise, "corrupt_accuracy")[:, :, -1] for size in sizes]
    )  # [size, method, seed]
    for (method, look), values in zip(METHODS.items(), np.moveaxis(final, 1, 0)):
        style.band(panel, sizes / classes, values.T, method, **look)
    panel.axvline(256 / 1000, color=style.NEUTRAL, linewidth=0.8, linestyle=":")
    panel.annotate(
        "source's", (0.24, 0.03), ha="right", rotation=90, fontsize=7, color=style.NEUTRAL
    )
    panel.set(xlim=(0.13, None))


def clean(panel, recorded, size):
    """Test accuracy without noise."""
    panel.set(title=f"No noise, batches of {size}", xscale="log", xlabel="step")
    panel.set(ylabel="test accuracy", ylim=(0, 1.03))
    panel.set_visible(f"batch={size},noise=0/step" in recorded)
    if panel.get_visible():
        steps = np.maximum(cell(recorded, size, 0, "step"), 0.7)
        for (method, look), values in zip(
            METHODS.items(), cell(recorded, size, 0, "test_accuracy")
        ):
            style.band(panel, steps, values, method, **look)
