"""A direction along which no example's loss rises, by the Gram matrix."""

import numbers

import jax
import jax.numpy as jnp

from coherence.gradients.arguments import varying_with
from coherence.gradients.reductions import count, gram, mask, weighted_sum

from .aggregation import Aggregator, aggregator

_DAMPING = 1e-6  # of the mean squared norm: what keeps gradients that repeat each other apart


def conflict_free(sweeps: int = 50) -> Aggregator:
    r"""UPGrad: the mean of the gradients, each first moved until it conflicts with no other.

    .. math:: \bar g = \frac1m\sum_i \pi(g_i), \qquad
        \pi(g) = \arg\min_{x:\; g_j \cdot x \ge 0\;\forall j} \|x - g\|

    A small step along the result raises no example's loss (where one is possible: opposite
    gradients of the same two examples leave nothing), and an example that no other opposes gets its
    whole gradient. With more examples than parameters little is without conflict, and the step is
    short: it suits objectives, tasks, or few examples.

    Each projection is a quadratic program over weights, :math:`\pi(g_i) = \sum_j v_{ij} g_j` with
    :math:`v_i \ge e_i` of least :math:`v_i^\top K v_i`, K the Gram matrix. All m are solved
    together by coordinate descent, m^3 operations a sweep; the result is then one weighted sum.
    What is left of a conflict falls with the sweeps. Masked examples do not count. A nan in any
    example makes everything nan.

    Quinton & Rey, Jacobian Descent for Multi-Objective Optimization (arXiv:2406.16232), Section 3;
    the library TorchJD.

    Args:
        sweeps: how often every weight is set, at least 1; static.

    >>> tx = conflict_free()
    >>> g = jnp.array([[1.0, 1.0], [1.0, -2.0]])
    >>> (g @ tx.update(g, tx.init(None))[0] >= -1e-4).all()
    Array(True, dtype=bool)
    """
    if not isinstance(sweeps, numbers.Integral) or sweeps < 1:
        raise ValueError(f"conflict_free(sweeps): a whole number, at least 1, got {sweeps!r}.")

    def combine(gradients):
        products, keep, n = gram(gradients), mask(gradients), count(gradients)
        weights = _weights(products, sweeps)
        if keep is not None:
            weights = jnp.where(keep[:, None], weights, 0)
        return weighted_sum(gradients, weights.sum(0) / n)

    return aggregator(combine, f"conflict_free(sweeps={sweeps})")


def _weights(products, sweeps):
    """[m, m]: of each example's projection the weights of all."""
    m = len(products)
    lengths = jnp.sqrt(jnp.maximum(jnp.diagonal(products), 0))  # rounding may leave a zero below
    divisors = jnp.where(lengths == 0, 1, lengths)
    # Of directions: short examples count as much as long ones, and damping is the same for all.
    cosines = products / divisors / divisors[:, None] + _DAMPING * jnp.eye(m, dtype=products.dtype)
    own = jnp.diagonal(cosines)
    least = jnp.diag(lengths)

    def set_weight(step, weights):
        k = step % m
        pull = weights @ cosines[k] - weights[:, k] * own[k]
        return weights.at[:, k].set(jnp.maximum(least[:, k], -pull / own[k]))

    weights = jax.lax.fori_loop(0, sweeps * m, set_weight, varying_with(least, products))
    return weights / divisors
