"""Who makes the step: what single examples and groups of them contribute to the mean gradient."""

import jax
import jax.numpy as jnp

from coherence.gradients.reductions import dot, mask, size

from .pooling import check_examples, group_numbers, one_set


def contributions(gradients, *, pooled=None):
    r"""How much of the step each example makes, in average examples.

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


def shares(gradients, groups, *, num_groups=None):
    r"""Who pays for the loss reduction: each group's share of the step. The paper's f.

    .. math:: f^p = \frac{\langle g, g^p\rangle}{\langle g, g\rangle}, \qquad g^p = \sum_{i\in p} g_i, \quad \sum_p f^p = 1

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

    >>> shares({"w": jnp.array([[3.0], [1.0], [-1.0]])}, jnp.array([False, False, True])).round(2)
    Array([ 1.33, -0.33], dtype=float32)
    """
    check_examples(gradients, "shares")
    groups, num_groups = group_numbers(groups, num_groups, size(gradients))
    parts = contributions(gradients)
    return jax.ops.segment_sum(parts, groups, num_groups) / jnp.sum(parts)


def null_shares(key, gradients, groups, *, num_groups=None, worlds=20):
    """`shares` in worlds where the grouping means nothing: the same examples, group labels permuted among them.

    What the true `shares` must stand out from. One set of contributions serves all worlds. Same
    source and arguments.

    Args:
        key: a JAX random key.
        worlds: how many permutations.

    Returns:
        [worlds, groups].
    """
    check_examples(gradients, "null_shares")
    groups, num_groups = group_numbers(groups, num_groups, size(gradients))
    if (keep := mask(gradients)) is not None:  # permute among the examples that count
        return _masked_worlds(key, contributions(gradients), groups, num_groups, worlds, keep)
    parts = contributions(gradients)
    world = lambda key: jax.ops.segment_sum(parts, jax.random.permutation(key, groups), num_groups)
    return jax.lax.map(world, jax.random.split(key, worlds)) / jnp.sum(parts)


def pulls(gradients, groups, *, num_groups=None):
    r"""What a step brings an average example of each group: the increments of the paper's i.

    .. math:: \frac{1}{|p|}\sum_{i\in p} g_i\cdot\bar g, \qquad i_t^p = m\sum_{t'\le t}\frac{1}{|p|}\sum_{i\in p} g_i\cdot\bar g

    In units of the loss over the learning rate: times the learning rate, the first-order fall of an
    average example's loss. Sum it over steps to see by when a group has been paid (the paper's g is
    a sum over the m examples, hence its factor m).

    Source and arguments as for `shares`. nan for an empty group.

    >>> pulls({"w": jnp.array([[3.0], [1.0], [-1.0]])}, jnp.array([False, False, True]))
    Array([ 2., -1.], dtype=float32)
    """
    check_examples(gradients, "pulls")
    groups, num_groups = group_numbers(groups, num_groups, size(gradients))
    whole = one_set(gradients, "pulls")
    dots = dot(gradients, whole.mean)
    ones = jnp.ones_like(dots) if mask(gradients) is None else mask(gradients).astype(dots.dtype)
    return jax.ops.segment_sum(dots, groups, num_groups) / jax.ops.segment_sum(
        ones, groups, num_groups
    )


def _masked_worlds(key, parts, groups, num_groups, worlds, keep):
    """Kept examples in random order take the group labels of kept examples in theirs."""
    to_kept = jnp.argsort(~keep)  # stable: kept first

    def world(key):
        shuffled = jnp.argsort(
            jnp.where(keep, jax.random.uniform(key, keep.shape), 2.0)
        )  # kept first, in random order
        return jax.ops.segment_sum(parts[to_kept], groups[shuffled], num_groups)

    return jax.lax.map(world, jax.random.split(key, worlds)) / jnp.sum(parts)
