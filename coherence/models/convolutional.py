"""Convolutional networks."""

from __future__ import annotations

import flax.linen as nn
import jax


class CNN(nn.Module):
    """3 x 3 convolutions with ReLU, each after the first halving the image by its stride, then a linear layer to the logits.

    No batch norm, so that an example has a gradient of its own; strides instead of pooling, whose gradient is slow on CPU.
    Takes one image `[h, w, c]` or a batch `[m, h, w, c]`; with `shape=(h, w, c)` also flat examples, which it folds.
    """

    features: tuple[int, ...] = (32, 64, 64)
    outputs: int = 10
    shape: tuple[int, ...] | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.shape is not None and x.ndim < 3:
            x = x.reshape(*x.shape[:-1], *self.shape)
        if x.ndim not in (3, 4):
            raise ValueError(
                f"CNN takes images [h, w, c] or a batch of them [m, h, w, c], got shape {x.shape}. "
                "For flat examples say how to fold them: CNN(shape=(28, 28, 1))."
            )
        for layer, features in enumerate(self.features):
            strides = 2 if layer else 1
            x = nn.relu(nn.Conv(features, (3, 3), strides=strides, kernel_init=nn.initializers.he_normal(), name=f"conv_{layer}")(x))
        x = x.reshape(*x.shape[:-3], -1)
        return nn.Dense(self.outputs, name="output")(x)
