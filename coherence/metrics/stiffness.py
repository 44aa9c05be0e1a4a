"""Stiffness: does a step that helps one example help another? From the inner products of pairs, [m, m]."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from coherence.gradients import reductions

from .pooling import check_examples, check_size, group_numbers


class Stiffness(NamedTuple):
    """Between and within groups. `matrix` [groups, groups], symmetric; `within` and `between` scalars. nan where there is no pair."""

    matrix: jax.Array
    within: jax.Array
    between: jax.Array


class Pairs(NamedTuple):
    """Pairs of examples, each [m, m]: inner products, cosines, which pairs count (i != j, neither masked), and have directions, too."""

    products: jax.Array
    cosines: jax.Array
    counted: jax.Array
    directed: jax.Array


def sign_stiffness(gradients):
    r"""How many more pairs of examples help each other than hurt each other.

    .. math:: S_{\mathrm{sign}} = \frac{1}{|P|}\sum_{(i,j)\in P} \mathrm{sign}(g_i\cdot g_j) \in [-1, 1]

    over the pairs P of different examples. 1 when every small step on one example lowers the loss
    of every other, 0 when as many are hurt as helped (or all are orthogonal), -1 when all pairs
    conflict, as the corners of a simplex do. Dimensionless; unchanged by rescaling any example's
    loss.

    An example whose gradient is zero (in float32 also one shorter than about 1e-19, whose square
    is) has no direction: its pairs are left out. Beware of pairs that are orthogonal but for
    rounding: any remainder counts as a full sign.

    Fort, Nowak, Jastrzebski & Narayanan, Stiffness (arXiv:1901.09491), from accounts of it.

    Args:
        gradients: from `per_example_value_and_grad`, or a plain tree whose leaves have a leading
            axis of m examples. Memory: m x m.

    Returns:
        A scalar; nan where no pair is left.

    Raises:
        ValueError: the sample holds one example, of which there is no pair.

    >>> float(sign_stiffness({"w": jnp.array([[1.0], [2.0], [-3.0]])}))  # one pair in three agrees
    -0.3333333432674408
    """
    return _mean(pairs(gradients, "sign_stiffness"), "sign")


def cosine_stiffness(gradients):
    r"""How far the gradients of two different examples point the same way.

    .. math:: S_{\cos} = \frac{1}{|P|}\sum_{(i,j)\in P} \frac{g_i\cdot g_j}{\|g_i\|\,\|g_j\|} \in \Big[-\frac{1}{m-1}, 1\Big]

    over the pairs P of different examples. 1 when all are parallel, 0 when they are orthogonal.
    Dimensionless, and without the floor
    1/m of alpha, since no example meets itself: where all have the same length, :math:`\alpha_m = \frac1m + (1-\frac1m) S_{\cos}`.
    Lengths do not count here: long and short, fitted and unfitted examples weigh the same, as they
        do not in alpha.

    An example whose gradient is zero (in float32 also one shorter than about 1e-19, whose square
    is) has no direction: its pairs are left out.

    Source, arguments, result and errors as for `sign_stiffness`.

    >>> float(cosine_stiffness({"w": jnp.eye(4)}))
    0.0
    """
    return _mean(pairs(gradients, "cosine_stiffness"), "cosine")


def stiffness_by_group(gradients, groups, *, num_groups=None, kind="cosine"):
    r"""Which groups of examples help each other: the class stiffness matrix, and its means within and between groups.

    .. math:: C_{ab} = \frac{1}{|P_{ab}|}\sum_{(i,j)\in P_{ab}} s_{ij}, \qquad S_{\mathrm{within}} = \frac1G\sum_a C_{aa}, \qquad
              S_{\mathrm{between}} = \frac{1}{G(G-1)}\sum_{a\ne b} C_{ab}

    with s_ij the cosine or the sign of :math:`g_i\cdot g_j`, and P_ab the pairs of different
    examples, i of a and j of b, both with a direction. All in [-1, 1]; landmarks as for
    `cosine_stiffness`. Every *group* weighs the same in the two means, however large; entries
    without a pair (an empty group; the diagonal of a group of one) are nan and left out of them.

    Train-test stiffness is the same with groups that mark the set, on a batch of both: `matrix[0,
    1]`.

    Source as for `sign_stiffness`.

    Args:
        gradients: as for `sign_stiffness`.
        groups: bool [m] (two groups, False first) or int [m] with `num_groups`; classes, for
        example.
        num_groups: how many groups an int `groups` holds (static); entries outside are in no group.
        kind: "cosine" or "sign".

    Returns:
        `Stiffness(matrix [groups, groups], within, between)`.

    Raises:
        ValueError: one example only; `groups` of the wrong shape or type, or without `num_groups`;
            another `kind`.

    >>> g = {"w": jnp.array([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0], [-2.0, 0.0]])}
    >>> is_test = jnp.array([False, False, True, True])
    >>> float(stiffness_by_group(g, is_test).matrix[0, 1])  # two test examples: one unmoved, one hurt
    -0.5
    """
    if kind not in ("cosine", "sign"):
        raise ValueError(f'stiffness_by_group(kind): "cosine" or "sign", got {kind!r}.')
    of = pairs(gradients, "stiffness_by_group")
    numbers, num_groups = group_numbers(groups, num_groups, len(of.products))
    member = (numbers == jnp.arange(num_groups)[:, None]).astype(of.products.dtype)
    count = member @ of.directed.astype(member.dtype) @ member.T
    matrix = member @ _values(of, kind) @ member.T / count
    some, own = count > 0, jnp.eye(num_groups, dtype=bool)
    mean = lambda where: jnp.sum(matrix, where=where) / jnp.sum(where)
    return Stiffness(matrix, mean(some & own), mean(some & ~own))


def pairs(gradients, name):
    """The `Pairs` of per-example gradients; `name` is who asks, for the error about a sample of one."""
    check_examples(gradients, name)
    check_size(gradients, name)
    products = reductions.gram(gradients)
    keep, different = reductions.mask(gradients), ~jnp.eye(len(products), dtype=bool)
    counted = different if keep is None else different & keep[:, None] & keep
    lengths = jnp.sqrt(
        jnp.maximum(jnp.diagonal(products), 0)
    )  # rounding may leave a zero a little below
    directed = counted & (lengths[:, None] != 0) & (lengths != 0)  # nan is not zero: it must show
    safe = jnp.where(lengths == 0, 1, lengths)
    return Pairs(products, jnp.clip(products / safe[:, None] / safe, -1, 1), counted, directed)


def _values(of, kind):
    return jnp.where(of.directed, jnp.sign(of.products) if kind == "sign" else of.cosines, 0)


def _mean(of, kind):
    return jnp.sum(_values(of, kind)) / jnp.sum(of.directed)
