"""Where weights start."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def uniform_init(fan_in: int):
    r"""Uniform within :math:`\pm 1 / \sqrt{n_{in}}`, for weights and biases alike: what PyTorch's layers start from.

    n_in of a dense layer is its number of inputs, of a convolution input channels times places of
    the window. PyTorch keeps a transposed convolution's kernel with inputs and outputs exchanged
    and takes n_in from there: *output* channels times places. So the last one, from 32 channels to
    1, starts within 1 / 3, six times wider than the signal it sums up would ask for.
    """
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )
