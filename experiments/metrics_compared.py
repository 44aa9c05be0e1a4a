"""Many measures of how gradients agree, on the same runs: some are one number in several guises, and not all tell true from random labels.

The same network is trained on true and on permuted labels. Of one fixed sample of training examples
everything the toolkit knows to measure is measured, and compared where both runs have the same
training loss. Measures that algebra makes one are checked against each other at every measurement.
For the others it is asked whether they order true and random labels as theory would have it, at
every loss, and whether they rank the moments of a training run alike.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from coherence.lab.analysis import first_at, stacked
from coherence.lab.claims import Source, above, below, exactly, interval
from coherence.lab.report.tables import aligned, plus_minus
from coherence.lab.settings import CNN, MLP, digits, label_noise, mnist, npz, sgd
from coherence.lab.training.classification import Classification

LEVELS = (
    2.0,
    1.5,
    1.0,
    0.5,
    0.2,
)  # training loss in nats at which claims are judged; log 10 = 2.3 at chance
LOSSES = (2.2, 2.0, 1.8, 1.5, 1.2, 1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.25, 0.2)  # and drawn
ARMS = {"real": 0.0, "random": 1.0}
EXACT = 1e-3  # what float32 sums over all parameters leave of an identity, relative


class Measure(NamedTuple):
    """How a measure is compared: `sense` +1 where true labels should have more of it; as a ratio (doublings) or a difference."""

    label: str
    sense: int
    ratio: bool
    source: str


MEASURES = {
    "m_coherence": Measure("m-coherence", +1, True, "Chatterjee & Zielinski, arXiv:2203.10036"),
    "cosine_stiffness": Measure("cosine stiffness", +1, False, "Fort et al., arXiv:1901.09491"),
    "sign_stiffness": Measure("sign stiffness", +1, False, "Fort et al., arXiv:1901.09491"),
    "within": Measure("stiffness within classes", +1, False, "Fort et al., arXiv:1901.09491"),
    "between": Measure("stiffness between classes", +1, False, "Fort et al., arXiv:1901.09491"),
    "negative_share": Measure(
        "share of opposed pairs", -1, False, "Sankararaman et al., arXiv:1904.06963"
    ),
    "minimum_cosine": Measure("lowest cosine", +1, False, "Sankararaman et al., arXiv:1904.06963"),
    "confusion_bound": Measure(
        "confusion bound", -1, True, "Sankararaman et al., arXiv:1904.06963"
    ),
    "disparity": Measure("disparity", -1, True, "Forouzesh & Thiran, arXiv:2107.06665"),
    "mean_gsnr": Measure("mean GSNR", +1, True, "Liu et al., arXiv:2001.07384"),
    "gradient_norm": Measure("gradient norm", +1, True, "Chatterjee, arXiv:2002.10657"),
    "kernel_alignment": Measure("kernel alignment", +1, False, "Shan & Bordelon, 2021"),
    "sharpness": Measure("sharpness", -1, True, "Keskar et al., arXiv:1609.04836"),
}
GUISES = (
    "alpha",
    "alpha_unbiased",
    "diversity",
    "noise_scale",
    "generalization_ratio",
    "evidence",
)  # functions of another measure
UNCLAIMED = ("m_coherence", "between")  # judged level by level; nothing is expected of it


@dataclasses.dataclass(frozen=True)
class Settings:
    data: digits | mnist | npz = mnist(examples=1000)
    model: MLP | CNN = MLP(width=128, depth=1)
    learning_rate: float = 0.05
    batch_size: int = 100
    steps: int = 3600
    points_per_decade: int = 16
    sample: int = 500
    """Training examples that are measured."""
    kernel: int = 64
    """Those of them that the tangent kernel is made of."""
    seeds: int = 8


PRESETS = {
    "smoke": Settings(
        data=digits(),
        model=MLP(width=32),
        steps=150,
        points_per_decade=4,
        sample=100,
        kernel=10,
        seeds=2,
    ),
    "cpu": Settings(),
    "paper": Settings(
        data=mnist(),
        model=MLP(width=2048, depth=1),
        learning_rate=0.1,
        steps=100_000,
        sample=1000,
    ),
}

# What was fixed when: every statistic and threshold before any measure had been read. Seen before:
# the training loss of one seed (101), true and random labels, on which step size, length and levels
# rest. In other experiments of this toolkit, at a step size of 0.1, random labels reach a high
# m-coherence late in training: hence the small step, and levels that are judged one by one.
_EVERY = f"over training losses of {', '.join(f'{level:g}' for level in LEVELS)} nats"
_ORDER = "the order is what the theory of coherent gradients suggests"
_ALGEBRA = Source("algebra of the definitions", "derived")
_RELATIVE = (
    "largest relative deviation over all measurements of a run with true and one with random labels"
)


def _separates(name):
    label, sense, ratio, source = MEASURES[name]
    more, extreme = ("more", "smallest") if sense > 0 else ("less", "largest")
    what = "log2 ratio" if ratio else "difference"
    return Source(f"{source}, for the measure; {_ORDER}", "remembered").claim(
        f"{label} separates",
        f"At equal training loss true labels have {more} of it than random labels: {label}.",
        f"{what}, true against random labels; {extreme} {_EVERY}",
        (above if sense > 0 else below)(0, "doublings" * ratio),
    )


IDENTITIES = {
    "diversity is 1 / m-coherence": "Gradient diversity is one over m-coherence.",
    "noise scale is 1 / alpha - 1": "The simple noise scale is 1 / alpha - 1, with alpha estimated without bias.",
    "generalization ratio is alpha of the step": "The one-step generalization ratio is n alpha / (1 + (n - 1) alpha): alpha of the mean.",
    "alpha is the mean of r / (1 + r)": "Alpha is the mean over parameters of r / (1 + r), r their GSNR, weighted by squared gradients.",
    "alpha is the mean over pairs": "Alpha is the mean inner product of all pairs over the mean squared length.",
    "evidence is 1 - (m - 1) GSNR": "The evidence is a function of the mean GSNR.",
}
CLAIMS = (
    *(
        Source("Chatterjee & Zielinski, arXiv:2203.10036, Section 6", "read").claim(
            f"m-coherence separates at {level:g}",
            f"At a training loss of {level:g} nats gradients are more coherent on true than on "
            "random labels.",
            "log2 of m-coherence on true over random labels, fixed sample, at a training loss of "
            f"{level:g} nats",
            above(0, "doublings"),
        )
        for level in LEVELS
    ),
    *(_separates(name) for name in MEASURES if name not in UNCLAIMED),
    *(
        _ALGEBRA.claim(name, text, _RELATIVE, exactly(0, EXACT))
        for name, text in IDENTITIES.items()
    ),
)


@dataclasses.dataclass(frozen=True)
class Compared(Classification):
    """A classifier; at every measurement, all measures of a fixed sample of its training examples."""

    sample: int = 500
    kernel: int = 64

    def build(self, seed):
        problem, outputs = super().build(seed), self.data.build().outputs
        fixed = np.random.default_rng([seed, 3]).permutation(len(problem.data["corrupt"]))[
            : self.sample
        ]
        return dataclasses.replace(
            problem,
            data={**problem.data, "fixed": fixed},
            measure=measuring(self.model, outputs, self.kernel),
        )


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
        curvature = metrics.sharpness(
            loss, params, (x, y), jax.random.key(0), iterations=40, tolerance=0.02
        )
        return {
            "train_loss": score(params, *arrays["train"]).loss,
            "test_accuracy": score(params, *arrays["test"]).accuracy,
            **of_gradients(gradients, y, outputs),
            "kernel_alignment": metrics.tangent_kernel_alignment(
                model.apply, params, x[:kernel], targets
            ),
            "sharpness": curvature.value,
            "sharpness_residual": curvature.residual,
        }

    return measure


def of_gradients(gradients, labels, classes):
    """All measures of per-example gradients, and how far they are from what algebra says of them (`deviations`, as IDENTITIES)."""
    import jax.numpy as jnp

    from coherence import metrics

    pooled = metrics.pool(gradients, variances=True)
    stiffness, confusion = (
        metrics.stiffness_by_group(gradients, labels, num_groups=classes),
        metrics.gradient_confusion(gradients),
    )
    found = {
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
    return {**found, "deviations": jnp.stack(deviations(found, gradients, pooled))}


def deviations(found, gradients, pooled):
    """Relative, of m-coherence as each other measure implies it; of the evidence as the GSNR implies it."""
    import jax
    import jax.numpy as jnp

    from coherence import gram, metrics

    m, onto_all, products = pooled.m, found["generalization_ratio"], gram(gradients)
    of_unbiased = lambda alpha: 1 + (m - 1) * alpha
    of_coordinates = jax.tree.map(
        lambda r, q: jnp.nansum(q * r / (1 + r)), metrics.gsnr(pooled), pooled.second_moments
    )
    implied = [
        1 / found["diversity"],
        of_unbiased(1 / (1 + found["noise_scale"])),
        of_unbiased(onto_all / (m - (m - 1) * onto_all)),
        m
        * sum(jax.tree.leaves(of_coordinates))
        / sum(q.sum() for q in jax.tree.leaves(pooled.second_moments)),
        products.sum() / jnp.trace(products),
    ]
    ratios = [one / found["m_coherence"] for one in implied] + [
        (1 - found["evidence"]) / ((m - 1) * found["mean_gsnr"])
    ]
    return [jnp.abs(ratio - 1) for ratio in ratios]


def arms(settings):
    return {
        name: Compared(
            data=settings.data,
            noise=label_noise(noise),
            model=settings.model,
            optimizer=sgd(settings.learning_rate),
            batch_size=settings.batch_size,
            steps=settings.steps,
            points_per_decade=settings.points_per_decade,
            probes=(),
            track_batches=False,
            sample=settings.sample,
            kernel=settings.kernel,
        )
        for name, noise in ARMS.items()
    }


def record(settings, runs):
    """Measures at equal training losses, [seed, loss]; their ranks' agreement over each run, [seed, measure, measure]."""
    arrays = {
        "losses": np.array(LOSSES),
        "levels": np.array(LEVELS),
        "measures": np.array(list(MEASURES)),
        "sample": settings.sample,
    }
    for arm, seeds in runs.items():
        found = stacked(
            seeds,
            "train_loss",
            "test_accuracy",
            "sharpness_residual",
            "deviations",
            *MEASURES,
            *GUISES,
        )
        loss = found["train_loss"]
        at = lambda values: np.array(
            [first_at(*pair, LOSSES, falling=True) for pair in zip(loss, values)], np.float32
        )
        arrays |= {f"{arm}/{name}": at(found[name]) for name in (*MEASURES, *GUISES)}
        turned = np.stack([measure.sense * found[name] for name, measure in MEASURES.items()], 1)
        arrays[f"{arm}/agreement"] = np.array(
            [agreement(*pair) for pair in zip(loss, turned)], np.float32
        )
        arrays |= {
            f"{arm}/{name}": found[name].max(1) for name in ("deviations", "sharpness_residual")
        }
        arrays[f"{arm}/final"] = np.stack([loss[:, -1], found["test_accuracy"][:, -1]], -1)
    return arrays


