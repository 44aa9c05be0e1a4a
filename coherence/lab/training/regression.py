"""A model fitted to numbers by full-batch gradient descent: the settings of one run.

The settings are plain values (no JAX here); `build` imports what it needs.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from coherence.lab.settings import Datasets, Linear, Networks, Probing, learnable
from coherence.probes.schedules import Every

from .programs import PROGRAMS
from .run_settings import RunSettings, initial_parameters, load
from .samples import make_probes, stream_key

if TYPE_CHECKING:
    from .problem import Problem

_PARAMS, _SAMPLE, _DATA = range(3)  # what a seed's separate random streams are for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(RunSettings):
    """Settings of a run: data with numbers as targets, model, aggregator, optimizer, measurements.

    The loss is half the squared error. Recorded are its means over the training and over the test
    examples. The batch is all of the training examples.

    >>> Regression(steps=10).steps
    10
    """

    data: Datasets = learnable()
    model: Networks = Linear()
    batch_size: int = 4
    steps: int = 300
    every: int = 1
    """Steps between two measurements."""
    probes: tuple[Probing, ...] = ()
    track_batches: bool = False

    def describe(self) -> str:
        """What was run, in a few words: `learnable (4 examples), linear map 6-1`."""
        data, _ = self._drawn(load, 0, _DATA)
        net = self.model.build(data.outputs).describe(data.x_train[0].size)
        return f"{self._described(load)}, {net}"

    def schedule(self) -> tuple[int, ...]:
        """Every so many steps, from 0 on, and the last."""
        return Every(self.every).steps(self.steps)

    def build(self, seed: int) -> Problem:
        """The `Problem` of one seed."""
        from coherence.lab.tasks.regression import half_squared_error

        from .problem import Problem

        data, drawn = self._drawn(load, seed, _DATA)
        arrays = {"train": (data.x_train, data.y_train), "test": (data.x_test, data.y_test)}
        model, optimizer = self.model.build(data.outputs), self._transformation()
        loss = PROGRAMS.get(half_squared_error, model)
        probes, samples = make_probes(
            self.probes,
            loss,
            arrays,
            corrupt=np.zeros(len(data.y_train), bool),
            labels={"train": data.y_train, "test": data.y_test},
            classes=data.outputs,
            seed=seed,
            purpose=_SAMPLE,
        )
        return Problem(
            loss=loss,
            params=initial_parameters(model, stream_key(seed, _PARAMS), data.x_train[:1]),
            data=arrays,
            optimizer=optimizer,
            per_example=not optimizer.takes_batch_gradient,
            measure=PROGRAMS.get(_measuring, model),
            track_batches=self.track_batches,
            drawn={**drawn, **{f"sample-{name}": index for name, index in samples.items()}},
            probes=probes,
        )


def _measuring(model):
    from coherence.lab.tasks.regression import evaluate

    score = evaluate(model)

    def measure(params, arrays):
        return {f"{part}_loss": score(params, *arrays[part]) for part in ("train", "test")}

    return measure
