"""Signal against noise: of single coordinates, of a step, and as evidence for stopping."""

from collections.abc import Iterator
from typing import Any, overload

import jax
import jax.numpy as jnp

from coherence.trees import By, KeyPath, PyTree, leaf_names, splits_layers

from .pooling import Pooled, one_set


def gsnr(gradients: PyTree) -> PyTree:
    r"""Signal-to-noise ratio of each parameter's gradient: do examples agree about this coordinate?

    .. math:: r_j = \frac{\bar g_j^2}{\rho_j^2} \ge 0,
              \qquad \rho_j^2 = \frac1m\sum_i (g_{ij} - \bar g_j)^2

    0 where the mean vanishes, infinite where all examples agree exactly, 1/(m-1) where one example
    alone moves the parameter, nan where none does. With the variance divided by m, as here, the
    coordinate's own alpha is exactly :math:`r_j/(1+r_j)`, and alpha of the network is their mean
    weighted by :math:`\mathbb E g_{ij}^2`. Sampling noise alone gives about 1/m. Dimensionless.
    Inside `jit` the parameters of layers that are kept as factors have about as many digits less as
    r_j is large: above 10^6 it counts as infinite there.

    Liu et al., Understanding Why Neural Networks Generalize Well Through GSNR of Parameters
    (arXiv:2001.07384), read in an account.

    Args:
        gradients: per-example gradients of at least 2 examples, or `pool(gradients,
            variances=True)`.

    Returns:
        In the parameters' containers and shapes.

    Raises:
        ValueError: one example, or pooled gradients without variances.

    >>> gsnr({"w": jnp.array([[1.0], [3.0]])})
    {'w': Array([4.], dtype=float32)}
    """
    pooled = one_set(gradients, "gsnr", at_least=2, variances=True)
    return jax.tree.map(_ratio, pooled.mean, pooled.variances)


@overload
def mean_gsnr(gradients: PyTree, *, by: None = None) -> jax.Array: ...


@overload
def mean_gsnr(gradients: PyTree, *, by: By) -> dict[str, jax.Array]: ...


def mean_gsnr(gradients: PyTree, *, by: By | None = None) -> Any:
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
    pooled = one_set(gradients, "mean_gsnr", at_least=2, variances=True)
    names = None if by is None else leaf_names(by)
    sums: dict[str, tuple[Any, Any]] = {}
    for path, layer, total, count in _ratio_sums(pooled, split=splits_layers(by)):
        name = "" if names is None else f"{names(path)}{layer}"
        before, counted = sums.get(name, (0.0, 0))
        sums[name] = before + total, counted + count
    mean = lambda total, count: jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)
    result = {name: mean(*both) for name, both in sums.items()}
    return result if by is not None else result[""]


def one_step_generalization_ratio(gradients: PyTree, n: int | None = None) -> jax.Array:
    r"""Gain of a small step on n examples for fresh examples, over its gain on those n.

    .. math:: R = \frac{\mathbb E\,\Delta L[D']}{\mathbb E\,\Delta L[D]}
              = \frac{\|g\|^2}{\|g\|^2 + \mathrm{tr}\Sigma/n} = \frac{n\alpha}{1 + (n-1)\alpha}

    with g and :math:`\Sigma` the population's mean and covariance, both estimated without bias from
    the sample. 1: the step generalizes fully; 0 (a little below, by chance): it fits the sample
    only. It is the coherence of gradients averaged over n, P2 of arXiv:2203.10036 with k = n; in
    the source's terms :math:`1 - \frac1n\sum_j W_j/(r_j + 1/n)`. For n = m it is 1 minus the
    square of `norm_test`.

    Liu et al. (arXiv:2001.07384), in the limit of a small step far from overfitting; read in an
    account.

    Args:
        gradients: per-example gradients of at least 2 examples, or what `pool` made of them.
        n: size of the set stepped on; `None` for m.

    >>> g = {"w": jnp.array([[1.0], [3.0]])}  # mean 2, variance 2
    >>> float(one_step_generalization_ratio(g))
    0.75
    """
    pooled = one_set(gradients, "one_step_generalization_ratio", at_least=2)
    noise = pooled.variance
    signal = pooled.squared_norm_of_mean - noise / pooled.m
    return signal / (signal + noise / (pooled.m if n is None else n))


