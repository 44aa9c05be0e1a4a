"""Activation functions by name: what a neuron makes of its weighted sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp


def step(x: jax.Array) -> jax.Array:
    """1 above 0, else 0: the perceptron's. Its derivative is 0, so nothing below it learns."""
    return (x > 0).astype(x.dtype)


def gelu(x: jax.Array) -> jax.Array:
    r"""x times the share of a standard normal distribution below x.

    .. math:: g(x) = x\,\Phi(x)

    Not the approximation by a tanh. Hendrycks & Gimpel (arXiv:1606.08415).
    """
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "step": step,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "gelu": gelu,
}
"""The slope of `leaky_relu` below 0 is 0.01."""
