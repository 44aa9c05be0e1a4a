"""The examples that lie closest to their neighbours (Krum), or the mean of a few such."""

import math
import numbers
from fractions import Fraction

import jax.numpy as jnp

from coherence.gradients.reductions import count, gram, mask, weighted_sum

from .aggregation import Aggregator, aggregator


def krum(share: float = 0.2, chosen: int = 1) -> Aggregator:
    r"""Krum: the gradient of the example that lies closest to its neighbours; multi-Krum: the mean
    of several such.

    .. math:: \bar g = \frac1c\sum_{i \in C} g_i, \qquad
        s_i = \sum_{j \in N_i} \|g_i - g_j\|^2

    with :math:`N_i` the m - f - 2 nearest other examples of i (one at least), f = `share` of m,
    rounded down, and C the c = `chosen` examples of the least :math:`s_i`, the earlier of two that
    are equal. f is how many examples may be anything: each score leaves out as many. All distances
    follow from the Gram matrix, and the result is a weighted sum: nothing is formed. One example's
    gradient is a noisy step: with many examples that are all honest the mean is better.

    Masked examples do not count, m is then the rest. A nan or an infinity in any example makes the
    coordinates it reaches nan. Distances below some 1e-3 of the gradients' length drown in
    float32's rounding.

    Blanchard, El Mhamdi, Guerraoui & Stainer, Machine Learning with Adversaries (arXiv:1703.02757).

    Args:
        share: f as a fraction of the examples, in [0, 0.5); meant as the decimal it is written as.
        chosen: how many are averaged, at least 1; all, where there are fewer.

    >>> tx = krum(0.25)
    >>> tx.update(jnp.array([[0.0], [1.0], [1.1], [50.0]]), tx.init(None))[0]
    Array([1.], dtype=float32)
    """
    if not 0 <= share < 0.5:
        raise ValueError(
            f"krum(share): a fraction of the examples, at least 0 and below 0.5, got {share}."
        )
    if not isinstance(chosen, numbers.Integral) or chosen < 1:
        raise ValueError(f"krum(chosen): a whole number of examples, at least 1, got {chosen!r}.")

    def combine(gradients):
        products, keep, n = gram(gradients), mask(gradients), count(gradients)
        m = len(products)
        # Of each possible number of examples how many neighbours count.
        wild = Fraction(str(share))
        each = [max(1, k - math.floor(wild * k) - 2) for k in range(m + 1)]
        neighbours = jnp.asarray(each)[n]
        lengths = jnp.diagonal(products)
        distances = lengths[:, None] + lengths - 2 * products
        distances = jnp.where(jnp.isnan(distances), jnp.inf, distances)  # of squares that overflow
        absent = jnp.eye(m, dtype=bool)
        if keep is not None:
            absent |= ~keep
        ranked = jnp.sort(jnp.where(absent, jnp.inf, jnp.maximum(distances, 0)), 1)
        counts = jnp.arange(m) < jnp.minimum(neighbours, n - 1)
        scores = jnp.sum(jnp.where(counts, ranked, 0), 1)
        if keep is not None:
            scores = jnp.where(keep, scores, jnp.nan)  # behind those that are infinitely far
        number = jnp.minimum(chosen, n)
        place = jnp.argsort(jnp.argsort(scores))
        return weighted_sum(gradients, jnp.where(place < number, 1, 0) / number)

    return aggregator(combine, f"krum(share={share}, chosen={chosen})")
