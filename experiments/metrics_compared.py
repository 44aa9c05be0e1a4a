"""Many measures of how gradients agree, on the same runs: some are one number in several guises,
and not all tell true from random labels.

The same network is trained on true and on permuted labels. Of one fixed sample of training examples
everything the toolkit knows to measure is measured, and compared where both runs have the same
training loss. Measures that algebra makes one are checked against each other at every measurement.
For the others it is asked whether they order true and random labels as theory would have it, at
every loss, and whether they rank the moments of a training run alike.
"""

import functools
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from coherence.lab.analysis import (
    alpha_ratio,
    first_at,
    single,
    stacked,
    tabulate,
    under,
)
from coherence.lab.claims import interval
from coherence.lab.report.tables import plus_minus
from coherence.lab.settings import MLP, digits, label_noise, mnist, sgd
from coherence.lab.training.classification import Classification

LEVELS = (2.0, 1.5, 1.0, 0.5, 0.2)  # nats of training loss at which claims are judged
LOSSES = (2.2, 2.0, 1.8, 1.5, 1.2, 1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.25, 0.2)  # and drawn
ARMS = {"real": 0.0, "random": 1.0}
EXACT = 1e-3  # what float32 sums over all parameters leave of an identity, relative


class Measure(NamedTuple):
    """How a measure is compared on true and random labels."""

    label: str
    sense: int
    """+1 where true labels should have more of it."""
    ratio: bool
    """As a ratio (doublings), or as a difference."""
    source: str


_COHERENCE = "Chatterjee & Zielinski, arXiv:2203.10036"
_STIFFNESS = "Fort et al., arXiv:1901.09491"
_CONFUSION = "Sankararaman et al., arXiv:1904.06963"
MEASURES = {
    "m_coherence": Measure("m-coherence", +1, True, _COHERENCE),
    "cosine_stiffness": Measure("cosine stiffness", +1, False, _STIFFNESS),
    "sign_stiffness": Measure("sign stiffness", +1, False, _STIFFNESS),
    "within": Measure("stiffness within classes", +1, False, _STIFFNESS),
    "between": Measure("stiffness between classes", +1, False, _STIFFNESS),
    "negative_share": Measure("share of opposed pairs", -1, False, _CONFUSION),
    "minimum_cosine": Measure("lowest cosine", +1, False, _CONFUSION),
    "confusion_bound": Measure("confusion bound", -1, True, _CONFUSION),
    "disparity": Measure("disparity", -1, True, "Forouzesh & Thiran, arXiv:2107.06665"),
    "mean_gsnr": Measure("mean GSNR", +1, True, "Liu et al., arXiv:2001.07384"),
    "gradient_norm": Measure("gradient norm", +1, True, "Chatterjee, arXiv:2002.10657"),
    "kernel_alignment": Measure("kernel alignment", +1, False, "Shan & Bordelon, 2021"),
    "sharpness": Measure("sharpness", -1, True, "Keskar et al., arXiv:1609.04836"),
}
# Functions of another measure.
GUISES = (
    *("alpha", "alpha_unbiased", "diversity", "noise_scale", "generalization_ratio", "evidence"),
)
# Judged loss by loss; nothing is expected of it; another name of sign stiffness.
UNCLAIMED = ("m_coherence", "between", "negative_share")


@dataclass(frozen=True)
class Compared(Classification):
    """A classifier of which, at every measurement, the gradients of a fixed sample are measured."""

    data: digits | mnist = mnist(examples=1000)
    model: MLP = MLP(width=128, depth=1)
    optimizer: sgd = sgd(0.05)
    steps: int = 3600
    points_per_decade: int = 16
    probes: tuple = ()
    track_batches: bool = False
    sample: int = 500
    """Training examples that are measured."""
    kernel: int = 64
    """Those of them that the tangent kernel is made of."""

    def build(self, seed):
        problem, outputs = super().build(seed), self.data.build().outputs
        examples = len(problem.data["corrupt"])
        fixed = np.random.default_rng([seed, 3]).permutation(examples)[: self.sample]
        measure = measuring(self.model, outputs, self.kernel)
        return replace(problem, data={**problem.data, "fixed": fixed}, measure=measure)


