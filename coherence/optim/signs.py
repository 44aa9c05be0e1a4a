"""Aggregators that count signs: how many examples want a coordinate up, how many down."""

import math
import numbers
from fractions import Fraction

import jax
import jax.numpy as jnp
import optax

from coherence.gradients.reductions import (
    count,
    leaf_weighted_sums,
    mask,
    mean,
    mean_of,
    mean_weights,
    size,
    weighted_sum_of,
)

from .aggregation import Aggregator, aggregator, averaged


def sign_agreement(threshold: float = 0.5) -> Aggregator:
    r"""The mean gradient where the examples agree on its sign, zero elsewhere.

    .. math:: \bar g^{(j)} = \frac1m\sum_i g_i^{(j)} \quad\text{where}\quad
        \Big|\frac1m\sum_i \mathrm{sign}\, g_i^{(j)}\Big| \ge \tau

    The *AND-mask*. A threshold of 0 is the mean, of 1 demands that no example is against it or
    indifferent: an example whose gradient is zero there (ReLU) agrees with nobody. Signs are
    counted exactly, and the threshold means the decimal it is written as. A nan in any example
    makes its coordinate nan. Masked examples do not count.

    The source divides what is left of each leaf by the share of coordinates that are left, as an
    option of its released code: here that is left to the learning rate.

    Parascandolo, Neitz, Orvieto, Gresele & Schoelkopf, Learning explanations that are hard to vary
    (arXiv:2009.00329).

    Args:
        threshold: share by which one sign outnumbers the other, in [0, 1]; static.

    >>> tx = sign_agreement(0.5)
    >>> tx.update(jnp.array([[1.0, 1.0], [1.0, 2.0], [3.0, -9.0], [-1.0, -1.0]]), tx.init(None))[0]
    Array([1., 0.], dtype=float32)
    """
    if not isinstance(threshold, numbers.Real) or not 0 <= threshold <= 1:
        raise ValueError(
            "sign_agreement(threshold): threshold is a share of the examples, in [0, 1], "
            f"got {threshold!r}."
        )

    def combine(gradients):
        needed = _needed(threshold, gradients)
        # "Zero where too few", not "kept where enough": a nan is neither.
        agreed = lambda g, signs: jnp.where(jnp.abs(signs) < needed, 0, g).astype(g.dtype)
        return jax.tree.map(agreed, mean(gradients), _sum_of_signs(gradients))

    return aggregator(combine, f"sign_agreement(threshold={threshold})")


def sum_of_signs() -> Aggregator:
    r"""Sum of the signs of the examples' gradients: each has one vote a coordinate.

    .. math:: \bar g^{(j)} = \sum_i \mathrm{sign}\, g_i^{(j)} \in [-m, m]

    A whole number, of the examples that count (none for a zero); nobody is louder than others. A
    *sum*, so the learning rate goes as 1/m. The authors' released code (not the paper) multiplies
    it by 0.001: here that belongs to the learning rate, 0.1 there is `chain(sum_of_signs(),
    optax.sgd(1e-4))`. A nan in any example makes its coordinate nan.

    Chatterjee, Coherent Gradients (arXiv:2002.10657), released code, policy `sum_sign`.

    >>> tx = sum_of_signs()
    >>> tx.update(jnp.array([[0.1, 1.0], [0.2, 0.0], [-9.0, 3.0]]), tx.init(None))[0]
    Array([1., 2.], dtype=float32)
    """
    return aggregator(_sum_of_signs, "sum_of_signs()")


def sign_of_sum() -> Aggregator:
    r"""Sign of the mean gradient: magnitudes are thrown away.

    .. math:: \bar g^{(j)} = \mathrm{sign} \sum_i g_i^{(j)} \in \{-1, 0, 1\}

    The control for `sum_of_signs`; of a batch gradient, the sign. A sum that is zero but for
    rounding, no larger than (m + 1) epsilon times the sum of the magnitudes, has the sign 0:
    otherwise gradients that cancel would be decided by the order in which they are added. The
    authors' released code (not the paper) multiplies it by 0.001: here that belongs to the learning
    rate.

    Chatterjee, Coherent Gradients (arXiv:2002.10657), released code, policy `sign_sum`.

    >>> tx = sign_of_sum()
    >>> tx.update(jnp.array([[0.1, 1.0], [0.2, 0.0], [-9.0, 3.0]]), tx.init(None))[0]
    Array([-1.,  1.], dtype=float32)
    """
    return averaged(optax.scale_by_sign(), "sign_of_sum()", combine=_sign_of_sum)


def _sign_of_sum(gradients):
    # A power of two keeps the sum from overflowing and rounds nothing.
    m = size(gradients)
    weights = jnp.full(m, 0.5 ** (m - 1).bit_length(), mean_weights(gradients).dtype)
    sums = [total for _, total in leaf_weighted_sums(gradients, weights)]
    magnitudes = weighted_sum_of(gradients, jnp.abs, weights)

    def sign(total, magnitude):
        rounding = (m + 1) * jnp.finfo(total.dtype).eps * magnitude
        return jnp.where((abs(total) <= rounding) & jnp.isfinite(rounding), 0, jnp.sign(total))

    return jax.tree.map(sign, jax.tree.unflatten(jax.tree.structure(magnitudes), sums), magnitudes)


def _sum_of_signs(gradients):
    """Rounded: a mean times m is a whole number but for its last bits."""
    m = count(gradients)
    return jax.tree.map(lambda mean_sign: jnp.round(m * mean_sign), mean_of(gradients, jnp.sign))


def _needed(threshold, gradients):
    """By how many examples one sign outnumbers the other at the threshold; an array with a mask."""
    least = lambda n: math.ceil(Fraction(str(threshold)) * n)
    m = size(gradients)
    if mask(gradients) is None:
        return least(m)
    return jnp.asarray(list(map(least, range(m + 1))))[count(gradients)]
