"""Means over examples, which metrics are made of and which pool over batches, devices and hosts.

Every metric that needs no more than these takes per-example gradients or what they pool to: pool
first, divide last.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from coherence.gradients import reductions
from coherence.gradients.factors import Recomputed, Stacked, accumulator, is_node
from coherence.gradients.jax_internals import is_traced
from coherence.trees import PyTree

FORMED = 2**22  # numbers of rows formed at a time (16 MiB in float32)
LOST = 1e-3  # a variance below this share of the mean square has lost digits to the difference


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pooled:
    """Means over a set of examples at the same parameters, however it was cut into batches.

    `a + b` is that of both sets. Over steps, between which parameters move, average `moments`
    instead. Kept in at least float32; of no example: zeros.

    mean: (1/m) sum_i g_i, in the parameters' containers and shapes.
    mean_squared_norms: (1/m) sum_i ||g_i||^2 of each leaf, a scalar; of one that holds layers which
        `lax.scan` goes over [L], of each.
    variances: (1/m) sum_i (g_i - mean)^2 of each coordinate, or `None` where nobody asked.
    m: number of examples, int32.
    """

    mean: PyTree
    mean_squared_norms: PyTree
    variances: PyTree
    m: jax.Array

    def __add__(self, other: Pooled) -> Pooled:
        m = self.m + other.m
        theirs = 1.0 * other.m / jnp.maximum(m, 1)  # a quotient of int32 would be float32

        def mean(a, b, more=0.0):  # a set of no example changes nothing, also where a is infinite
            return jnp.where(theirs > 0, a + (theirs * (b - a + more)).astype(a.dtype), a)

        def variance(v, w, a, b):  # one sum, rounded once
            return mean(v, w, (1 - theirs) * jnp.square(b - a))

        variances = None
        if self.variances is not None:
            variances = jax.tree.map(
                variance, self.variances, other.variances, self.mean, other.mean
            )
        return Pooled(
            jax.tree.map(mean, self.mean, other.mean),
            jax.tree.map(mean, self.mean_squared_norms, other.mean_squared_norms),
            variances,
            m,
        )

    def over(self, axis_name: Hashable) -> Pooled:
        """Pooled over a named axis: of devices inside `shard_map`, of a batch inside `vmap`."""
        m = jax.lax.psum(self.m, axis_name)
        share = 1.0 * self.m / jnp.maximum(m, 1)
        mean = lambda a: jax.lax.psum((share * a).astype(a.dtype), axis_name)
        whole, variances = jax.tree.map(mean, self.mean), self.variances
        if variances is not None:
            around = lambda v, a, b: mean(v + jnp.square(a - b))
            variances = jax.tree.map(around, variances, self.mean, whole)
        return Pooled(whole, jax.tree.map(mean, self.mean_squared_norms), variances, m)

    @property
    def second_moments(self) -> PyTree:
        """(1/m) sum_i g_i^2 of each coordinate."""
        return jax.tree.map(lambda v, g: v + jnp.square(g), self.variances, self.mean)

    @property
    def squared_norm_of_mean(self) -> jax.Array:
        """||(1/m) sum_i g_i||^2."""
        return jnp.asarray(sum(jnp.vdot(g, g) for g in jax.tree.leaves(self.mean)))

    @property
    def mean_squared_norm(self) -> jax.Array:
        """(1/m) sum_i ||g_i||^2."""
        return jnp.asarray(sum(jnp.sum(x) for x in jax.tree.leaves(self.mean_squared_norms)))

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
    variances: bool = False,
) -> Pooled: ...


@overload
def pool(
    gradients: PyTree,
    *,
    groups: ArrayLike,
    num_groups: int | None = None,
    variances: bool = False,
) -> tuple[Pooled, ...]: ...


@overload
def pool(
    gradients: PyTree,
    *,
    groups: ArrayLike | None,
    num_groups: int | None = None,
    variances: bool = False,
) -> Pooled | tuple[Pooled, ...]: ...


def pool(
    gradients: PyTree,
    *,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
    variances: bool = False,
) -> Any:
    """Means of per-example gradients over the examples that the mask keeps.

    Args:
        gradients: from `per_example_value_and_grad`, a plain tree whose leaves have a leading axis
            of m examples, or what this function returned, which is passed on.
        groups: bool [m] or int [m] with `num_groups`: a tuple then, one entry a group.
        num_groups: how many groups an int `groups` holds (static); entries outside are in no group.
        variances: also those of every coordinate (for `gsnr`, `evidence`): about the price of one
            more weighted sum.

    Returns:
        `Pooled`, or with `groups` a tuple of them.

    Raises:
        ValueError: no leaves, mismatched example axes, `groups` of the wrong shape, type or without
            `num_groups`; or something pooled, where groups or missing variances are asked for.

    >>> int((pool({"w": jnp.eye(4)}) + pool({"w": jnp.ones((2, 4))})).m)
    6
    """
    if is_pooled(gradients):
        return _passed_on(gradients, groups, variances)
    check_rows(gradients)
    pairs, treedef = reductions.nodes(gradients)
    norms = [norms for _, norms in reductions.leaf_squared_norms(gradients, layers=True)]
    weights, counts = _weights(gradients, groups, num_groups)
    products, clean = weights, gradients
    if groups is not None:
        m = reductions.size(gradients)
        finite = jnp.concatenate([jnp.isfinite(x).reshape(-1, m) for x in norms]).all(0)
        clean = treedef.unflatten(without([node for _, node in pairs], ~finite))
        spoiled = jnp.any((weights > 0) & ~finite, 1, keepdims=True)
        products = jnp.where(spoiled, jnp.nan, weights)
    parts = []
    for w, factors, m in zip(weights, products, counts):
        mean = [x for _, x in reductions.leaf_weighted_sums(clean, factors)]
        squares = [jnp.sum(jnp.where(w > 0, w.astype(x.dtype) * x, 0), -1) for x in norms]
        spread = _variances(clean, factors, mean) if variances else None
        trees = [None if x is None else treedef.unflatten(x) for x in (mean, squares, spread)]
        empty = lambda x, m=m: jnp.where(m > 0, x, 0)
        mean, squares, spread = jax.tree.map(empty, trees)
        parts.append(Pooled(mean, squares, spread, m))
    return parts[0] if groups is None else tuple(parts)


def is_pooled(gradients: PyTree) -> bool:
    """Whether this is `Pooled`, of one set of examples or a tuple of several."""
    several = isinstance(gradients, tuple | list)
    return any(isinstance(part, Pooled) for part in (gradients if several else [gradients]))


def one_set(gradients: PyTree, name: str, *, at_least: int = 1, variances: bool = False) -> Pooled:
    """`pool` for the metric `name`, which is of one set of examples.

    Raises:
        ValueError: several groups, or fewer than `at_least` examples where their number is known.
    """
    pooled = pool(gradients, variances=variances)
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
    check_rows(gradients)


def check_rows(gradients: PyTree) -> None:
    """Refuse plain vectors: more likely one gradient than those of a single number.

    Raises:
        ValueError: plain leaves that are all one-dimensional.
    """
    leaves = jax.tree.leaves(gradients, is_leaf=is_node)
    if leaves and all(not is_node(x) and jnp.ndim(x) == 1 for x in leaves):
        raise ValueError(
            f"gradients are plain vectors, {list(jnp.shape(leaves[0]))}: one gradient, it seems, "
            "whose entries would be taken for examples. Per-example gradients come from "
            "per_example_value_and_grad(loss)(params, batch); as plain arrays they are "
            "[m, ...], and [m, 1] of a single number."
        )


def group_numbers(groups: ArrayLike, num_groups: int | None, m: int) -> tuple[jax.Array, int]:
    """`groups` as int32 [m], and how many there are.

    Raises:
        ValueError: the wrong shape or type, or integers without `num_groups`.
    """
    array: Any = groups if is_traced(groups) else np.asarray(groups)
    num_groups = count_groups(array, num_groups, m)
    return jnp.asarray(numbered(array, num_groups)), num_groups


def numbered(groups: Any, num_groups: int | None) -> Any:
    """Group numbers as int32; -1 for what is in no group, which the cast might wrap into one."""
    if groups.dtype.itemsize < 4 or groups.dtype == np.int32:
        return groups.astype(np.int32)
    inside = (groups >= 0) & (groups < num_groups)
    where = jnp.where if isinstance(groups, jax.Array) else np.where
    return where(inside, groups, groups.dtype.type(0)).astype(np.int32) - ~inside


def count_groups(groups: Any, num_groups: int | None, m: int) -> int:
    """How many groups an array of group numbers tells apart.

    Raises:
        ValueError: not one entry an example, another type, or integers without `num_groups`.
    """
    if groups.shape != (m,):
        raise ValueError(f"groups must have one entry an example, [{m}], got {list(groups.shape)}.")
    if groups.dtype == bool:
        return 2
    if groups.dtype.kind in "USOT":
        raise ValueError(
            f"groups must be bool or int, got {groups.dtype}. Number them: "
            "names, groups = np.unique(groups, return_inverse=True), num_groups=len(names)."
        )
    if not jnp.issubdtype(groups.dtype, jnp.integer):
        raise ValueError(f"groups must be bool or int, got {groups.dtype}.")
    if num_groups is None:
        raise ValueError(
            "int groups need num_groups, how many there are (static): groups=labels, num_groups=10."
        )
    return num_groups


def _passed_on(pooled: PyTree, groups: ArrayLike | None, variances: bool) -> PyTree:
    if groups is not None:
        raise ValueError(
            "groups are of examples, which are pooled here already: give groups to "
            "pool(gradients, groups=...)."
        )
    parts = (pooled,) if isinstance(pooled, Pooled) else pooled
    if variances and any(part.variances is None for part in parts):
        raise ValueError(
            "these pooled gradients hold no variances, which this needs: pool(gradients, "
            "variances=True), in a probe Quantity(name, function, variances=True)."
        )
    return pooled


def _weights(
    gradients: PyTree, groups: ArrayLike | None, num_groups: int | None
) -> tuple[jax.Array, jax.Array]:
    """Weights that make the mean of each group, [groups, m], and numbers of examples, [groups]."""
    m, keep = reductions.size(gradients), reductions.mask(gradients)
    if groups is None:  # the weights of `mean`, so that XLA sees that both ask for one product
        count = jnp.asarray(reductions.count(gradients), jnp.int32)
        return reductions.mean_weights(gradients)[None], count[None]
    numbers, num_groups = group_numbers(groups, num_groups, m)
    members = numbers == jnp.arange(num_groups)[:, None]
    if keep is not None:
        members = members & keep
    dtype = accumulator(*(node.dtype for _, node in reductions.nodes(gradients)[0]))
    counts = jnp.sum(members, 1, dtype=jnp.int32)
    return members.astype(dtype) / jnp.maximum(counts, 1).astype(dtype)[:, None], counts


def without(nodes: list[Any], left_out: jax.Array) -> list[Any]:
    """Zero in place of the gradients of some examples, which may be nan: 0 * nan is no zero."""

    def zero(x):
        return jnp.where(left_out.reshape(-1, *[1] * (x.ndim - 1)), 0, x)

    batch, index = None, jnp.where(left_out, jnp.argmin(left_out), jnp.arange(len(left_out)))
    results = []
    for node in nodes:
        if isinstance(node, Recomputed):
            if batch is None:  # leaves that are recomputed together share one
                batch = jax.tree.map(lambda x: x[index], node.batch)
            keep = ~left_out if node.mask is None else node.mask & ~left_out
            node = dataclasses.replace(node, batch=batch, mask=keep)
        elif isinstance(node, Stacked):
            node = dataclasses.replace(node, values=zero(node.values))
        else:
            node = dataclasses.replace(node, terms=jax.tree.map(zero, node.terms))
        results.append(node)
    return results


def _variances(gradients: PyTree, weights: jax.Array, means: list[jax.Array]) -> list[jax.Array]:
    """(1/m) sum_i (g_i - mean)^2 of each coordinate, leaf by leaf.

    Rows at hand are centred first. From factors there is the mean of squares less the squared mean,
    which loses what is small against the mean: where a coordinate varies so little, and values are
    known (not inside `jit`), rows are formed.
    """
    nodes = [node for _, node in reductions.nodes(gradients)[0]]
    others = [node for node in nodes if not isinstance(node, Stacked)]
    squares = iter(reductions.weighted_sum_of(others, jnp.square, weights) if others else [])
    results = []
    for node, mean in zip(nodes, means):
        ulps = 4
        if isinstance(node, Stacked):
            rest, total = _centred(node.values, weights, mean)
            ulps += node.m
        else:
            rest, total = mean, next(squares)
            variance = total - jnp.square(rest)
            if not is_traced(variance) and not jnp.all(variance >= LOST * total):
                rest, total = _centred_by_rows(node, weights, mean)
                ulps += node.m
        difference, rounding = total - jnp.square(rest), jnp.finfo(total.dtype).eps * total
        results.append(jnp.where(difference <= ulps * rounding, 0, difference))
    return results


def _centred(rows: jax.Array, weights: jax.Array, mean: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weighted sums of g_i - mean, what rounding left of it, and of its square."""
    dtype = accumulator(rows.dtype)
    away = (rows.astype(dtype) - mean).reshape(len(rows), -1)
    away, w = jnp.where((weights != 0)[:, None], away, 0), weights.astype(dtype)
    return (w @ away).reshape(mean.shape), (w @ jnp.square(away)).reshape(mean.shape)


def _centred_by_rows(node: Any, weights: jax.Array, mean: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same from factors, whose rows are formed a few at a time."""
    at_once = max(1, FORMED // max(1, math.prod(node.shape)))
    sums = jnp.zeros_like(mean), jnp.zeros_like(mean)
    for start in range(0, node.m, at_once):
        index = np.arange(start, min(start + at_once, node.m))
        (rows,) = reductions.rows([node], index)
        sums = jax.tree.map(jnp.add, sums, _centred(rows, weights[index], mean))
    return sums
