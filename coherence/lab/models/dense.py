"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

paper_init = nn.initializers.variance_scaling(2.0, "fan_avg", "normal")
r"""Normal with standard deviation :math:`2 / \sqrt{n_{in} + n_{out}}`: the square root of 2 times Glorot's.

From the authors' code for Coherent Gradients (arXiv:2002.10657); the paper's text says Xavier.
Biases start at 0.
"""

he_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
r"""Normal with variance :math:`2 / n_{in}`: what is usually called the standard parametrization."""


class MLP(nn.Module):
    """Hidden layers of one width with ReLU, then a linear layer to the logits.

    Takes one example or a batch: flat `[features]` or `[m, features]`; images `[h, w, c]` or `[m,
    h, w, c]` are flattened. The paper's networks are `MLP(width=2048)` and `MLP(width=256,
    depth=3)`.
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
            x = nn.relu(
                nn.Dense(self.width, kernel_init=self.initializer, name=f"hidden_{layer}")(x)
            )
        return nn.Dense(self.outputs, kernel_init=self.initializer, name="output")(x)


class MuMLP(nn.Module):
    r"""An `MLP` in the maximal update parametrization: every layer learns features at every width, at one learning rate of SGD.

    .. math:: h_1 = \phi(s(W_1 x + b_1)), \qquad h_{l+1} = \phi(W_{l+1} h_l + s\,b_{l+1}), \qquad
              y = \tfrac1s W_{out} h_L + b_{out}, \qquad s = \sqrt{n / n_0}

    with n the width and n_0 `base_width`. Initial weights have variance 2 / inputs of the layer,
    those of the first layer over s^2. So preactivations start alike at every width and logits as
    :math:`1/\sqrt n`, and one step of SGD moves both by about the same at every width, where in the
    standard parametrization the logits' step grows as n. At n = n_0 it is `MLP(n_0, depth, outputs,
    he_init)`: same function, same steps. (`paper_init` is no standard parametrization in this
    sense: with one hidden layer far wider than the input, both layers' variances are in 1/n, and as
    ReLU lets s cancel, it is maximal by itself.)

    Yang & Hu, Feature Learning in Infinite-Width Neural Networks (arXiv:2011.14522),
    abc-parametrization with a = (-1/2, 0, ..., 1/2), b = 1/2, c = 0; as remembered. The exponents
    are SGD's: Adam needs others.
    """

    width: int = 256
    depth: int = 1
    outputs: int = 10
    base_width: int = 64

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if x.ndim >= 3:
            x = x.reshape(*x.shape[:-3], -1)
        s = math.sqrt(self.width / self.base_width) if self.depth else 1.0
        for layer in range(self.depth):
            scale = s if layer == 0 else 1.0
            x = nn.relu(
                Scaled(
                    self.width, math.sqrt(2 / x.shape[-1]) / scale, scale, s, name=f"hidden_{layer}"
                )(x)
            )
        return Scaled(self.outputs, math.sqrt(2 / x.shape[-1]), 1 / s, 1.0, name="output")(x)


class Scaled(nn.Module):
    """A dense layer with a factor in front of its weights and one in front of its biases."""

    features: int
    deviation: float
    """Of the initial weights; biases start at 0."""
    weights: float
    biases: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param(
            "kernel", nn.initializers.normal(self.deviation), (x.shape[-1], self.features)
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return self.weights * jnp.dot(x, kernel) + self.biases * bias
