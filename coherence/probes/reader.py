"""The programs of a probe: one pass over a sample, then all its quantities at once."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from coherence.gradients.factors import accumulator
from coherence.gradients.placement import divided, everywhere
from coherence.gradients.transform import per_example_value_and_grad
from coherence.metrics.batching import batches, count_examples
from coherence.metrics.pooling import pool
from coherence.trees import LeafFilter, Loss, PyTree

from .quantities import Quantity, View, readings, view_of


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sample:
    """What a probe looks at.

    examples, groups: leaves [m, ...]; int [m], or `None`.
    few, few_groups: the fixed few of them, and the groups of these.
    chosen: int [few], their places in the sample.
    seed: uint32, for quantities that draw.
    """

    examples: PyTree
    groups: Any
    few: PyTree
    few_groups: Any
    chosen: Any
    seed: Any


@dataclasses.dataclass(frozen=True)
class Reader:
    """The programs of a probe: compiled once for all samples of the same shapes."""

    loss: Loss
    quantities: tuple[Quantity, ...]
    batch_size: int
    num_groups: int | None
    only: LeafFilter | None = None

    def read(self, params: PyTree, sample: Sample) -> dict[str, Any]:
        """`{quantity: arrays}`."""
        if self.fits(sample):
            return read_at_once(params, sample, reader=self)
        sums: dict[int, Any] = {}
        _, source = batches(sample.examples, self.batch_size, sample.groups, self.num_groups)
        for batch in source:
            part = pool_batch(params, batch.examples, batch.mask, reader=self)
            before = sums.get(batch.group)
            sums[batch.group] = part if before is None else _add(before, part)
        parts = [sums.get(group) for group in range(self.num_groups or 1)]
        return read_parts(params, sample, parts, reader=self)

    def fits(self, sample: Sample) -> bool:
        """Whether the sample is no larger than a batch, and all of it the few."""
        m = count_examples(sample.examples)
        return m <= self.batch_size and count_examples(sample.few) == m

    def gradients(self, params: PyTree, examples: PyTree, mask: Any = None) -> Any:
        differentiate = per_example_value_and_grad(self.loss, only=self.only)
        return differentiate(params, *divided((examples, mask)))

    def measured(self, params: PyTree, sample: Sample) -> dict[str, Any]:
        """The fields of a `View` that say what was measured."""
        return {
            "params": params,
            "examples": sample.examples,
            "example_groups": sample.groups,
            "few_examples": sample.few,
            "key": jax.random.key(sample.seed),
            "loss_function": self.loss,
        }

    @property
    def variances(self) -> bool:
        return any(quantity.variances for quantity in self.quantities)


@partial(jax.jit, static_argnames="reader")
def read_at_once(params, sample, *, reader):
    """Readings of a sample no larger than a batch, whose few are all of it."""
    losses, gradients = reader.gradients(params, sample.examples)
    view = view_of(
        losses,
        gradients,
        groups=sample.groups,
        num_groups=reader.num_groups,
        variances=reader.variances,
        **reader.measured(params, sample),
    )
    return everywhere(readings(reader.quantities, view))


@partial(jax.jit, static_argnames="reader")
def pool_batch(params, examples, mask, *, reader):
    """Sum of losses and the means of a batch."""
    losses, gradients = reader.gradients(params, examples, mask)
    total = jnp.sum(losses, dtype=accumulator(losses.dtype))
    return everywhere((total, pool(gradients, variances=reader.variances)))


@partial(jax.jit, donate_argnums=0)
def _add(sums, part):
    return sums[0] + part[0], sums[1] + part[1]


@partial(jax.jit, static_argnames="reader")
def read_parts(params, sample, parts, *, reader):
    """Readings from the sums of each group and the few; `None` stands for an empty group."""
    present = next(part for part in parts if part is not None)
    nothing = jax.tree.map(jnp.zeros_like, present)
    losses, pools = zip(*[nothing if part is None else part for part in parts])
    pooled = sum(pools[1:], pools[0])
    groups = group_losses = None
    if reader.num_groups is not None:
        groups = pools
        group_losses = jnp.stack(losses) / jnp.stack([part.m for part in pools])
    _, few = reader.gradients(params, sample.few)
    view = View(
        sum(losses) / pooled.m,
        group_losses,
        pooled,
        groups,
        few,
        sample.few_groups,
        **reader.measured(params, sample),
    )
    return everywhere(readings(reader.quantities, view))
