"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from coherence.lab.models.activations import ACTIVATIONS
from coherence.lab.models.network import Network, at_least, chain_of, flat, he_init, paper_init

INITIALIZERS = {
    "paper": paper_init,
    "he": he_init,
    "glorot": nn.initializers.glorot_normal(),
}


class _Dense(Network):
    width: int = 256
    """Units in each hidden layer."""
    depth: int = 1
    """Number of hidden layers; 0 is a linear model."""
    outputs: int = 10

    @nn.nowrap
    def check(self) -> None:
        at_least(self, width=1, depth=0)

    @nn.nowrap
    def describe(self, inputs: int) -> str:
        return f"MLP {chain_of(inputs, *[self.width] * self.depth, self.outputs)}"


class MLP(_Dense):
    """Hidden layers of one width, with ReLU if not told otherwise, then a linear one to the logits.

    Takes one example or a batch: flat `[features]` or `[m, features]`; images `[h, w, c]` or `[m,
    h, w, c]` are flattened. The paper's networks are `MLP(width=2048)` and `MLP(width=256,
    depth=3)`.
    """

    initializer: Literal["paper", "he", "glorot"] | Callable = "paper"
    """Of the weights: `paper_init`, `he_init`, Glorot's, or a function like these. Biases start at
    0."""
    activation: Literal["step", "sigmoid", "tanh", "relu", "leaky_relu", "gelu"] = "relu"
    """Of the hidden layers; `coherence.lab.models.activations` has them."""
    residual: bool = False
    """Whether each hidden layer but the first adds to what comes in: x + g(W x + b)."""

    @nn.nowrap
    def check(self) -> None:
        super().check()
        if not (callable(self.initializer) or self.initializer in INITIALIZERS):
            names = " or ".join(INITIALIZERS)
            raise ValueError(
                f"MLP: initializer is {names} or a function, got {self.initializer!r}."
            )
        if self.activation not in ACTIVATIONS:
            names = ", ".join(ACTIVATIONS)
            raise ValueError(f"MLP: activation is one of {names}, got {self.activation!r}.")

    @nn.nowrap
    def describe(self, inputs: int) -> str:
        starts = {"he": "standard", "glorot": "Glorot"}
        kinds: list[str] = [] if self.activation == "relu" else [self.activation]
        kinds += [word for name, word in starts.items() if name == self.initializer]
        kinds += ["residual"] * self.residual
        return super().describe(inputs) + (f" ({', '.join(kinds)})" if kinds else "")

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        start = self.initializer
        start = INITIALIZERS[start] if isinstance(start, str) else start
        x, activation = flat(x), ACTIVATIONS[self.activation]
        for layer in range(self.depth):
            hidden = activation(nn.Dense(self.width, kernel_init=start, name=f"hidden_{layer}")(x))
            x = x + hidden if self.residual and layer else hidden
        return nn.Dense(self.outputs, kernel_init=start, name="output")(x)


class MuMLP(_Dense):
    r"""An `MLP` in the maximal update parametrization.

    Every layer learns features at every width, at one learning rate of SGD.

    .. math:: h_1 = \phi(s(W_1 x + b_1)), \qquad h_{l+1} = \phi(W_{l+1} h_l + s\,b_{l+1}), \qquad
              y = \tfrac1s W_{out} h_L + b_{out}, \qquad s = \sqrt{n / n_0}

    with n the width and n_0 `base_width`. Initial weights have variance 2 / inputs of the layer,
    those of the first layer over s^2. So preactivations start alike at every width and logits as
    :math:`1/\sqrt n`, and one step of SGD moves both by about the same at every width, where in the
    standard parametrization the logits' step grows as n. At n = n_0 it is `MLP(n_0, depth, outputs,
    "he")`: same function, same steps. (`paper_init` is no standard parametrization in this
    sense: with one hidden layer far wider than the input, both layers' variances are in 1/n, and as
    ReLU lets s cancel, it is maximal by itself.)

    Yang & Hu, Feature Learning in Infinite-Width Neural Networks (arXiv:2011.14522),
    abc-parametrization with a = (-1/2, 0, ..., 1/2), b = 1/2, c = 0; as remembered. The exponents
    are SGD's: Adam needs others.

    >>> model = MuMLP(width=8, outputs=3)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.zeros((2, 5)))[0].shape
    (2, 3)
    """

    base_width: int = 64
    """The width at which this is the MLP in its standard parametrization."""

    @nn.nowrap
    def check(self) -> None:
        at_least(self, width=1, depth=0, base_width=1)

    @nn.nowrap
    def describe(self, inputs: int) -> str:
        return f"{super().describe(inputs)} (mu, base width {self.base_width})"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = flat(x)
        s = math.sqrt(self.width / self.base_width) if self.depth else 1.0
        for layer in range(self.depth):
            scale = s if layer == 0 else 1.0
            x = nn.relu(
                ScaledDense(
                    self.width, math.sqrt(2 / x.shape[-1]) / scale, scale, s, name=f"hidden_{layer}"
                )(x)
            )
        return ScaledDense(self.outputs, math.sqrt(2 / x.shape[-1]), 1 / s, 1.0, name="output")(x)


class ScaledDense(nn.Module):
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