@functools.cache
def measuring(network, outputs, kernel):
    """What is measured, as one function for all runs: both arms then share the compiled program."""
    import jax

    from coherence import metrics, per_example_value_and_grad
    from coherence.lab.tasks.classification import cross_entropy, evaluate

    model = network.build(outputs)
    loss, score = cross_entropy(model), evaluate(model)

    def measure(params, arrays):
        x, y = (leaf[arrays["fixed"]] for leaf in arrays["train"])
        _, gradients = per_example_value_and_grad(loss)(params, (x, y))
        targets = jax.nn.one_hot(y[:kernel], outputs) - 1 / outputs
        alignment = metrics.tangent_kernel_alignment(model.apply, params, x[:kernel], targets)
        curvature = metrics.sharpness(
            loss, params, (x, y), jax.random.key(0), iterations=40, tolerance=0.02
        )
        return {
            "train_loss": score(params, *arrays["train"]).loss,
            "test_accuracy": score(params, *arrays["test"]).accuracy,
            **of_gradients(gradients, y, outputs),
            "kernel_alignment": alignment,
            "sharpness": curvature.value,
            "sharpness_residual": curvature.residual,
        }

    return measure


def of_gradients(gradients, labels, classes):
    """All measures of per-example gradients, and `deviations` [identity] from what algebra says."""
    import jax.numpy as jnp

    from coherence import metrics

    pooled = metrics.pool(gradients, variances=True)
    stiffness = metrics.stiffness_by_group(gradients, labels, num_groups=classes)
    confusion = metrics.gradient_confusion(gradients)
    measures = {
        "m_coherence": metrics.m_coherence(pooled),
        "alpha": metrics.alpha(pooled),
        "alpha_unbiased": metrics.alpha_unbiased(pooled),
        "diversity": metrics.gradient_diversity(pooled),
        "noise_scale": metrics.noise_scale(pooled),
        "generalization_ratio": metrics.one_step_generalization_ratio(pooled),
        "mean_gsnr": metrics.mean_gsnr(pooled),
        "evidence": metrics.evidence(pooled),
        "cosine_stiffness": metrics.cosine_stiffness(gradients),
        "sign_stiffness": metrics.sign_stiffness(gradients),
        "within": stiffness.within,
        "between": stiffness.between,
        "negative_share": confusion.negative_share,
        "minimum_cosine": confusion.minimum_cosine,
        "confusion_bound": confusion.bound,
        "disparity": metrics.gradient_disparity(gradients, 5),
        "gradient_norm": metrics.gradient_norm(pooled),
    }
    return {**measures, "deviations": jnp.stack(deviations(measures, gradients, pooled))}


def deviations(measures, gradients, pooled):
    """Relative deviations of m-coherence, or of the evidence, from what other measures imply."""
    import jax
    import jax.numpy as jnp

    from coherence import metrics
    from coherence.gradients import gram

    m, onto_all, products = pooled.m, measures["generalization_ratio"], gram(gradients)
    of_unbiased = lambda alpha: 1 + (m - 1) * alpha
    of_coordinates = jax.tree.map(
        lambda r, q: jnp.nansum(q * r / (1 + r)), metrics.gsnr(pooled), pooled.second_moments
    )
    squares = sum(q.sum() for q in jax.tree.leaves(pooled.second_moments))
    implied = [
        1 / measures["diversity"],
        of_unbiased(1 / (1 + measures["noise_scale"])),
        of_unbiased(onto_all / (m - (m - 1) * onto_all)),
        m * sum(jax.tree.leaves(of_coordinates)) / squares,
        products.sum() / jnp.trace(products),
    ]
    ratios = [
        *(coherence / measures["m_coherence"] for coherence in implied),
        (1 - measures["evidence"]) / ((m - 1) * measures["mean_gsnr"]),
    ]
    return [jnp.abs(ratio - 1) for ratio in ratios]


@dataclass(frozen=True)
class Settings:
    run: Compared = Compared()
    seeds: int = 8


_SMALL = Compared(
    data=digits(),
    model=MLP(width=32),
    steps=150,
    points_per_decade=4,
    sample=100,
    kernel=10,
)
_LARGE = Compared(
    data=mnist(), model=MLP(width=2048), optimizer=sgd(0.1), steps=100_000, sample=1000
)
PRESETS = {"smoke": Settings(_SMALL, seeds=2), "cpu": Settings(), "paper": Settings(_LARGE)}

# What was fixed when: every statistic and threshold before any measure had been read. Seen before:
# the training loss of one seed (101), true and random labels, on which step size, length and levels
# rest. In other experiments of this toolkit, at a step size of 0.1, random labels reach a high
# m-coherence late in training: hence the small step, and levels that are judged one by one.


IDENTITIES = (
    "diversity is 1 / m-coherence",
    "noise scale is 1 / alpha - 1",
    "generalization ratio is alpha of the step",
    "alpha is the mean of r / (1 + r)",
    "alpha is the mean over pairs",
    "evidence is 1 - (m - 1) GSNR",
)


def arms(settings):
    return {name: replace(settings.run, noise=label_noise(noise)) for name, noise in ARMS.items()}


