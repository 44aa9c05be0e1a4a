"""Stiffness, from the inner products of pairs: does a step that helps one example help another?"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from coherence.gradients import reductions
from coherence.trees import PyTree

from .pooling import check_examples, check_size, group_numbers

Kind = Literal["cosine", "sign"]


class Stiffness(NamedTuple):
    """Mean stiffness between and within groups; nan where there is no pair.

    matrix: [groups, groups], symmetric.
    within, between: scalars, means over its diagonal and the rest.

    >>> from coherence.metrics import sign_stiffness, stiffness_by_group
    >>> grads = {"w": jnp.array([[1.0], [2.0], [-1.0]])}
    >>> stiffness_by_group(grads, jnp.array([0, 0, 1]), num_groups=2).within
    Array(1., dtype=float32)
    """

    matrix: jax.Array
    within: jax.Array
    between: jax.Array


class Pairs(NamedTuple):
    """Pairs of examples, [m, m].

    products, cosines: g_i . g_j, and over both lengths.
    counted: bool, the pairs of different examples, neither of them masked.
    directed: bool, those of them where both gradients have a direction.
    """

    products: jax.Array
    cosines: jax.Array
    counted: jax.Array
    directed: jax.Array


def sign_stiffness(gradients: PyTree) -> jax.Array:
    r"""Share of the pairs of examples that help each other, less the share that hurt each other.

    .. math:: S_{\mathrm{sign}} = \frac{1}{|P|}\sum_{(i,j)\in P} \mathrm{sign}(g_i\cdot g_j)
              \in [-1, 1]

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


def cosine_stiffness(gradients: PyTree) -> jax.Array:
    r"""Mean cosine between the gradients of two different examples.

    .. math:: S_{\cos} = \frac{1}{|P|}\sum_{(i,j)\in P} \frac{g_i\cdot g_j}{\|g_i\|\,\|g_j\|}
              \in \Big[-\frac{1}{m-1}, 1\Big]

    over the pairs P of different examples. 1 when all are parallel, 0 when they are orthogonal.
    Dimensionless, and without the floor 1/m of alpha, since no example meets itself: where all have
    the same length, :math:`\alpha_m = \frac1m + (1-\frac1m) S_{\cos}`. Lengths do not count here:
    long and short, fitted and unfitted examples weigh the same, as they do not in alpha.

    An example whose gradient is zero (in float32 also one shorter than about 1e-19, whose square
    is) has no direction: its pairs are left out.

    Source, arguments, result and errors as for `sign_stiffness`.

    >>> float(cosine_stiffness({"w": jnp.eye(4)}))
    0.0
    """
    return _mean(pairs(gradients, "cosine_stiffness"), "cosine")


def stiffness_by_group(
    gradients: PyTree, groups: ArrayLike, *, num_groups: int | None = None, kind: Kind = "cosine"
) -> Stiffness:
    r"""Stiffness between groups of examples: the class matrix, and its means within and between.

    .. math:: C_{ab} = \frac{1}{|P_{ab}|}\sum_{(i,j)\in P_{ab}} s_{ij}, \qquad
              S_{\mathrm{within}} = \frac1G\sum_a C_{aa}, \qquad
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
    >>> stiffness_by_group(g, is_test).matrix[0, 1]  # of two test examples one unmoved, one hurt
    Array(-0.5, dtype=float32)
    """
    if kind not in ("cosine", "sign"):
        raise ValueError(f'stiffness_by_group(kind): "cosine" or "sign", got {kind!r}.')
    every = pairs(gradients, "stiffness_by_group")
    numbers, num_groups = group_numbers(groups, num_groups, len(every.products))
    member = (numbers == jnp.arange(num_groups)[:, None]).astype(every.products.dtype)
    count = member @ every.directed.astype(member.dtype) @ member.T
    values = _values(every, kind)
    # One nan must not reach other groups as 0 * nan: it is counted, and put where it belongs.
    unknown = jnp.isnan(values)
    total = member @ jnp.where(unknown, 0, values) @ member.T
    spoiled = member @ unknown.astype(member.dtype) @ member.T > 0
    matrix = jnp.where(spoiled, jnp.nan, total / count)
    has_pairs, own = count > 0, jnp.eye(num_groups, dtype=bool)
    mean = lambda where: jnp.sum(matrix, where=where) / jnp.sum(where)
    return Stiffness(matrix, mean(has_pairs & own), mean(has_pairs & ~own))


def pairs(gradients: PyTree, name: str) -> Pairs:
    """The pairs of per-example gradients, asked for by the metric `name`.

    Raises:
        ValueError: one example only, or what is pooled.
    """
    check_examples(gradients, name)
    check_size(gradients, name)
    products = reductions.gram(gradients)
    keep, different = reductions.mask(gradients), ~jnp.eye(len(products), dtype=bool)
    counted = different if keep is None else different & keep[:, None] & keep
    # Rounding may leave a zero a little below; nan is not zero: it must show.
    lengths = jnp.sqrt(jnp.maximum(jnp.diagonal(products), 0))
    directed = counted & (lengths[:, None] != 0) & (lengths != 0)
    safe = jnp.where(lengths == 0, 1, lengths)
    cosines = jnp.clip(products / safe[:, None] / safe, -1, 1)
    return Pairs(products, cosines, counted, directed)


def _values(pairs: Pairs, kind: Kind) -> jax.Array:
    values = jnp.sign(pairs.products) if kind == "sign" else pairs.cosines
    return jnp.where(pairs.directed, values, 0)


def _mean(pairs: Pairs, kind: Kind) -> jax.Array:
    return jnp.sum(_values(pairs, kind)) / jnp.sum(pairs.directed)
