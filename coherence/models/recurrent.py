"""Recurrent networks: the same weights at every position."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class LSTM(nn.Module):
    """Layers of long short-term memory over a sequence [T, features], then a linear layer on the last output.

    Takes one sequence or a batch of them, [m, T, features]. An image is a sequence of its rows.
    """

    width: int = 128
    depth: int = 1
    outputs: int = 10

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in range(self.depth):
            x = jnp.asarray(nn.RNN(nn.OptimizedLSTMCell(self.width), name=f"lstm_{layer}")(x))
        return nn.Dense(self.outputs, name="output")(x[..., -1, :])
