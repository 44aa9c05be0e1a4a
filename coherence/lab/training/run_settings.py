"""What the settings of every trained run have: how it steps, how long, and what is measured."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from coherence.lab.settings import (
    Aggregators,
    Decays,
    Optimizers,
    Probing,
    Setting,
    average,
    scalars,
    sgd,
    soft_threshold,
)
from coherence.probes.schedules import LogSpaced

from .programs import PROGRAMS
from .samples import draw, pool_of, probe_name, stream

if TYPE_CHECKING:
    from .problem import Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Aggregator, optimizer, length and measurements of a run; subclasses add model and data."""

    data: Any
    aggregator: Aggregators = average()
    optimizer: Optimizers = sgd()
    batch_size: int = 100
    steps: int = 2000
    points_per_decade: int = 8
    """How many measurements of losses and accuracies a decade of steps gets."""
    probes: tuple[Probing, ...] = (Probing(),)
    """What else is measured, on which samples, and when."""
    track_batches: bool = True
    """Record the norms of every batch's gradients: coherence at every step."""
    data_by_seed: bool = True
    """Where `data` takes some of the training examples there are, draw them by the run's seed, and
    a data set that has a `seed` gets the run's; else all seeds get the same examples, the first
    ones, and what is said of them may be theirs alone."""
    decay: Decays | None = None
    """A pull toward zero: L1 and L2 in front of the optimizer, a soft threshold behind it."""

    def __post_init__(self):
        names = [probe_name(probing) for probing in self.probes]
        if len(set(names)) < len(names):
            raise ValueError(
                f"probes need names of their own, got {', '.join(names)}: give them, "
                "Probing(of='train', name='early')."
            )

    def describe(self) -> str:
        """What is trained on what, in a few words."""
        raise NotImplementedError

    def _drawn(self, load, seed, purpose):
        """The data set of a seed, and what was drawn for it: `(Dataset, {name: array})`.

        `load` builds a setting, each only once: then seeds share what they have in common.
        """
        if not self.data_by_seed:
            return load(self.data), {}
        if hasattr(self.data, "seed"):
            return load(dataclasses.replace(self.data, seed=seed)), {}
        pool = pool_of(self.data)
        if pool is None:
            return load(self.data), {}
        data, index = draw(load(pool), self.data.examples, stream(seed, purpose))
        return data, {"examples": index}

    def _described(self, load):
        """The data in a few words, such as `mnist (2,000 of 60,000 examples, drawn by seed)`."""
        pool = pool_of(self.data) if self.data_by_seed else None
        data = load(pool or self.data)
        some = f"{self.data.examples:,} of " if pool else ""
        drawn = pool or (self.data_by_seed and hasattr(self.data, "seed"))
        return (
            f"{data.name} ({some}{len(data.y_train):,} examples{', drawn by seed' * bool(drawn)})"
        )

    def schedule(self) -> tuple[int, ...]:
        """The steps at which to measure."""
        return LogSpaced(self.points_per_decade).steps(self.steps)

    def build(self, seed: int) -> Problem:
        """The `Problem` of one seed."""
        raise NotImplementedError

    def _transformation(self):
        """The aggregator and what follows it as one transformation, the same for equal settings."""
        return PROGRAMS.get(transformation, *self._transformations())

    def _transformations(self):
        if self.decay is None:
            return self.aggregator, self.optimizer
        if isinstance(self.decay, soft_threshold):
            return self.aggregator, self.optimizer, self.decay
        return self.aggregator, self.decay, self.optimizer


@functools.lru_cache(maxsize=4)
def load(data):
    """One copy of the arrays for all seeds: what they share is then held once on the device."""
    return data.build()


@functools.lru_cache(maxsize=4)
def load_folded(data, shape):
    """`load`, with examples folded into a shape.

    Raises:
        ValueError: an example has another number of numbers.
    """
    loaded = load(data)
    if loaded.x_train[0].size != np.prod(shape):
        raise ValueError(
            f"{loaded.name}'s images have {loaded.x_train[0].size} pixels and the model's "
            f"{np.prod(shape)}: its shape {shape} has to be theirs."
        )
    folded = {part: getattr(loaded, part).reshape(-1, *shape) for part in ("x_train", "x_test")}
    return dataclasses.replace(loaded, **folded)


def transformation(*parts):
    """An aggregator and what follows it, from their settings or made already.

    The settings' `scalars` are part of its state: what differs by them alone has one `update`, and
    so one program.
    """
    import jax

    from coherence.optim import chain
    from coherence.optim.aggregation import Aggregator

    whole = chain(*(part.build() if isinstance(part, Setting) else part for part in parts))
    numbers = tuple(scalars(part) if isinstance(part, Setting) else {} for part in parts)
    if not any(numbers):
        return whole
    init = lambda params: (jax.tree.map(jax.numpy.asarray, numbers), whole.init(params))
    forms = (
        dataclasses.replace(part, **dict.fromkeys(names, 0.0)) if names else part
        for part, names in zip(parts, numbers)
    )
    update = PROGRAMS.get(_with_numbers, *forms)
    return Aggregator(init, update, whole.name, whole.takes_batch_gradient, whole.rest)


def _with_numbers(*parts):
    """The update of a `transformation` that finds the settings' scalars in its state."""
    import optax

    def update(gradients, state, params=None, **extra):
        numbers, inner = state
        built = (
            part.build(**values) if isinstance(part, Setting) else part
            for part, values in zip(parts, numbers)
        )
        chain = optax.with_extra_args_support(optax.chain(*built))
        updates, inner = chain.update(gradients, inner, params, **extra)
        return updates, (numbers, inner)

    return update


def initial_parameters(model, key, *example):
    """`model.init(key, *example)` as one compiled program."""
    return PROGRAMS.get(_compiled_init, model)(key, *example)


def _compiled_init(model):
    import jax

    return jax.jit(model.init)
