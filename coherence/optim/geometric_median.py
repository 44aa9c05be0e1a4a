"""The point with the least sum of distances to the examples' gradients."""

import numbers

import jax
import jax.numpy as jnp

from coherence.gradients.arguments import varying_with
from coherence.gradients.reductions import gram, mask, weighted_sum

from .aggregation import Aggregator, aggregator


def geometric_median(iterations: int = 32, smoothing: float = 1e-3) -> Aggregator:
    r"""Geometric median: the point with the least sum of distances to the examples' gradients.

    .. math:: \bar g = \arg\min_z \sum_i \|g_i - z\|

    A minority, however far away, cannot carry it off. Unlike the coordinate-wise median it does not
    depend on the axes: it weighs whole examples. By Weiszfeld's iteration from the medoid, each
    example weighted by one over its distance d_i to the last z. z is a weighted mean of the g_i, so
    all distances follow from the Gram matrix K,

    .. math:: d_i^2 = K_{ii} - 2 (K w)_i + w^\top K w, \qquad w_i \propto 1 / \max(d_i, \nu)

    and nothing is formed: the price is K once, m^2 operations an iteration and one weighted mean.
    nu is `smoothing` times the median distance, so that nothing is divided by zero where z meets an
    example; the result does not depend on units (in the source nu is an absolute 1e-6). A nan in
    any example makes everything nan. Masked examples do not count. Distances below some 1e-3 of the
    gradients' length drown in float32's rounding of K: gradients that close are simply averaged
    with uneven weights.

    Pillutla, Kakade & Harchaoui, Robust Aggregation for Federated Learning (arXiv:1912.13445);
    Weiszfeld (1937). Not in the papers on coherent gradients.

    Args:
        iterations: how often the weights are computed, at least 1; static. The source finds a
            handful enough.
        smoothing: nu in units of the median distance, in (0, 1].

    >>> tx = geometric_median()
    >>> g = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [100.0, 100.0]])  # where diagonals meet
    >>> tx.update(g, tx.init(None))[0].round(2)
    Array([0.5, 0.5], dtype=float32)
    """
    if not isinstance(iterations, numbers.Integral) or iterations < 1:
        raise ValueError(
            "geometric_median(iterations): iterations is a whole number, at least 1, "
            f"got {iterations!r}."
        )
    if not 0 < smoothing <= 1:
        raise ValueError(
            "geometric_median(smoothing): smoothing is a share of the median distance, in (0, 1], "
            f"got {smoothing}."
        )

    def combine(gradients):
        products, keep = gram(gradients), mask(gradients)
        far = jnp.isinf(jnp.diagonal(products))  # beyond any finite distance they weigh nothing
        products = jnp.where(far | far[:, None], 0, products)
        counted = (~far if keep is None else keep & ~far).astype(products.dtype)
        return weighted_sum(gradients, _weights(products, counted, iterations, smoothing))

    name = f"geometric_median(iterations={iterations}, smoothing={smoothing})"
    return aggregator(combine, name)


def _weights(products, counted, iterations, smoothing):
    """The weights [m], of sum 1, with which the examples' mean is their geometric median."""

    def reweigh(_, w):
        projections = products @ w
        distance = jnp.sqrt(
            jnp.maximum(jnp.diagonal(products) - 2 * projections + w @ projections, 0)
        )
        nu = smoothing * jnp.nanmedian(jnp.where(counted > 0, distance, jnp.nan))
        # nu / max(d, nu), without 0 / 0 where more than half of the examples are where z is.
        near = distance <= nu
        w = counted * jnp.where(near, 1, nu / jnp.where(near, 1, distance))
        return w / w.sum()

    start = _medoid(products, counted)
    return jax.lax.fori_loop(0, iterations, reweigh, varying_with(start, products))


def _medoid(products, counted):
    """Weight one for the counted example with the least sum of distances to the others."""
    lengths = jnp.diagonal(products)
    distances = jnp.sqrt(jnp.maximum(lengths[:, None] + lengths - 2 * products, 0))
    sums = jnp.where(counted > 0, distances @ counted, jnp.inf)
    return (jnp.arange(len(sums)) == jnp.argmin(sums)).astype(products.dtype)
