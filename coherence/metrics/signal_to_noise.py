"""Signal against noise in single coordinates, and what a step on the sample is worth on fresh examples."""

import jax
import jax.numpy as jnp

from .pooling import one_set


def gsnr(gradients):
    r"""Signal-to-noise ratio of each parameter's gradient: how far the examples agree about that one coordinate.

    .. math:: r_j = \frac{\bar g_j^2}{\rho_j^2} \ge 0, \qquad \rho_j^2 = \frac1m\sum_i (g_{ij} - \bar g_j)^2

    0 where the mean vanishes, infinite where all examples agree exactly, 1/(m-1) where one example
    alone moves the parameter, nan where none does. With the variance divided by m, as here, the
    coordinate's own alpha is exactly :math:`r_j/(1+r_j)`, and alpha of the network is their mean
    weighted by :math:`\mathbb E g_{ij}^2`. Sampling noise alone gives about 1/m. Dimensionless.

    Liu et al., Understanding Why Neural Networks Generalize Well Through GSNR of Parameters
    (arXiv:2001.07384), read in an account.

    Args:
        gradients: per-example gradients of at least 2 examples, or `pool(gradients,
            second_moments=True)`.

    Returns:
        In the parameters' containers and shapes.

    Raises:
        ValueError: one example, or pooled gradients without second moments.

    >>> gsnr({"w": jnp.array([[1.0], [3.0]])})
    {'w': Array([4.], dtype=float32)}
    """
    pooled = one_set(gradients, "gsnr", at_least=2, second_moments=True)
    return jax.tree.map(_ratio, pooled.mean, pooled.second_moments)


def mean_gsnr(gradients, *, by=None):
    r"""GSNR averaged over the parameters that any example moves, each counted once.

    .. math:: \frac1D\sum_{j=1}^{D} r_j

    One number for a network or, with `by`, `{name: number}`. A parameter with zero gradient for
    every example (a dead unit) is left out; one on which all examples agree exactly makes it
    infinite; nan where no parameter moves. Unlike alpha it is unchanged by rescaling single
    parameters, and dominated by the few with the largest ratio. `evidence` is 1 - (m - 1) times it.

    Arguments and source as for `gsnr`.

    >>> mean_gsnr({"w": jnp.array([[1.0, 0.0], [3.0, 0.0]])})
    Array(4., dtype=float32)
    """
    sums: dict = {}
    for path, total, count in ratio_sums(
        one_set(gradients, "mean_gsnr", at_least=2, second_moments=True)
    ):
        name = None if by is None else by(path)
        before = sums.get(name, (0.0, 0))
        sums[name] = before[0] + total, before[1] + count
    result = {
        name: jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)
        for name, (total, count) in sums.items()
    }
    return result if by is not None else result[None]


def one_step_generalization_ratio(gradients, n=None):
    r"""What a small step along the mean gradient of n examples gains on fresh examples, for each unit it gains on those n.

    .. math:: R = \frac{\mathbb E\,\Delta L[D']}{\mathbb E\,\Delta L[D]} = \frac{\|g\|^2}{\|g\|^2 + \mathrm{tr}\Sigma/n}
              = \frac{n\alpha}{1 + (n-1)\alpha}

    with g and :math:`\Sigma` the population's mean and covariance, both estimated without bias from
    the sample. 1: the step generalizes fully; 0 (a little below, by chance): it fits the sample
    only. It is the coherence of gradients averaged over n, P2 of
    arXiv:2203.10036 with k = n; in the source's terms :math:`1 - \frac1n\sum_j W_j/(r_j + 1/n)`. For n = m it is 1 minus the square
    of `norm_test`.

    Liu et al. (arXiv:2001.07384), in the limit of a small step far from overfitting; read in an
    account.

    Args:
        gradients: per-example gradients of at least 2 examples, or what `pool` made of them.
        n: size of the set stepped on; `None` for m.

    >>> float(one_step_generalization_ratio({"w": jnp.array([[1.0], [3.0]])}))  # mean 2, variance 2
    0.75
    """
    pooled = one_set(gradients, "one_step_generalization_ratio", at_least=2)
    noise = pooled.variance
    signal = pooled.squared_norm_of_mean - noise / pooled.m
    return signal / (signal + noise / (pooled.m if n is None else n))


def ratio_sums(pooled):
    """`[(path, sum of r_j, number of j)]` of each leaf, over the parameters that any example moves."""
    leaves = zip(jax.tree.leaves_with_path(pooled.mean), jax.tree.leaves(pooled.second_moments))
    return [(path, *_sums(_ratio(mean, square), square != 0)) for (path, mean), square in leaves]


def _ratio(mean, second_moment):
    """0/0 is nan. Rounding may leave a variance of no size where all agree: that is taken for none."""
    variance = second_moment - mean**2
    exact = variance <= 4 * jnp.finfo(variance.dtype).eps * second_moment
    return jnp.where(
        exact,
        jnp.where(second_moment > 0, jnp.inf, jnp.nan),
        mean**2 / jnp.where(exact, 1, variance),
    )


def _sums(ratios, moves):
    """Both sums in one loop, row by row: two reductions would each write their operands to memory first."""
    rows = lambda x: x.reshape(x.shape[0] if x.ndim else 1, -1)
    operands = rows(jnp.where(moves, ratios, 0)), rows(moves.astype(jnp.int32))
    zeros = jnp.zeros((), ratios.dtype), jnp.zeros((), jnp.int32)
    by_row = jax.lax.reduce(operands, zeros, lambda a, b: (a[0] + b[0], a[1] + b[1]), (1,))
    return tuple(jnp.sum(x) for x in jax.lax.optimization_barrier(by_row))