def agreement(loss, values, lowest=LOSSES[-1]):
    """Spearman's rank correlation of measures [measure, time] until the loss first falls to the lowest; nan for one that is constant."""
    from scipy.stats import rankdata

    below = np.flatnonzero(loss <= lowest)
    ranks = rankdata(values[:, : below[0] + 1 if below.size else None], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.corrcoef(ranks)


def differences(recorded, name):
    """True against random labels at every loss of LOSSES, [seed, loss]: log2 ratio or difference, as the measure has it."""
    real, random = (recorded[f"{arm}/{name}"].astype(float) for arm in ARMS)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log2(real / random) if MEASURES[name].ratio else real - random


def judge(recorded):
    judged = {
        name: differences(recorded, name)[:, [LOSSES.index(level) for level in LEVELS]]
        for name in MEASURES
    }
    found = {
        f"m-coherence separates at {level:g}": (judged["m_coherence"][:, k], None)
        for k, level in enumerate(LEVELS)
    }
    for name, (label, sense, *_) in MEASURES.items():
        if name not in UNCLAIMED:
            found[f"{label} separates"] = (
                judged[name].min(1) if sense > 0 else judged[name].max(1),
                None,
            )
    return found | dict(
        zip(
            IDENTITIES,
            ((one, None) for one in np.maximum(*(recorded[f"{arm}/deviations"] for arm in ARMS)).T),
        )
    )


def separation(values, sense):
    """Mean over standard deviation of differences by seed, + where theory expects it; and whether that is a separation."""
    mean, low, high = interval(values)
    if np.isnan(low) or low == high:
        return "-", "-"
    size = sense * mean / np.std(values, ddof=1)
    return f"{size:+.1f}", "no" if low <= 0 <= high else "yes" if size > 0 else "reversed"


def table(recorded):
    m, rows, guises = int(recorded["sample"]), [], []
    at = lambda name, level: [recorded[f"{arm}/{name}"][:, LOSSES.index(level)] for arm in ARMS]
    for name, measure in MEASURES.items():
        for level in LEVELS:
            apart = differences(recorded, name)[:, LOSSES.index(level)]
            cells = map(plus_minus, (*at(name, level), apart))
            rows.append(
                [
                    measure.label,
                    f"{level:g}",
                    *cells,
                    "doublings" * measure.ratio,
                    *separation(apart, measure.sense),
                ]
            )
    for level in LEVELS:
        guises += [
            [name.replace("_", " "), f"{level:g}", *map(plus_minus, at(name, level))]
            for name in GUISES
        ]
        equally_long = [1 + (m - 1) * cosine for cosine in at("cosine_stiffness", level)]
        guises.append(
            ["m-coherence, if all were equally long", f"{level:g}", *map(plus_minus, equally_long)]
        )
    header = ["measure", "nats", "true", "random", "difference", "", "size", "separates"]
    note = (
        f"at so many nats of training loss, on {m} training examples; mean ± half of the 95 % interval over seeds; size: mean difference\n"
        "over its standard deviation, + as theory has it; separates: by its own interval, unadjusted. Nothing is expected between classes"
    )
    ends = {arm: recorded[f"{arm}/final"].T for arm in ARMS}
    end = [
        f"{arm} labels, training loss {plus_minus(loss)}, test accuracy {plus_minus(test)}"
        for arm, (loss, test) in ends.items()
    ]
    residual = max(recorded[f"{arm}/sharpness_residual"].max() for arm in ARMS)
    note = f"{note}\nat the end: {'; '.join(end)}. Largest residual of a sharpness: {residual:.2g}"
    return f"{aligned(header, rows)}\n{note}\n\nfunctions of these\n{aligned(header[:4], guises)}"
