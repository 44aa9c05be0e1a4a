"""A probe: quantities of a fixed sample at frozen parameters."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..gradients.transform import per_example_value_and_grad
from ..metrics.pooling import pool
from ..metrics.sampling import batches, group_array, length, take
from .quantities import View, preset, readings, view_of
from .schedules import AtLoss, Log


class Probe:
    """Measures a fixed sample while anything trains. It reads parameters and changes nothing.

    All quantities share one pass: per-example gradients of `batch_size` examples at a time become means, and those of a fixed `few`
    examples are kept for what is quadratic in their number. Call it with parameters:

    >>> loss = lambda w, x: jnp.dot(w, x)
    >>> probe = Probe(loss, jnp.eye(4), quantities="light")
    >>> {name: round(value, 3) for name, value in probe(jnp.ones(4)).items()}
    {'train/loss': 1.0, 'train/m_coherence': 1.0, 'train/gradient_norm': 0.5}

    Args:
        loss: `(params, example) -> scalar` for one example. For a random loss put a fixed key per example into the sample.
        examples: the sample: a pytree of arrays with a shared leading axis.
        quantities: "light", "standard", "full", or a sequence of `Quantity`.
        name: what the readings' names start with: NAME/QUANTITY.
        when: a schedule: `Log`, `Every`, `Epochs`, `AtLoss`. Asked by `due`.
        groups: bool [m] (False first) or int [m] with `num_groups`: pristine and corrupt examples, classes.
        batch_size: examples differentiated at a time, which bounds the memory.
        few: how many examples pairwise and per-example quantities look at (all of a smaller sample).
        seed: which examples the few are.

    Raises:
        ValueError: an unknown preset, an empty sample, leaves or groups that disagree about the number of examples.
    """

    def __init__(
        self,
        loss,
        examples,
        *,
        quantities="standard",
        name="train",
        when=None,
        groups=None,
        num_groups=None,
        batch_size=1000,
        few=512,
        seed=0,
    ):
        self.name, self.when, self.few_size = name, when or Log(), few
        self.quantities = preset(quantities)
        m = length(examples)
        self.reader = Reader(loss, self.quantities, min(batch_size, m), _many(groups, num_groups))
        chosen = np.sort(np.random.default_rng(seed).permutation(m)[:few])
        numbers = _group_numbers(groups, num_groups, m)
        self.sample = Sample(
            examples, numbers, take(examples, chosen), None if numbers is None else numbers[chosen], chosen.astype(np.int32)
        )
        self._schedule: tuple | None = None
        self._losses: list[float] = []

    def __call__(self, params, sample=None):
        """`{NAME/QUANTITY: number, nested list, or dict by layer}` at these parameters; nan and infinity stay what they are.

        Args:
            params: what the loss takes.
            sample: another `Sample` of the same shapes (another seed's), for which nothing is compiled anew.
        """
        found = jax.device_get(self.reader.read(params, sample or self.sample))
        return {f"{self.name}/{name}": jax.tree.map(lambda x: np.asarray(x).tolist(), value) for name, value in found.items()}

    def due(self, step, total=None, *, per_epoch=None, loss=None):
        """Whether to measure before this step, in a loop of your own.

        Args:
            step: the number of steps done; 0 before the first.
            total: how many there will be; `None` for a loop without an end.
            per_epoch: steps in an epoch, for `Epochs`.
            loss: the training loss of the step just done, for `AtLoss`, which wants it at every step.
        """
        if loss is not None:
            self._losses.append(float(loss))
        horizon = total if total is not None else max(10 ** len(str(step)), 10)
        if self._schedule is None or self._schedule[0] != (horizon, per_epoch):
            steps = set(self.when.steps(horizon, per_epoch)) - (set() if total is not None else {horizon})
            self._schedule = (horizon, per_epoch), steps
        return step in self._schedule[1] or (isinstance(self.when, AtLoss) and self.when.due(self._losses))

    def shown(self):
        """The few as arrays to keep beside the readings: their pictures, labels, groups, and places in the sample."""
        leaves = [np.asarray(x) for x in jax.tree.leaves(self.sample.few)]
        names = ("inputs", "labels", *(f"leaf_{i}" for i in range(2, len(leaves))))
        arrays = {name: _small(leaf) for name, leaf in zip(names, leaves) if leaf.dtype.kind in "biuf"}
        groups = {} if self.sample.few_groups is None else {"group": np.asarray(self.sample.few_groups)}
        return {**arrays, **groups, "index": np.asarray(self.sample.chosen)}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sample:
    """What a probe looks at: examples and their groups, and the fixed few of them with theirs and their places."""

    examples: Any
    groups: Any
    few: Any
    few_groups: Any
    chosen: Any


@dataclasses.dataclass(frozen=True)
class Reader:
    """The programs of a probe: compiled once for all samples of the same shapes."""

    loss: Any
    quantities: tuple
    batch_size: int
    num_groups: int | None

    def read(self, params, sample):
        """`{quantity: arrays}`."""
        if self.fits(sample):
            return at_once(params, sample, reader=self)
        sums: dict = {}
        for batch in batches(sample.examples, self.batch_size, sample.groups, self.num_groups)[1]:
            one = of_batch(params, batch.examples, batch.mask, reader=self)
            sums[batch.group] = _add(sums[batch.group], one) if batch.group in sums else one
        parts = [sums.get(k) for k in range(self.num_groups or 1)]
        return read_parts(params, sample, parts, reader=self)

    def fits(self, sample):
        """Whether the sample is no larger than a batch, and all of it the few."""
        m = length(sample.examples)
        return m <= self.batch_size and length(sample.few) == m

    @property
    def second_moments(self):
        return any(quantity.second_moments for quantity in self.quantities)


@partial(jax.jit, static_argnames="reader")
def at_once(params, sample, *, reader):
    """A sample no larger than a batch, whose few are all of it."""
    losses, gradients = per_example_value_and_grad(reader.loss)(params, sample.examples)
    options = {"groups": sample.groups, "num_groups": reader.num_groups, "second_moments": reader.second_moments}
    return readings(reader.quantities, view_of(losses, gradients, **options))


@partial(jax.jit, static_argnames="reader")
def of_batch(params, examples, mask, *, reader):
    """Sum of losses and the means of a batch."""
    losses, gradients = per_example_value_and_grad(reader.loss)(params, examples, mask)
    return jnp.sum(losses), pool(gradients, second_moments=reader.second_moments)


@partial(jax.jit, donate_argnums=0)
def _add(sums, one):
    return sums[0] + one[0], sums[1] + one[1]


@partial(jax.jit, static_argnames="reader")
def read_parts(params, sample, parts, *, reader):
    """Quantities from the groups' sums and the gradients of the few; `None` stands for an empty group."""
    there = [part for part in parts if part is not None]
    pools = [jax.tree.map(jnp.zeros_like, there[0][1]) if part is None else part[1] for part in parts]
    pooled = sum(pools[1:], pools[0])
    _, few = per_example_value_and_grad(reader.loss)(params, sample.few)
    groups = None if reader.num_groups is None else tuple(pools)
    loss = sum(part[0] for part in there) / pooled.m
    return readings(reader.quantities, View(loss, pooled, groups, few, sample.few_groups))


def _group_numbers(groups, num_groups, m):
    if groups is None:
        return None
    numbers, many = group_array(groups, num_groups, m)
    if numbers.min() < 0 or numbers.max() >= many:
        raise ValueError(f"groups must be between 0 and num_groups - 1 = {many - 1}, got {numbers.min()} to {numbers.max()}.")
    return numbers.astype(np.int32)


def _many(groups, num_groups):
    if groups is None:
        return None
    return 2 if np.asarray(groups).dtype == bool else num_groups


def _small(array):
    """Pictures as bytes: what a report shows needs no more."""
    if array.dtype.kind == "f" and array.ndim > 1 and array.size and array.min() >= 0 and array.max() <= 1:
        return np.round(array * 255).astype(np.uint8)
    return array
