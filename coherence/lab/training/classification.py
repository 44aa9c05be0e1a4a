"""A classifier trained under label noise: the settings of one run, and the problem they make.

The settings are plain values (no JAX here); `build` imports what it needs.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from coherence.lab.data.settings import MNIST, Digits, LabelNoise, Npz, SMSSpam
from coherence.lab.models.settings import AnyModel, FullyConnected
from coherence.optim.settings import (
    SGD,
    AnyAggregator,
    AnyDecay,
    AnyOptimizer,
    Average,
    SoftThreshold,
)
from coherence.optim.stopping.settings import (
    AnyOf,
    Coherence,
    Evidence,
    GradientNorm,
    MaxSteps,
    Never,
    Patience,
)
from coherence.probes.schedules import Log
from coherence.probes.settings import Probing

from .samples import called, check_names, chosen, probe, stream

_PARAMS, _LABELS, _SAMPLE = range(3)  # what a seed's separate random streams are for


@dataclasses.dataclass(frozen=True)
class Classification:
    """One run: data and its noise, network, aggregator and optimizer, how long, and what is measured."""

    data: Digits | MNIST | Npz | SMSSpam = Digits()
    noise: LabelNoise = LabelNoise()
    model: AnyModel = FullyConnected()
    aggregator: AnyAggregator = Average()
    optimizer: AnyOptimizer = SGD()
    decay: AnyDecay = None
    """A background force toward zero: L1 and L2 pull in front of the optimizer, a soft threshold cuts behind it."""
    batch_size: int = 100
    steps: int = 2000
    points_per_decade: int = 8
    """How many measurements of loss and accuracy a decade of steps gets."""
    probes: tuple[Probing, ...] = (Probing(),)
    """What else is measured, on which samples, and when."""
    track_batches: bool = True
    """Record the norms of every batch's gradients: coherence at every step."""
    stopping: Never | Patience | Evidence | Coherence | GradientNorm | MaxSteps | AnyOf = Never()
    """When to stop early; asked at every measurement, of the first probe's training examples where it looks at gradients."""

    def __post_init__(self):
        check_names(self.probes)

    def describe(self):
        """What was run, in a few words: `digits (1,437 examples), MLP 64-256-10`."""
        data = _load(self.data)
        net = self.model.describe(int(data.x_train[0].size), data.outputs)
        return f"{data.name} ({len(data.y_train):,} examples), {net}"

    def schedule(self):
        """The steps at which to measure."""
        return Log(self.points_per_decade).steps(self.steps)

    def _transformations(self):
        if self.decay is None:
            return self.aggregator, self.optimizer
        if isinstance(self.decay, SoftThreshold):
            return self.aggregator, self.optimizer, self.decay
        return self.aggregator, self.decay, self.optimizer

    def build(self, seed):
        """The `Problem` of one seed; its label noise is drawn here, once."""
        import jax

        from coherence import metrics
        from coherence.gradients.transform import per_example_value_and_grad
        from coherence.lab.tasks.classification import cross_entropy, evaluate
        from coherence.optim.chaining import chain

        from .problem import Problem

        clean = _load(self.data)
        data, corrupt = self.noise.apply(clean, seed=stream(seed, _LABELS))
        model = self.model.build(data.outputs)
        params = model.init(jax.random.key(stream(seed, _PARAMS)), clean.x_train[:1])
        loss, score = cross_entropy(model), evaluate(model)
        arrays = {
            "train": (clean.x_train, data.y_train),
            "test": (clean.x_test, clean.y_test),
            "corrupt": corrupt,
        }
        rng = np.random.default_rng(stream(seed, _SAMPLE))
        samples = {
            probing: chosen(probing, corrupt, len(clean.y_test), rng) for probing in self.probes
        }
        labels = {"train": data.y_train, "test": clean.y_test}
        probes = [
            probe(
                probing, loss, arrays, index, corrupt=corrupt, labels=labels, classes=data.outputs
            )
            for probing, index in samples.items()
            if len(index) > 1
        ]
        stopping = self.stopping.build()
        asked = {
            name: f for name, f in _gradient_quantities(metrics).items() if name in _names(stopping)
        }
        if asked:
            arrays["sample"] = _stopping_sample(samples)

        def measure(params, arrays):
            (x, y), corrupt = arrays["train"], arrays["corrupt"]
            train, pristine, wrong, test = (
                score(params, x, y),
                score(params, x, y, ~corrupt),
                score(params, x, y, corrupt),
                score(params, *arrays["test"]),
            )
            found = {}
            if asked:
                _, gradients = per_example_value_and_grad(loss)(
                    params, (x[arrays["sample"]], y[arrays["sample"]])
                )
                found = {name: quantity(gradients) for name, quantity in asked.items()}
            return {
                "train_loss": train.loss,
                "train_accuracy": train.accuracy,
                "test_loss": test.loss,
                "test_accuracy": test.accuracy,
                "pristine_accuracy": pristine.accuracy,
                "corrupt_accuracy": wrong.accuracy,
                **found,
            }

        return Problem(
            loss=loss,
            params=params,
            data=arrays,
            optimizer=chain(*(one.build() for one in self._transformations())),
            per_example=self.aggregator.per_example,
            measure=measure,
            track_batches=self.track_batches,
            stopping=stopping,
            drawn={
                "labels": data.y_train,
                "corrupt": corrupt,
                **{f"sample-{called(one)}": index for one, index in samples.items()},
            },
            probes=tuple(probes),
        )


@functools.lru_cache(maxsize=4)
def _load(data):
    """One copy of the arrays for all seeds: what they share is then held once on the device."""
    return data.build()


def _stopping_sample(samples):
    for probing, index in samples.items():
        if probing.of == "train":
            return index
    raise ValueError(
        "the stopping rule looks at gradients of training examples: add a probe of them, Probing(of='train')."
    )


def _gradient_quantities(metrics):
    return {
        "m_coherence": metrics.m_coherence,
        "evidence": metrics.evidence,
        "gradient_norm": metrics.gradient_norm,
    }


def _names(stopping):
    """The quantities a rule watches: those that cost something are measured only then."""
    names = () if stopping is None else stopping[1]
    return names if isinstance(names, tuple) else (names,)