def evidence(gradients: PyTree) -> jax.Array:
    r"""How far the mean gradient lies within its own sampling noise: above 0, stop.

    .. math:: 1 - \frac{m}{D}\sum_{j=1}^{D} \frac{\bar g_j^2}{s_j} \le 1,
              \qquad s_j = \frac{1}{m-1}\sum_i (g_{ij} - \bar g_j)^2

    Each term m gbar_j^2 / s_j is the squared t statistic of "coordinate j of the population's
    gradient is zero". While they are large on average the examples agree on where to go, and the
    criterion is far below 0. Around 0 the mean gradient is what noise alone would give (for normal
    noise -2 / (m - 3) on average, which is 0 for large m). Near 1 it is smaller than that: what the
    examples share is fitted, and further steps fit these examples. Dimensionless; unchanged by
    rescaling the loss, or any one parameter.

    A coordinate whose gradient is zero for every example (a dead unit; in float32 also one below
    about 1e-19, whose square is zero) says nothing: 0/0 is left out, and D counts the others. One
    that is equal and not zero for every example is signal without noise: -inf. Where every
    coordinate is zero nothing can be learned: 1. A coordinate that one example alone moves counts
    exactly 1.

    Mahsereci, Balles, Lassner & Hennig, Early Stopping without a Validation Set (arXiv:1703.09580):
    the criterion for mini-batches. The equation agrees with the one in Cockpit, from the same
    group, which names it equation 7, and with others' code; the paper's own text was not at hand.
    Cockpit adds 1e-5 to s_j and counts dead coordinates in D, which moves the criterion toward 1 as
    the gradients shrink. Derived for plain SGD, from uncorrelated, normal coordinates.

    Args:
        gradients: per-example gradients of at least 2 examples, or `pool(gradients,
            variances=True)`. They need not be those of the batch: with a larger sample,
            smaller signals count.

    Raises:
        ValueError: the sample holds one example, which has no variance.

    >>> float(evidence({"w": jnp.array([[1.0], [3.0]])}))  # mean 2, variance 2
    -3.0
    """
    pooled = one_set(gradients, "evidence", at_least=2, variances=True)
    totals, counts = zip(*[sums for _, _, *sums in _ratio_sums(pooled)])
    mean = sum(totals) / jnp.maximum(sum(counts), 1)
    return 1 - (pooled.m - 1) * mean  # m gbar_j^2 / s_j is (m - 1) r_j


def gradient_norm(gradients: PyTree) -> jax.Array:
    r"""Length of the mean gradient.

    .. math:: \Big\|\frac1m\sum_i g_i\Big\| \ge 0

    In the units of the loss by those of the parameters. On m examples noise alone gives about the
    examples' own root mean square length over the square root of m: a threshold below that is for
    examples that are being fitted.

    >>> float(gradient_norm({"w": jnp.array([[3.0, 0.0], [3.0, 8.0]])}))
    5.0
    """
    return jnp.sqrt(one_set(gradients, "gradient_norm").squared_norm_of_mean)


def _ratio_sums(
    pooled: Pooled, *, split: bool = False
) -> Iterator[tuple[KeyPath, str, jax.Array, jax.Array]]:
    """Sum of r_j and number of j of each leaf, over the parameters that an example moves.

    As `(path, "", sum, number)`; with `split` of each layer of a scanned leaf, "/0", "/1", ...
    """
    squares = jax.tree.leaves(pooled.mean_squared_norms)
    leaves = zip(jax.tree.leaves_with_path(pooled.mean), jax.tree.leaves(pooled.variances), squares)
    for (path, mean), variance, square in leaves:
        layers = range(len(square)) if split and square.ndim else (None,)
        for i in layers:
            g, v = (mean, variance) if i is None else (mean[i], variance[i])
            moves = (v != 0) | (g**2 != 0)
            yield path, "" if i is None else f"/{i}", *_sums(_ratio(g, v), moves)


def _ratio(mean: jax.Array, variance: jax.Array) -> jax.Array:
    """r_j: nan for 0/0, infinite where all examples agree."""
    return mean**2 / variance


def _sums(ratios: jax.Array, moves: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both sums in one loop over rows: two reductions would each write their operands first."""
    rows = lambda x: x.reshape(x.shape[0] if x.ndim else 1, -1)
    operands = rows(jnp.where(moves, ratios, 0)), rows(moves.astype(jnp.int32))
    zeros = jnp.zeros((), ratios.dtype), jnp.zeros((), jnp.int32)
    by_row = jax.lax.reduce(operands, zeros, lambda a, b: (a[0] + b[0], a[1] + b[1]), (1,))
    total, count = jax.lax.optimization_barrier(by_row)
    return jnp.sum(total), jnp.sum(count)
