"""Convolutional networks."""

from __future__ import annotations

import flax.linen as nn
import jax

from coherence.lab.models.network import Network, at_least, chain_of, check_shape, images


class CNN(Network):
    """3 x 3 convolutions with ReLU, then a linear layer to the logits.

    Each convolution after the first halves the image by its stride. The first has `width` channels
    and each of the `depth` - 1 that follow twice as many: `CNN()` is 32-64-64. No batch norm, so
    that an example has a gradient of its own; strides instead of pooling, whose gradient is slow on
    CPU. Takes one image `[h, w, c]` or a batch `[m, h, w, c]`; with `shape=(h, w, c)` also flat
    examples, which it folds.
    """

    width: int = 32
    """Channels of the first convolution; those that follow have twice as many."""
    depth: int = 3
    """Number of convolutions; each after the first halves the image."""
    outputs: int = 10
    shape: tuple[int, ...] | None = None
    """Height, width and channels to fold flat examples into (None: examples are images already)."""

    @nn.nowrap
    def check(self) -> None:
        at_least(self, width=1, depth=1)
        check_shape(self, ("height", "width", "channels"), (28, 28, 1))

    @nn.nowrap
    def describe(self, inputs: int) -> str:
        return f"CNN {chain_of(self.width, *[2 * self.width] * (self.depth - 1))}"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = images(x, self.shape, "CNN")
        for layer in range(self.depth):
            channels, strides = (2 * self.width, 2) if layer else (self.width, 1)
            x = nn.relu(
                nn.Conv(
                    channels,
                    (3, 3),
                    strides=strides,
                    kernel_init=nn.initializers.he_normal(),
                    name=f"conv_{layer}",
                )(x)
            )
        x = x.reshape(*x.shape[:-3], -1)
        return nn.Dense(self.outputs, name="output")(x)
