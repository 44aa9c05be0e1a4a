"""Attribution of the step: what single examples and groups contribute to the mean gradient."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from coherence.gradients.reductions import dot, mask, size
from coherence.trees import PyTree

from .pooling import Pooled, check_examples, group_numbers, one_set


def contributions(gradients: PyTree, *, pooled: Pooled | None = None) -> jax.Array:
    r"""Each example's part of the step, in average examples.

    .. math:: c_i = \frac{g_i\cdot\bar g}{\|\bar g\|^2}, \qquad \frac1m\sum_i c_i = 1

    To first order the loss falls by :math:`\eta\|\bar g\|^2` in a step, and example i brings c_i /
    m of that. 1: as much as the average example. Large: one of those that drive the step. 0:
    orthogonal to it. Negative: the step is made against it. Sorting examples by it answers "which
    ones?"; times the squared norm of the mean and divided by :math:`\|g_i\|^2` it is a cosine.
    Dimensionless. The terms of the paper's attribution f (arXiv:2002.10657, Section 2), one example
    each.

    Args:
        gradients: per-example gradients of m examples; with `pooled`, some of those pooled there.
        pooled: the whole sample, from `pool` (default: these gradients are all of it).

    Returns:
        [m]; 0 where masked, nan at a stationary point.

    >>> contributions({"w": jnp.array([[3.0], [1.0], [-1.0]])})
    Array([ 3.,  1., -1.], dtype=float32)
    """
    check_examples(gradients, "contributions")
    whole = one_set(gradients if pooled is None else pooled, "contributions")
    return dot(gradients, whole.mean) / whole.squared_norm_of_mean


def shares(gradients: PyTree, groups: ArrayLike, *, num_groups: int | None = None) -> jax.Array:
    r"""Each group's share of the step, and so of the fall of the loss: f in the paper.

    .. math:: f^p = \frac{\langle g, g^p\rangle}{\langle g, g\rangle},
              \qquad g^p = \sum_{i\in p} g_i, \quad \sum_p f^p = 1

    Its landmark is the group's share of the examples, which is what it would be if the grouping
    meant nothing (`null_shares` shows the spread): early in training pristine examples take more
    than theirs, late the corrupt ones. Can exceed 1 where another group pulls against the step.
    Dimensionless.

    Chatterjee, Coherent Gradients (arXiv:2002.10657), Section 2; read in an account.

    Args:
        gradients: per-example gradients of m examples.
        groups: bool [m] (False first) or int [m] with `num_groups` (static). Entries outside are in
            no group; the shares then add up to what the others make of the step.

    Returns:
        [groups]; 0 for an empty group.

    Raises:
        ValueError: `groups` of the wrong shape or type, or of integers without `num_groups`.

    >>> gradients = {"w": jnp.array([[3.0], [1.0], [-1.0]])}
    >>> [round(float(f), 2) for f in shares(gradients, jnp.array([False, False, True]))]
    [1.33, -0.33]
    """
    check_examples(gradients, "shares")
    numbers, num_groups = group_numbers(groups, num_groups, size(gradients))
    parts = contributions(gradients)
    return jax.ops.segment_sum(parts, numbers, num_groups) / jnp.sum(parts)


def null_shares(
    gradients: PyTree,
    groups: ArrayLike,
    key: jax.Array,
    *,
    num_groups: int | None = None,
    permutations: int = 20,
) -> jax.Array:
    """`shares` under the null hypothesis that the grouping means nothing.

    The group labels are permuted among the same examples (among those that the mask keeps): what
    the true `shares` must stand out from. One set of contributions serves all permutations. Source
    and other arguments as for `shares`.

    Args:
        key: from `jax.random.key`.
        permutations: how many are drawn.

    Returns:
        [permutations, groups].

    >>> groups = jnp.array([0, 0, 1, 1])
    >>> null_shares({"w": jnp.ones((4, 2))}, groups, jax.random.key(0), num_groups=2).shape
    (20, 2)
    """
    check_examples(gradients, "null_shares")
    numbers, num_groups = group_numbers(groups, num_groups, size(gradients))
    parts, keep = contributions(gradients), mask(gradients)

    def permuted(key):
        return jax.ops.segment_sum(parts, _permutation(key, numbers, keep), num_groups)

    return jax.lax.map(permuted, jax.random.split(key, permutations)) / jnp.sum(parts)


def pulls(gradients: PyTree, groups: ArrayLike, *, num_groups: int | None = None) -> jax.Array:
    r"""The gain of one step for an average example of each group: the increments of i in the paper.

    .. math:: \frac{1}{|p|}\sum_{i\in p} g_i\cdot\bar g,
              \qquad i_t^p = m\sum_{t'\le t}\frac{1}{|p|}\sum_{i\in p} g_i\cdot\bar g

    In units of the loss over the learning rate: times the learning rate, the first-order fall of an
    average example's loss. Sum it over steps to see by when a group has been paid (the paper's g is
    a sum over the m examples, hence its factor m).

    Source and arguments as for `shares`. nan for an empty group.

    >>> pulls({"w": jnp.array([[3.0], [1.0], [-1.0]])}, jnp.array([False, False, True]))
    Array([ 2., -1.], dtype=float32)
    """
    check_examples(gradients, "pulls")
    numbers, num_groups = group_numbers(groups, num_groups, size(gradients))
    dots, keep = dot(gradients, one_set(gradients, "pulls").mean), mask(gradients)
    counted = jnp.ones_like(dots) if keep is None else keep.astype(dots.dtype)
    totals = jax.ops.segment_sum(jnp.stack([dots, counted], 1), numbers, num_groups)
    return totals[:, 0] / totals[:, 1]


def _permutation(key: jax.Array, labels: jax.Array, keep: jax.Array | None) -> jax.Array:
    """The labels of the examples that are kept, permuted among these; the others keep theirs."""
    if keep is None:
        return jax.random.permutation(key, labels)
    places = jnp.argsort(~keep)  # stable: those of the kept examples first
    order = jnp.where(keep, jax.random.uniform(key, keep.shape), 2.0)
    return jnp.zeros_like(labels).at[places].set(labels[jnp.argsort(order)])
