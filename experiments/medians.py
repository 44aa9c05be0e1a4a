"""The median of three mean gradients (M3, RM3) keeps random labels from being memorized; a mean of three as stale (RA3) does not.

M3 splits a batch into three groups, RM3 takes the last three batches; every coordinate moves by the
middle one of their mean gradients. A median of three mutes what only one of them wants: with
batches of three examples, a class is in a group about as seldom as in the source's groups of 85
among 1,000 classes. In larger batches of ten classes, every group wants much the same, and the
median has little to mute: so the batch size is varied. Suppression slows fitting, so memorization
is also compared where plain SGD is stopped at the same accuracy on pristine examples.
"""

import dataclasses

import numpy as np

from coherence.lab.analysis import first_at, stacked
from coherence.lab.claims import Source, above, below
from coherence.lab.report.tables import aligned, plus_minus
from coherence.lab.settings import (
    CNN,
    MLP,
    average,
    digits,
    label_noise,
    median_of_means,
    mnist,
    npz,
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


@dataclasses.dataclass(frozen=True)
class Settings:
    data: digits | mnist | npz = mnist(examples=1000)
    model: MLP | CNN = MLP(width=64, depth=1)
    noise: float = 0.5
    """Share of the training labels that are permuted."""
    batch_sizes: tuple[int, ...] = (3, 12, 96)
    steps: tuple[int, ...] = (10_000, 6000, 3000)
    """One a batch size: as many as SGD needs to memorize."""
    clean: bool = True
    """Without noise, too, in the smallest batches."""
    learning_rate: float = 0.05
    points_per_decade: int = 8
    seeds: int = 8

    def __post_init__(self):
        if len(self.steps) != len(self.batch_sizes) or not self.steps:
            raise ValueError(
                f"medians: one number of steps a batch size, got {self.steps} for batches of {self.batch_sizes}."
            )


PRESETS = {
    "smoke": Settings(
        data=digits(),
        model=MLP(width=16),
        batch_sizes=(3,),
        steps=(200,),
        clean=False,
        points_per_decade=4,
        seeds=2,
    ),
    "cpu": Settings(),
    # ImageNet with a ResNet-18 is out of reach: batch and learning rate are the source's, data and
    # network are not.
    "paper": Settings(
        data=mnist(),
        model=MLP(width=256, depth=3),
        batch_sizes=(3, 12, 256),
        steps=(1_000_000, 500_000, 60_000),
        learning_rate=0.1,
    ),
}

# What was fixed when: all statistics and thresholds before any run of these presets; none was moved
# after. Before that, single runs of another seed on the first 1,000 or 2,000 images were tried for
# when SGD memorizes, with batches of 100 (64 to 128 units, one hidden layer or three), 12 and 3. In
# batches of 100 neither M3 nor RM3 kept anything from being memorized; in batches of 3 both did,
# RA3 did not, and M3's share of memorized examples at equal fit was seen to be near early-stopped
# SGD's. So the dependence on the batch size is our explanation of what had been seen, put to the
# test with other seeds, not a prediction.
_PAPER = "Zielinski, Krishnan & Chatterjee, Weak and Strong Gradient Directions (arXiv:2003.07422)"
_PAPER_REMEMBERED = Source(_PAPER, "remembered")
_OURS = Source(
    "ours: a coordinate's median of three is zero where only one of three wants to move it",
    "derived",
)


def _each(method):
    return (
        Source(f"{_PAPER}, abstract", "read").claim(
            f"{method} memorizes less",
            f"Under label noise {method} leaves most corrupt labels unlearned that SGD memorizes "
            "in as many steps (smallest batches).",
            f"share of corrupt examples fitted at the end, SGD minus {method}",
            above(MUCH, "of corrupt examples"),
        ),
        Source(f"{_PAPER}, abstract", "read").claim(
            f"{method} overfits less",
            "Under label noise the gap between training and test accuracy is much smaller with "
            f"{method} (smallest batches).",
            f"training minus test accuracy at the end, SGD minus {method}",
            above(MUCH, "accuracy"),
        ),
        _PAPER_REMEMBERED.claim(
            f"{method} ends better on test",
            f"Under label noise test accuracy at the end is higher with {method} than with SGD "
            "(smallest batches).",
            f"test accuracy at the end, {method} minus SGD",
            above(0, "accuracy"),
        ),
        _PAPER_REMEMBERED.claim(
            f"{method} loses little on clean labels",
            f"Without label noise {method} ends with nearly the test accuracy of SGD (smallest "
            "batches).",
            f"test accuracy at the end without noise, SGD minus {method}",
            below(LITTLE, "accuracy"),
        ),
        Source("a control of ours; the source compares at equal steps", "derived").claim(
            f"{method} memorizes less at equal fit",
            f"SGD stopped where it fits the pristine examples as well as {method} at the end has "
            "memorized more (smallest batches).",
            f"share of corrupt examples fitted when pristine accuracy is what {method} ends with, "
            f"SGD minus {method}",
            above(0, "of corrupt examples"),
        ),
        Source(f"{_PAPER}, abstract, where the batch is 256, but of 1,000 classes", "read").claim(
            f"{method} memorizes less in large batches",
            f"As with the smallest batches, so with the largest: {method} leaves corrupt labels "
            "unlearned that SGD memorizes.",
            f"share of corrupt examples fitted at the end, SGD minus {method}, largest batches",
            above(MUCH, "of corrupt examples"),
        ),
        _OURS.claim(
            f"{method} needs few examples of a class",
            f"{method} suppresses memorization more where a batch has less than one example of a "
            "class.",
            f"share of corrupt examples fitted at the end, SGD minus {method}: in the smallest "
            "batches minus in the largest",
            above(MUCH, "of corrupt examples"),
        ),
    )


CLAIMS = (
    *_each("M3"),
    *_each("RM3"),
    Source(f"{_PAPER}, the released code; its role is remembered", "remembered").claim(
        "RA3 memorizes like SGD",
        "It is the median: a mean of the last three gradients, as stale and as smooth, "
        "suppresses little (smallest batches).",
        "share of corrupt examples fitted at the end, SGD minus RA3",
        below(MUCH, "of corrupt examples"),
    ),
)


def arms(settings):
    """Every method in batches of every size; without noise in the smallest alone."""
    without = (min(settings.batch_sizes),) if settings.clean else ()
    return {
        f"{_cell(size, noise)}/{name}": Classification(
            data=settings.data,
            noise=label_noise(noise),
            model=settings.model,
            aggregator=method,
            optimizer=sgd(
                settings.learning_rate
            ),  # without momentum, for all: the source found it unstable with RM3
            batch_size=size,
            steps=steps,
            points_per_decade=settings.points_per_decade,
            probes=(),
            track_batches=False,
        )
        for size, steps in zip(settings.batch_sizes, settings.steps)
        for noise in ((settings.noise, 0.0) if size in without else (settings.noise,))
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
        rows = [stacked(runs[f"{cell}/{name}"], *CURVES) for name in METHODS]
        arrays[f"{cell}/step"] = rows[0]["step"]
        arrays |= {
            f"{cell}/{name}": np.array([row[name] for row in rows], np.float32) for name in CURVES
        }
    return arrays


def curves(recorded, size, noise, name):
    """{method: [seed, step]} of one batch size and noise."""
    return dict(zip(METHODS, recorded[f"{_cell(size, noise)}/{name}"]))


def at_equal_fit(recorded, size, method):
    """[seed]: what SGD has memorized when it fits the pristine examples as well as the method does at the end."""
    noise = float(recorded["noise"])
    pristine, corrupt = (
        curves(recorded, size, noise, f"{kind}_accuracy") for kind in ("pristine", "corrupt")
    )
    return np.array(
        [
            first_at(p, c, end)
            for p, c, end in zip(pristine["SGD"], corrupt["SGD"], pristine[method][:, -1])
        ]
    )


def judge(recorded):
    sizes, noise = recorded["batch_sizes"], float(recorded["noise"])
    small, large = int(sizes.min()), int(sizes.max())
    end = lambda name, size, share=noise: {
        method: each[:, -1] for method, each in curves(recorded, size, share, name).items()
    }
    corrupt, train, test = (end(f"{name}_accuracy", small) for name in ("corrupt", "train", "test"))
    fitted, clean = "it was not run without noise", dict.fromkeys(METHODS, np.zeros(0))
    if f"{_cell(small, 0.0)}/step" in recorded:
        clean = end("test_accuracy", small, 0.0)
        fitted = _at_least(
            end("train_accuracy", small, 0.0)["SGD"], FITTED, "training accuracy without noise"
        )
    in_large = end("corrupt_accuracy", large)
    memorized = _at_least(corrupt["SGD"], MEMORIZED, f"corrupt accuracy, batches of {small}")
    memorized_in_large = _at_least(
        in_large["SGD"], MEMORIZED, f"corrupt accuracy, batches of {large}"
    )
    if small == large:
        memorized_in_large = "only one batch size was run"
    less = {method: corrupt["SGD"] - corrupt[method] for method in METHODS}
    less_in_large = {method: in_large["SGD"] - in_large[method] for method in METHODS}
    found = {"RA3 memorizes like SGD": (less["RA3"], memorized)}
    for method in MEDIANS:
        gap = {one: train[one] - test[one] for one in ("SGD", method)}
        found |= {
            f"{method} memorizes less": (less[method], memorized),
            f"{method} overfits less": (gap["SGD"] - gap[method], memorized),
            f"{method} ends better on test": (test[method] - test["SGD"], memorized),
            f"{method} loses little on clean labels": (clean["SGD"] - clean[method], fitted),
            f"{method} memorizes less at equal fit": (
                at_equal_fit(recorded, small, method) - corrupt[method],
                memorized,
            ),
            f"{method} memorizes less in large batches": (
                less_in_large[method],
                memorized_in_large,
            ),
            f"{method} needs few examples of a class": (
                less[method] - less_in_large[method],
                memorized or memorized_in_large,
            ),
        }
    return found


def _at_least(values, level, what):
    """None, or that SGD did not get so far on some seed."""
    return (
        None
        if values.min() >= level
        else f"SGD did not get there: {what} {values.min():.2f} < {level}"
    )


def table(recorded):
    noise, small = float(recorded["noise"]), recorded["batch_sizes"].min()
    rows = []
    for size, share in [(small, 0.0), *((size, noise) for size in recorded["batch_sizes"])]:
        if f"{_cell(size, share)}/step" not in recorded:
            continue
        found = {name: curves(recorded, size, share, name) for name in CURVES}
        for method in METHODS:
            ends = [plus_minus(found[name][method][:, -1]) for name in CURVES]
            best = plus_minus(found["test_accuracy"][method].max(-1))
            equal = (
                plus_minus(at_equal_fit(recorded, size, method))
                if share and method in MEDIANS
                else "-"
            )
            rows.append([size, f"{share:.0%}", method, *ends[:2], best, *ends[2:], equal])
    header = [
        "batch",
        "noise",
        "method",
        "train",
        "test",
        "best test",
        "pristine",
        "corrupt",
        "SGD's corrupt at equal pristine",
    ]
    note = "accuracies after the last step (best test: the highest on the way), mean ± half of the 95 % interval over seeds"
    return f"{aligned(header, rows)}\n{note}"
