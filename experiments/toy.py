"""Six features, four examples, every number known in closed form: what is shared is learned first,
and generalizes.

In the *learnable* set the sixth feature is shared by all examples, in the *memorizable* set each
example has only its own. Gradient descent on a linear model puts 4/5 of the learnable set's weight
on the shared feature and has to memorize the other set example by example. The coordinate-wise
median of the examples' gradients learns what is shared and nothing else.
"""

from dataclasses import dataclass

import numpy as np

from coherence.lab.analysis import single, stacked, tabulate, under
from coherence.lab.settings import average, learnable, median, memorizable, sgd

EXAMPLES = 4
CURVES = ("train_loss", "test_loss", "weights", "mean_gradient", "gradients", "alpha")
EARLY = 50  # alpha of gradients that have shrunk to rounding error says nothing


@dataclass(frozen=True)
class Settings:
    learning_rate: float = 0.1
    steps: int = 300
    seeds: int = 1
    """Nothing here is random: one seed says all."""


PRESETS = {"smoke": Settings(steps=60), "cpu": Settings(), "paper": Settings()}
SOURCE_PRESET = "any"


@dataclass(frozen=True)
class Toy:
    """One run: full-batch gradient descent on a linear model without bias that starts at zero."""

    data: learnable | memorizable = learnable()
    aggregator: average | median = average()
    learning_rate: float = 0.1
    steps: int = 300
    batch_size: int = EXAMPLES

    def describe(self):
        return "the six-feature sets, linear model"

    def schedule(self):
        return tuple(range(self.steps + 1))

    def build(self, seed):
        import jax

        from coherence import alpha, mean, per_example_value_and_grad
        from coherence.gradients import materialize
        from coherence.lab.models.linear import Linear
        from coherence.lab.tasks.regression import evaluate, half_squared_error
        from coherence.lab.training.problem import Problem
        from coherence.optim import chain

        data, aggregator = self.data.build(), self.aggregator.build()
        model = Linear(data.outputs)
        loss, score = half_squared_error(model), evaluate(model)

        def measure(params, arrays):
            _, gradients = per_example_value_and_grad(loss)(params, arrays["train"])
            flat = lambda tree: jax.tree.leaves(tree)[0][..., 0]  # the one kernel, [6, 1]
            return {
                "train_loss": score(params, *arrays["train"]),
                "test_loss": score(params, *arrays["test"]),
                "weights": flat(params),
                "mean_gradient": flat(mean(gradients)),
                "gradients": flat(materialize(gradients)),
                "alpha": alpha(gradients),
            }

        return Problem(
            loss=loss,
            params=model.init(jax.random.key(seed), data.x_train[:1]),
            data={"train": (data.x_train, data.y_train), "test": (data.x_test, data.y_test)},
            optimizer=chain(aggregator, sgd(self.learning_rate).build()),
            per_example=not aggregator.takes_batch_gradient,
            measure=measure,
        )


def arms(settings):
    """Both sets, each by the mean and by the median of the gradients."""
    return {
        f"{name}-{method}": Toy(data, aggregator, settings.learning_rate, settings.steps)
        for name, data in {"learnable": learnable(), "memorizable": memorizable()}.items()
        for method, aggregator in {"mean": average(), "median": median()}.items()
    }


def record(settings, runs):
    arrays = {"learning_rate": settings.learning_rate}
    for arm, seeds in runs.items():
        curves = stacked(seeds[:1], *CURVES)
        arrays["step"] = curves.pop("step")
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
