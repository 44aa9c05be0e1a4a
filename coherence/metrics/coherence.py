"""The alpha family: how far per-example gradients agree.

All of it reads two sums, S = sum_i g_i and Q = sum_i ||g_i||^2 (`moments`). Pool the sums over steps or batches and divide last.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..gradients import reductions
from ..gradients.factors import accumulator


class Moments(NamedTuple):
    """What alpha is made of. Each entry is a scalar, or [groups] with `groups=`.

    squared_norm_of_mean: ||(1/m) sum_i g_i||^2.  mean_squared_norm: (1/m) sum_i ||g_i||^2.  m: number of examples that count.
    """

    squared_norm_of_mean: jax.Array
    mean_squared_norm: jax.Array
    m: jax.Array

    @property
    def alpha(self):
        return self.squared_norm_of_mean / self.mean_squared_norm


def alpha(gradients, *, by=None, groups=None, num_groups=None):
    r"""How much of its own step an average example gets from the mean step.

    .. math:: \alpha_m = \frac{\|\frac1m\sum_i g_i\|^2}{\frac1m\sum_i\|g_i\|^2} \in [0, 1]

    1 when all gradients are equal, 1/m when they are pairwise orthogonal and of whatever lengths, 0 at a stationary point of the
    mean loss, nan when every gradient is zero. Dimensionless; unchanged by rescaling the loss. Its floor 1/m is sampling noise:
    compare curves of equal m only.

    Chatterjee & Zielinski, On the Generalization Mystery in Deep Learning (arXiv:2203.10036), Section 4.

    Args:
        gradients: from `per_example_value_and_grad`, or a plain tree whose leaves have a leading axis of m examples.
        by: a function from a leaf's key path to a name (`coherence.layer`, `coherence.leaf`); the result is then a dict.
        groups: bool [m] (result [2], False first) or int [m] with `num_groups`: one alpha a group, each with its own m.
        num_groups: how many groups an int `groups` holds (static); entries outside are in no group.

    Returns:
        A scalar; [groups] with `groups`; `{name: ...}` with `by`. nan for an empty group.

    Raises:
        ValueError: no leaves, mismatched example axes, or `groups` of the wrong shape or without `num_groups`.

    >>> alpha({"w": jnp.eye(4)})
    Array(0.25, dtype=float32)
    """
    return _each(lambda one: one.alpha, gradients, by, groups, num_groups)


def m_coherence(gradients, *, by=None, groups=None, num_groups=None):
    r"""How many examples of the sample, itself included, an average example's gradient helps.

    .. math:: m\,\alpha_m = \alpha_m / \alpha_m^\perp \in [0, m]

    1 for pairwise orthogonal gradients, m for identical ones, k for k copies each of orthonormal gradients. Grows about linearly
    with m once it is well above 1: compare curves of equal m only. With `groups`, m is the group's own count.

    Chatterjee & Zielinski, Making Coherence Out of Nothing At All (arXiv:2008.01217). Arguments as for `alpha`.

    >>> m_coherence({"w": jnp.ones((4, 3))})
    Array(4., dtype=float32)
    """
    return _each(lambda one: one.m * one.alpha, gradients, by, groups, num_groups)


def alpha_unbiased(gradients, *, by=None, groups=None, num_groups=None):
    r"""Alpha of the population the examples were drawn from: without the floor 1/m that sampling adds.

    .. math:: \hat\alpha = \frac{\|\sum_i g_i\|^2 - \sum_i\|g_i\|^2}{(m-1)\sum_i\|g_i\|^2} = \frac{m\alpha_m - 1}{m - 1}

    0 on average for unrelated gradients, and a little below 0 half of the time: do not clip it. Numerator and denominator are
    unbiased, the ratio is consistent; under heavy-tailed norms pool the `moments` of many batches and divide last.

    Arguments as for `alpha`. nan for a group of one.

    Raises:
        ValueError: the sample holds one example, of which there is no pair.

    >>> alpha_unbiased({"w": jnp.eye(4)})
    Array(0., dtype=float32)
    """
    if (m := reductions.nodes(gradients)[0][0][1].m) == 1:
        raise ValueError(f"alpha_unbiased needs at least 2 examples, got {m}: it averages over pairs.")
    return _each(lambda one: (one.m * one.alpha - 1) / (one.m - 1), gradients, by, groups, num_groups)


def moments(gradients, *, by=None, groups=None, num_groups=None):
    """The two sums alpha is a ratio of, for pooling over steps: add up `Moments` (means weighted by m), divide last.

    Arguments and shape of the result as for `alpha`, with a `Moments` in place of each number.
    """
    return _each(lambda one: one, gradients, by, groups, num_groups)


def _each(quantity, gradients, by, groups, num_groups):
    member, num_groups = _membership(gradients, groups, num_groups)
    name = by or (lambda path: None)
    norms: dict = {}
    for path, squares in reductions.leaf_squared_norms(gradients):
        norms[name(path)] = norms.get(name(path), 0.0) + squares
    weights = member / jnp.maximum(member.sum(1, keepdims=True), 1)
    sums: dict = {key: 0.0 for key in norms}
    per_group = [reductions.leaf_weighted_sums(gradients, w) for w in weights]
    for leaves in zip(*per_group):
        sums[name(leaves[0][0])] += jnp.stack([jnp.vdot(s, s) for _, s in leaves])
    m = member.sum(1)
    empty = jnp.where(m > 0, 0.0, jnp.nan).astype(m.dtype)
    result = {}
    for key, squares in norms.items():
        one = Moments(sums[key] + empty, weights @ squares + empty, m)
        result[key] = quantity(one if groups is not None else Moments(*(x[0] for x in one)))
    return result if by is not None else result[None]


def _membership(gradients, groups, num_groups):
    """[groups, m]: 1 where the example counts for the group."""
    found, _ = reductions.nodes(gradients)
    node = found[0][1]
    dtype = accumulator(*(n.dtype for _, n in found))
    keep = jnp.ones(node.m, bool) if node.mask is None else node.mask
    if groups is None:
        return keep[None].astype(dtype), 1
    groups = jnp.asarray(groups)
    if groups.shape != (node.m,):
        raise ValueError(f"groups must have one entry an example, [{node.m}], got {list(groups.shape)}.")
    if groups.dtype == jnp.bool_:
        num_groups = 2
    elif not jnp.issubdtype(groups.dtype, jnp.integer):
        raise ValueError(f"groups must be bool or int, got {groups.dtype}.")
    elif num_groups is None:
        raise ValueError("int groups need num_groups, a static count: alpha(g, groups=labels, num_groups=10).")
    return ((groups.astype(jnp.int32) == jnp.arange(num_groups)[:, None]) & keep).astype(dtype), num_groups
