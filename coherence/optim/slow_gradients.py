"""The mean gradient with its slow part amplified."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from .aggregation import Aggregator, averaged
from .running_means import running_mean, running_zeros


class SlowPart(NamedTuple):
    """The running mean of the gradients, and how many it has seen."""

    steps: jax.Array
    mean: Any


def slow_gradients(decay: float = 0.98, factor: float = 2.0) -> Aggregator:
    r"""Grokfast: the mean gradient plus a multiple of its running mean.

    .. math:: \hat g_t = \bar g_t + \lambda h_t, \qquad h_t = \alpha h_{t-1} + (1-\alpha)\,\bar g_t,
        \qquad h_1 = \bar g_1

    What all steps of the last 1 / (1 - alpha) share counts 1 + lambda times, what comes and goes
    once: an amplifier of slow components, made to bring on the late generalization of memorizing
    networks (grokking). Beside momentum, which is such a running mean alone, the gradient itself
    stays. It needs one gradient only: a batch gradient will do.

    The first running mean is the first gradient, as in the released code. A nan stays in the
    running mean, which is float32 at least.

    Lee, Kang, Kim & Lee, Grokfast (arXiv:2405.20233), Algorithm 2.

    Args:
        decay: alpha, in [0, 1).
        factor: lambda, at least 0.

    >>> tx = slow_gradients(0.5, 2.0)
    >>> update, state = tx.update(jnp.array([[1.0]]), tx.init(jnp.zeros(1)))
    >>> update, tx.update(jnp.array([[0.0]]), state)[0]
    (Array([3.], dtype=float32), Array([1.], dtype=float32))
    """
    if not 0 <= decay < 1:
        raise ValueError(f"slow_gradients(decay): in [0, 1), got {decay}.")
    if not factor >= 0:
        raise ValueError(f"slow_gradients(factor): at least 0, got {factor}.")

    def init(params):
        return SlowPart(jnp.zeros((), jnp.int32), running_zeros(params))

    def update(gradient, state, params=None):
        old = jax.tree.map(
            lambda h, g: jnp.where(state.steps == 0, g.astype(h.dtype), h), state.mean, gradient
        )
        mean = running_mean(old, gradient, decay)
        amplified = jax.tree.map(lambda g, h: (g + factor * h).astype(g.dtype), gradient, mean)
        return amplified, SlowPart(optax.safe_increment(state.steps), mean)

    name = f"slow_gradients(decay={decay}, factor={factor})"
    return averaged(optax.GradientTransformation(init, update), name)
