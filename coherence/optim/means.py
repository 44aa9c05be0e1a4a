"""Means of whole gradients: the plain one, and one in which no gradient is long."""

import jax.numpy as jnp

from coherence.gradients.reductions import count, mean, squared_norms, weighted_sum

from .aggregation import Aggregator, aggregator


def average() -> Aggregator:
    r"""The mean gradient: what gradient descent on the mean loss uses.

    .. math:: \bar g = \frac1m\sum_i g_i

    A batch gradient passes through, when `update` is given the parameters to recognize it by.

    >>> average().update(jnp.array([[1.0], [3.0]]), average().init(None))[0]
    Array([2.], dtype=float32)
    """
    return aggregator(mean, "average()", takes_batch_gradient=True)


def norm_clip(max_norm: float = 1.0) -> Aggregator:
    r"""Mean of the gradients after clipping each example's norm to at most `max_norm`.

    .. math:: \bar g = \frac1m\sum_i \min\left(1, \frac{C}{\|g_i\|}\right) g_i

    over all leaves together. Directions stay what they are, unlike with `winsorize`; m examples
    that agree still move by C. With a C below all lengths it is the mean of the directions, C
    times. Squared lengths and a weighted sum: nothing is formed.

    Masked examples do not count. A nan in any example makes everything nan. Lengths are computed in
    float32: beyond 1e19 they overflow, and an infinite length is scaled to nothing where its
    entries are finite.

    Abadi et al., Deep Learning with Differential Privacy (arXiv:1607.00133), Section 3.1, without
    the noise, and the mean where `optax.per_example_global_norm_clip` sums. Not in the papers on
    coherent gradients.

    Args:
        max_norm: C, above 0.

    >>> tx = norm_clip(2.5)
    >>> tx.update(jnp.array([[0.0, 0.5], [3.0, 4.0]]), tx.init(None))[0]
    Array([0.75, 1.25], dtype=float32)
    """
    if not max_norm > 0:
        raise ValueError(f"norm_clip(max_norm): max_norm is a length, above 0, got {max_norm}.")

    def combine(gradients):
        squares = squared_norms(gradients)
        # A zero gradient is below any length; 0 / 0 does not arise, for max_norm > 0.
        scales = jnp.minimum(1, max_norm / jnp.sqrt(squares))
        return weighted_sum(gradients, scales / count(gradients))

    return aggregator(combine, f"norm_clip(max_norm={max_norm})")
