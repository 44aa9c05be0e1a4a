"""A classifier trained under label noise: the settings of one run, and the problem they make.

The settings are plain values (no JAX here); `build` imports what it needs.
"""

from __future__ import annotations

import dataclasses
import functools

from ..data.settings import MNIST, Digits, LabelNoise, Npz
from ..models.settings import Convolutional, FullyConnected
from ..optim.settings import SGD, AnyAggregator, Average
from ..optim.stopping.settings import AnyOf, Coherence, Evidence, GradientNorm, MaxSteps, Never, Patience
from .schedule import log_spaced

_PARAMS, _LABELS, _SAMPLE = range(3)  # what a seed's separate random streams are for


@dataclasses.dataclass(frozen=True)
class Classification:
    """One run: data and its noise, network, aggregator and optimizer, how long, and what is measured."""

    data: Digits | MNIST | Npz = Digits()
    noise: LabelNoise = LabelNoise()
    model: FullyConnected | Convolutional = FullyConnected()
    aggregator: AnyAggregator = Average()
    optimizer: SGD = SGD()
    batch_size: int = 100
    steps: int = 2000
    sample: int = 500
    """Training examples in the fixed sample on which coherence is measured."""
    points_per_decade: int = 8
    """How many measurements a decade of steps gets."""
    track_batches: bool = True
    """Record the norms of every batch's gradients: coherence at every step."""
    stopping: Never | Patience | Evidence | Coherence | GradientNorm | MaxSteps | AnyOf = Never()
    """When to stop early; asked at every measurement, of the fixed sample."""

    def describe(self):
        """What was run, in a few words: `digits (1,437 examples), MLP 64-256-10`."""
        data = _load(self.data)
        inputs = int(data.x_train[0].size)
        if isinstance(self.model, FullyConnected):
            net = "MLP " + "-".join(map(str, [inputs, *[self.model.width] * self.model.depth, data.outputs]))
        else:
            net = "CNN " + "-".join(map(str, self.model.features))
        return f"{data.name} ({len(data.y_train):,} examples), {net}"

    def schedule(self):
        """The steps at which to measure."""
        return log_spaced(self.steps, self.points_per_decade)

    def build(self, seed):
        """The `Problem` of one seed; its label noise is drawn here, once."""
        import jax
        import numpy as np

        from .. import metrics
        from ..gradients.transform import per_example_value_and_grad
        from ..optim.chaining import chain
        from ..optim.stopping import evidence, gradient_norm
        from ..tasks.classification import cross_entropy, evaluate
        from .problem import Problem

        clean = _load(self.data)
        data, corrupt = self.noise.apply(clean, seed=_stream(seed, _LABELS))
        model = self.model.build(data.outputs)
        params = model.init(jax.random.key(_stream(seed, _PARAMS)), clean.x_train[:1])
        loss, score = cross_entropy(model), evaluate(model)
        examples = len(data.y_train)
        if not 2 <= self.sample <= examples:
            raise ValueError(f"sample must be between 2 and the {examples} training examples, got {self.sample}.")
        rng = np.random.default_rng(_stream(seed, _SAMPLE))
        arrays = {
            "train": (clean.x_train, data.y_train),
            "test": (clean.x_test, clean.y_test),
            "corrupt": corrupt,
            "sample": np.sort(rng.choice(examples, self.sample, replace=False)),
        }
        stopping = self.stopping.build()
        asked = {name: f for name, f in (("evidence", evidence), ("gradient_norm", gradient_norm)) if name in _names(stopping)}

        def measure(params, arrays):
            (x, y), corrupt, sample = arrays["train"], arrays["corrupt"], arrays["sample"]
            train, pristine, wrong, test = (
                score(params, x, y),
                score(params, x, y, ~corrupt),
                score(params, x, y, corrupt),
                score(params, *arrays["test"]),
            )
            _, gradients = per_example_value_and_grad(loss)(params, (x[sample], y[sample]))
            return {
                "train_loss": train.loss,
                "train_accuracy": train.accuracy,
                "test_loss": test.loss,
                "test_accuracy": test.accuracy,
                "pristine_accuracy": pristine.accuracy,
                "corrupt_accuracy": wrong.accuracy,
                "m_coherence": metrics.m_coherence(gradients),
                "m_coherence_by_group": metrics.m_coherence(gradients, groups=corrupt[sample]),
                **{name: quantity(gradients) for name, quantity in asked.items()},
            }

        return Problem(
            loss=loss,
            params=params,
            data=arrays,
            optimizer=chain(self.aggregator.build(), self.optimizer.build()),
            per_example=self.aggregator.per_example,
            measure=measure,
            track_batches=self.track_batches,
            stopping=stopping,
            drawn={"labels": data.y_train, "corrupt": corrupt, "sample": arrays["sample"]},
        )


@functools.lru_cache(maxsize=4)
def _load(data):
    """One copy of the arrays for all seeds: what they share is then held once on the device."""
    return data.build()


def _names(stopping):
    """The quantities a rule watches: those that cost something are measured only then."""
    names = () if stopping is None else stopping[1]
    return names if isinstance(names, tuple) else (names,)


def _stream(seed, purpose):
    """Independent integers for the purposes of one seed."""
    return seed * 1000 + purpose
