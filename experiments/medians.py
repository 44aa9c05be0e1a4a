"""The median of three mean gradients (M3, RM3) keeps random labels from being memorized; a mean of
three as stale (RA3) does not.

M3 splits a batch into three groups, RM3 takes the last three batches; every coordinate moves by the
middle one of their mean gradients. A median of three mutes what only one of them wants: with
batches of three examples, a class is in a group about as seldom as in the source's groups of 85
among 1,000 classes. In larger batches of ten classes, every group wants much the same, and the
median has little to mute: so the batch size is varied. Suppression slows fitting, so memorization
is also compared where plain SGD is stopped at the same accuracy on pristine examples.
"""

from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import first_at, single, stacked_arms, tabulate, too_low, under
from coherence.lab.settings import (
    MLP,
    average,
    digits,
    label_noise,
    median_of_means,
    mnist,
    rolling_mean,
    rolling_median,
    sgd,
)
from coherence.lab.training.classification import Classification

METHODS = {
    "SGD": average(),
    "M3": median_of_means(3),
    "RM3": rolling_median(3),
    "RA3": rolling_mean(3),
}
MEDIANS = ("M3", "RM3")
CURVES = ("train_accuracy", "test_accuracy", "pristine_accuracy", "corrupt_accuracy")
MEMORIZED, FITTED = 0.9, 0.99  # by SGD: corrupt examples under noise; all examples without
MUCH, LITTLE = 0.1, 0.02


@dataclass(frozen=True)
class Settings:
    run: Classification = Classification(
        data=mnist(examples=1000),
        model=MLP(width=64, depth=1),
        optimizer=sgd(0.05),  # without momentum, for all: the source found it unstable with RM3
        probes=(),
        track_batches=False,
    )
    noise: float = 0.5
    """Share of the training labels that are permuted."""
    batch_sizes: tuple[int, ...] = (3, 12, 96)
    steps: tuple[int, ...] = (10_000, 6000, 3000)
    """One a batch size: as many as SGD needs to memorize."""
    clean: bool = True
    """Without noise, too, in the smallest batches."""
    seeds: int = 8

    def __post_init__(self):
        if len(self.steps) != len(self.batch_sizes) or not self.steps:
            raise ValueError(
                f"medians: one number of steps a batch size, got {self.steps} for batches of "
                f"{self.batch_sizes}."
            )


RUN = Settings.run
_SMALL = replace(RUN, data=digits(), model=MLP(width=16), points_per_decade=4)
# ImageNet with a ResNet-18 is out of reach: batch and learning rate are the source's, data and
# network are not.
_LARGE = replace(RUN, data=mnist(), model=MLP(width=256, depth=3), optimizer=sgd(0.1))
PRESETS = {
    "smoke": Settings(_SMALL, batch_sizes=(3,), steps=(200,), clean=False, seeds=2),
    "cpu": Settings(),
    "paper": Settings(_LARGE, batch_sizes=(3, 12, 256), steps=(1_000_000, 500_000, 60_000)),
}

# What was fixed when: all statistics and thresholds before any run of these presets; none was moved
# after. Before that, single runs of another seed on the first 1,000 or 2,000 images were tried for
# when SGD memorizes, with batches of 100 (64 to 128 units, one hidden layer or three), 12 and 3. In
# batches of 100 neither M3 nor RM3 kept anything from being memorized; in batches of 3 both did,
# RA3 did not, and M3's share of memorized examples at equal fit was seen to be near early-stopped
# SGD's. So the dependence on the batch size is our explanation of what had been seen, put to the
# test with other seeds, not a prediction.


def arms(settings):
    """Every method in batches of every size; without noise in the smallest alone."""
    cells = [(size, settings.noise, n) for size, n in zip(settings.batch_sizes, settings.steps)]
    if settings.clean:
        size, _, steps = min(cells)
        cells.append((size, 0.0, steps))
    return {
        f"{_cell(size, noise)}/{name}": replace(
            settings.run, noise=label_noise(noise), aggregator=method, batch_size=size, steps=steps
        )
        for size, noise, steps in cells
        for name, method in METHODS.items()
    }


def _cell(size, noise):
    return f"batch={size},noise={noise:g}"


