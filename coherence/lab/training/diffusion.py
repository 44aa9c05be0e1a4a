"""The settings of a diffusion model, which learns to tell the noise in images, points or codes.

The settings are plain values (no JAX here); `build` imports what it needs.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from coherence.lab.settings import (
    Datasets,
    Denoisers,
    NoiseSchedules,
    Optimizers,
    UNet,
    adam,
    digits,
    linear_schedule,
)

from .generative import GenerativeRun
from .programs import PROGRAMS
from .run_settings import initial_parameters


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion(GenerativeRun):
    """Settings of a run: examples, noise predictor, noise, aggregator, optimizer, measurements.

    Examples are shifted and scaled by one number each, so that all their numbers together have mean
    0 and variance 1; `drawn` keeps both as `centre` and `scale`. Recorded is the mean of the loss,
    as `train_loss`, `test_loss` and so on: each example with one noise and one level of it, the
    same throughout the run. `coherence.lab.training.trained.samplers` draws with finished runs.

    >>> Diffusion(steps=10).batch_size
    32
    """

    data: Datasets = digits()
    """Folded into the model's shape."""
    model: Denoisers = UNet()
    """With `classes` it is told labels."""
    noise_schedule: NoiseSchedules = linear_schedule()
    label_dropout: float = 0.1
    """How often a network with classes is not told the label, so that it can be guided."""
    optimizer: Optimizers = adam(1e-3)
    batch_size: int = 32
    steps: int = 3000

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.label_dropout <= 1:
            raise ValueError(
                f"Diffusion(label_dropout): a share in [0, 1], got {self.label_dropout}."
            )

    def _takes_labels(self):
        return self.model.classes > 0

    def _terms(self, model, data):
        return PROGRAMS.get(_error, model, self.noise_schedule.build(), self.label_dropout)

    def _preparation(self, data):
        return _standardization(data)

    def _initial(self, model, key, x, *labels):
        return initial_parameters(model, key, x, np.zeros(1, np.int32), *labels)


@functools.lru_cache(maxsize=4)
def _standardization(data):
    """What makes a data set's numbers have mean 0 and variance 1; seeds share what it returns."""
    centre, scale = data.x_train.mean(dtype=np.float64), data.x_train.std(dtype=np.float64)
    if not scale > 0:
        raise ValueError(
            f"{data.name}: all numbers of the training examples are {centre:g}; diffusion needs "
            "examples that differ."
        )
    scaled = lambda x: ((x - centre) / scale).astype(np.float32)
    shared = {id(x): scaled(x) for x in (data.x_train, data.x_test)}

    def prepared(x):
        return shared[id(x)] if id(x) in shared else scaled(x)

    return prepared, {"centre": centre, "scale": scale}


def _error(model, schedule, label_dropout):
    from coherence.lab.tasks.diffusion import noise_prediction_error

    loss = noise_prediction_error(model, schedule, label_dropout=label_dropout)
    return lambda params, example: {"loss": loss(params, example)}
