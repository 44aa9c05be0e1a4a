"""Numbers to stop by that need no validation set."""

import jax.numpy as jnp

from .pooling import one_set
from .signal_to_noise import ratio_sums


def evidence(gradients):
    r"""How far the mean gradient lies within its own sampling noise: above 0, stop.

    .. math:: 1 - \frac{m}{D}\sum_{j=1}^{D} \frac{\bar g_j^2}{s_j} \le 1, \qquad s_j = \frac{1}{m-1}\sum_i (g_{ij} - \bar g_j)^2

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
            second_moments=True)`. They need not be those of the batch: with a larger sample,
            smaller signals count.

    Raises:
        ValueError: the sample holds one example, which has no variance.

    >>> float(evidence({"w": jnp.array([[1.0], [3.0]])}))  # mean 2, variance 2
    -3.0
    """
    pooled = one_set(gradients, "evidence", at_least=2, second_moments=True)
    sums = ratio_sums(pooled)  # m gbar_j^2 / s_j is (m - 1) r_j
    total, dimensions = sum(total for _, total, _ in sums), sum(count for _, _, count in sums)
    return 1 - (pooled.m - 1) * total / jnp.maximum(dimensions, 1)


def gradient_norm(gradients):
    r"""Length of the mean gradient.

    .. math:: \Big\|\frac1m\sum_i g_i\Big\| \ge 0

    In the units of the loss by those of the parameters. On m examples noise alone gives about the
    examples' own root mean square length over the square root of m: a threshold below that is for
    examples that are being fitted.

    >>> float(gradient_norm({"w": jnp.array([[3.0, 0.0], [3.0, 8.0]])}))
    5.0
    """
    return jnp.sqrt(one_set(gradients, "gradient_norm").squared_norm_of_mean)
