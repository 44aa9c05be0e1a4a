"""What a run needs, and nothing about where it is recorded."""

import dataclasses
from collections.abc import Callable
from typing import Any

import optax


@dataclasses.dataclass(frozen=True)
class Problem:
    """A per-example loss, where it starts, what it learns from, how it steps and what is measured on the way.

    Args:
        loss: `(params, example) -> scalar` for one example.
        params: the initial parameters.
        data: a pytree of arrays; `data["train"]` holds the examples the batches are taken from (shared leading axis).
            Leaves that are the same object in several seeds' problems are held once.
        optimizer: an optax transformation: an aggregator first (`coherence.chain`) where `per_example`, else any.
        per_example: whether the optimizer takes per-example gradients; else it gets the batch's mean gradient.
        measure: `(params, data) -> {name: array}`, jit-able, reads frozen weights: what is recorded at the scheduled steps.
        track_batches: record the loss and the `moments` of every training batch's per-example gradients.
        drawn: arrays that were drawn at random for this seed and that a reader of the run may ask for, kept with it as `drawn.npz`.
        stopping: an early-stopping rule (`coherence.optim.stopping`) and the name of the measured quantity it watches, or `None`.
    """

    loss: Callable
    params: Any
    data: Any
    optimizer: optax.GradientTransformation
    per_example: bool = False
    measure: Callable = lambda params, data: {}
    track_batches: bool = False
    stopping: tuple[Any, str] | None = None
    drawn: dict[str, Any] = dataclasses.field(default_factory=dict)
