"""Three tests of adaptive sampling: is the batch large enough?

Each is given as the smallest parameter with which it passes: the standard error of the mean
gradient relative to its length, whole, along it, and across it. The squares of the last two add up
to that of the first.
"""

import jax
import jax.numpy as jnp

from coherence.gradients.reductions import count, dot, mask, squared_norms
from coherence.trees import PyTree

from .pooling import Pooled, check_examples, check_size, one_set


def norm_test(gradients: PyTree) -> jax.Array:
    r"""Relative standard error of the mean gradient: the norm test passes for every theta above.

    .. math:: \theta = \sqrt{\frac{\mathrm{tr}\,S}{m\,\|\bar g\|^2}},
              \qquad S \text{ the sample covariance, divided by } m-1

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


def inner_product_test(gradients: PyTree, *, pooled: Pooled | None = None) -> jax.Array:
    r"""Relative standard error of the mean gradient along itself: do examples agree on how far?

    .. math:: \theta = \sqrt{\frac{1}{m\,\|\bar g\|^4}\,
              \frac{1}{r-1}\sum_{i\le r}\big(g_i\cdot\bar g - \|\bar g\|^2\big)^2}

    Passes for every theta above. Dimensionless.

    Bollapragada, Byrd & Nocedal, Adaptive Sampling Strategies for Stochastic Optimization
    (arXiv:1710.11258); remembered.

    Args:
        gradients: per-example gradients of at least 2 examples; with `pooled`, r of the m examples
            pooled there.
        pooled: the whole sample, from `pool` (default: these gradients are all of it).
    """
    along, _ = _relative_variances(gradients, pooled, "inner_product_test")
    return jnp.sqrt(along)


def orthogonality_test(gradients: PyTree, *, pooled: Pooled | None = None) -> jax.Array:
    r"""Relative standard error of the mean gradient across itself: do examples agree on where?

    .. math:: \nu = \sqrt{\frac{1}{m\,\|\bar g\|^2}\,\frac{1}{r-1}\sum_{i\le r}
              \Big\|g_i - \frac{g_i\cdot\bar g}{\|\bar g\|^2}\bar g\Big\|^2}

    Passes for every nu above. Dimensionless. Source and arguments as for `inner_product_test`.
    """
    _, across = _relative_variances(gradients, pooled, "orthogonality_test")
    return jnp.sqrt(across)


def _relative_variances(
    gradients: PyTree, pooled: Pooled | None, name: str
) -> tuple[jax.Array, jax.Array]:
    """Variances of the mean along itself and across, over its squared length.

    Every term is divided by that squared length before it is squared itself: fourth powers of a
    gradient leave the range of float32 at lengths of 1e-10 and 1e10.
    """
    check_examples(gradients, name)
    check_size(gradients, name)
    whole = one_set(gradients if pooled is None else pooled, name)
    unit, keep = whole.squared_norm_of_mean, mask(gradients)
    dots, norms = dot(gradients, whole.mean) / unit, squared_norms(gradients) / unit
    along = jnp.square(dots - 1)
    across = jnp.maximum(norms - jnp.square(dots), 0)  # Pythagoras; rounding may go below

    def variance(terms):
        counted = terms if keep is None else jnp.where(keep, terms, 0)
        return jnp.sum(counted) / (count(gradients) - 1) / whole.m

    return variance(along), variance(across)