def record(settings, runs):
    """Measures at equal training losses, [seed, loss], and their ranks' agreement over each run.

    The agreement is [seed, measure, measure].
    """
    arrays = {
        "losses": np.array(LOSSES),
        "levels": np.array(LEVELS),
        "measures": np.array(list(MEASURES)),
        "sample": settings.run.sample,
    }
    others = ("test_accuracy", "sharpness_residual", "deviations")
    for arm, seeds in runs.items():
        curves = stacked(seeds, "train_loss", *others, *MEASURES, *GUISES)
        loss = curves["train_loss"]
        at_losses = {
            name: first_at(loss[:, None], curves[name][:, None], LOSSES, falling=True)
            for name in (*MEASURES, *GUISES)
        }
        turned = np.stack([measure.sense * curves[name] for name, measure in MEASURES.items()], 1)
        agreements = np.array([agreement(*pair) for pair in zip(loss, turned)])
        largest = {name: curves[name].max(1) for name in ("deviations", "sharpness_residual")}
        final = np.stack([loss[:, -1], curves["test_accuracy"][:, -1]], -1)
        single_precision = single(at_losses | {"agreement": agreements})
        arrays |= under(arm, {**single_precision, **largest, "final": final})
    return arrays


def agreement(loss, values, lowest=LOSSES[-1]):
    """Spearman's rank correlation of measures [measure, time] until the loss falls to the lowest.

    nan for one that is constant.
    """
    from scipy.stats import rankdata

    below = np.flatnonzero(loss <= lowest)
    ranks = rankdata(values[:, : below[0] + 1 if below.size else None], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.corrcoef(ranks)


def differences(recorded, name):
    """True against random labels at LOSSES, [seed, loss]: log2 ratio or difference."""
    real, random = (recorded[f"{arm}/{name}"].astype(float) for arm in ARMS)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log2(real / random) if MEASURES[name].ratio else real - random


def judge(recorded):
    places, tested = {level: LOSSES.index(level) for level in LEVELS}, {}
    for level, k in places.items():
        pair = (recorded[f"{arm}/m_coherence"][:, k] for arm in ARMS)
        ratio = alpha_ratio(*pair, int(recorded["sample"]))
        tested[f"m-coherence separates at {level:g}"] = ratio
    for name, measure in MEASURES.items():
        if name not in UNCLAIMED:
            apart = differences(recorded, name)
            tested[f"{measure.label} separates"] = {
                f"{level:g} nats": apart[:, k] for level, k in places.items()
            }
    largest = np.maximum(*(recorded[f"{arm}/deviations"] for arm in ARMS))
    return tested | dict(zip(IDENTITIES, largest.T))


def separation(values, sense):
    """Mean over standard deviation of differences by seed, and whether that is a separation.

    The sign is + where theory expects it.
    """
    mean, low, high = interval(values)
    if np.isnan(low) or low == high:
        return "-", "-"
    size = sense * mean / np.std(values, ddof=1)
    return f"{size:+.1f}", "no" if low <= 0 <= high else "yes" if size > 0 else "reversed"


def table(recorded):
    m, rows, guises = int(recorded["sample"]), [], []

    def at(name, level):
        index = LOSSES.index(level)
        return {
            "true" if arm == "real" else arm: recorded[f"{arm}/{name}"][:, index] for arm in ARMS
        }

    for name, measure in MEASURES.items():
        for level in LEVELS:
            apart = differences(recorded, name)[:, LOSSES.index(level)]
            size, separates = separation(apart, measure.sense)
            rows.append(
                {
                    "measure": measure.label,
                    "nats": f"{level:g}",
                    **at(name, level),
                    "difference": apart,
                    "": "doublings" * measure.ratio,
                    "size": size,
                    "separates": separates,
                }
            )
    for level in LEVELS:
        place = {"nats": f"{level:g}"}
        guises += [
            {"measure": name.replace("_", " "), **place, **at(name, level)} for name in GUISES
        ]
        cosines = at("cosine_stiffness", level).items()
        equally_long = {label: 1 + (m - 1) * cosine for label, cosine in cosines}
        guises.append({"measure": "m-coherence, if all were equally long", **place, **equally_long})
    finals = []
    for arm in ARMS:
        loss, test = map(plus_minus, recorded[f"{arm}/final"].T)
        finals.append(f"{arm} labels, training loss {loss}, test accuracy {test}")
    residual = max(recorded[f"{arm}/sharpness_residual"].max() for arm in ARMS)
    note = (
        f"at so many nats of training loss, on {m} training examples; size: mean difference over\n"
        "its standard deviation, + as theory has it; separates: by its own interval, unadjusted.\n"
        f"Nothing is expected between classes. At the end: {'; '.join(finals)}.\n"
        f"Largest residual of a sharpness: {residual:.2g}"
    )
    return f"{tabulate(rows, note)}\n\nfunctions of these\n{tabulate(guises)}"
