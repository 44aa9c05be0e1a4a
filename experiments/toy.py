"""Six features, four examples, every number known in closed form: what is shared is learned first,
and generalizes.

In the *learnable* set the sixth feature is shared by all examples, in the *memorizable* set each
example has only its own. Gradient descent on a linear model puts 4/5 of the learnable set's weight
on the shared feature and has to memorize the other set example by example. The coordinate-wise
median of the examples' gradients learns what is shared and nothing else.
"""

from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import single, stacked, tabulate, under
from coherence.lab.experiment import all_arms
from coherence.lab.settings import Probing, average, learnable, median, memorizable, sgd
from coherence.lab.training.regression import Regression
from coherence.probes.schedules import Every

EXAMPLES = 4
CURVES = (*("train_loss", "test_loss", "train/weights", "train/gradients", "train/m_coherence"),)
EARLY = 50  # alpha of gradients that have shrunk to rounding error says nothing


@dataclass(frozen=True)
class Settings:
    learning_rate: float = 0.1
    steps: int = 300
    seeds: int = 1
    """Nothing here is random: one seed says all."""


PRESETS = {"smoke": Settings(steps=60), "cpu": Settings(), "paper": Settings()}
SOURCE_PRESETS = ("any",)
scale = all_arms


def weights(view):
    import jax

    return jax.tree.leaves(view.params)[0][:, 0]  # of the one kernel, [6, 1]


def gradients(view):
    import jax

    from coherence.gradients import materialize

    return jax.tree.leaves(materialize(view.few))[0][..., 0]


ALL = Probing(
    m=EXAMPLES, quantities=(weights, gradients, "m_coherence"), groups="none", when=Every(1)
)


def arms(settings):
    """Both sets, each by the mean and by the median of the gradients."""
    run = Regression(optimizer=sgd(settings.learning_rate), steps=settings.steps, probes=(ALL,))
    return {
        f"{name}-{method}": replace(run, data=data, aggregator=aggregator)
        for name, data in {"learnable": learnable(), "memorizable": memorizable()}.items()
        for method, aggregator in {"mean": average(), "median": median()}.items()
    }


def record(settings, runs):
    arrays = {"learning_rate": settings.learning_rate}
    for arm, seeds in runs.items():
        curves = stacked(seeds[:1], *CURVES)
        curves = {name.removeprefix("train/"): values for name, values in curves.items()}
        arrays["step"] = curves.pop("step")
        curves["alpha"] = curves.pop("m_coherence") / EXAMPLES
        curves["mean_gradient"] = curves["gradients"].mean(2)
        curves["gradients"] = curves["gradients"][:, :1]  # the others would fill the file
        arrays |= under(arm, single(curves))
    return arrays


def _deviation(recorded, arm, limits, rate):
    """Largest deviation of the weights from limits (1 - (1 - learning rate * rate)^t)."""
    shrink = (1 - float(recorded["learning_rate"]) * rate) ** recorded["step"]
    return np.abs(recorded[f"{arm}/weights"][0] - (1 - shrink)[:, None] * np.asarray(limits)).max()


def judge(recorded):
    m, private = EXAMPLES, np.array([1.0, 1, 1, 1, 0])
    shared, own = m / (m + 1), 1 / (m + 1)
    alphas = [
        np.abs(recorded[f"{arm}-mean/alpha"][0][:EARLY] - value).max()
        for arm, value in (("learnable", 0.625), ("memorizable", 0.25))
    ]
    alone = _deviation(recorded, "memorizable-mean", [*private, 0], 1 / m)
    constant = np.abs(recorded["memorizable-mean/test_loss"] - 0.5).max()
    limits = [*(own * private), shared]
    return {
        "shared feature wins": _deviation(recorded, "learnable-mean", limits, 1 + 1 / m),
        "memorized one by one": max(alone, constant),
        "coherence tells them apart": max(alphas),
        "the median keeps the shared": _deviation(
            recorded, "learnable-median", [*(0 * private), 1], 1
        ),
        "the median memorizes nothing": np.abs(recorded["memorizable-median/weights"]).max(),
    }


def table(recorded):
    rows = []
    for arm in ("learnable-mean", "learnable-median", "memorizable-mean", "memorizable-median"):
        last = lambda name, arm=arm: recorded[f"{arm}/{name}"][0, -1]
        numbers = {
            "train loss": last("train_loss"),
            "test loss": last("test_loss"),
            "private weight": last("weights")[0],
            "shared weight": last("weights")[5],
            "alpha at the start": recorded[f"{arm}/alpha"][0, 0],
        }
        cells = {heading: f"{number:.4f}" for heading, number in numbers.items()}
        rows.append({"set, gradient": arm.replace("-", ", "), **cells})
    return tabulate(rows)
