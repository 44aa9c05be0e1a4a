"""Gradient diversity: the reciprocal of m-coherence."""

import jax

from coherence.trees import PyTree

from .pooling import one_set


def gradient_diversity(gradients: PyTree) -> jax.Array:
    r"""How different the gradients are: one over m-coherence.

    .. math:: \Delta_S = \frac{\sum_i\|g_i\|^2}{\|\sum_i g_i\|^2} = \frac{1}{m\,\alpha_m}
              \ge \frac1m

    1/m when all are equal, 1 when orthogonal, larger when they cancel, infinite at a stationary
    point. Dimensionless. Depends on m as m-coherence does: compare equal m only.

    Yin et al., Gradient Diversity (arXiv:1706.05699), read in an account.

    Args:
        gradients: per-example gradients, or what `pool` made of them.

    >>> float(gradient_diversity({"w": jnp.ones((4, 3))}))
    0.25
    """
    pooled = one_set(gradients, "gradient_diversity")
    return pooled.mean_squared_norm / (pooled.m * pooled.squared_norm_of_mean)


def batch_size_bound(gradients: PyTree) -> jax.Array:
    r"""Largest batch size that loses nothing against single steps, by gradient diversity.

    .. math:: B_S = m\,\Delta_S = 1/\alpha_m

    In examples. The source's theorem bounds batches by a constant times it; the formula is
    remembered, not read.

    Yin et al. (arXiv:1706.05699). Arguments as for `gradient_diversity`.
    """
    pooled = one_set(gradients, "batch_size_bound")
    return pooled.mean_squared_norm / pooled.squared_norm_of_mean
