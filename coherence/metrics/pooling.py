"""What the metrics of a whole sample are made of: means over examples, which pool over batches, devices and hosts.

Every metric in this room that needs no more than these takes per-example gradients or what they
pool to: pool first, divide last.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from coherence.gradients import reductions
from coherence.gradients.factors import accumulator


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pooled:
    """Means over a set of examples at the same parameters, however it was cut into batches: `a + b` is that of both sets.

    Over steps, between which parameters move, average `moments` instead.

    mean: (1/m) sum_i g_i, in the parameters' containers and shapes.  mean_squared_norms: (1/m)
    sum_i ||g_i||^2 of each leaf, a scalar.
    second_moments: (1/m) sum_i g_i^2 of each coordinate, or `None` where nobody asked.  m: number
    of examples, int32. Kept in at least float32; of no example: zeros.
    """

    mean: Any
    mean_squared_norms: Any
    second_moments: Any
    m: jax.Array

    def __add__(self, other):
        m = self.m + other.m
        theirs = other.m / jnp.maximum(m, 1)
        means = jax.tree.map(
            lambda a, b: a + (theirs * (b - a)).astype(a.dtype), self._means, other._means
        )
        return Pooled(*means, m)

    def over(self, axis_name):
        """Pooled over a named axis: over the devices inside `shard_map`, over a batched axis inside `vmap`."""
        m = jax.lax.psum(self.m, axis_name)
        share = self.m / jnp.maximum(m, 1)
        means = jax.tree.map(
            lambda a: jax.lax.psum((share * a).astype(a.dtype), axis_name), self._means
        )
        return Pooled(*means, m)

    @property
    def _means(self):
        return self.mean, self.mean_squared_norms, self.second_moments

    @property
    def squared_norm_of_mean(self):
        """||(1/m) sum_i g_i||^2."""
        return sum(jnp.vdot(g, g) for g in jax.tree.leaves(self.mean))

    @property
    def mean_squared_norm(self):
        """(1/m) sum_i ||g_i||^2."""
        return sum(jax.tree.leaves(self.mean_squared_norms))

    @property
    def variance(self):
        """Of the examples around their mean, summed over coordinates: tr S, divided by m - 1."""
        return (self.mean_squared_norm - self.squared_norm_of_mean) * self.m / (self.m - 1)


def pool(gradients, *, groups=None, num_groups=None, second_moments=False):
    """The means of per-example gradients (of the examples that the mask keeps) that metrics are made of.

    Args:
        gradients: from `per_example_value_and_grad`, a plain tree whose leaves have a leading axis
            of m examples, or what this function returned, which is passed on.
        groups: bool [m] or int [m] with `num_groups`: a tuple then, one entry a group.
        num_groups: how many groups an int `groups` holds (static); entries outside are in no group.
        second_moments: also those of every coordinate, for what needs each coordinate's variance
            (`gsnr`, `evidence`): about the price of one more weighted sum.

    Returns:
        `Pooled`, or with `groups` a tuple of them.

    Raises:
        ValueError: no leaves, mismatched example axes, `groups` of the wrong shape, type or without
            `num_groups`; or something pooled, where groups or missing second moments are asked for.

    >>> int((pool({"w": jnp.eye(4)}) + pool({"w": jnp.ones((2, 4))})).m)
    6
    """
    if is_pooled(gradients):
        return _passed_on(gradients, groups, second_moments)
    found, treedef = reductions.nodes(gradients)
    norms = reductions.leaf_squared_norms(gradients)
    parts = []
    for weights, m in _weights(gradients, found, groups, num_groups):
        mean = [leaf for _, leaf in reductions.leaf_weighted_sums(gradients, weights)]
        squares = (
            reductions.weighted_sum_of(gradients, jnp.square, weights) if second_moments else None
        )
        parts.append(
            Pooled(
                treedef.unflatten(mean),
                treedef.unflatten([n @ weights.astype(n.dtype) for _, n in norms]),
                squares,
                m,
            )
        )
    return parts[0] if groups is None else tuple(parts)


def is_pooled(gradients):
    """Whether this is `Pooled`, of one set of examples or a tuple of several."""
    return isinstance(gradients, Pooled) or (
        isinstance(gradients, tuple | list) and any(isinstance(one, Pooled) for one in gradients)
    )


def one_set(gradients, name, *, at_least=1, second_moments=False):
    """`pool` for metrics of one set of examples.

    Raises:
        ValueError: several groups, or fewer than `at_least` examples where their number is known.
    """
    pooled = pool(gradients, second_moments=second_moments)
    if not isinstance(pooled, Pooled):
        raise ValueError(
            f"{name} is of one set of examples, got {len(pooled)} pooled groups: ask it of each."
        )
    check_size(gradients, name, at_least)
    return pooled


def check_size(gradients, name, at_least=2):
    """Refuse a sample that is too small, where its size is known.

    Raises:
        ValueError: fewer than `at_least` examples.
    """
    if not is_pooled(gradients) and (m := reductions.size(gradients)) < at_least:
        raise ValueError(
            f"{name} needs at least {at_least} examples, got {m}: one example has no pair and no variance."
        )


def check_examples(gradients, name):
    """Refuse what is pooled where single examples are asked for.

    Raises:
        ValueError: the examples are gone.
    """
    if is_pooled(gradients):
        raise ValueError(
            f"{name} needs per-example gradients, got what pool made of them: single examples are gone from it."
        )


def group_numbers(groups, num_groups, m):
    """`groups` as int32 [m], and how many there are.

    Raises:
        ValueError: the wrong shape or type, or integers without `num_groups`.
    """
    groups = jnp.asarray(groups)
    return groups.astype(jnp.int32), how_many_groups(groups, num_groups, m)


def how_many_groups(groups, num_groups, m):
    """How many groups an array of them tells apart, once it is known to be one entry an example.

    Raises:
        ValueError: the wrong shape or type, or integers without `num_groups`.
    """
    if groups.shape != (m,):
        raise ValueError(f"groups must have one entry an example, [{m}], got {list(groups.shape)}.")
    if groups.dtype == bool:
        return 2
    if not jnp.issubdtype(groups.dtype, jnp.integer):
        raise ValueError(f"groups must be bool or int, got {groups.dtype}.")
    if num_groups is None:
        raise ValueError(
            "int groups need num_groups, how many there are (static): groups=labels, num_groups=10."
        )
    return num_groups


def _passed_on(pooled, groups, second_moments):
    if groups is not None:
        raise ValueError(
            "groups are of examples, which are pooled here already: give groups to pool(gradients, groups=...)."
        )
    some = (pooled,) if isinstance(pooled, Pooled) else pooled
    if second_moments and any(one.second_moments is None for one in some):
        raise ValueError(
            "these pooled gradients hold no second moments, which this needs: pool(gradients, second_moments=True), "
            "in a probe Quantity(name, function, second_moments=True)."
        )
    return pooled


def _weights(gradients, found, groups, num_groups):
    """`(weights [m] that make a mean, m)` of each group."""
    dtype = accumulator(*(n.dtype for _, n in found))
    if groups is None:
        return [
            (
                reductions.mean_weights(gradients),
                jnp.asarray(reductions.count(gradients), jnp.int32),
            )
        ]
    groups, num_groups = group_numbers(groups, num_groups, reductions.size(gradients))
    members = groups == jnp.arange(num_groups)[:, None]
    keep = reductions.mask(gradients)
    members = members if keep is None else members & keep
    counts = jnp.sum(members, 1)
    return list(
        zip(members.astype(dtype) / jnp.maximum(counts, 1)[:, None], counts.astype(jnp.int32))
    )
