"""The programs of a probe: one pass over a sample, then all its quantities at once."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from coherence.gradients.transform import per_example_value_and_grad
from coherence.metrics.batching import batches, count_examples
from coherence.metrics.pooling import pool

from .quantities import View, readings, view_of


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
    only: Any = None

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
        m = count_examples(sample.examples)
        return m <= self.batch_size and count_examples(sample.few) == m

    def gradients(self, params, examples, mask=None):
        return per_example_value_and_grad(self.loss, only=self.only)(params, examples, mask)

    @property
    def second_moments(self):
        return any(quantity.second_moments for quantity in self.quantities)


@partial(jax.jit, static_argnames="reader")
def at_once(params, sample, *, reader):
    """A sample no larger than a batch, whose few are all of it."""
    losses, gradients = reader.gradients(params, sample.examples)
    options = {
        "groups": sample.groups,
        "num_groups": reader.num_groups,
        "second_moments": reader.second_moments,
    }
    return readings(reader.quantities, view_of(losses, gradients, **options))


@partial(jax.jit, static_argnames="reader")
def of_batch(params, examples, mask, *, reader):
    """Sum of losses and the means of a batch."""
    losses, gradients = reader.gradients(params, examples, mask)
    return jnp.sum(losses), pool(gradients, second_moments=reader.second_moments)


@partial(jax.jit, donate_argnums=0)
def _add(sums, one):
    return sums[0] + one[0], sums[1] + one[1]


@partial(jax.jit, static_argnames="reader")
def read_parts(params, sample, parts, *, reader):
    """Quantities from the groups' sums and the gradients of the few; `None` stands for an empty group."""
    there = [part for part in parts if part is not None]
    pools = [
        jax.tree.map(jnp.zeros_like, there[0][1]) if part is None else part[1] for part in parts
    ]
    pooled = sum(pools[1:], pools[0])
    _, few = reader.gradients(params, sample.few)
    groups = None if reader.num_groups is None else tuple(pools)
    loss = sum(part[0] for part in there) / pooled.m
    group_losses = None
    if groups is not None:
        group_losses = jnp.stack([0.0 if part is None else part[0] for part in parts]) / jnp.stack(
            [one.m for one in pools]
        )
    return readings(
        reader.quantities, View(loss, group_losses, pooled, groups, few, sample.few_groups)
    )
