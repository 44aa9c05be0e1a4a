"""Is the batch large enough? Three tests of adaptive sampling, as the smallest parameter with which each passes.

Each is the standard error of the mean gradient relative to its length: whole, along it, and across
it; the squares of the last two add up to that of the first.
"""

import jax.numpy as jnp

from coherence.gradients.reductions import count, dot, mask, squared_norms

from .pooling import check_examples, check_size, one_set


def norm_test(gradients):
    r"""Relative standard error of the mean gradient: the norm test passes for every theta above.

    .. math:: \theta = \sqrt{\frac{\mathrm{tr}\,S}{m\,\|\bar g\|^2}}, \qquad S \text{ the sample covariance, divided by } m-1

    0 when all gradients are equal, 1 when orthogonal, larger when they cancel. Dimensionless.

    Byrd et al. 2012, Sample size selection in optimization methods for machine learning; the
    equation is remembered.

    Args:
        gradients: per-example gradients of at least 2 examples, or what `pool` made of them.

    >>> float(norm_test({"w": jnp.array([[1.0], [3.0]])}))  # variance 2 over 2 examples, mean 2
    0.5
    """
    pooled = one_set(gradients, "norm_test", at_least=2)
    return jnp.sqrt(jnp.maximum(pooled.variance, 0) / (pooled.m * pooled.squared_norm_of_mean))


def inner_product_test(gradients, *, pooled=None):
    r"""Relative standard error of the mean gradient along itself: does the batch agree on how far?

    .. math:: \theta = \sqrt{\frac{1}{m\,\|\bar g\|^4}\,\frac{1}{r-1}\sum_{i\le r}\big(g_i\cdot\bar g - \|\bar g\|^2\big)^2}

    Passes for every theta above. Dimensionless.

    Bollapragada, Byrd & Nocedal, Adaptive Sampling Strategies for Stochastic Optimization
    (arXiv:1710.11258); remembered.

    Args:
        gradients: per-example gradients of at least 2 examples; with `pooled`, r of the m examples
        pooled there.
        pooled: the whole sample, from `pool` (default: these gradients are all of it).
    """
    whole, along, _ = _parts(gradients, pooled, "inner_product_test")
    length = whole.squared_norm_of_mean
    return jnp.sqrt(along / (whole.m * length))


def orthogonality_test(gradients, *, pooled=None):
    r"""Relative standard error of the mean gradient across itself: does the batch agree on where?

    .. math:: \nu = \sqrt{\frac{1}{m\,\|\bar g\|^2}\,\frac{1}{r-1}\sum_{i\le r}
              \Big\|g_i - \frac{g_i\cdot\bar g}{\|\bar g\|^2}\bar g\Big\|^2}

    Passes for every nu above. Dimensionless. Source and arguments as for `inner_product_test`.
    """
    whole, along, entire = _parts(gradients, pooled, "orthogonality_test")
    return jnp.sqrt(jnp.maximum(entire - along, 0) / (whole.m * whole.squared_norm_of_mean))


def _parts(gradients, pooled, name):
    """What is pooled, and the variance of the examples along the mean and altogether (divided by r - 1)."""
    check_examples(gradients, name)
    check_size(gradients, name)
    whole = one_set(gradients if pooled is None else pooled, name)
    length, r = whole.squared_norm_of_mean, count(gradients)
    dots, norms = dot(gradients, whole.mean), squared_norms(gradients)
    along, entire = jnp.square(dots - length) / length, norms - 2 * dots + length
    keep = mask(gradients)
    total = lambda values: jnp.sum(values if keep is None else jnp.where(keep, values, 0)) / (r - 1)
    return whole, total(along), total(entire)
