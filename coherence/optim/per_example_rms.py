"""Adam by the mean of the examples' squares in place of the square of their mean."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from coherence.gradients.reductions import mean, mean_of

from .aggregation import Aggregator, aggregator
from .running_means import running_mean, running_zeros


class PerExampleRms(NamedTuple):
    """Running means of the mean gradient and of the examples' mean square."""

    steps: jax.Array
    mean: Any
    square: Any


def scale_by_per_example_rms(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Aggregator:
    r"""Adam's scaling, with the mean square over *examples*.

    .. math:: \hat g = \frac{\hat\mu}{\sqrt{\hat\nu} + \epsilon}, \quad
        \mu_t = \beta_1\mu_{t-1} + (1-\beta_1)\frac1m\sum_i g_i, \quad
        \nu_t = \beta_2\nu_{t-1} + (1-\beta_2)\frac1m\sum_i g_i^2

    coordinate by coordinate, both divided by 1 - beta^t. Adam squares the mean: a coordinate on
    which examples disagree then looks small, and is scaled up. Here it stays small: without
    momentum the square of a coordinate is its own alpha, at most 1. The mean square does not depend
    on the batch size. Of a dense layer it is a second product of matrices; of sequences and
    convolutions a pass over formed slabs.

    Behind it goes the learning rate: `chain(scale_by_per_example_rms(),
    optax.scale_by_learning_rate(1e-3))`. A nan stays in its coordinate. Masked examples do not
    count. The running means are float32 at least: in bfloat16 nu would never move.

    Roulet & Agarwala, Per-example gradients: a new frontier (arXiv:2510.00236).

    Args:
        b1, b2: decays of the two running means, in [0, 1).
        eps: added to the root, at least 0.

    >>> tx = scale_by_per_example_rms()
    >>> g = jnp.array([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    >>> tx.update(g, tx.init(jnp.zeros(2)))[0].round(3)
    Array([1., 0.], dtype=float32)
    """
    for name, value in (("b1", b1), ("b2", b2)):
        if not 0 <= value < 1:
            raise ValueError(f"scale_by_per_example_rms({name}): in [0, 1), got {value}.")
    if not eps >= 0:
        raise ValueError(f"scale_by_per_example_rms(eps): at least 0, got {eps}.")

    def init(params):
        zeros = running_zeros(params)
        return PerExampleRms(jnp.zeros((), jnp.int32), zeros, zeros)

    def combine(gradients, state):
        step = optax.safe_increment(state.steps)
        average = mean(gradients)
        mu = running_mean(state.mean, average, b1)
        nu = running_mean(state.square, mean_of(gradients, jnp.square), b2)
        corrected = lambda x, b: x / _total_weight(b, step)
        scaled = jax.tree.map(
            lambda g, m, v: (corrected(m, b1) / (jnp.sqrt(corrected(v, b2)) + eps)).astype(g.dtype),
            *(average, mu, nu),
        )
        return scaled, PerExampleRms(step, mu, nu)

    name = f"scale_by_per_example_rms(b1={b1}, b2={b2}, eps={eps})"
    return aggregator(combine, name, init=init)


def _total_weight(decay, step):
    """The sum of a running mean's weights, 1 - decay**step, exact where it is small, too."""
    return -jnp.expm1(step * (math.log(decay) if decay else -math.inf))