def record(settings, runs):
    """For each batch size and noise its steps, and curves as [method, seed, step]."""
    arrays = {
        "batch_sizes": np.array(settings.batch_sizes),
        "noise": settings.noise,
        "methods": np.array(list(METHODS)),
    }
    for cell in dict.fromkeys(arm.rpartition("/")[0] for arm in runs):
        curves = stacked_arms([runs[f"{cell}/{name}"] for name in METHODS], *CURVES)
        arrays |= under(cell, single(curves))
    return arrays


def curves(recorded, size, noise, name):
    """{method: [seed, step]} of one batch size and noise."""
    return dict(zip(METHODS, recorded[f"{_cell(size, noise)}/{name}"]))


def at_equal_fit(recorded, size, method):
    """What SGD has memorized when it fits the pristine examples as the method does at the end."""
    pristine, corrupt = (
        curves(recorded, size, float(recorded["noise"]), f"{kind}_accuracy")
        for kind in ("pristine", "corrupt")
    )
    return first_at(pristine["SGD"], corrupt["SGD"], pristine[method][:, -1])


def judge(recorded):
    sizes, noise = recorded["batch_sizes"], float(recorded["noise"])
    small, large = int(sizes.min()), int(sizes.max())

    def end(name, size, share=noise):
        each = curves(recorded, size, share, f"{name}_accuracy")
        return {method: values[:, -1] for method, values in each.items()}

    corrupt, train, test = (end(name, small) for name in ("corrupt", "train", "test"))
    in_large = end("corrupt", large)
    memorized, memorized_in_large = (
        too_low(
            values["SGD"],
            MEMORIZED,
            f"SGD did not get there: corrupt accuracy, batches of {size}",
        )
        for values, size in ((corrupt, small), (in_large, large))
    )
    if small == large:
        memorized_in_large = "only one batch size was run"
    fitted, clean = "it was not run without noise", dict.fromkeys(METHODS, np.zeros(0))
    if f"{_cell(small, 0.0)}/step" in recorded:
        clean = end("test", small, 0.0)
        fitted = too_low(
            end("train", small, 0.0)["SGD"],
            FITTED,
            "SGD did not get there: training accuracy without noise",
        )
    less = {method: corrupt["SGD"] - corrupt[method] for method in METHODS}
    less_in_large = {method: in_large["SGD"] - in_large[method] for method in METHODS}
    tested = {"RA3 memorizes like SGD": (less["RA3"], memorized)}
    for m in MEDIANS:
        gaps = [train[method] - test[method] for method in ("SGD", m)]
        at_equal = at_equal_fit(recorded, small, m) - corrupt[m]
        tested |= {
            f"{m} memorizes less": (less[m], memorized),
            f"{m} overfits less": (np.subtract(*gaps), memorized),
            f"{m} ends better on test": (test[m] - test["SGD"], memorized),
            f"{m} loses little on clean labels": (clean["SGD"] - clean[m], fitted),
            f"{m} memorizes less at equal fit": (at_equal, memorized),
            f"{m} memorizes less in large batches": (less_in_large[m], memorized_in_large),
            f"{m} needs few examples of a class": (
                less[m] - less_in_large[m],
                memorized or memorized_in_large,
            ),
        }
    return tested


def table(recorded):
    noise, small = float(recorded["noise"]), recorded["batch_sizes"].min()
    rows = []
    for size, share in [(small, 0.0), *((size, noise) for size in recorded["batch_sizes"])]:
        if f"{_cell(size, share)}/step" not in recorded:
            continue
        paths = {name: curves(recorded, size, share, name) for name in CURVES}
        for method in METHODS:
            train, test, pristine, corrupt = (paths[name][method][:, -1] for name in CURVES)
            compared = share and method in MEDIANS
            equal = at_equal_fit(recorded, size, method) if compared else "-"
            rows.append(
                {
                    "batch": size,
                    "noise": f"{share:.0%}",
                    "method": method,
                    "train": train,
                    "test": test,
                    "best test": paths["test_accuracy"][method].max(-1),
                    "pristine": pristine,
                    "corrupt": corrupt,
                    "SGD's corrupt at equal pristine": equal,
                }
            )
    return tabulate(rows, "accuracies after the last step (best test: the highest on the way)")
