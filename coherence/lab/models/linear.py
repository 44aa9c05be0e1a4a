"""Networks that are linear in their input, however deep."""

from __future__ import annotations

import flax.linen as nn
import jax

from coherence.lab.models.network import Network, at_least, chain_of, flat


class Linear(Network):
    """A linear map without bias that starts at zero: the model of the six-feature sets.

    `[features]` to `[outputs]`, `[m, features]` to `[m, outputs]`.
    """

    outputs: int = 1

    @nn.nowrap
    def describe(self, inputs: int) -> str:
        return f"linear map {chain_of(inputs, self.outputs)}"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(
            self.outputs, use_bias=False, kernel_init=nn.initializers.zeros, name="output"
        )(x)


class DeepLinear(Network):
    r"""Layers of one width without nonlinearity or bias: a product of matrices.

    .. math:: f(x) = W_{depth} \cdots W_1 W_0 x

    The functions are those of `Linear`; training is not. `depth` counts the hidden layers, as in
    `MLP`, so there are `depth` + 1 matrices. They start Glorot-normal, which keeps the size of a
    signal where inputs and outputs are as many. Takes one example or a batch, as `MLP` does.
    """

    width: int = 256
    """Units in each hidden layer."""
    depth: int = 1
    """Number of hidden layers: one less than there are matrices."""
    outputs: int = 10

    @nn.nowrap
    def check(self) -> None:
        at_least(self, width=1, depth=0)

    @nn.nowrap
    def describe(self, inputs: int) -> str:
        return f"linear network {chain_of(inputs, *[self.width] * self.depth, self.outputs)}"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = flat(x)
        for layer in range(self.depth):
            x = self._dense(self.width, f"hidden_{layer}")(x)
        return self._dense(self.outputs, "output")(x)

    def _dense(self, width, name):
        return nn.Dense(
            width, use_bias=False, kernel_init=nn.initializers.glorot_normal(), name=name
        )


class DiagonalChain(Network):
    r"""A linear map whose every weight is a product of `depth` factors.

    The smallest model in which depth amplifies coherence.

    .. math:: f(x) = \sum_j u_j x_j, \qquad u_j = \prod_{l=1}^{depth} w_j^{(l)}

    All factors start equal, at the `depth`-th root of `initial`, which is u at first, and gradient
    descent keeps those of one weight equal. In the limit of small steps each u moves by -depth u^(2
    - 2 / depth) times the gradient of the loss with respect to it: with two factors or more, the
    further a weight has come, the faster it moves. On the six-feature set with a shared feature
    alpha of the factors is

    .. math:: \alpha = \frac{u_6^\kappa + u_i^\kappa / m}{u_6^\kappa + u_i^\kappa},
        \qquad \kappa = 2 - 2 / depth

    with u_6 the shared and u_i a private weight: constant for one factor, rising towards 1 for
    more. By algebra; the papers have no such model. `depth` 1 is `Linear` from another start. A
    factor is `[features, outputs]`. Takes one example or a batch, as `MLP` does.
    """

    depth: int = 2
    """Number of factors; 1 is a linear map."""
    outputs: int = 1
    initial: float = 0.01
    """Every weight at first, above 0; the smaller, the more depth favours what is shared."""

    @nn.nowrap
    def check(self) -> None:
        at_least(self, depth=1)
        if not self.initial > 0:
            raise ValueError(f"DiagonalChain: initial is above 0, got {self.initial}.")

    @nn.nowrap
    def describe(self, inputs: int) -> str:
        return f"diagonal chain {chain_of(inputs, self.outputs)} of {self.depth} factors"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = flat(x)[..., None]
        start = nn.initializers.constant(self.initial ** (1 / self.depth))
        for layer in range(self.depth):
            # Data first: the factors never meet each other, so each has per-example gradients from
            # a rule.
            x = x * self.param(f"factor_{layer}", start, (x.shape[-2], self.outputs))
        return x.sum(-2)
