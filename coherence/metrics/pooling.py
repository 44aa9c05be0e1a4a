"""Means over examples, which metrics are made of and which pool over batches, devices and hosts.

Every metric that needs no more than these takes per-example gradients or what they pool to: pool
first, divide last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any, overload

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from coherence.gradients import reductions
from coherence.gradients.factors import accumulator
from coherence.trees import PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pooled:
    """Means over a set of examples at the same parameters, however it was cut into batches.

    `a + b` is that of both sets. Over steps, between which parameters move, average `moments`
    instead. Kept in at least float32; of no example: zeros.

    mean: (1/m) sum_i g_i, in the parameters' containers and shapes.
    mean_squared_norms: (1/m) sum_i ||g_i||^2 of each leaf, a scalar.
    second_moments: (1/m) sum_i g_i^2 of each coordinate, or `None` where nobody asked.
    m: number of examples, int32.
    """

    mean: PyTree
    mean_squared_norms: PyTree
    second_moments: PyTree
    m: jax.Array

    def __add__(self, other: Pooled) -> Pooled:
        m = self.m + other.m
        theirs = other.m / jnp.maximum(m, 1)
        means = jax.tree.map(
            lambda a, b: a + (theirs * (b - a)).astype(a.dtype), self._means, other._means
        )
        return Pooled(means[0], means[1], means[2], m)

    def over(self, axis_name: Hashable) -> Pooled:
        """Pooled over a named axis: of devices inside `shard_map`, of a batch inside `vmap`."""
        m = jax.lax.psum(self.m, axis_name)
        share = self.m / jnp.maximum(m, 1)
        means = jax.tree.map(
            lambda a: jax.lax.psum((share * a).astype(a.dtype), axis_name), self._means
        )
        return Pooled(means[0], means[1], means[2], m)

    @property
    def _means(self) -> tuple[PyTree, PyTree, PyTree]:
        return self.mean, self.mean_squared_norms, self.second_moments

    @property
    def squared_norm_of_mean(self) -> jax.Array:
        """||(1/m) sum_i g_i||^2."""
        return jnp.asarray(sum(jnp.vdot(g, g) for g in jax.tree.leaves(self.mean)))

    @property
    def mean_squared_norm(self) -> jax.Array:
        """(1/m) sum_i ||g_i||^2."""
        return jnp.asarray(sum(jax.tree.leaves(self.mean_squared_norms)))

    @property
    def variance(self) -> jax.Array:
        """Of the examples around their mean, summed over coordinates: tr S, divided by m - 1."""
        return (self.mean_squared_norm - self.squared_norm_of_mean) * self.m / (self.m - 1)


@overload
def pool(
    gradients: PyTree,
    *,
    groups: None = None,
    num_groups: int | None = None,
    second_moments: bool = False,
) -> Pooled: ...


@overload
def pool(
    gradients: PyTree,
    *,
    groups: ArrayLike,
    num_groups: int | None = None,
    second_moments: bool = False,
) -> tuple[Pooled, ...]: ...


@overload
def pool(
    gradients: PyTree,
    *,
    groups: ArrayLike | None,
    num_groups: int | None = None,
    second_moments: bool = False,
) -> Pooled | tuple[Pooled, ...]: ...


def pool(
    gradients: PyTree,
    *,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
    second_moments: bool = False,
) -> Any:
    """Means of per-example gradients over the examples that the mask keeps.

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
    norms = [norms for _, norms in reductions.leaf_squared_norms(gradients)]
    parts = tuple(
        _means(gradients, norms, weights, m, second_moments)
        for weights, m in _weights(gradients, groups, num_groups)
    )
    return parts[0] if groups is None else parts


def is_pooled(gradients: PyTree) -> bool:
    """Whether this is `Pooled`, of one set of examples or a tuple of several."""
    several = isinstance(gradients, tuple | list)
    return any(isinstance(part, Pooled) for part in (gradients if several else [gradients]))


def one_set(
    gradients: PyTree, name: str, *, at_least: int = 1, second_moments: bool = False
) -> Pooled:
    """`pool` for the metric `name`, which is of one set of examples.

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


def check_size(gradients: PyTree, name: str, at_least: int = 2) -> None:
    """Refuse a sample that is too small, where its size is known.

    Raises:
        ValueError: fewer than `at_least` examples.
    """
    if not is_pooled(gradients) and (m := reductions.size(gradients)) < at_least:
        raise ValueError(
            f"{name} needs at least {at_least} examples, got {m}: one example has no pair and no "
            "variance."
        )


def check_examples(gradients: PyTree, name: str) -> None:
    """Refuse what is pooled where single examples are asked for.

    Raises:
        ValueError: the examples are gone.
    """
    if is_pooled(gradients):
        raise ValueError(
            f"{name} needs per-example gradients, got what pool made of them: single examples are "
            "gone from it."
        )


def group_numbers(groups: ArrayLike, num_groups: int | None, m: int) -> tuple[jax.Array, int]:
    """`groups` as int32 [m], and how many there are.

    Raises:
        ValueError: the wrong shape or type, or integers without `num_groups`.
    """
    groups = jnp.asarray(groups)
    return groups.astype(jnp.int32), count_groups(groups, num_groups, m)


def count_groups(groups: Any, num_groups: int | None, m: int) -> int:
    """How many groups an array of group numbers tells apart.

    Raises:
        ValueError: not one entry an example, another type, or integers without `num_groups`.
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


def _passed_on(pooled: PyTree, groups: ArrayLike | None, second_moments: bool) -> PyTree:
    if groups is not None:
        raise ValueError(
            "groups are of examples, which are pooled here already: give groups to "
            "pool(gradients, groups=...)."
        )
    parts = (pooled,) if isinstance(pooled, Pooled) else pooled
    if second_moments and any(part.second_moments is None for part in parts):
        raise ValueError(
            "these pooled gradients hold no second moments, which this needs: pool(gradients, "
            "second_moments=True), in a probe Quantity(name, function, second_moments=True)."
        )
    return pooled


def _weights(
    gradients: PyTree, groups: ArrayLike | None, num_groups: int | None
) -> list[tuple[jax.Array, jax.Array]]:
    """`(weights [m] that make a mean, number of examples)` of each group."""
    if groups is None:
        count = jnp.asarray(reductions.count(gradients), jnp.int32)
        return [(reductions.mean_weights(gradients), count)]
    numbers, num_groups = group_numbers(groups, num_groups, reductions.size(gradients))
    members = numbers == jnp.arange(num_groups)[:, None]
    if (keep := reductions.mask(gradients)) is not None:
        members = members & keep
    dtype = accumulator(*(node.dtype for _, node in reductions.nodes(gradients)[0]))
    counts = jnp.sum(members, 1)
    weights = members.astype(dtype) / jnp.maximum(counts, 1)[:, None]
    return list(zip(weights, counts.astype(jnp.int32)))


def _means(
    gradients: PyTree,
    squared_norms: list[jax.Array],
    weights: jax.Array,
    m: jax.Array,
    second_moments: bool,
) -> Pooled:
    _, treedef = reductions.nodes(gradients)
    mean = [leaf for _, leaf in reductions.leaf_weighted_sums(gradients, weights)]
    norms = [norms @ weights.astype(norms.dtype) for norms in squared_norms]
    squares = reductions.weighted_sum_of(gradients, jnp.square, weights) if second_moments else None
    return Pooled(treedef.unflatten(mean), treedef.unflatten(norms), squares, m)
