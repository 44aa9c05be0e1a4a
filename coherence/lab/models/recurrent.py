"""Recurrent networks: the same weights at every position."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from coherence.lab.models.network import Network, at_least, chain_of, check_shape, folded


class _Recurrent(Network):
    width: int = 128
    """Units in each layer."""
    depth: int = 1
    """Number of recurrent layers."""
    outputs: int = 10
    shape: tuple[int, ...] | None = None
    """Positions and features to fold flat examples into (None: examples are sequences already)."""

    @nn.nowrap
    def check(self) -> None:
        at_least(self, width=1, depth=1)
        check_shape(self, ("positions", "features"), (28, 28))

    @nn.nowrap
    def describe(self, inputs: int) -> str:
        return f"{type(self).__name__} {chain_of(*[self.width] * self.depth)}"

    def cell(self, layer: int) -> nn.RNNCellBase:
        raise NotImplementedError

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = folded(x, self.shape)
        for layer in range(self.depth):
            x = jnp.asarray(nn.RNN(self.cell(layer))(x))
        return nn.Dense(self.outputs, name="output")(x[..., -1, :])


class LSTM(_Recurrent):
    """Long short-term memory over a sequence, then a linear layer on the last output.

    Takes one sequence [T, features] or a batch of them, [m, T, features]; with `shape=(T,
    features)` flat examples, which it folds: an image is the sequence of its rows.
    """

    def cell(self, layer: int) -> nn.RNNCellBase:
        return nn.OptimizedLSTMCell(self.width, name=f"lstm_{layer}")


class RNN(_Recurrent):
    r"""Layers of plain recurrent units (Elman's), then a linear layer on the last state.

    .. math:: h_t = \tanh(W x_t + U h_{t-1} + b)

    from h = 0, with U orthogonal at first. Nothing protects its memory: over long sequences
    gradients vanish or explode, which `LSTM` is for. Takes what `LSTM` takes.

    >>> model = RNN(width=8, outputs=3)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.zeros((2, 6, 4)))[0].shape
    (2, 3)
    """

    def cell(self, layer: int) -> nn.RNNCellBase:
        return nn.SimpleCell(self.width, name=f"rnn_{layer}")
