"""Fully connected networks."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax

paper_init = nn.initializers.variance_scaling(2.0, "fan_avg", "normal")
r"""Normal with standard deviation :math:`2 / \sqrt{n_{in} + n_{out}}`: the square root of 2 times Glorot's.

From the authors' code for Coherent Gradients (arXiv:2002.10657); the paper's text says Xavier. Biases start at 0.
"""


class MLP(nn.Module):
    """Hidden layers of one width with ReLU, then a linear layer to the logits.

    Takes one example or a batch: flat `[features]` or `[m, features]`; images `[h, w, c]` or `[m, h, w, c]` are flattened.
    The paper's networks are `MLP(width=2048)` and `MLP(width=256, depth=3)`.
    """

    width: int = 256
    depth: int = 1
    outputs: int = 10
    initializer: Callable = paper_init

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if x.ndim >= 3:
            x = x.reshape(*x.shape[:-3], -1)
        for layer in range(self.depth):
            x = nn.relu(nn.Dense(self.width, kernel_init=self.initializer, name=f"hidden_{layer}")(x))
        return nn.Dense(self.outputs, kernel_init=self.initializer, name="output")(x)
